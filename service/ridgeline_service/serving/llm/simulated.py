"""What an answer would have taken and cost on the device that a replica stands for.

A JSON object, the same in the header `SIMULATED_HEADER` of a whole answer and in the "usage" of
OpenAI's answers, under "ridgeline".
"""

from __future__ import annotations

import json

from ridgeline_backends.device_time import DeviceTime
from ridgeline_backends.engine.api import SimulatedTimes
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
    if device.usd_per_hour is not None and tokens:
        own = times.own_seconds * device.usd_per_hour / _HOUR_S
        found["usd_per_million_tokens"] = round(own / tokens * 1e6, 4)
    return found


def simulated_header(times: SimulatedTimes, tokens: int) -> dict[str, str]:
    """The header of a whole answer."""
    return {SIMULATED_HEADER: json.dumps(simulated_object(times, tokens))}


def _interval(time: DeviceTime, parts: int = 1) -> dict[str, float]:
    ends = {"seconds": time.seconds, "low": time.low, "high": time.high}
    return {name: round((end or 0.0) / parts, 9) for name, end in ends.items()}


def _share(seconds: float, of: DeviceTime) -> float:
    return round(seconds / of.seconds, 6) if of.seconds else 0.0
