"""What neuron-monitor would report of an endpoint, from two scrapes of its replicas' metrics.

The schema is neuron-monitor's own (neuron-sys-tools/neuron-monitor-user-guide), a replica being a
runtime. Core utilisation is predicted device time per second that passed: what a device would show
under the load that the endpoint really has. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from ridgeline_backends.neuron.devices import Instance, instance
from ridgeline_backends.neuron.devices.model import GIB

_PERCENTILES = (0, 1, 25, 50, 75, 99, 100)
_MEMORY = {
    "constants": "model constants",
    "model_code": "model code",
    "model_shared_scratchpad": "shared scratchpad",
    "runtime_memory": "runtime",
    "tensors": "tensors",
}
_MODELS_ERRORS = ("generic", "numerical", "transient", "model", "runtime", "hardware")


@dataclass(frozen=True)
class Scrape:
    """One replica's metrics at one time: samples by name, and by name and label where they have
    one that matters here."""

    replica: str
    at: float
    values: Mapping[str, float]
    by_label: Mapping[str, Mapping[str, float]]
    info: Mapping[str, str]

    @property
    def cores(self) -> int:
        return int(self.info["neuron_cores"])

    @property
    def lnc(self) -> int:
        return int(self.info["logical_neuroncore_config"])

    def since(self, former: Scrape, name: str) -> float:
        """How much a counter grew; from nothing if the replica was started anew."""
        grown = self.values.get(name, 0.0) - former.values.get(name, 0.0)
        return grown if grown >= 0 else self.values.get(name, 0.0)


_LABELLED = {
    "ridgeline_simulated_core_memory_bytes": "kind",
    "vllm:request_success_total": "finished_reason",
    "ridgeline_step_seconds_bucket": "le",
}


def read_scrape(replica: str, text: str, at: float) -> Scrape | None:
    """From Prometheus' text; None for a replica that stands for no device."""
    values: dict[str, float] = {}
    by_label: dict[str, dict[str, float]] = {name: {} for name in _LABELLED}
    info: dict[str, str] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            values[sample.name] = values.get(sample.name, 0.0) + sample.value
            if sample.name == "ridgeline_simulated_device_info":
                info = dict(sample.labels)
            label = _LABELLED.get(sample.name)
            if label is not None:
                by_label[sample.name][sample.labels[label]] = sample.value
    return Scrape(replica, at, values, by_label, info) if info else None


def utilisation(now: Scrape, former: Scrape) -> float:
    """Percent of the time between two scrapes in which the cores of a device would have worked."""
    passed = now.at - former.at
    busy = now.since(former, "ridgeline_simulated_device_seconds")
    return min(100.0, 100.0 * busy / passed) if passed > 0 else 0.0


def core_memory(scrape: Scrape) -> dict[str, int]:
    """Bytes of one core by neuron-monitor's kinds."""
    sizes = scrape.by_label["ridgeline_simulated_core_memory_bytes"]
    found = {name: int(sizes.get(kind, 0)) for name, kind in _MEMORY.items()}
    # DMA rings and link buffers are the runtime's.
    found["runtime_memory"] += int(sizes.get("dma rings", 0) + sizes.get("collectives", 0))
    return found


def step_percentiles(now: Scrape, former: Scrape) -> dict[str, float]:
    """Seconds of a step on the device, from the growth of a histogram: a bucket's upper end."""
    name = "ridgeline_step_seconds_bucket"
    before = former.by_label[name]
    ends = sorted(now.by_label[name].items(), key=lambda one: float(one[0]))
    grown = [(float(end), count - before.get(end, 0.0)) for end, count in ends]
    total = grown[-1][1] if grown else 0.0
    if total <= 0:
        return {f"p{one}": 0.0 for one in _PERCENTILES}
    found = {}
    for one in _PERCENTILES:
        wanted = max(1.0, total * one / 100)
        end = next(end for end, count in grown if count >= wanted)
        found[f"p{one}"] = end if end != float("inf") else grown[-2][0]
    return found


