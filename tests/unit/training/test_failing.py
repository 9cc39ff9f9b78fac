"""The words a failed script ends with."""

from __future__ import annotations

import pytest

from ridgeline_service.training.causes import Cause, JobFailed
from ridgeline_service.training.failing import failure_reason, last_error, script_failed
from ridgeline_service.training.order import Order
from ridgeline_service.training.script import Ended

DRIVER = """Traceback (most recent call last):
  File "/opt/ml/input/data/sm_drivers/common/utils.py", line 193, in execute_commands
    raise subprocess.CalledProcessError(exitcode, commands)
subprocess.CalledProcessError: Command '['python3', 'train.py']' returned non-zero exit status 1.
"""
TORCHRUN = [
    "[rank0]: ValueError: too many epochs",
    "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: ",
    "train.py FAILED",
]


def test_a_failure_file_has_the_first_word(order: Order) -> None:
    log = ["ValueError: x"]
    failed = script_failed(order, Ended(2, None), ["python"], log, "row 7 is bad", errors=log)
    assert failure_reason(failed).startswith("AlgorithmError: row 7 is bad, ExitCode 2")


@pytest.mark.parametrize("said", [DRIVER, "Training Execution failed. For more details, see ..."])
def test_a_launcher_that_only_says_that_a_child_failed_gives_way_to_the_child(
    order: Order, said: str
) -> None:
    log = ["ValueError: 10 epochs are too many", *DRIVER.splitlines()]
    failed = script_failed(order, Ended(1, None), ["/bin/bash"], log, said, errors=log[1:])
    reason = failure_reason(failed)
    assert reason.startswith(
        'AlgorithmError: ExecuteUserScriptError: ExitCode 1, ErrorMessage "ValueError: 10 epochs'
    )


def test_what_a_rank_of_torchrun_said_is_the_error() -> None:
    assert last_error(TORCHRUN, TORCHRUN) == "ValueError: too many epochs"


def test_without_better_words_the_launcher_s_stand() -> None:
    lines = DRIVER.splitlines()
    assert last_error(lines, lines).startswith("subprocess.CalledProcessError")
    assert last_error(["one", "two"], ["one", "two"]) == "two"
    assert last_error([], []) == ""


def test_what_was_only_printed_is_no_error(order: Order) -> None:
    log = ["bye"]
    failed = script_failed(order, Ended(3, None), ["python"], log, "", errors=[])
    reason = failure_reason(failed)
    assert reason.startswith(
        'AlgorithmError: ExecuteUserScriptError: ExitCode 3, ErrorMessage "", Command "python"'
    )
    assert reason.endswith("bye")  # among the last lines
    assert last_error(["no data", "bye"], ["no data"]) == "no data"


def test_a_reason_can_always_be_stored() -> None:
    failed = JobFailed(Cause.DISK_FULL, "no room for \udcff.bin")
    failure_reason(failed).encode()


MPI_DRIVER = """Traceback (most recent call last):
  File "/opt/ml/input/data/sm_drivers/distributed_drivers/mpi_driver.py", line 23, in <module>
    from distributed_drivers.mpi_utils import (  # noqa: E402 # pylint: disable=C0413,E0611
  File "/opt/ml/input/data/sm_drivers/distributed_drivers/mpi_utils.py", line 24, in <module>
    import paramiko
ModuleNotFoundError: No module named 'paramiko'
"""


def test_what_the_mpi_driver_of_the_sdk_lacks_cannot_be_added(order: Order) -> None:
    log = MPI_DRIVER.splitlines()
    said = "Training Execution failed. For more details, see ..."
    failed = script_failed(order, Ended(1, None), ["/bin/bash"], log, said, errors=log)
    reason = failure_reason(failed)
    assert "MPI does not run here. Use distributed=Torchrun()" in reason
    assert "requirements.txt" not in reason


def test_a_module_that_the_script_lacks_is_to_be_added(order: Order) -> None:
    log = ['  File "/opt/ml/code/train.py", line 1', "ModuleNotFoundError: No module named 'x.y'"]
    failed = script_failed(order, Ended(1, None), ["python"], log, "", errors=log)
    assert "Add x to requirements.txt in source_dir" in failure_reason(failed)


def test_what_may_be_an_exit_code_is_not_said_to_be_a_signal(order: Order) -> None:
    failed = script_failed(order, Ended(137, 9), ["python"], [], "", errors=[])
    assert failed.cause is Cause.SCRIPT_FAILED
    reason = failure_reason(failed)
    assert "ExitCode 137 (or Signal SIGKILL)" in reason
    assert "If the script did not exit with 137 itself, a signal ended it, most often as" in reason
    crashed = failure_reason(script_failed(order, Ended(139, 11), ["python"], [], "", errors=[]))
    assert "If the script did not exit with 139 itself, a signal ended it, such as a" in crashed


def test_a_script_that_was_killed_for_certain_lacked_memory_most_often(order: Order) -> None:
    failed = script_failed(order, Ended(None, 9), ["python"], [], "", errors=[])
    assert failed.cause is Cause.OUT_OF_MEMORY
    assert failure_reason(failed).startswith(
        'AlgorithmError: ExecuteUserScriptError: Signal SIGKILL, ErrorMessage ""'
    )
    assert "The system killed it, most often because" in failure_reason(failed)
