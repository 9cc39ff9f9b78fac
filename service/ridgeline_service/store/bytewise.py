"""Text in the order of its code points, whatever collation a database was made with.

A listing whose order hung on the collation would change with the database. SQLite's order is this.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, ColumnElement, String
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class Bytewise(FunctionElement[str]):
    """A column of text, to sort and compare by."""

    name = "bytewise"
    type = String()
    inherit_cache = True


def in_order(column: Column[Any]) -> ColumnElement[Any]:
    """The column as listings sort and compare it."""
    return Bytewise(column) if isinstance(column.type, String) else column


@compiles(Bytewise)
def _plain(element: Bytewise, compiler: Any, **options: Any) -> str:
    return str(compiler.process(element.clauses, **options))


@compiles(Bytewise, "postgresql")
def _collated(element: Bytewise, compiler: Any, **options: Any) -> str:
    return f'{compiler.process(element.clauses, **options)} COLLATE "C"'
