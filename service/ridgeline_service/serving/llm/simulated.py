"""What an answer would have taken and cost on the device that a replica stands for.

A JSON object, the same in the header `SIMULATED_HEADER` of a whole answer and in the "usage" of
OpenAI's answers, under "ridgeline"; and another with what is known of the device beforehand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from ridgeline_backends.device_time import DeviceCall, DeviceTime, MeteredHardware, SimulatedDevice
from ridgeline_backends.engine.api import EngineStats, SimulatedTimes
from ridgeline_service.replica_protocol import SIMULATED_HEADER
from ridgeline_service.serving.llm.watch import EncodedTimes, watching


def simulated_object(times: SimulatedTimes, tokens: int) -> dict[str, object]:
    """Of a sequence with so many tokens. Times are seconds with the ends of their 90% intervals;
    shares are of the time from submission to the last token; the price is that of this sequence's
    share of the steps it was in, for a million tokens like its own."""
    device, total = times.device, times.total
    found: dict[str, object] = {
        **_of(device),
        "time_to_first_token_s": _interval(times.first_token),
        **_shares(total),
        "label": device.label,
    }
    if tokens > 1:
        found["time_per_output_token_s"] = _interval(total - times.first_token, tokens - 1)
    return {**found, **_price(device, times.own_seconds, tokens)}


def encoded_object(times: EncodedTimes, tokens: int) -> dict[str, object]:
    """The same of texts with so many tokens that were encoded for one request."""
    return {
        **_of(times.device),
        "time_to_answer_s": _interval(times.total),
        **_shares(times.total),
        "label": times.device.label,
        **_price(times.device, times.own_seconds, tokens),
    }


def encoded_usage(tokens: int) -> dict[str, object]:
    """OpenAI's "usage" of the request that is being answered, whose texts have so many tokens."""
    times = watching().encoded
    more = {} if times is None else {"ridgeline": encoded_object(times, tokens)}
    return {**more, "prompt_tokens": tokens, "total_tokens": tokens}


def simulated_header(found: Mapping[str, object]) -> dict[str, str]:
    """The header of a whole answer."""
    return {SIMULATED_HEADER: json.dumps(found)}


def device_object(device: SimulatedDevice) -> dict[str, object]:
    """The device and its compiled calls."""
    return {
        **_of(device),
        "data_parallel_size": device.copies,
        "pace": "real-time" if device.paced else "none",
        "label": device.label,
        "usd_per_hour": device.usd_per_hour,
        "core_memory_bytes": dict(device.core_bytes),
        "core_memory_bytes_available": device.core_bytes_available,
        "calls": [_call(one, device) for one in device.calls],
        "config": dict(device.config),
        "neuron_config": dict(device.settings),
    }


def generated_so_far(device: SimulatedDevice, stats: EngineStats) -> dict[str, object]:
    """What all steps of an engine would have taken; nothing before the first."""
    if stats.simulated is None or not stats.steps:
        return {}
    tokens = stats.generated_tokens
    counts = {"steps": stats.steps, "generated_tokens": tokens}
    return {"so_far": {**counts, **_spent(device, stats.simulated, tokens)}}


def encoded_so_far(hardware: MeteredHardware) -> dict[str, object]:
    """What all calls for texts would have taken; nothing before the first."""
    encoded, calls = hardware.encoded_by_all, hardware.executions.total
    if not calls:
        return {}
    counts = {"steps": calls, "texts": encoded.texts, "encoded_tokens": encoded.tokens}
    spent = _spent(hardware.simulates, hardware.spent_by_all, encoded.tokens)
    return {"so_far": {**counts, **spent}}


def _spent(device: SimulatedDevice, total: DeviceTime, tokens: int) -> dict[str, object]:
    return {
        "device_seconds": round(total.seconds, 6),
        **_shares(total),
        **_price(device, total.seconds, tokens),
    }


def _of(device: SimulatedDevice) -> dict[str, object]:
    return {
        "instance_type": device.instance_type,
        "neuron_cores": device.cores,
        "logical_neuroncore_config": device.logical_neuroncore_config,
    }


def _call(one: DeviceCall, device: SimulatedDevice) -> dict[str, object]:
    """A full batch of a decode step is as many tokens; one of texts, as many of the longest."""
    tokens = {"token_generation": one.batch, "encoding": one.batch * one.bucket}.get(one.phase, 0)
    return {
        "phase": one.phase,
        "bucket": one.bucket,
        "batch": one.batch,
        **_interval(one.time),
        **_shares(one.time),
        **_price(device, one.time.seconds, tokens),
    }


def _price(device: SimulatedDevice, seconds: float, tokens: int) -> dict[str, float]:
    cost = device.usd(seconds)
    if cost is None or not tokens:
        return {}
    return {"usd_per_million_tokens": round(cost / tokens * 1e6, 4)}


def _interval(time: DeviceTime, parts: int = 1) -> dict[str, float]:
    ends = {"seconds": time.seconds, "low": time.low, "high": time.high}
    return {name: round((end or 0.0) / parts, 9) for name, end in ends.items()}


def _shares(of: DeviceTime) -> dict[str, float]:
    parts = {"core_utilization": of.peak_seconds, "collective_share": of.collective_seconds}
    return {
        name: round(part / of.seconds, 6) if of.seconds else 0.0 for name, part in parts.items()
    }
