"""What an answer would have taken and cost on the device that a replica stands for.

A JSON object, the same in the header `SIMULATED_HEADER` of a whole answer and in the "usage" of
OpenAI's answers, under "ridgeline"; and another with what is known of the device beforehand.
"""

from __future__ import annotations

import json

from ridgeline_backends.device_time import DeviceCall, DeviceTime, SimulatedDevice
from ridgeline_backends.engine.api import EngineStats, SimulatedTimes
from ridgeline_service.usage import SIMULATED_HEADER

_HOUR_S = 3600.0


def simulated_object(times: SimulatedTimes, tokens: int) -> dict[str, object]:
    """Of a sequence with so many tokens. Times are seconds with the ends of their 90% intervals;
    shares are of the time from submission to the last token; the price is that of this sequence's
    share of the steps it was in, for a million tokens like its own."""
    device, total = times.device, times.total
    found: dict[str, object] = {
        "instance_type": device.instance_type,
        "neuron_cores": device.cores,
        "logical_neuroncore_config": device.logical_neuroncore_config,
        "time_to_first_token_s": _interval(times.first_token),
        "core_utilization": _share(total.peak_seconds, total),
        "collective_share": _share(total.collective_seconds, total),
        "label": device.label,
    }
    if tokens > 1:
        found["time_per_output_token_s"] = _interval(total - times.first_token, tokens - 1)
    return {**found, **_price(device, times.own_seconds, tokens)}


def simulated_header(times: SimulatedTimes, tokens: int) -> dict[str, str]:
    """The header of a whole answer."""
    return {SIMULATED_HEADER: json.dumps(simulated_object(times, tokens))}


def device_object(device: SimulatedDevice, stats: EngineStats | None) -> dict[str, object]:
    """The device, its compiled calls, and with ``stats`` what all steps so far would have taken."""
    found: dict[str, object] = {
        "instance_type": device.instance_type,
        "neuron_cores": device.cores,
        "logical_neuroncore_config": device.logical_neuroncore_config,
        "pace": "real-time" if device.paced else "none",
        "label": device.label,
        "usd_per_hour": device.usd_per_hour,
        "core_memory_bytes": dict(device.core_bytes),
        "core_memory_bytes_available": device.core_bytes_available,
        "calls": [_call(one, device) for one in device.calls],
        "config": dict(device.config),
        "neuron_config": dict(device.settings),
    }
    if stats is not None and stats.simulated is not None and stats.steps:
        total = stats.simulated
        found["so_far"] = {
            "steps": stats.steps,
            "generated_tokens": stats.generated_tokens,
            "device_seconds": round(total.seconds, 6),
            "core_utilization": _share(total.peak_seconds, total),
            "collective_share": _share(total.collective_seconds, total),
            **_price(device, total.seconds, stats.generated_tokens),
        }
    return found


def _call(one: DeviceCall, device: SimulatedDevice) -> dict[str, object]:
    """A full batch of a decode step is as many tokens."""
    tokens = one.batch if one.phase == "token_generation" else 0
    return {
        "phase": one.phase,
        "bucket": one.bucket,
        "batch": one.batch,
        **_interval(one.time),
        "core_utilization": _share(one.time.peak_seconds, one.time),
        "collective_share": _share(one.time.collective_seconds, one.time),
        **_price(device, one.time.seconds, tokens),
    }


def _price(device: SimulatedDevice, seconds: float, tokens: int) -> dict[str, float]:
    if device.usd_per_hour is None or not tokens:
        return {}
    cost = seconds * device.usd_per_hour / _HOUR_S
    return {"usd_per_million_tokens": round(cost / tokens * 1e6, 4)}


def _interval(time: DeviceTime, parts: int = 1) -> dict[str, float]:
    ends = {"seconds": time.seconds, "low": time.low, "high": time.high}
    return {name: round((end or 0.0) / parts, 9) for name, end in ends.items()}


def _share(seconds: float, of: DeviceTime) -> float:
    return round(seconds / of.seconds, 6) if of.seconds else 0.0
