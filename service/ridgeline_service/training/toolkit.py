"""Script mode, as SageMaker's training toolkit does it: hyperparameters become arguments, what the
job knows becomes SM_* variables, and the program is started by Python, bash or torchrun.

Pure functions over an order: starts nothing and reads no disk but for a folder's files.
"""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

from ridgeline_service.training import layout
from ridgeline_service.training.causes import Cause, JobFailed
from ridgeline_service.training.order import Order

OWN_PREFIX = "sagemaker_"
TUNING_OBJECTIVE = "_tuning_objective_metric"
PROGRAM = "sagemaker_program"
SUBMIT_DIRECTORY = "sagemaker_submit_directory"
_MASTER_PORTS = range(10000, 30000)
"""Below those that systems hand out by themselves."""

_LOG_LEVEL = 20
_TORCHRUN = ("sagemaker_torch_distributed_enabled", "sagemaker_pytorch_ddp_enabled")
_TOOLKITS = frozenset(
    {
        *(PROGRAM, SUBMIT_DIRECTORY, TUNING_OBJECTIVE, "default_user_module_name"),
        *("sagemaker_enable_cloudwatch_metrics", "sagemaker_region", "sagemaker_job_name"),
        *("sagemaker_container_log_level", "sagemaker_s3_output"),
    }
)
"""Hyperparameters that the toolkit itself reads. Others with its prefix are its frameworks'."""

_UNSUPPORTED = {
    "sagemaker_mpi_enabled": "MPI",
    "sagemaker_parameter_server_enabled": "a parameter server",
    "sagemaker_distributed_dataparallel_enabled": "SageMaker's data parallel library",
    "sagemaker_multi_worker_mirrored_strategy_enabled": "MultiWorkerMirroredStrategy",
}


@dataclass(frozen=True)
class Hardware:
    """What the script may count on."""

    cpus: int
    gpus: int


