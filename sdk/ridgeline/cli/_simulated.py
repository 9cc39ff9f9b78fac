"""The predicted times, memory and prices of an endpoint on a simulated device, as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_PHASES = {
    "context_encoding": "first token, prompts of up to",
    "token_generation": "each token, positions up to",
    "encoding": "a call, texts of up to",
}


def lines(replicas: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Of the first replica, which stands for those of its variant, and what each did so far."""
    first: Mapping[str, Any] = replicas[0]["device"]
    lnc = first["logical_neuroncore_config"]
    copies = first["data_parallel_size"]
    several = "" if copies == 1 else f"{copies} copies of the model, each on "
    plural = "" if first["neuron_cores"] == 1 else "s"
    paced = ", answers at its pace" if first["pace"] == "real-time" else ""
    yield (
        f"simulated {first['instance_type']}: {several}{first['neuron_cores']} NeuronCore{plural} "
        f"at LNC {lnc}, times {first['label']}{paced}"
    )
    for phase, words in _PHASES.items():
        calls = [one for one in first["calls"] if one["phase"] == phase]
        for batch in dict.fromkeys(one["batch"] for one in calls):
            yield f"  {words} (batch {batch}):"
            yield from (_call(one) for one in calls if one["batch"] == batch)
    kinds = [f"{kind} {size / 2**20:.1f}" for kind, size in first["core_memory_bytes"].items()]
    used = sum(first["core_memory_bytes"].values()) / 2**20
    limit = first["core_memory_bytes_available"] / 2**20
    yield f"  memory of a core, MB: {used:.1f} of {limit:.0f} ({', '.join(kinds)})"
    for replica in replicas:
        done = replica["device"].get("so_far")
        if done is not None:
            yield (
                f"  so far, {replica['id']}: {_counted(done)} in "
                f"{done['device_seconds']:.3f} s of the device, {_shares(done)}"
            )


def _counted(done: Mapping[str, Any]) -> str:
    if "texts" in done:
        return f"{done['texts']} texts of {done['encoded_tokens']} tokens"
    return f"{done['generated_tokens']} tokens"


def _call(one: Mapping[str, Any]) -> str:
    interval = f"({one['low'] * 1e3:.2f} - {one['high'] * 1e3:.2f})"
    taken = f"{one['seconds'] * 1e3:8.2f} ms {interval:<20}"
    return f"    {one['bucket']:>6} tokens {taken} {_shares(one)}"


def _shares(one: Mapping[str, Any]) -> str:
    price = one.get("usd_per_million_tokens")
    said = [
        f"{one['core_utilization']:.1%} of peak FLOPs",
        f"{one['collective_share']:.0%} collectives",
    ]
    return ", ".join(said if price is None else [*said, _dollars(price)])


def _dollars(price: float) -> str:
    """Texts are read for less than a cent."""
    return f"${price:.{2 if price >= 0.01 else 4}f} per million tokens"
