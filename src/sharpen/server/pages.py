"""Lists a page at a time: `{"object": "list", "data", "first_id", "last_id", "has_more"}`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, or_
from sqlalchemy.sql.elements import KeyedColumnElement

from sharpen.server.errors import invalid

Shown = Mapping[str, Any]
Order = Literal["asc", "desc"]


def page(
    connection: Connection,
    query: Select[Any],
    by: tuple[KeyedColumnElement[Any], ...],
    show: Callable[[Row[Any]], Shown],
    *,
    id: KeyedColumnElement[Any],
    after: str | None,
    limit: int,
    order: Order = "desc",
) -> dict[str, Any]:
    """The rows of a query in the order of the columns `by`, from the one past the id `after`.

    Raises APIError where the query has no row `after`.
    """
    if after is not None:
        known = "\0" not in after  # PostgreSQL takes no such text
        cursor = connection.execute(query.with_only_columns(*by).where(id == after)).first() if known else None
        if cursor is None:
            raise invalid(f"`after` names no object of this list (got {after[:80]!r})", "after")
        query = query.where(_past(by, tuple(cursor), order))
    query = query.order_by(*(column.desc() if order == "desc" else column.asc() for column in by)).limit(limit + 1)
    rows = connection.execute(query).all()
    data = [show(row) for row in rows[:limit]]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return {"object": "list", "data": data, **ends, "has_more": len(rows) > limit}


def _past(by: tuple[KeyedColumnElement[Any], ...], cursor: tuple[Any, ...], order: Order) -> ColumnElement[bool]:
    """Rows that come after a cursor, in lexicographic order of the columns."""
    steps = []
    for place, column in enumerate(by):
        beyond = column < cursor[place] if order == "desc" else column > cursor[place]
        steps.append(and_(*(by[same] == cursor[same] for same in range(place)), beyond))
    return or_(*steps)
