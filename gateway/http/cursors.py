"""Pages of lists, and their cursors: where a page ended, in a form that callers only hand back."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Protocol, TypeVar
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

    def part(self, listing: Listing) -> Slice:
        """The page, and one row more, by which `cut` knows that there is another page."""
        return Slice(self.limit + 1, listing.after(self.cursor))


class WholeListQuery(Query):
    """As PageQuery, for lists that the contract has without pages: without `limit` they are sent whole."""

    cursor: Cursor = optional()
    """The `nextCursor` of the previous page."""
    limit: Annotated[int, Field(ge=1, le=200)] = optional()
    """Items in a page; without it, all that follow are sent."""

    def part(self, listing: Listing) -> Slice:
        limit: int | None = self.limit
        return Slice(None if limit is None else limit + 1, listing.after(self.cursor))


class _Created(Protocol):
    @property
    def id(self) -> UUID: ...
    @property
    def created_at(self) -> datetime: ...


Created = TypeVar("Created", bound=_Created)


class Listing:
    """One list with its filters. Its cursors name it, so that one of another list does not skip rows of this one."""

    def __init__(self, name: str, query: Query, *scope: UUID, **changed: Any) -> None:
        """`scope`: ids of what it is a list of. Filters are the query's, but for `changed`, where None is no filter."""
        given = query.model_dump(mode="json", exclude={"cursor", "limit"}, exclude_defaults=True) | changed
        filters = {name: value for name, value in given.items() if value is not None}
        self._name = name
        self._scope = ",".join(map(str, scope))
        self._filters = _hash(filters) if filters else ""

    def cursor(self, place: str, identifier: UUID) -> str:
        text = f"{self._name}|{self._scope}|{self._filters}|{identifier}|{place}"
        return base64.urlsafe_b64encode(text.encode()).decode()

    def read(self, given: str) -> tuple[str, UUID]:
        """Raises RequestInvalid for text that is not a cursor of this list."""
        try:
            text = base64.b64decode(given, b"-_", validate=True).decode()
            name, scope, filters, identifier, place = text.split("|", 4)
            if "\x00" in place:
                raise ValueError(given)
            position = place, UUID(identifier)
        except (ValueError, binascii.Error):
            raise invalid_cursor(given) from None
        if (name, scope) != (self._name, self._scope):
            raise invalid_field("cursor", "This is a cursor of another list", given)
        if filters != self._filters:
            raise invalid_field("cursor", "This is a cursor of this list with other filters", given)
        return position

    def after(self, given: str | None) -> tuple[datetime, UUID] | None:
        """As `read`, of a list that is sorted by times; None for the first page."""
        if given is None:
            return None
        place, identifier = self.read(given)
        try:
            return datetime.fromisoformat(place).astimezone(UTC), identifier
        except (ValueError, OverflowError):
            raise invalid_cursor(given) from None

    def behind(self, row: _Created) -> str:
        """The cursor of a list that is sorted by times, of what follows the row."""
        return self.cursor(row.created_at.isoformat(), row.id)


def paged(found: list[Created], limit: int | None, listing: Listing) -> tuple[list[Created], str | None]:
    """As `cut`, of a list in the order of creation; all of it for a limit of None."""
    if limit is None:
        return found, None
    return cut(found, limit, listing.behind)


def following_page(
    found: list[Created], query: WholeListQuery, listing: Listing
) -> tuple[list[Created], dict[str, str]]:
    """The rows of the page, and `next_cursor` for an answer that has it only where there is a next page."""
    page, following = paged(found, query.limit, listing)
    return page, {} if following is None else {"next_cursor": following}


def cut(found: list[Row], limit: int, position: Callable[[Row], str]) -> tuple[list[Row], str | None]:
    """The first `limit` rows, and the cursor of the next page; None where this is the last.

    `found` was read with a limit of one more.
    """
    page = found[:limit]
    return page, position(page[-1]) if len(found) > limit else None


def _hash(filters: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(filters, sort_keys=True).encode(), digest_size=6).hexdigest()


def invalid_cursor(given: str) -> RequestInvalid:
    return invalid_field("cursor", "This is not a cursor; give the nextCursor of the page before", given)
