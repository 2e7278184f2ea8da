"""Spaces: the boundary that runtimes live in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from gateway.core.endings import SPACE_CLOSED, SPACE_DELETED, Ending
from gateway.core.errors import Conflict, LimitReached, RequestInvalid
from gateway.core.ids import new_id, not_found
from gateway.core.mounts import AiMount, MountChanges, Mounts
from gateway.core.scope import Scope
from gateway.core.slices import WHOLE_LIST, Slice
from gateway.domain.audit import Action, Audit
from gateway.domain.events.service import Events
from gateway.domain.proxies import check_known
from gateway.store import accounts, ai_connections, runtimes, spaces
from gateway.store.database import Connection, Database
from gateway.store.spaces import NewSpace, Space, SpaceChanges

__all__ = ["Space", "SpaceRequest", "Spaces", "find_space", "space_closed"]


EndRuntimes = Callable[[Iterable[UUID], Ending], Awaitable[None]]
# Of one space to another one; returns how many.
MoveFiles = Callable[[Connection, UUID, UUID], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class SpaceRequest:
    """A caller's request; None takes the default."""

    name: str | None = None
    region: str | None = None
    mounts: Mounts = field(default_factory=Mounts)
    metadata: dict[str, Any] | None = None


class Spaces:
    def __init__(
        self,
        database: Database,
        region: str,
        audit: Audit,
        events: Events,
        end_runtimes: EndRuntimes,
        move_files: MoveFiles,
    ) -> None:
        """`end_runtimes` returns once the runtimes have ended, on whichever gateways they are."""
        self._database = database
        self._end_runtimes = end_runtimes
        self._move_files = move_files
        self._events = events
        self._region = region
        self._audit = audit

    async def create(self, owner: Scope, caller: Scope, request: SpaceRequest) -> Space:
        """A new space of `owner`; raises RequestInvalid for a mount of what does not exist for it, LimitReached."""
        space_id = new_id()
        with self._audit.noting(Action.SPACE_CREATED, space_id):
            async with self._database.begin() as connection:
                if owner.subaccount_id is not None:
                    await _check_limit(connection, owner, owner.subaccount_id)
                await _check_connections(connection, owner, caller, request.mounts.ai)
                await check_known(connection, owner, caller, request.mounts.proxies)
                new = NewSpace(
                    id=space_id,
                    name=request.name or f"space-{space_id.hex[-8:]}",
                    region=request.region or self._region,
                    mounts=request.mounts,
                    metadata=request.metadata,
                )
                space = await spaces.add(connection, owner, new)
        self._events.update(owner, "space.created", _about(space))
        return space

    async def listed(self, scope: Scope, part: Slice = WHOLE_LIST) -> list[Space]:
        with self._audit.noting(Action.SPACE_READ):
            async with self._database.connect() as connection:
                return await spaces.listed(connection, scope, part)

    async def get(self, scope: Scope, space_id: UUID) -> Space:
        with self._audit.noting(Action.SPACE_READ, space_id):
            async with self._database.connect() as connection:
                return await find_space(connection, scope, space_id)

    async def change(
        self, scope: Scope, space_id: UUID, *, name: str | None = None, mounts: MountChanges | None = None
    ) -> Space:
        """Change the name or the mounts; what is None stays. Raises NotFound, RequestInvalid as `create` does.

        Files of a storage that other spaces share stay in it when this one mounts another: the oldest of these has
        them then. Where none does, they come along.
        """
        with self._audit.noting(Action.SPACE_CHANGED, space_id) as noting:
            noting.details["fields"] = [
                kind for kind, value in (("mounts", mounts), ("name", name)) if value is not None
            ]
            async with self._database.begin() as connection:
                space = await find_space(connection, scope, space_id, lock=mounts is None or "storage" not in mounts)
                changes: SpaceChanges = {}
                if name is not None:
                    changes["name"] = name
                if mounts is not None:
                    heir = None
                    if "storage" in mounts:
                        space, heir = await _locked_with_heir(connection, space_id)
                    ai = mounts.get("ai")
                    await _check_connections(connection, space.owner, scope, None if ai is None else AiMount(**ai))
                    await check_known(connection, space.owner, scope, mounts.get("proxies"))
                    changes["mounts"] = space.mounts.changed(mounts)
                    if heir is not None and replace(space, mounts=changes["mounts"]).storage != space.storage:
                        noting.details |= await self._leave_files(connection, space_id, heir)
                return await spaces.change(connection, space_id, **changes) if changes else space

    async def close(self, scope: Scope, space_id: UUID) -> Space:
        """End the space's runtimes and let none be launched in it any more; again, it returns it as it is.

        Raises NotFound, Unavailable.
        """
        with self._audit.noting(Action.SPACE_CLOSED, space_id):
            async with self._database.begin() as connection:
                was_open = (await find_space(connection, scope, space_id, lock=True)).closed_at is None
                space = await spaces.close(connection, space_id)
                await runtimes.want_stopped(connection, space_id=space_id)
                live = await runtimes.live_in(connection, space_id)
        # From here on it is closed, whatever becomes of its runtimes.
        if was_open:
            self._events.update(space.owner, "space.closed", _about(space))
        # No transaction is open while browsers end, which takes time.
        await self._end_runtimes(live, SPACE_CLOSED)
        return space

    async def delete(self, scope: Scope, space_id: UUID) -> None:
        """End the space's runtimes, then remove it with its runs and leases. Raises NotFound, Unavailable.

        Files of a storage that other spaces share stay in it: the oldest of these has them then.
        """
        # No transaction is open while browsers end, which takes time.
        await self._end_runtimes(await self._want_runtimes_stopped(scope, space_id), SPACE_DELETED)
        with self._audit.noting(Action.SPACE_DELETED, space_id) as noting:
            async with self._database.begin() as connection:
                await find_space(connection, scope, space_id)
                space, heir = await _locked_with_heir(connection, space_id)
                if heir is not None:
                    noting.details |= await self._leave_files(connection, space_id, heir)
                await spaces.remove(connection, space_id)
        self._events.update(space.owner, "space.deleted", _about(space))

    async def _leave_files(self, connection: Connection, space_id: UUID, heir: Space) -> dict[str, Any]:
        """Leave the files of a space to another one that shares its storage; returns what the audit log says of it."""
        moved = await self._move_files(connection, space_id, heir.id)
        return {"filesMoved": moved, "filesMovedTo": str(heir.id)}

    async def _want_runtimes_stopped(self, scope: Scope, space_id: UUID) -> list[UUID]:
        """Want all runtimes of the space stopped; returns those that are still live."""
        with self._audit.noting(Action.SPACE_DELETED, space_id, failures_only=True):
            async with self._database.begin() as connection:
                await find_space(connection, scope, space_id, lock=True)
                await runtimes.want_stopped(connection, space_id=space_id)
                return await runtimes.live_in(connection, space_id)


