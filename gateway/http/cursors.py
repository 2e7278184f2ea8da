"""Cursors of lists: where a page ended, in a form that callers only hand back (contract: spaces.md, 4.10)."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime
from typing import NoReturn
from uuid import UUID

from gateway.core.errors import RequestInvalid

_SHOWN = 100


def cursor(place: str, identifier: UUID) -> str:
    return base64.urlsafe_b64encode(f"{identifier}|{place}".encode()).decode()


def read_cursor(given: str) -> tuple[str, UUID]:
    """Raises RequestInvalid for what is no cursor."""
    try:
        identifier, found, place = base64.b64decode(given, b"-_", validate=True).decode().partition("|")
        if not found or "\x00" in place:
            raise ValueError(given)
        return place, UUID(identifier)
    except (ValueError, binascii.Error):
        _refuse(given)


def moment_cursor(moment: datetime, identifier: UUID) -> str:
    return cursor(moment.isoformat(), identifier)


def read_moment_cursor(given: str) -> tuple[datetime, UUID]:
    """As read_cursor, of a list that is in the order of times."""
    place, identifier = read_cursor(given)
    try:
        return datetime.fromisoformat(place).astimezone(UTC), identifier
    except (ValueError, OverflowError):
        _refuse(given)


def _refuse(given: str) -> NoReturn:
    message = "This is no cursor; give the nextCursor of the page before"
    raise RequestInvalid(
        f"The request is not valid: cursor: {message}.",
        details={"errors": [{"field": "cursor", "message": message, "value": given[:_SHOWN], "code": "field.invalid"}]},
    ) from None
