"""``ridgeline ls``: the endpoints of the service."""

from __future__ import annotations

from typing import Annotated

import typer

from ridgeline.cli import _common
from ridgeline.cli._common import AsJson, DataDir


def ls(
    contains: Annotated[
        str | None, typer.Argument(help="Only names that contain this.", show_default=False)
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """List the endpoints, newest first."""
    session = _common.open_session(data_dir)
    query = {"NameContains": contains} if contains else {}
    with session.call():
        pages = session.sagemaker_client.get_paginator("list_endpoints").paginate(
            SortBy="CreationTime", SortOrder="Descending", **query
        )
        endpoints = [item for page in pages for item in page["Endpoints"]]
    if as_json:
        _common.print_json(
            [
                {
                    "name": item["EndpointName"],
                    "status": item["EndpointStatus"],
                    "arn": item["EndpointArn"],
                    "created": item["CreationTime"],
                    "modified": item["LastModifiedTime"],
                }
                for item in endpoints
            ]
        )
        return
    if not endpoints:
        _common.say(
            f"No endpoint whose name contains {contains!r}. `ridgeline ls` lists all."
            if contains
            else "No endpoints. `ridgeline zoo ls` shows what can be deployed."
        )
        return
    rows = [
        (
            item["EndpointName"],
            item["EndpointStatus"],
            item["CreationTime"].astimezone().strftime("%Y-%m-%d %H:%M:%S"),
        )
        for item in endpoints
    ]
    _common.print_table(("NAME", "STATUS", "CREATED"), rows)
