"""Ids: UUIDs of version 7, made here; and reading those that callers give."""

from __future__ import annotations

from uuid import UUID

import uuid_utils.compat

from gateway.core.errors import NotFound


def new_id() -> UUID:
    return uuid_utils.compat.uuid7()


def not_found(noun: str, given: object) -> NotFound:
    """The one answer for an id that never was and for one that is not the caller's."""
    shown = str(given)[:100]
    return NotFound(f"There is no {noun.replace('_', ' ')} {shown!r}.", f"{noun}.not_found", details={"id": shown})


def parse_id(given: str, noun: str) -> UUID:
    """Path parameters are untyped in the contract, so any text is accepted, and one that is not an id is not found."""
    try:
        parsed = UUID(given)
    except ValueError:
        raise not_found(noun, given) from None
    if str(parsed) != given.lower():
        raise not_found(noun, given)
    return parsed