def decoded(hyperparameters: Mapping[str, str]) -> dict[str, Any]:
    """Values as the toolkit reads them: JSON where they are JSON, else the text itself."""
    found: dict[str, Any] = {}
    for name, value in hyperparameters.items():
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def users(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are the script's and not the toolkit's."""
    return {k: v for k, v in hyperparameters.items() if not _is_own(k)}


def arguments(hyperparameters: Mapping[str, Any]) -> list[str]:
    """``--name value`` by name; a name of one letter gets one dash."""
    found: list[str] = []
    for name in sorted(hyperparameters):
        found += [f"--{name}" if len(name) > 1 else f"-{name}", _argument(hyperparameters[name])]
    return found


def program_of(order: Order) -> str:
    """The script that the job names; empty where it names none. Raises JobFailed."""
    value = decoded(order.hyperparameters).get(PROGRAM) or order.environment.get(
        "SAGEMAKER_PROGRAM", ""
    )
    if not isinstance(value, str):
        raise JobFailed(Cause.CODE_INVALID, f"{PROGRAM} is {value!r}, and no name of a file.")
    return value


def submitted(order: Order) -> str:
    """Where the code was uploaded to: an S3 URI, or with network isolation an archive in a channel,
    as a path inside; empty where it lies in the container already."""
    value = decoded(order.hyperparameters).get(SUBMIT_DIRECTORY) or order.environment.get(
        "SAGEMAKER_SUBMIT_DIRECTORY", ""
    )
    if not isinstance(value, str):
        return ""
    in_channel = posixpath.normpath(value).startswith(f"{layout.DATA}/")
    return value if value.startswith("s3://") or in_channel else ""


def script_command(order: Order, program: str, code: Path, hardware: Hardware) -> list[str]:
    """The command line of script mode, for ``program`` in the folder ``code``. Raises JobFailed."""
    if not (code / program).is_file():
        files = ", ".join(sorted(path.name for path in code.iterdir())[:20]) or "none"
        raise JobFailed(
            Cause.CODE_INVALID,
            f"The script {program!r} is not in the submitted code. Files there: {files}.",
        )
    values = decoded(order.hyperparameters)
    for name, words in _UNSUPPORTED.items():
        if values.get(name):
            raise JobFailed(
                Cause.CODE_INVALID,
                f"The job's distribution asks for {words} ({name}), which does not run here. "
                "Use torchrun: distribution={'torch_distributed': {'enabled': True}}.",
            )
    given = arguments(users(values))
    if program.endswith(".sh"):
        return ["/bin/bash", program, *given]
    if any(values.get(name) for name in _TORCHRUN):
        return [*_torchrun(order, max(1, hardware.gpus)), program, *given]
    return ["python", program, *given]


def master_port(order: Order) -> int:
    """Where the first host's processes are met. Hosts of a job share this machine's network with
    those of other jobs, so each attempt of a job has a port of its own, the same on all its hosts.
    """
    return _MASTER_PORTS[crc32(f"{order.arn}#{order.attempt}".encode()) % len(_MASTER_PORTS)]


def variables(order: Order, hardware: Hardware) -> dict[str, str]:
    """The SM_* variables of SageMaker's training toolkit."""
    values = decoded(order.hyperparameters)
    own = users(values)
    program = str(values.get(PROGRAM) or "")
    channels = {channel.name: f"{layout.DATA}/{channel.name}" for channel in order.channels}
    resources = layout.resource_config(order)
    groups = {group["instance_group_name"]: group for group in resources["instance_groups"]}
    distributed = any(values.get(name) for name in _TORCHRUN)
    facts: dict[str, Any] = {
        "channels": sorted(channels),
        "current_host": order.host,
        "current_instance_type": order.instance_type,
        "current_instance_group": layout.INSTANCE_GROUP,
        "current_instance_group_hosts": sorted(order.hosts),
        "distribution_instance_groups": values.get(
            "sagemaker_distribution_instance_groups", list(groups) if distributed else []
        ),
        "framework_module": order.environment.get("SAGEMAKER_TRAINING_MODULE"),
        "framework_params": {k: v for k, v in values.items() if _is_own(k) and k not in _TOOLKITS},
        "hosts": sorted(order.hosts),
        "hps": own,
        "input_config_dir": layout.CONFIG,
        "input_data_config": layout.input_data_config(order),
        "input_dir": f"{layout.INSIDE}/input",
        "instance_groups": list(groups),
        "instance_groups_dict": groups,
        "is_hetero": False,
        "log_level": values.get("sagemaker_container_log_level", _LOG_LEVEL),
        "master_addr": order.hosts[0],
        "master_port": master_port(order),
        "model_dir": layout.MODEL,
        "module_dir": str(values.get(SUBMIT_DIRECTORY) or layout.CODE),
        "module_name": program.removesuffix(".py"),
        "network_interface_name": layout.NETWORK_INTERFACE,
        "num_cpus": hardware.cpus,
        "num_gpus": hardware.gpus,
        "num_neurons": 0,
        "output_data_dir": f"{layout.OUTPUT}/data",
        "output_dir": layout.OUTPUT,
        "output_intermediate_dir": f"{layout.OUTPUT}/intermediate",
        "resource_config": resources,
        "user_args": arguments(own),
        "user_entry_point": program,
    }
    named = {f"channel_{name}": path for name, path in channels.items()}
    hyper = {f"hp_{name}": value for name, value in own.items()}
    found = {**facts, **named, **hyper, "training_env": _training_env(order, facts, channels)}
    # A name with such a sign is none for a variable; the argument is there all the same.
    return {_variable(name): _text(value) for name, value in found.items() if "=" not in name}


def _training_env(
    order: Order, facts: Mapping[str, Any], channels: Mapping[str, str]
) -> dict[str, Any]:
    """All of it once more, as one JSON document under the toolkit's own names."""
    left_out = ("channels", "framework_params", "hps", "user_args", "master_addr", "master_port")
    groups = facts["distribution_instance_groups"]
    return {
        **{name: value for name, value in facts.items() if name not in left_out},
        "additional_framework_parameters": facts["framework_params"],
        "channel_input_dirs": dict(channels),
        "distribution_hosts": facts["hosts"] if layout.INSTANCE_GROUP in groups else [],
        "hyperparameters": facts["hps"],
        "is_modelparallel_enabled": None,
        "is_smddpmprun_installed": False,
        "is_smddprun_installed": False,
        "is_master": order.is_first,
        "job_name": order.job,
        "master_hostname": order.hosts[0],
    }


def _torchrun(order: Order, processes: int) -> list[str]:
    return [
        *("python", "-m", "torch.distributed.run"),
        *("--nnodes", str(len(order.hosts)), "--nproc_per_node", str(processes)),
        *("--master_addr", order.hosts[0], "--master_port", str(master_port(order))),
        *("--node_rank", str(order.index)),
    ]


def _is_own(name: str) -> bool:
    return name.startswith(OWN_PREFIX) or name in _TOOLKITS


def _argument(value: Any) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{name}={item}" for name, item in sorted(value.items()))
    return "" if value is None else str(value)


def _variable(name: str) -> str:
    """A dash stays one: Python reads such names, though a shell has no words for them."""
    return f"SM_{name}".upper()


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, sort_keys=True, separators=(",", ":"))


def hardware_of(gpus: Sequence[int]) -> Hardware:
    return Hardware(len(os.sched_getaffinity(0)), len(gpus))
