"""Pages of a table that stay right while rows come and go.

A page ends at a row, not at a count: the token holds the sort value and the ARN of the last row
given, so an insert or a delete before it moves nothing. Knows no table.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ColumnElement, Select, and_, or_

from ridgeline.errors import InvalidInput
from ridgeline_service.store.bytewise import in_order

_BIGGEST = 2**63 - 1


@dataclass(frozen=True)
class Order:
    """How a listing is sorted: by one column, ties by ARN."""

    key: str
    descending: bool


def after(
    statement: Select[tuple[object, ...]],
    order: Order,
    column: Column[object],
    arn: Column[str],
    token: str | None,
) -> Select[tuple[object, ...]]:
    """The statement, sorted, from behind the row that ``token`` names.

    Raises InvalidInput for a token that we did not give out, or gave out for another order.
    """
    by, tie = in_order(column), in_order(arn)
    if token is not None:
        value, last = _decode(token, order, column.type.python_type)
        statement = statement.where(_beyond(order, by, tie, value, last))
    return statement.order_by(*(each.desc() if order.descending else each for each in (by, tie)))


def token_for(order: Order, value: int | float | str, arn: str) -> str:
    raw = json.dumps([order.key, order.descending, value, arn], separators=(",", ":"))
    return base64.urlsafe_b64encode(raw.encode()).decode().rstrip("=")


def next_token(
    rows: Sequence[object], limit: int, order: Order, value: int | float | str, arn: str
) -> str | None:
    """A token behind the last row given, if a further row was found beyond the limit."""
    return token_for(order, value, arn) if len(rows) > limit else None


def _beyond(
    order: Order, column: ColumnElement[Any], arn: ColumnElement[str], value: object, last: str
) -> ColumnElement[bool]:
    if order.descending:
        return or_(column < value, and_(column == value, arn < last))
    return or_(column > value, and_(column == value, arn > last))


def _decode(token: str, order: Order, kind: type) -> tuple[int | float | str, str]:
    """The sort value, of the ``kind`` that its column has, and the ARN."""
    try:
        raw = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        key, descending, value, arn = raw
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidInput("NextToken was not given out by this service") from error
    if [key, descending] != [order.key, order.descending]:
        raise InvalidInput("NextToken belongs to a listing with another SortBy or SortOrder")
    # A boolean is an int to Python, and no sort value of ours.
    well_typed = type(value) is kind and isinstance(arn, str)
    if not well_typed or not (_storable(value) and _storable(arn)):
        raise InvalidInput("NextToken was not given out by this service")
    return value, arn


def _storable(value: int | float | str) -> bool:
    """Whether a column could hold it: no NUL, no lone surrogate, no more than 64 bits."""
    if isinstance(value, str):
        return value.isprintable()
    return isinstance(value, float) or abs(value) <= _BIGGEST
