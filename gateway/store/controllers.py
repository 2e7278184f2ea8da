"""What holds a runtime: a lease of an API key, or an invocation. It is read from their rows: no end has to free it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

HolderKind = Literal["connection", "invocation", "viewer"]

_LOCK = 0x686F6C64


@dataclass(frozen=True, slots=True)
class Holder:
    """What controls a runtime, since when, and until when at most."""

    kind: HolderKind
    id: UUID
    since: datetime
    until: datetime | None


# Of `holder_of`, for the statement that writes what is to hold the runtime.
HOLDER_COLUMNS = (
    "holder.kind AS held_by, holder.id AS holder_id, holder.since AS held_since, holder.until AS held_until"
)


def holder_of(runtime: str, by_key: str) -> str:
    """SQL of the rows of the function `runtime_holder`: none where the runtime is free for this API key, or for an
    invocation where `by_key` is null. Statements of one runtime that have it are executed one after the other."""
    return f"runtime_holder({_LOCK}, {runtime}, {by_key})"
