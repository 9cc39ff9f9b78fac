"""``ridgeline invoke``: send a body as it is, get the answer as it is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ridgeline.cli import _common
from ridgeline.cli._common import AsJson, DataDir, EndpointName
from ridgeline.errors import InvalidInput, NotFound


def invoke(
    endpoint: EndpointName,
    body: Annotated[
        str | None,
        typer.Argument(help="The body of the request; else standard input.", show_default=False),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", "-d", help="The same, as an option.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="A file with the body; '-' is standard input."),
    ] = None,
    content_type: Annotated[
        str, typer.Option("--content-type", help="Type of the body.")
    ] = "application/json",
    accept: Annotated[str, typer.Option("--accept", help="Type of the answer.")] = "*/*",
    variant: Annotated[
        str | None, typer.Option("--variant", help="Ask this variant.", show_default=False)
    ] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Print the answer as it comes.")] = False,
    run_async: Annotated[
        bool, typer.Option("--async", help="Queue the request and wait for the answer in S3.")
    ] = False,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="With --async: print where the answer will be.")
    ] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Send a request to an endpoint and print its answer."""
    if stream and run_async:
        raise InvalidInput("--stream and --async exclude each other.")
    if no_wait and not run_async:
        raise InvalidInput("--no-wait is of --async.", hint="Add --async, or drop --no-wait.")
    if body is not None and data is not None:
        raise InvalidInput("The body is given twice.", hint="Drop one of BODY and --data.")
    payload = _body(data if body is None else body, file)
    session = _common.open_session(data_dir)
    from ridgeline.deserializers import BytesDeserializer
    from ridgeline.predictor import Predictor  # boto3: not for --help
    from ridgeline.serializers import IdentitySerializer

    predictor = Predictor(
        endpoint,
        sagemaker_session=session,
        serializer=IdentitySerializer(content_type),
        deserializer=BytesDeserializer(accept),
    )
    if run_async:
        _invoke_async(predictor, payload, no_wait=no_wait, as_json=as_json)
    elif stream:
        parts = predictor.stream(payload, target_variant=variant)
        if as_json:
            _print_answer(endpoint, b"".join(parts), as_json=True)
            return
        last = b"\n"
        for part in parts:
            sys.stdout.buffer.write(part)
            sys.stdout.buffer.flush()
            last = part[-1:] or last
        if last != b"\n" and _on_a_terminal():
            print(flush=True)
    else:
        answer = predictor.predict(payload, target_variant=variant)
        _print_answer(endpoint, answer, as_json=as_json)


def _body(data: str | None, file: Path | None) -> bytes:
    if data is not None and file is not None:
        raise InvalidInput("A body and --file exclude each other.")
    if data is not None:
        return data.encode()
    if file is not None and str(file) != "-":
        try:
            return file.read_bytes()
        except FileNotFoundError:
            raise NotFound(f"{file} does not exist.") from None
        except OSError as error:
            raise InvalidInput(f"{file} cannot be read: {error.strerror}.") from None
    if file is None and sys.stdin.isatty():
        raise InvalidInput("There is nothing to send.", hint="Give a body, --file or a pipe.")
    return sys.stdin.buffer.read()


def _invoke_async(predictor: Any, body: bytes, *, no_wait: bool, as_json: bool) -> None:
    result = predictor.predict_async(body)
    if no_wait:
        if as_json:
            _common.print_json(
                {
                    "endpoint": predictor.endpoint_name,
                    "inference_id": result.inference_id,
                    "output": result.output_path,
                    "failure": result.failure_path,
                }
            )
        else:
            print(result.output_path)
        return
    _print_answer(predictor.endpoint_name, result.get_result(), as_json=as_json)


def _print_answer(endpoint: str, answer: bytes, *, as_json: bool) -> None:
    if as_json:
        _common.print_json({"endpoint": endpoint, "body": answer.decode(errors="replace")})
        return
    sys.stdout.buffer.write(answer)
    if not answer.endswith(b"\n") and (_on_a_terminal() or _is_json(answer)):
        sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()


def _on_a_terminal() -> bool:
    return sys.stdout.isatty()


def _is_json(answer: bytes) -> bool:
    """Whether it is a JSON object or list: a text, whose last line should end."""
    if not answer.lstrip().startswith((b"{", b"[")):
        return False
    try:
        json.loads(answer)
    except ValueError:
        return False
    return True
