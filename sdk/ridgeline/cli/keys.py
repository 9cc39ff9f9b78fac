"""``ridgeline keys``: who may use the service."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ridgeline.cli import _common
from ridgeline.cli._common import AsJson, DataDir
from ridgeline.errors import InvalidInput, NotFound

app = typer.Typer(help="Keys of the service.", no_args_is_help=True)


@app.command("ls")
def ls(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List the keys, without their secrets."""
    keys = _listed(_common.open_session(data_dir).api)
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
    if not name:
        raise InvalidInput("A key needs a name.", hint="Say what it is for, like ci.")
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
    key: Annotated[
        str, typer.Argument(metavar="ID", help="Id of the key, or its name if no other has it.")
    ],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Delete a key. It stops working at once."""
    api = _common.open_session(data_dir).api
    key_id = _id_of(key, _listed(api))
    api.delete("keys", key_id)
    if as_json:
        _common.print_json({"deleted": key_id})
    else:
        _common.say(f"Deleted {key_id}.")


def _listed(api: Any) -> list[dict[str, Any]]:
    body: Any = api.get("keys")
    found: list[dict[str, Any]] = body.get("keys", []) if isinstance(body, dict) else body
    return found


def _id_of(key: str, keys: list[dict[str, Any]]) -> str:
    """The id of the one key that has this id, or else this name."""
    if any(each["key_id"] == key for each in keys):
        return key
    named = [each["key_id"] for each in keys if each["name"] == key]
    if not named:
        raise NotFound(
            f"There is no key with the id or name {key!r}.", hint="See `ridgeline keys ls`."
        )
    if len(named) > 1:
        raise InvalidInput(
            f"{len(named)} keys have the name {key!r}: {', '.join(named)}.",
            hint="Name the one to delete by its id.",
        )
    return str(named[0])
