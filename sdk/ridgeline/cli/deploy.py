"""``ridgeline deploy``: an endpoint from a model of the zoo."""

from __future__ import annotations

from typing import Annotated

import typer

from ridgeline.cli import _common
from ridgeline.cli._common import AsJson, DataDir
from ridgeline.errors import InvalidInput

_PACES = ("real-time", "none")


def deploy(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Id of a model of the zoo (see `ridgeline zoo ls`).",
            autocompletion=_common.complete_model,
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            help="Name of the endpoint, which is its model name in OpenAI's API.",
            show_default="the model's id",
        ),
    ] = None,
    instance_type: Annotated[
        str | None, typer.Option("--instance-type", help="Like ml.m5.xlarge; the card's if absent.")
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, help="Number of instances.")] = 1,
    env: Annotated[
        list[str] | None,
        typer.Option("--env", metavar="NAME=VALUE", help="Environment of the container."),
    ] = None,
    pace: Annotated[
        str | None,
        typer.Option(
            "--pace",
            metavar="real-time",
            help="On a simulated device: answers come when the device would give them.",
        ),
    ] = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Return when the endpoint is accepted.")
    ] = False,
    timeout: Annotated[
        float | None, typer.Option("--timeout", help="Seconds to wait at most.", min=0)
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Deploy a model of the zoo and wait until it serves."""
    from ridgeline._names import check_name, clean_name

    if name is not None:
        check_name(name, "--name")
    environment = _common.parse_pairs(env or [], "--env")
    if pace is not None:
        if pace not in _PACES:
            raise InvalidInput(f"--pace {pace} is none.", hint=f"There is: {', '.join(_PACES)}.")
        environment["RIDGELINE_PACE"] = pace
    session = _common.open_session(data_dir)
    from ridgeline.zoo import ZooModel  # boto3: not for --help

    zoo_model = ZooModel(model, env=environment, sagemaker_session=session)
    predictor = zoo_model.deploy(
        initial_instance_count=count,
        instance_type=instance_type,
        endpoint_name=name or clean_name(zoo_model.model_id),
        wait=not no_wait,
        wait_timeout_s=timeout,
    )
    endpoint = predictor.endpoint_name
    if as_json:
        status = "Creating" if no_wait else "InService"
        _common.print_json(
            {
                "endpoint": endpoint,
                "status": status,
                "model": zoo_model.model_id,
                "url": session.url,
            }
        )
        return
    print(endpoint)
    if no_wait:
        _common.say(f"It is being created. See `ridgeline describe {endpoint}`.")
    elif zoo_model.card.task == "text-generation":
        _common.say(f"Talk to it: ridgeline chat {endpoint}")
    else:
        _common.say(f"Ask it: ridgeline invoke {endpoint} --data '{{...}}'")
