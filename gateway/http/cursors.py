"""Pages of lists, and their cursors: where a page ended, in a form that callers only hand back."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Protocol, TypeVar
from uuid import UUID

from pydantic import Field

from gateway.core.errors import RequestInvalid, invalid_field
from gateway.core.slices import Slice
from gateway.http.models import Query, Shown, optional

Row = TypeVar("Row")

# As queries have them; they are checked where they are read, which knows what they are cursors of.
Cursor = Annotated[str, Shown(minLength=1, format="cursor")]
Sequence = Annotated[str, Shown(pattern="^[0-9]{1,18}$")]


class PageQuery(Query):
    """Parameters of every list: a page of it, in the order of creation."""

    cursor: Cursor = optional()
    """The `nextCursor` of the previous page."""
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    """Items in a page."""

    def part(self) -> Slice:
        """The page, and one row more, by which `cut` knows that there is another page."""
        return Slice(self.limit + 1, read_time_cursor(self.cursor))


class WholeListQuery(Query):
    """As PageQuery, for lists that the contract has without pages: without `limit` they are sent whole."""

    cursor: Cursor = optional()
    """The `nextCursor` of the previous page."""
    limit: Annotated[int, Field(ge=1, le=200)] = optional()
    """Items in a page; without it, all that follow are sent."""

    def part(self) -> Slice:
        limit: int | None = self.limit
        return Slice(None if limit is None else limit + 1, read_time_cursor(self.cursor))


class _Created(Protocol):
    @property
    def id(self) -> UUID: ...
    @property
    def created_at(self) -> datetime: ...


Created = TypeVar("Created", bound=_Created)


def paged(found: list[Created], limit: int | None) -> tuple[list[Created], str | None]:
    """As `cut`, of a list in the order of creation; all of it for a limit of None."""
    if limit is None:
        return found, None
    return cut(found, limit, lambda row: time_cursor(row.created_at, row.id))


def following_page(found: list[Created], query: WholeListQuery) -> tuple[list[Created], dict[str, str]]:
    """The rows of the page, and `next_cursor` for an answer that has it only where there is a next page."""
    page, following = paged(found, query.limit)
    return page, {} if following is None else {"next_cursor": following}


def cut(found: list[Row], limit: int, position: Callable[[Row], str]) -> tuple[list[Row], str | None]:
    """The first `limit` rows, and the cursor of the next page; None where this is the last.

    `found` was read with a limit of one more.
    """
    page = found[:limit]
    return page, position(page[-1]) if len(found) > limit else None


def cursor(place: str, identifier: UUID) -> str:
    return base64.urlsafe_b64encode(f"{identifier}|{place}".encode()).decode()


def read_cursor(given: str) -> tuple[str, UUID]:
    """Raises RequestInvalid for text that is not a cursor."""
    try:
        identifier, found, place = base64.b64decode(given, b"-_", validate=True).decode().partition("|")
        if not found or "\x00" in place:
            raise ValueError(given)
        return place, UUID(identifier)
    except (ValueError, binascii.Error):
        raise _invalid(given) from None


def time_cursor(time: datetime, identifier: UUID) -> str:
    return cursor(time.isoformat(), identifier)


def read_time_cursor(given: str | None) -> tuple[datetime, UUID] | None:
    """As read_cursor, of a list that is sorted by times; None for the first page."""
    if given is None:
        return None
    place, identifier = read_cursor(given)
    try:
        return datetime.fromisoformat(place).astimezone(UTC), identifier
    except (ValueError, OverflowError):
        raise _invalid(given) from None


def _invalid(given: str) -> RequestInvalid:
    return invalid_field("cursor", "This is not a cursor; give the nextCursor of the page before", given)