async def _locked_with_heir(connection: Connection, space_id: UUID) -> tuple[Space, Space | None]:
    """The space, and the oldest of the others that share its storage, both locked. Raises NotFound."""
    while True:
        locked = await spaces.lock_sharing(connection, space_id)
        space = next((each for each in locked if each.id == space_id), None)
        if space is None:
            raise not_found("space", space_id)
        # Until they were locked, one may have mounted another storage: if it was this one, others share that.
        others = [each for each in locked if each.id != space_id]
        sharing = [each for each in others if each.storage == space.storage]
        if sharing or not others:
            return space, min(sharing, key=lambda each: (each.created_at, each.id), default=None)


async def _check_limit(connection: Connection, owner: Scope, subaccount_id: UUID) -> None:
    """Raises LimitReached. The row's lock lets two requests of one subaccount count one after the other."""
    account = await accounts.subaccount(connection, owner, subaccount_id, lock=True)
    most = account.limits.max_spaces if account else None
    if most is not None and await spaces.count(connection, owner) >= most:
        raise LimitReached(
            f"This subaccount may have {most} spaces, and has them.",
            "subaccount.max_spaces",
            details={"limit": most},
            retry_after=60,
        )


async def _check_connections(connection: Connection, owner: Scope, caller: Scope, ai: AiMount | None) -> None:
    """Every AI connection that is named, by id or label, must be the owner's, or one that the caller may lend it."""
    named = list(ai.connections()) if ai is not None else []
    if not named:
        return
    known = await ai_connections.known_names(
        connection, owner, {name for _, name in named}, shared=caller.subaccount_id is None
    )
    errors = [
        {
            "field": field,
            "message": f"There is no AI connection {name!r} that this space may use; give the id or label of one.",
            "value": name,
            "code": "ai_connection.not_found",
        }
        for field, name in named
        if name not in known
    ]
    if errors:
        raise RequestInvalid("A mount names an AI connection that is not there.", details={"errors": errors})


def _about(space: Space) -> dict[str, str]:
    """A space in updates."""
    return {"spaceId": str(space.id), "name": space.name}


def space_closed(space_id: UUID) -> Conflict:
    return Conflict(
        f"The space {str(space_id)!r} is closed; nothing can be launched in it.",
        "space.closed",
        details={"id": str(space_id)},
    )


async def find_space(connection: Connection, scope: Scope, space_id: UUID, *, lock: bool = False) -> Space:
    """A space that the caller sees; raises NotFound."""
    space = await spaces.get(connection, scope, space_id, lock=lock)
    if space is None:
        raise not_found("space", space_id)
    return space
