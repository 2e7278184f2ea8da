"""Reading the audit log: `gateway audit verify` walks its chain, `gateway audit export` prints it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from gateway.core.errors import ConfigurationError, GatewayError
from gateway.crypto import audit_chain as chain
from gateway.store import audit as store
from gateway.store.audit import Record
from gateway.store.database import Database

_PAGE = 1000
# Before every number that a row can have. The first row is 1, but an attacker may have added one before it.
_FIRST_OF_ALL = -(2**63)


@dataclass(frozen=True, slots=True)
class Head:
    """A place in the log: a sequence number and the hash of its event, as text `sequence:hash`."""

    sequence: int
    hash: bytes

    @classmethod
    def parse(cls, given: str) -> Head:
        match = re.fullmatch(r"(\d{1,18}):([0-9a-f]{64})", given)
        if match is None:
            raise ValueError("is not SEQUENCE:HASH, as `gateway audit verify` prints it")
        return cls(int(match[1]), bytes.fromhex(match[2]))

    def __str__(self) -> str:
        return f"{self.sequence}:{self.hash.hex()}"


BEGINNING = Head(0, chain.START)


class ChainBroken(GatewayError):
    """Raised for a log that is not as it was written; `sequence` is the first number that is wrong."""

    default_code = "audit.broken"

    def __init__(self, sequence: int, why: str) -> None:
        super().__init__(f"The audit log was tampered with: event {sequence} {why}.", details={"sequence": sequence})
        self.sequence = sequence


async def verify(
    database: Database, *, after: Head = BEGINNING, pinned: Head | None = None, page_size: int = _PAGE
) -> tuple[int, Head]:
    """Walk the log behind `after`; returns the number of events there, and the head. Raises ChainBroken.

    `pinned` is a head from earlier, which must still be in the log.
    """
    if pinned is not None and pinned.sequence <= after.sequence and pinned != after:
        raise ConfigurationError(f"The pinned head ({pinned.sequence}) is not after the anchor ({after.sequence}).")
    head, events = after, 0
    behind = after.sequence if after.sequence else _FIRST_OF_ALL
    while True:
        async with database.connect() as connection:
            found = await store.page(connection, behind, page_size)
        for record in found:
            head = _next(head, record)
            if pinned is not None and head.sequence == pinned.sequence and head.hash != pinned.hash:
                raise ChainBroken(head.sequence, "is not the one that was pinned")
        events, behind = events + len(found), head.sequence
        if len(found) < page_size:
            break
    if pinned is not None and pinned.sequence > head.sequence:
        raise ChainBroken(head.sequence + 1, f"is missing; the log was pinned at {pinned.sequence}")
    return events, head


def _next(head: Head, record: Record) -> Head:
    """The head once `record` is found to follow. Raises ChainBroken."""
    entry = record.entry
    if entry.sequence <= head.sequence:
        raise ChainBroken(entry.sequence, "is before the first one")
    if entry.sequence != head.sequence + 1:
        raise ChainBroken(head.sequence + 1, "is missing")
    if entry.previous_hash != head.hash:
        raise ChainBroken(entry.sequence, "does not follow the one before it")
    try:
        form = chain.Form(entry.form)
    except ValueError:
        raise ChainBroken(entry.sequence, f"has the unknown form {entry.form}") from None
    if chain.digest(entry.members(), form) != record.hash:
        raise ChainBroken(entry.sequence, "was changed")
    return Head(entry.sequence, record.hash)


async def export(
    database: Database, *, since: datetime | None = None, organization_id: UUID | None = None, page_size: int = _PAGE
) -> AsyncIterator[list[str]]:
    """The log as lines of JSON, page by page: the hashed members of each event, in its own form, and its `hash`."""
    after = _FIRST_OF_ALL
    while True:
        async with database.connect() as connection:
            found = await store.page(connection, after, page_size, since=since, organization_id=organization_id)
        if not found:
            return
        yield [_line(record) for record in found]
        after = found[-1].entry.sequence


def _line(record: Record) -> str:
    # Exported whatever it is: an entry whose form is unknown was tampered with, and `verify` says so.
    form = chain.Form(record.entry.form) if record.entry.form in set(chain.Form) else chain.LATEST
    return chain.canonical(record.entry.members() | {"hash": record.hash.hex()}, form).decode()
