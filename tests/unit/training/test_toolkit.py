"""Script mode: arguments and SM_* variables as SageMaker's toolkit makes them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ridgeline_service.training import toolkit
from ridgeline_service.training.causes import Cause, JobFailed
from ridgeline_service.training.order import Channel, Order, read_order, write_order
from ridgeline_service.training.toolkit import Hardware


def test_arguments_are_those_of_the_toolkit() -> None:
    values = toolkit.decoded(
        {
            "epochs": "3",
            "lr": "0.5",
            "name": '"a b"',
            "plain": "text",
            "flag": "true",
            "layers": "[1, 2]",
            "map": '{"b": 2, "a": 1}',
            "x": "7",
            "none": "null",
            "sagemaker_program": '"train.py"',
            "_tuning_objective_metric": "loss",
        }
    )
    assert toolkit.arguments(toolkit.users(values)) == [
        *("--epochs", "3", "--flag", "True", "--layers", "[1, 2]", "--lr", "0.5"),
        *("--map", "a=1,b=2", "--name", "a b", "--none", "", "--plain", "text", "-x", "7"),
    ]


def test_variables_name_everything_that_a_script_may_ask(order: Order) -> None:
    job = replace(
        order,
        hyperparameters={"batch-size": "32", "name": '"n"', "sagemaker_program": '"train.py"'},
        channels=(Channel("train", "s3://b/x"), Channel("test-set", "s3://b/y")),
        hosts=("algo-1", "algo-2"),
        host="algo-2",
    )
    found = toolkit.variables(job, Hardware(cpus=4, gpus=0))
    assert found["SM_CHANNEL_TRAIN"] == "/opt/ml/input/data/train"
    assert found["SM_CHANNEL_TEST-SET"] == "/opt/ml/input/data/test-set"
    assert json.loads(found["SM_CHANNELS"]) == ["test-set", "train"]
    assert (found["SM_HP_BATCH-SIZE"], found["SM_HP_NAME"]) == ("32", "n")
    assert json.loads(found["SM_HPS"]) == {"batch-size": 32, "name": "n"}
    assert json.loads(found["SM_USER_ARGS"]) == ["--batch-size", "32", "--name", "n"]
    assert (found["SM_CURRENT_HOST"], json.loads(found["SM_HOSTS"])) == (
        "algo-2",
        ["algo-1", "algo-2"],
    )
    assert found["SM_MODEL_DIR"] == "/opt/ml/model"
    assert found["SM_OUTPUT_DATA_DIR"] == "/opt/ml/output/data"
    assert (found["SM_NUM_CPUS"], found["SM_NUM_GPUS"]) == ("4", "0")
    assert (found["SM_USER_ENTRY_POINT"], found["SM_MODULE_NAME"]) == ("train.py", "train")
    assert found["SM_FRAMEWORK_PARAMS"] == "{}"
    whole = json.loads(found["SM_TRAINING_ENV"])
    assert whole["hyperparameters"] == {"batch-size": 32, "name": "n"}
    assert whole["channel_input_dirs"]["train"] == "/opt/ml/input/data/train"
    assert not whole["is_master"]
    assert list(whole) == sorted(whole)
    assert whole["distribution_hosts"] == []
    assert whole["is_modelparallel_enabled"] is None
    assert not whole["is_smddprun_installed"]
    assert not {"master_addr", "master_port"} & set(whole)


def test_the_hosts_of_a_distribution_are_told(order: Order) -> None:
    given = {"sagemaker_torch_distributed_enabled": "true"}
    pair = replace(order, hosts=("algo-1", "algo-2"), hyperparameters=given)
    whole = json.loads(toolkit.variables(pair, Hardware(2, 0))["SM_TRAINING_ENV"])
    assert whole["distribution_hosts"] == ["algo-1", "algo-2"]


def test_a_name_that_no_variable_can_have_is_an_argument_alone(order: Order) -> None:
    found = toolkit.variables(
        replace(order, hyperparameters={"a=b": "1", "c": "2"}), Hardware(2, 0)
    )
    assert not [name for name in found if "=" in name]
    assert found["SM_HP_C"] == "2"
    assert json.loads(found["SM_USER_ARGS"]) == ["--a=b", "1", "-c", "2"]


def test_values_of_variables_are_written_as_the_toolkit_writes_them(order: Order) -> None:
    given = {"flag": "true", "none": "null", "lr": "1e-3", "nan": "NaN", "layers": "[1, 2]"}
    found = toolkit.variables(replace(order, hyperparameters=given), Hardware(1, 0))
    values = [found[f"SM_HP_{name}"] for name in ("FLAG", "NONE", "LR", "NAN", "LAYERS")]
    assert values == ["true", "", "0.001", "NaN", "[1,2]"]
    assert found["SM_IS_HETERO"] == "false"


def test_channels_with_a_dash_and_an_underscore_are_told_apart(order: Order) -> None:
    job = replace(order, channels=(Channel("my-data", "s3://b/x"), Channel("my_data", "s3://b/y")))
    found = toolkit.variables(job, Hardware(1, 0))
    assert found["SM_CHANNEL_MY-DATA"] == "/opt/ml/input/data/my-data"
    assert found["SM_CHANNEL_MY_DATA"] == "/opt/ml/input/data/my_data"


def test_the_groups_of_instances_are_told(order: Order) -> None:
    found = toolkit.variables(order, Hardware(1, 0))
    assert json.loads(found["SM_INSTANCE_GROUPS"]) == ["homogeneousCluster"]
    [group] = json.loads(found["SM_INSTANCE_GROUPS_DICT"]).values()
    assert group["hosts"] == ["algo-1"]
    assert found["SM_DISTRIBUTION_INSTANCE_GROUPS"] == "[]"
    assert found["SM_FRAMEWORK_MODULE"] == ""
    given = {"sagemaker_torch_distributed_enabled": "true"}
    found = toolkit.variables(replace(order, hyperparameters=given), Hardware(1, 0))
    assert json.loads(found["SM_DISTRIBUTION_INSTANCE_GROUPS"]) == ["homogeneousCluster"]
    assert json.loads(found["SM_FRAMEWORK_PARAMS"]) == {"sagemaker_torch_distributed_enabled": True}


PORT = "a port"


def test_a_job_meets_at_a_port_of_its_own_on_all_its_hosts(order: Order) -> None:
    pair = [replace(order, hosts=("algo-1", "algo-2"), host=host) for host in ("algo-1", "algo-2")]
    assert toolkit.master_port(pair[0]) == toolkit.master_port(pair[1])
    others = {toolkit.master_port(replace(order, arn=f"{order.arn}{n}")) for n in range(20)}
    assert len(others | {toolkit.master_port(order)}) > 15


@pytest.mark.parametrize(
    ("values", "program", "command"),
    [
        ({"epochs": "1"}, "train.py", ["python", "train.py", "--epochs", "1"]),
        ({}, "run.sh", ["/bin/bash", "run.sh"]),
        (
            {"sagemaker_torch_distributed_enabled": "true"},
            "train.py",
            [
                *("python", "-m", "torch.distributed.run", "--nnodes", "1"),
                *("--nproc_per_node", "2", "--master_addr", "algo-1", "--master_port", PORT),
                *("--node_rank", "0", "train.py"),
            ],
        ),
    ],
)
def test_the_program_decides_how_it_is_started(
    order: Order, tmp_path: Path, values: dict[str, str], program: str, command: list[str]
) -> None:
    (tmp_path / program).touch()
    job = replace(order, hyperparameters=values)
    expected = [str(toolkit.master_port(job)) if word is PORT else word for word in command]
    assert toolkit.script_command(job, program, tmp_path, Hardware(2, 2)) == expected


def test_what_does_not_run_here_is_named(order: Order, tmp_path: Path) -> None:
    (tmp_path / "train.py").touch()
    job = replace(order, hyperparameters={"sagemaker_mpi_enabled": "true"})
    with pytest.raises(JobFailed, match="MPI") as caught:
        toolkit.script_command(job, "train.py", tmp_path, Hardware(1, 0))
    assert caught.value.cause is Cause.CODE_INVALID
    with pytest.raises(JobFailed, match=r"other\.py.*train\.py"):
        toolkit.script_command(order, "other.py", tmp_path, Hardware(1, 0))


def test_an_order_is_read_as_it_was_written(order: Order, tmp_path: Path) -> None:
    job = replace(order, channels=(Channel("a", "s3://b/c"),), entrypoint=("x", "y"))
    write_order(tmp_path, job)
    assert read_order(tmp_path) == job