def report(
    endpoint: str, pairs: Sequence[tuple[Scrape, Scrape]], host: Mapping[str, object]
) -> dict[str, object]:
    """One object of neuron-monitor. `pairs`: each replica now and before; `host`: its processor
    and memory, in neuron-monitor's form."""
    first = pairs[0][0]
    found = instance(first.info["instance_type"])
    return {
        "neuron_runtime_data": [_runtime(endpoint, now, former) for now, former in pairs],
        "system_data": {
            "neuron_hw_counters": {
                "period": first.at - pairs[0][1].at,
                "neuron_devices": [_counters(device) for device in range(found.chips)],
                "error": "",
            },
            **host,
        },
        "instance_info": {
            "instance_name": endpoint,
            "instance_id": "",
            "instance_type": found.name,
            "instance_availability_zone": "",
            "instance_availability_zone_id": "",
            "instance_region": "",
            "ami_id": "",
            "subnet_id": "",
            "error": "simulated",
        },
        "neuron_hardware_info": _hardware(found, first.lnc),
    }


def _runtime(endpoint: str, now: Scrape, former: Scrape) -> dict[str, object]:
    period, percent = now.at - former.at, utilisation(now, former)
    memory = core_memory(now)
    cores = [str(core) for core in range(now.cores)]
    peak_share = now.since(former, "ridgeline_simulated_device_seconds") / period if period else 0
    flops = now.values.get("ridgeline_simulated_core_utilization", 0.0) * peak_share
    errors = dict.fromkeys(_MODELS_ERRORS, 0)
    failed = _failed(now) - _failed(former)
    errors["runtime"] = max(0, int(failed))
    latencies = step_percentiles(now, former)
    chip = instance(now.info["instance_type"]).chip
    peak = chip.tflops_per_core["bf16"] * now.lnc * 1e12
    return {
        "pid": 0,
        "neuron_runtime_tag": now.replica,
        "error": "",
        "report": {
            "neuroncore_counters": {
                "period": period,
                "neuroncores_in_use": {
                    core: {"neuroncore_utilization": percent, "flops": int(flops * peak)}
                    for core in cores
                },
                "error": "",
            },
            "execution_stats": {
                "period": period,
                "error_summary": errors,
                "execution_summary": {
                    "completed": int(now.since(former, "ridgeline_steps_total")),
                    "completed_with_err": errors["runtime"],
                    "completed_with_num_err": 0,
                    "timed_out": 0,
                    "incorrect_input": 0,
                    "failed_to_queue": 0,
                },
                "latency_stats": {"total_latency": latencies, "device_latency": latencies},
                "error": "",
            },
            "memory_used": {
                "period": period,
                "neuron_runtime_used_bytes": {
                    "host": int(now.values.get("process_resident_memory_bytes", 0)),
                    "neuron_device": sum(memory.values()) * now.cores,
                    "usage_breakdown": {
                        "host": {
                            "application_memory": int(
                                now.values.get("process_resident_memory_bytes", 0)
                            ),
                            "constants": 0,
                            "dma_buffers": 0,
                            "tensors": 0,
                        },
                        "neuroncore_memory_usage": dict.fromkeys(cores, memory),
                    },
                },
                "loaded_models": [
                    {
                        "name": endpoint,
                        "uuid": now.replica,
                        "model_id": 1,
                        "is_running": percent > 0,
                        "subgraphs": {
                            f"sg_{core:02}": {
                                "memory_used_bytes": {"host": 0, "neuron_device": total},
                                "neuroncore_index": core,
                                "neuron_device_index": core // chip.logical_cores(now.lnc),
                            }
                            for core, total in enumerate([sum(memory.values())] * now.cores)
                        },
                    }
                ],
                "error": "",
            },
            "neuron_runtime_vcpu_usage": {
                "period": period,
                "vcpu_usage": {
                    "user": 100 * now.since(former, "process_cpu_seconds_total") / (period or 1),
                    "system": 0.0,
                },
                "error": "",
            },
        },
    }


def _failed(scrape: Scrape) -> float:
    return scrape.by_label["vllm:request_success_total"].get("error", 0.0)


def _counters(device: int) -> dict[str, int]:
    kinds = ("mem_ecc_corrected", "mem_ecc_uncorrected", "sram_ecc_uncorrected")
    return {"neuron_device_index": device, **dict.fromkeys((*kinds, "sram_ecc_corrected"), 0)}


def _hardware(found: Instance, lnc: int) -> dict[str, object]:
    suffix = "d" if lnc == 2 else ""
    return {
        "neuron_device_type": found.chip.name,
        "neuron_device_version": found.chip.neuroncore,
        "neuroncore_version": f"{found.chip.neuroncore}{suffix}",
        "neuron_device_count": found.chips,
        "neuron_device_memory_size": int(found.chip.memory_gib * GIB),
        "neuroncore_per_device_count": found.chip.logical_cores(lnc),
        "logical_neuroncore_config": lnc,
        "error": "",
    }
