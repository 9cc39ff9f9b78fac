"""What all List calls share: filters, sorting, pages. Defaults are SageMaker's."""

from __future__ import annotations

import base64
import json
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias, TypeVar

from ridgeline.errors import InvalidInput
from ridgeline_service.control.names import micros_of
from ridgeline_service.errors import ValidationException
from ridgeline_service.store.paging import Order
from ridgeline_service.store.resources import ListFilter

T = TypeVar("T")
Key: TypeAlias = tuple[str | int, ...]

DEFAULT_PAGE = 10
_RESERVED_TAGS = "aws:"

_COLUMNS = {"Name": "name", "CreationTime": "created_at", "Status": "status"}


def list_filter(request: Mapping[str, Any], default_order: str = "Descending") -> ListFilter:
    """``default_order`` is the SortOrder of a request without one, which differs by resource."""
    order = Order(
        key=_COLUMNS[request.get("SortBy", "CreationTime")],
        descending=request.get("SortOrder", default_order) == "Descending",
    )
    return ListFilter(
        order=order,
        limit=request.get("MaxResults", DEFAULT_PAGE),
        token=request.get("NextToken"),
        name_contains=request.get("NameContains"),
        created_before=micros_of(request.get("CreationTimeBefore")),
        created_after=micros_of(request.get("CreationTimeAfter")),
        modified_before=micros_of(request.get("LastModifiedTimeBefore")),
        modified_after=micros_of(request.get("LastModifiedTimeAfter")),
        status=request.get("StatusEquals"),
    )


@contextmanager
def bad_token_refused() -> Iterator[None]:
    """A token that is not ours, in SageMaker's words."""
    try:
        yield
    except InvalidInput as error:
        raise ValidationException(f"Invalid NextToken: {error.message}.") from error


def page_after(
    found: Iterable[T],
    key: Callable[[T], Key],
    *,
    listing: str,
    limit: int,
    token: str | None,
    descending: bool = False,
) -> tuple[Sequence[T], str | None]:
    """Of a listing that is short, and read as a whole each time: what follows the key that
    ``token`` holds, ``limit`` of it sorted by keys, and the next token. So a row may go while its
    token is out. Raises InvalidInput for what is no token of this ``listing``.
    """
    rows = sorted(found, key=key, reverse=descending)
    if token is not None:
        try:
            of, *last = json.loads(base64.urlsafe_b64decode(token.encode()))
            if of != listing:
                raise ValueError(of)
            later = operator.lt if descending else operator.gt
            rows = [each for each in rows if later(key(each), tuple(last))]
        except (ValueError, TypeError) as error:
            raise InvalidInput("NextToken is not one that this listing gave.") from error
    page = rows[:limit]
    if len(rows) <= limit:
        return page, None
    said = json.dumps([listing, *key(page[-1])])
    return page, base64.urlsafe_b64encode(said.encode()).decode()


def with_token(response: dict[str, Any], token: str | None) -> dict[str, Any]:
    return response if token is None else {**response, "NextToken": token}


def tags_in(request: Mapping[str, Any]) -> dict[str, str]:
    """The tags of a Create or AddTags call.

    Raises ValidationException for a key given twice, and for one under AWS's own prefix.
    """
    found: dict[str, str] = {}
    for index, tag in enumerate(request.get("Tags") or (), start=1):
        if tag["Key"].lower().startswith(_RESERVED_TAGS):
            raise ValidationException(
                f"1 validation error detected: Value '{tag['Key']}' at 'tags.{index}.member.key' "
                f"failed to satisfy constraint: {_RESERVED_TAGS} prefixed tag key names are not "
                "allowed for external use."
            )
        if tag["Key"] in found:
            raise ValidationException(f"Duplicate tag key {tag['Key']!r}: keys must be unique.")
        found[tag["Key"]] = tag["Value"]
    return found
