"""Pages of Application Auto Scaling's listings, which are short: all of one is read each time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from ridgeline.errors import InvalidInput
from ridgeline_service.control.listing import Key, page_after
from ridgeline_service.errors import AwsError, ValidationException

_LARGEST = 50

T = TypeVar("T")


class Named(Protocol):
    """A row of a target that is known by a name."""

    @property
    def name(self) -> str: ...
    @property
    def arn(self) -> str: ...
    @property
    def resource_id(self) -> str: ...


N = TypeVar("N", bound=Named)


class InvalidNextToken(AwsError):
    """A token that is not of this listing, or of one whose row is gone."""

    code = "InvalidNextTokenException"
    http_status = 400


def page_of_named(
    found: Sequence[N], request: Mapping[str, Any], names: str
) -> tuple[Sequence[N], str | None]:
    """The same of those that the request asks for: by its member ``names``, by ResourceId."""
    wanted, resource_id = request.get(names), resource_filter(request)
    kept = [
        each
        for each in found
        if (not wanted or each.name in wanted or each.arn in wanted)
        and resource_id in (None, each.resource_id)
    ]
    return page_of(kept, request, names, key=lambda each: (each.resource_id, each.name))


def resource_filter(request: Mapping[str, Any]) -> str | None:
    """The ResourceId of a listing, None for all. Raises ValidationException."""
    if "ResourceId" not in request and "ScalableDimension" in request:
        raise ValidationException("ScalableDimension is given without a ResourceId.")
    return request.get("ResourceId")


def page_of(
    found: Sequence[T],
    request: Mapping[str, Any],
    listing: str,
    key: Callable[[T], Key],
    *,
    descending: bool = False,
) -> tuple[Sequence[T], str | None]:
    """What follows the row that NextToken names, as many as MaxResults; and the next token.
    Raises ValidationException and InvalidNextToken."""
    limit, token = request.get("MaxResults", _LARGEST), request.get("NextToken")
    if not 1 <= limit <= _LARGEST:
        raise ValidationException(f"MaxResults is {limit}: from 1 to {_LARGEST}.")
    try:
        return page_after(
            found, key, listing=listing, limit=limit, token=token, descending=descending
        )
    except InvalidInput as error:
        raise InvalidNextToken(error.message) from error
