"""Deleting endpoints with what they were made of, but for what others are made of too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ridgeline._endpoints import Parts, config_models, describe, parts
from ridgeline._names import unstamped
from ridgeline._waiting import wait_until_deleted
from ridgeline.errors import NotFound
from ridgeline.session import Session


def delete_failed(session: Session, name: str) -> str:
    """Delete endpoint ``name`` and wait until it is gone; the words for what was deleted.

    Its configuration and models go with it only if their names say that a deploy made them.
    """
    found = parts(session, name)
    with session.call():
        session.sagemaker_client.delete_endpoint(EndpointName=name)
    words = f"endpoint {name}"
    if _made_by_deploy(found):
        kept = delete_parts(session, [found], models=True)
        words += f", its configuration {found.config} and its model {', '.join(found.models)}"
        words += f", but not {', '.join(kept)}" if kept else ""
    wait_until_deleted(session, name)
    return words


def _made_by_deploy(found: Parts) -> bool:
    of_endpoint = found.endpoint in (found.config, unstamped(found.config))
    return of_endpoint and all(unstamped(model) is not None for model in found.models)


def delete_parts(session: Session, gone: Sequence[Parts], *, models: bool) -> list[str]:
    """Delete the configurations of endpoints that are deleted, and their models if ``models``.

    A configuration that another endpoint has stays, and a model that another configuration names.
    Returns a line for each thing that stayed, with who needs it.
    """
    kept: list[str] = []
    deleted = {part.endpoint for part in gone}
    configs = {part.config for part in gone if part.config}
    for config, endpoint in _configs_in_use(session, deleted) if configs else ():
        if config in configs:
            configs.discard(config)
            kept.append(f"endpoint configuration {config}, which endpoint {endpoint} has")
    for config in sorted(configs):
        _delete(session, "EndpointConfig", config)
    if not models:
        return kept
    unused = {model for part in gone for model in part.models}
    for model, config in _models_in_use(session) if unused else ():
        if model in unused:
            unused.discard(model)
            kept.append(f"model {model}, which endpoint configuration {config} names")
    for model in sorted(unused):
        _delete(session, "Model", model)
    return kept


def _configs_in_use(session: Session, deleted: set[str]) -> Iterator[tuple[str, str]]:
    """(configuration, endpoint) of the endpoints that stay, and what they are changing to."""
    for name in _names(session, "list_endpoints", "Endpoints", "EndpointName"):
        if name in deleted:
            continue
        try:
            found = describe(session, name)
        except NotFound:
            continue
        yield str(found["EndpointConfigName"]), name
        if "PendingDeploymentSummary" in found:
            yield str(found["PendingDeploymentSummary"]["EndpointConfigName"]), name


def _models_in_use(session: Session) -> Iterator[tuple[str, str]]:
    """(model, configuration) of all configurations."""
    for name in _names(session, "list_endpoint_configs", "EndpointConfigs", "EndpointConfigName"):
        for model in config_models(session, name) or ():
            yield model, name


def _names(session: Session, call: str, items: str, field: str) -> list[str]:
    with session.call():
        pages = session.sagemaker_client.get_paginator(call).paginate()
        return [str(item[field]) for page in pages for item in page.get(items, ())]


def _delete(session: Session, kind: str, name: str) -> None:
    client = session.sagemaker_client
    delete = client.delete_model if kind == "Model" else client.delete_endpoint_config
    try:
        with session.call():
            delete(**{f"{kind}Name": name})
    except NotFound:
        # Gone already: that is what was asked for.
        pass
