"""What neuron-monitor would report of an endpoint, from two scrapes of its replicas' metrics.

The schema is neuron-monitor's own (neuron-sys-tools/neuron-monitor-user-guide), a replica being a
runtime. Core utilisation is predicted device time per second that passed: what a device would show
under the load that the endpoint really has. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ridgeline_backends.neuron.devices import Instance, instance
from ridgeline_backends.neuron.devices.model import GIB, Chip
from ridgeline_backends.neuron.scrape import (
    FAILED,
    MEMORY,
    PROCESSOR,
    Scrape,
    percentiles,
    utilisation,
)

_MEMORY = {
    "constants": "model constants",
    "model_code": "model code",
    "model_shared_scratchpad": "shared scratchpad",
    "runtime_memory": "runtime",
    "tensors": "tensors",
}
_ERRORS = ("generic", "numerical", "transient", "model", "runtime", "hardware")
_OUTCOMES = (
    "completed", "completed_with_err", "completed_with_num_err", "timed_out", "incorrect_input",
    "failed_to_queue",
)  # fmt: skip
_KINDS = {
    # What the runtime's errors are, and how such an execution ended; others are of the hardware.
    "NRT_EXEC_COMPLETED_WITH_NUM_ERR": ("numerical", "completed_with_num_err"),
    "NRT_TIMEOUT": ("runtime", "timed_out"),
    "NRT_EXEC_UNIT_UNRECOVERABLE": ("runtime", "failed_to_queue"),
}
_DEVICE_VERSIONS = {
    "inferentia1": "v1", "trainium1": "v2", "inferentia2": "v3", "trainium2": "v4",
}  # fmt: skip
"""As the driver counts devices, which is not as NeuronCores are counted; others are not known."""


def core_memory(scrape: Scrape) -> dict[str, int]:
    """Bytes of one core by neuron-monitor's kinds."""
    sizes = scrape.by_label[MEMORY]
    found = {name: int(sizes.get(kind, 0)) for name, kind in _MEMORY.items()}
    # DMA rings and link buffers are the runtime's.
    found["runtime_memory"] += int(sizes.get("dma rings", 0) + sizes.get("collectives", 0))
    return found


def report(
    endpoint: str,
    pairs: Sequence[tuple[Scrape, Scrape]],
    host: Mapping[str, object],
    pids: Mapping[str, int],
) -> dict[str, object]:
    """One object of neuron-monitor. `pairs`: each replica now and before; `host`: its processor
    and memory, in neuron-monitor's form; `pids`: of the replicas, 0 where it is not known."""
    first = pairs[0][0]
    found = instance(first.info["instance_type"])
    return {
        "neuron_runtime_data": [
            _runtime(endpoint, now, former, pids.get(now.replica, 0)) for now, former in pairs
        ],
        "system_data": {
            "neuron_hw_counters": {
                "period": first.at - pairs[0][1].at,
                "neuron_devices": [_counters(pairs, device) for device in range(found.chips)],
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


def _runtime(endpoint: str, now: Scrape, former: Scrape, pid: int) -> dict[str, object]:
    period, percent = now.at - former.at, utilisation(now, former)
    memory = core_memory(now)
    cores = [str(core) for core in range(now.cores)]
    worked = now.since(former, "ridgeline_simulated_device_seconds") / now.copies
    peak_share = worked / period if period else 0
    flops = now.values.get("ridgeline_simulated_core_utilization", 0.0) * peak_share
    errors, outcomes = _ended(now, former)
    latencies = percentiles(now, former)
    chip = instance(now.info["instance_type"]).chip
    peak = chip.tflops_per_core["bf16"] * now.lnc * 1e12
    return {
        "pid": pid,
        "neuron_runtime_tag": now.replica,
        "error": "",
        "report": {
            "neuroncore_counters": {
                "period": period,
                "neuroncores_in_use": {
                    str(core): {
                        "neuroncore_utilization": percent,
                        "flops": int(flops * peak),
                        **_physical(chip, core, now.lnc, percent),
                    }
                    for core in range(now.cores)
                },
                "error": "",
            },
            "execution_stats": {
                "period": period,
                "error_summary": errors,
                "execution_summary": outcomes,
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
                                "memory_used_bytes": _loaded(memory),
                                "neuroncore_index": core,
                                "neuron_device_index": core // chip.logical_cores(now.lnc),
                            }
                            for core in range(now.cores)
                        },
                    }
                ],
                "error": "",
            },
            "neuron_runtime_vcpu_usage": {
                "period": period,
                "vcpu_usage": {
                    mode: round(100 * _processor(now, former, mode) / (period or 1), 2)
                    for mode in ("user", "system")
                },
                "error": "",
            },
        },
    }


