"""Pages of Application Auto Scaling's listings, which are short: all of one is read each time."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from ridgeline_service.errors import AwsError, ValidationException

_LARGEST = 50

T = TypeVar("T")


class InvalidNextToken(AwsError):
    """A token that is not of this listing, or of one whose row is gone."""

    code = "InvalidNextTokenException"
    http_status = 400


def page_of(
    found: Sequence[T], request: Mapping[str, Any], key: Callable[[T], str]
) -> tuple[Sequence[T], str | None]:
    """What follows the row that NextToken names, as many as MaxResults; and the next token.
    Raises ValidationException and InvalidNextToken."""
    limit = request.get("MaxResults", _LARGEST)
    if not 1 <= limit <= _LARGEST:
        raise ValidationException(f"MaxResults is {limit}: from 1 to {_LARGEST}.")
    token = request.get("NextToken")
    if token is not None:
        keys = [key(each) for each in found]
        try:
            last = base64.urlsafe_b64decode(token.encode()).decode()
            found = found[keys.index(last) + 1 :]
        except (ValueError, binascii.Error) as error:
            raise InvalidNextToken("NextToken is not one that this listing gave.") from error
    page = found[:limit]
    if len(found) <= limit:
        return page, None
    return page, base64.urlsafe_b64encode(key(page[-1]).encode()).decode()
