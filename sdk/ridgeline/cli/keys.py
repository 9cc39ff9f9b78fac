"""``ridgeline keys``: who may use the service."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ridgeline.cli import _common
from ridgeline.cli._common import AsJson, DataDir

app = typer.Typer(help="Keys of the service.", no_args_is_help=True)


@app.command("ls")
def ls(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List the keys, without their secrets."""
    body: Any = _common.open_session(data_dir).api.get("keys")
    keys = body.get("keys", []) if isinstance(body, dict) else body
    if as_json:
        _common.print_json(keys)
        return
    rows = [
        (
            key.get("key_id") or key.get("id", ""),
            key.get("name", ""),
            key.get("access_key_id", ""),
            key.get("created_at") or key.get("created", ""),
            key.get("requests_per_minute") or "-",
            key.get("tokens_per_minute") or "-",
        )
        for key in keys
    ]
    columns = ("ID", "NAME", "ACCESS KEY", "CREATED", "REQUESTS/MIN", "TOKENS/MIN")
    _common.print_table(columns, rows)


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    requests_per_minute: Annotated[
        int | None, typer.Option(min=1, help="Inference requests a minute; 429 beyond.")
    ] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option(min=1, help="Tokens a minute, of prompts and answers.")
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a key. Its secrets are shown this once."""
    limits = {
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
    }
    body = {"name": name, **{limit: n for limit, n in limits.items() if n is not None}}
    key: Any = _common.open_session(data_dir).api.post("keys", body=body)
    if as_json:
        _common.print_json(key)
        return
    _common.say("These are shown once and cannot be had again:")
    print(f"AWS_ACCESS_KEY_ID={key.get('access_key_id', '')}")
    print(f"AWS_SECRET_ACCESS_KEY={key.get('secret_access_key', '')}")
    print(f"OPENAI_API_KEY={key.get('api_key', '')}")


@app.command("rm")
def rm(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the key.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Delete a key. It stops working at once."""
    _common.open_session(data_dir).api.delete("keys", key_id)
    if as_json:
        _common.print_json({"deleted": key_id})
    else:
        _common.say(f"Deleted {key_id}.")
