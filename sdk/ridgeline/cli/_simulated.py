"""The predicted times, memory and prices of an endpoint on a simulated device, as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_PHASES = {
    "context_encoding": "first token, prompts of up to",
    "token_generation": "each token, positions up to",
}


def lines(replicas: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Of the first replica, which stands for those of its variant, and what each did so far."""
    first: Mapping[str, Any] = replicas[0]["device"]
    lnc = first["logical_neuroncore_config"]
    paced = ", answers at its pace" if first["pace"] == "real-time" else ""
    yield (
        f"simulated {first['instance_type']}: {first['neuron_cores']} NeuronCores at LNC {lnc}, "
        f"times {first['label']}{paced}"
    )
    for phase, words in _PHASES.items():
        yield from (f"  {line}" for line in _calls(first, phase, words))
    kinds = [f"{kind} {size / 2**20:.1f}" for kind, size in first["core_memory_bytes"].items()]
    used = sum(first["core_memory_bytes"].values()) / 2**20
    limit = first["core_memory_bytes_available"] / 2**20
    yield f"  memory of a core, MB: {used:.1f} of {limit:.0f} ({', '.join(kinds)})"
    for replica in replicas:
        done = replica["device"].get("so_far")
        if done is not None:
            yield (
                f"  so far, {replica['id']}: {done['generated_tokens']} tokens in "
                f"{done['device_seconds']:.3f} s of the device, {_shares(done)}"
            )


def _calls(device: Mapping[str, Any], phase: str, words: str) -> Iterator[str]:
    """One line for each bucket."""
    found = [one for one in device["calls"] if one["phase"] == phase]
    if not found:
        return
    batch = found[0]["batch"]
    yield f"{words} (batch {batch}):"
    for one in found:
        interval = f"({one['low'] * 1e3:.2f} - {one['high'] * 1e3:.2f})"
        yield (
            f"  {one['bucket']:>6} tokens {one['seconds'] * 1e3:8.2f} ms {interval:<20}"
            f" {_shares(one)}"
        )


def _shares(one: Mapping[str, Any]) -> str:
    price = one.get("usd_per_million_tokens")
    said = [
        f"{one['core_utilization']:.1%} of peak FLOPs",
        f"{one['collective_share']:.0%} collectives",
    ]
    return ", ".join(said if price is None else [*said, f"${price:.2f} per million tokens"])
