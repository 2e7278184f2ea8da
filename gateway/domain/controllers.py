"""The controller of a runtime: leases of one API key, one invocation of an agent, or people who may act in a live view.

An invocation has the runtime for itself. Leases of several API keys exclude each other; those of one key do not, and
neither do a lease and a live view: a script that waits for a person is usual. The gateway's own leases hold nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from uuid import UUID

from gateway.core.errors import Conflict
from gateway.core.moments import iso
from gateway.store.controllers import Holder, HolderKind

__all__ = ["Controllers", "Holder", "HolderKind", "busy"]

_NOUNS = {"connection": "a connection of another API key", "invocation": "an invocation", "viewer": "a live view"}
_FREED = {
    "connection": "revoke it, or wait until it expires",
    "invocation": "cancel it, or wait until it has ended",
    "viewer": "close it, or wait until it expires",
}


def busy(holder: Holder, *, for_invocation: bool = False) -> Conflict:
    """The refusal of what would control a runtime besides its holder."""
    noun = "a connection" if for_invocation and holder.kind == "connection" else _NOUNS[holder.kind]
    return Conflict(
        f"The runtime is controlled by {noun}; {_FREED[holder.kind]}.",
        "runtime.controller_busy",
        details={
            "heldBy": {"type": holder.kind, "id": str(holder.id)},
            "since": iso(holder.since),
            "until": None if holder.until is None else iso(holder.until),
        },
    )


class Controllers:
    """Live views and agents that control browsers of this gateway. Both come to the gateway that has the browser, so
    this needs no row; leases, which any gateway mints, are compared with invocations by the database."""

    def __init__(self, *, locked: bool = True) -> None:
        self._locked = locked
        self._viewers: dict[UUID, list[Holder]] = {}
        self._agents: set[UUID] = set()

    @contextlib.contextmanager
    def viewing(self, runtime_id: UUID, viewer: Holder) -> Iterator[None]:
        """A live view with input is open, for the block."""
        self._viewers.setdefault(runtime_id, []).append(viewer)
        try:
            yield
        finally:
            self._viewers[runtime_id].remove(viewer)
            if not self._viewers[runtime_id]:
                del self._viewers[runtime_id]

    def check_viewers(self, runtime_id: UUID) -> None:
        """Raises Conflict where a live view with input is open."""
        if self._locked and (viewers := self._viewers.get(runtime_id)):
            raise busy(viewers[0], for_invocation=True)

    def begin(self, runtime_id: UUID) -> None:
        """An agent has the runtime from now on, until `end`."""
        self._agents.add(runtime_id)

    def end(self, runtime_id: UUID) -> None:
        self._agents.discard(runtime_id)

    def is_held(self, runtime_id: UUID) -> bool:
        """Whether an agent has the runtime, so that input of people is not for its browser."""
        return self._locked and runtime_id in self._agents
