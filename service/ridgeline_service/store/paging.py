"""Pages of a table that stay right while rows come and go.

A page ends at a row, not at a count: the token holds the sort value and the ARN of the last row
given, so an insert or a delete before it moves nothing. Knows no table.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Column, ColumnElement, Select, and_, or_

from ridgeline.errors import InvalidInput


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
    columns = (column.desc(), arn.desc()) if order.descending else (column.asc(), arn.asc())
    if token is not None:
        value, last = _decode(token, order)
        statement = statement.where(_beyond(order, column, arn, value, last))
    return statement.order_by(*columns)


def token_for(order: Order, value: int | float | str, arn: str) -> str:
    raw = json.dumps([order.key, order.descending, value, arn], separators=(",", ":"))
    return base64.urlsafe_b64encode(raw.encode()).decode().rstrip("=")


def next_token(
    rows: Sequence[object], limit: int, order: Order, value: int | float | str, arn: str
) -> str | None:
    """A token behind the last row given, if a further row was found beyond the limit."""
    return token_for(order, value, arn) if len(rows) > limit else None


def _beyond(
    order: Order, column: Column[object], arn: Column[str], value: object, last: str
) -> ColumnElement[bool]:
    if order.descending:
        return or_(column < value, and_(column == value, arn < last))
    return or_(column > value, and_(column == value, arn > last))


def _decode(token: str, order: Order) -> tuple[int | float | str, str]:
    try:
        raw = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        key, descending, value, arn = raw
    except (ValueError, TypeError, binascii.Error) as error:
        raise InvalidInput("NextToken was not given out by this service") from error
    # A boolean is an int to Python, and neither is a sort value of ours.
    well_typed = type(value) in (int, float, str) and isinstance(arn, str)
    if not well_typed or [key, descending] != [order.key, order.descending]:
        raise InvalidInput("NextToken belongs to a listing with another SortBy or SortOrder")
    return value, arn