def _ended(now: Scrape, former: Scrape) -> tuple[dict[str, int], dict[str, int]]:
    """Errors by their kind, and executions by how they ended."""
    errors, outcomes = dict.fromkeys(_ERRORS, 0), dict.fromkeys(_OUTCOMES, 0)
    outcomes["completed"] = int(sum(now.executed(former).values()))
    for code, count in now.counted(former, FAILED).items():
        kind, outcome = _KINDS.get(code, ("hardware", "completed_with_err"))
        errors[kind] += count
        outcomes[outcome] += count
    return errors, outcomes


def _physical(chip: Chip, core: int, lnc: int, percent: float) -> dict[str, object]:
    """The two cores that make a logical one: halves of every operation run on them at once."""
    if lnc == 1:
        return {}
    halves = {
        f"nc_{chip.neuroncore}.{lnc * core + half}": {"neuroncore_utilization": percent}
        for half in range(lnc)
    }
    return {f"{chip.neuroncore}d": halves}


def _loaded(memory: Mapping[str, int]) -> dict[str, object]:
    """Of one core, without the scratchpad that models share."""
    kinds = ("constants", "model_code", "runtime_memory", "tensors")
    device = {kind: memory[kind] for kind in kinds}
    host = dict.fromkeys(("application_memory", "constants", "dma_buffers", "tensors"), 0)
    return {
        "host": 0,
        "neuron_device": sum(device.values()),
        "usage_breakdown": {"host": host, "neuron_device": device},
    }


def _processor(now: Scrape, former: Scrape, mode: str) -> float:
    """Seconds of this machine's processor that a replica took."""
    used, before = (one.by_label[PROCESSOR].get(mode, 0.0) for one in (now, former))
    return used - before if used >= before else used


def _counters(pairs: Sequence[tuple[Scrape, Scrape]], device: int) -> dict[str, int]:
    """Events since the replicas were started: faults on demand hit the first device."""
    found = {"mem_ecc_corrected": 0, "mem_ecc_uncorrected": 0}
    found |= {"sram_ecc_uncorrected": 0, "sram_ecc_corrected": 0}
    for now, _ in pairs if device == 0 else ():
        failed = now.by_label[FAILED]
        found["mem_ecc_uncorrected"] += int(failed.get("NRT_EXEC_HW_ERR_HBM_UE", 0))
        found["sram_ecc_uncorrected"] += int(failed.get("NRT_EXEC_HW_ERR_NC_UE", 0))
    return {"neuron_device_index": device, **found}


def _hardware(found: Instance, lnc: int) -> dict[str, object]:
    suffix = "d" if lnc == 2 else ""
    return {
        "neuron_device_type": found.chip.name,
        "neuron_device_version": _DEVICE_VERSIONS.get(found.chip.name, ""),
        "neuroncore_version": f"{found.chip.neuroncore}{suffix}",
        "neuron_device_count": found.chips,
        "neuron_device_memory_size": int(found.chip.memory_gib * GIB),
        "neuroncore_per_device_count": found.chip.logical_cores(lnc),
        "logical_neuroncore_config": lnc,
        "error": "",
    }
