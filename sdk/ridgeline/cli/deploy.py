"""``ridgeline deploy``: an endpoint from a model of the zoo, of the hub, or of one's own."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ridgeline.cli import _common
from ridgeline.cli._common import AsJson, DataDir
from ridgeline.errors import AlreadyExists, InvalidInput, NotFound

if TYPE_CHECKING:
    from ridgeline.model import Model
    from ridgeline.predictor import Predictor
    from ridgeline.session import Session

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[^@\s]+)?")
_PACES = ("real-time", "none")
_SIMULATED = ("inf", "trn")


def deploy(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Id of a model of the zoo (see `ridgeline zoo ls`) or of the Hugging Face hub "
            "(ORG/NAME); or weights of your own: ./FOLDER, ./model.tar.gz or s3://...",
            autocompletion=_common.complete_model,
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            help="Name of the endpoint, which is its model name in OpenAI's API.",
            show_default="after the model or the folder",
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
    framework: Annotated[
        str | None,
        typer.Option(
            "--framework",
            help="What runs the inference.py of weights of your own: pytorch, huggingface or "
            "sklearn.",
            show_default="after what lies there",
        ),
    ] = None,
    entry_point: Annotated[
        Path | None,
        typer.Option(
            "--entry-point",
            metavar="FILE",
            help="An inference.py for weights of your own that have none in code/.",
        ),
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
    """Deploy a model and wait until it serves. A failed endpoint of that name is replaced."""
    from ridgeline._names import check_name

    if name is not None:
        check_name(name, "--name")
    environment = _common.parse_pairs(env or [], "--env")
    if pace is not None:
        if pace not in _PACES:
            raise InvalidInput(f"--pace {pace} is none.", hint=f"There is: {', '.join(_PACES)}.")
        environment["RIDGELINE_PACE"] = pace
    session = _common.open_session(data_dir)
    made, base_name = _model(model, session, environment, framework, entry_point)
    if pace == "real-time":
        _check_pace(instance_type or made.default_instance_type)
    predictor = _deploy(
        made,
        name or base_name,
        initial_instance_count=count,
        instance_type=instance_type,
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
                "model": getattr(made, "model_id", model),
                "url": session.url,
            }
        )
        return
    print(endpoint)
    if no_wait:
        _common.say(f"It is being created. See `ridgeline describe {endpoint}`.")
    else:
        _common.say(_next_step(made, endpoint))


def _model(
    text: str,
    session: Session,
    env: Mapping[str, str],
    framework: str | None,
    entry_point: Path | None,
) -> tuple[Model, str]:
    """What MODEL means, and a name after it. Raises NotFound, and InvalidInput for what only
    weights of one's own have."""
    from ridgeline._names import clean_name

    # boto3: not for --help
    from ridgeline.own_model import GGUF_HINT, NO_GGUF, OwnModel, is_place, place_name
    from ridgeline.zoo import ZooModel

    if is_place(text):
        script = None if entry_point is None else str(entry_point)
        own = OwnModel(
            text, env=env, sagemaker_session=session, framework=framework, entry_point=script
        )
        return own, place_name(text)
    _check_id(text)
    if framework is not None or entry_point is not None:
        raise InvalidInput(
            f"{text} is served by the image of its card.",
            hint="--framework and --entry-point are for weights of your own: ./FOLDER or s3://...",
        )
    try:
        model = ZooModel(text, env=env, sagemaker_session=session)
        return model, clean_name(model.model_id)
    except NotFound as error:
        if Path(text).is_file() and text.endswith(".gguf"):
            raise InvalidInput(f"{text}: {NO_GGUF}", hint=GGUF_HINT) from None
        if Path(text).exists():
            raise NotFound(
                error.message, hint=f"`ridgeline deploy ./{text}` deploys what lies there."
            ) from None
        if "/" not in text:
            raise
        if not _HUB_ID.fullmatch(text):
            raise NotFound(
                f"There is no model {text!r}.",
                hint="A model of the hub is ORG/NAME or ORG/NAME@REVISION; weights of your own "
                "are ./FOLDER or s3://...",
            ) from None
    return _hub_model(text, session, env)


def _check_id(text: str) -> None:
    """Raises InvalidInput for what is neither an id nor a place."""
    if not text or "://" in text:
        raise InvalidInput(
            f"{text!r} is no model.",
            hint="Give an id of `ridgeline zoo ls`, ORG/NAME of the hub, ./FOLDER or s3://...",
        )


def _hub_model(hub_id: str, session: Session, env: Mapping[str, str]) -> tuple[Model, str]:
    """A model of the hub that no card stands for, which the service fetches."""
    from ridgeline._names import clean_name, unique_name

    # boto3: not for --help
    from ridgeline.model import Model
    from ridgeline.own_model import LLM_IMAGE

    name = clean_name(hub_id.partition("/")[2].partition("@")[0])
    model = Model(
        LLM_IMAGE.format(region=session.region),
        env={"HF_MODEL_ID": hub_id, **env},
        name=unique_name(name, session.clock),
        sagemaker_session=session,
    )
    return model, name


def _check_pace(instance_type: str) -> None:
    if not instance_type.removeprefix("ml.").startswith(_SIMULATED):
        raise InvalidInput(
            f"--pace real-time: {instance_type} is not simulated and has no pace but this "
            "machine's.",
            hint="Types with a pace are ml.inf2, ml.trn1 and ml.trn2: --instance-type "
            "ml.inf2.xlarge.",
        )


def _deploy(model: Model, name: str, **options: Any) -> Predictor:
    """Deploy as endpoint ``name``, in the place of one that failed."""
    # boto3: not for --help
    from ridgeline._deletion import delete_failed
    from ridgeline._endpoints import describe

    session = model.sagemaker_session
    try:
        return model.deploy(endpoint_name=name, **options)
    except AlreadyExists:
        if describe(session, name)["EndpointStatus"] != "Failed":
            raise
    _common.say(f"Endpoint {name!r} had failed: it is deployed anew.")
    _common.say(f"Deleted {delete_failed(session, name)}.")
    return model.deploy(endpoint_name=name, **options)


def _next_step(model: Model, endpoint: str) -> str:
    # boto3: not for --help
    from ridgeline.own_model import OwnModel
    from ridgeline.zoo import ZooModel

    if isinstance(model, OwnModel) and model.framework:
        return f"Ask it: ridgeline invoke {endpoint} --file REQUEST.json"
    body: object = {"inputs": "Hello"}
    if isinstance(model, ZooModel):
        if model.card.task == "text-generation":
            return f"Talk to it: ridgeline chat {endpoint}"
        body = next((each["body"] for each in model.card.body.get("example_payloads", ())), body)
    data = shlex.quote(json.dumps(body, ensure_ascii=False))
    return f"Ask it: ridgeline invoke {endpoint} --data {data}"
