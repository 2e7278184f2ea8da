"""Spaces: the boundary that runtimes live in (contract: spaces.md, 2.2 and 3.2)."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from gateway.core.errors import LimitReached, RequestInvalid
from gateway.core.ids import new_id, not_found
from gateway.core.scope import Scope
from gateway.domain.audit import Action, Audit
from gateway.domain.events.service import Events
from gateway.store import accounts, ai_connections, runtimes, spaces
from gateway.store.database import Connection, Database
from gateway.store.spaces import Space


class Spaces:
    def __init__(self, database: Database, region: str, audit: Audit, events: Events) -> None:
        self._database = database
        self._events = events
        self._region = region
        self._audit = audit

    async def create(self, owner: Scope, caller: Scope, values: dict[str, Any]) -> Space:
        """A new space of `owner`; raises RequestInvalid for a mount of what is not there for it."""
        space_id = new_id()
        with self._audit.noting(Action.SPACE_CREATED, space_id):
            async with self._database.begin() as connection:
                if owner.subaccount_id is not None:
                    await _check_limit(connection, owner, owner.subaccount_id)
                await _check_mounts(connection, owner, caller, values.get("mounts"))
                space = await spaces.add(
                    connection,
                    owner,
                    id=space_id,
                    name=values.get("name") or f"space-{space_id.hex[-8:]}",
                    region=values.get("region") or self._region,
                    mounts=values.get("mounts") or {},
                    metadata=values.get("metadata"),
                )
        self._events.update(owner, "space.created", _about(space))
        return space

    async def listed(self, scope: Scope) -> list[Space]:
        with self._audit.noting(Action.SPACE_READ):
            async with self._database.connect() as connection:
                return await spaces.listed(connection, scope)

    async def get(self, scope: Scope, space_id: UUID) -> Space:
        with self._audit.noting(Action.SPACE_READ, space_id):
            async with self._database.connect() as connection:
                return await find_space(connection, scope, space_id)

    async def change(self, scope: Scope, space_id: UUID, values: dict[str, Any]) -> Space:
        """Change the name or the mounts. Each kind of mount that is given replaces what was; null clears it."""
        with self._audit.noting(Action.SPACE_CHANGED, space_id) as noting:
            noting.details["fields"] = sorted(values)
            async with self._database.begin() as connection:
                space = await find_space(connection, scope, space_id, lock=True)
                changes = {"name": values["name"]} if "name" in values else {}
                if "mounts" in values:
                    await _check_mounts(connection, space.owner, scope, values["mounts"])
                    merged = {**space.mounts, **values["mounts"]}
                    changes["mounts"] = {kind: mount for kind, mount in merged.items() if mount is not None}
                return await spaces.change(connection, space_id, **changes) if changes else space

    async def want_runtimes_stopped(self, scope: Scope, space_id: UUID) -> list[UUID]:
        """The first step of a removal: nothing in the space is to live on. Returns what is still live."""
        with self._audit.noting(Action.SPACE_DELETED, space_id, failures_only=True):
            async with self._database.begin() as connection:
                await find_space(connection, scope, space_id, lock=True)
                await runtimes.want_stopped(connection, space_id=space_id)
                return await runtimes.live_in(connection, space_id)

    async def remove(self, scope: Scope, space_id: UUID) -> None:
        with self._audit.noting(Action.SPACE_DELETED, space_id):
            async with self._database.begin() as connection:
                space = await find_space(connection, scope, space_id, lock=True)
                await spaces.remove(connection, space_id)
        self._events.update(space.owner, "space.deleted", _about(space))


async def _check_limit(connection: Connection, owner: Scope, subaccount_id: UUID) -> None:
    """Raises LimitReached. The row's lock lets two requests of one subaccount count one after the other."""
    account = await accounts.subaccount(connection, owner, subaccount_id, lock=True)
    most = account.limits.get("maxSpaces") if account else None
    if most is not None and await spaces.count(connection, owner) >= most:
        raise LimitReached(
            f"This subaccount may have {most} spaces, and has them.",
            "subaccount.max_spaces",
            details={"limit": most},
            retry_after=60,
        )


async def _check_mounts(connection: Connection, owner: Scope, caller: Scope, mounts: dict[str, Any] | None) -> None:
    """Every AI connection that is named, by id or label, must be the owner's, or one that the caller may lend it."""
    named = _named_connections((mounts or {}).get("ai") or {})
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


def _named_connections(ai: dict[str, Any]) -> list[tuple[str, str]]:
    """Field and name of each AI connection in an `ai` mount."""
    named = [(f"mounts.ai.allowConnections.{i}", name) for i, name in enumerate(ai.get("allowConnections") or [])]
    for provider, default in (ai.get("defaults") or {}).items():
        if default is not None:
            named.append((f"mounts.ai.defaults.{provider}.connection", default["connection"]))
    return named


def _about(space: Space) -> dict[str, str]:
    """What updates say of a space."""
    return {"spaceId": str(space.id), "name": space.name}


async def find_space(connection: Connection, scope: Scope, space_id: UUID, *, lock: bool = False) -> Space:
    """A space that the caller sees; raises NotFound."""
    space = await spaces.get(connection, scope, space_id, lock=lock)
    if space is None:
        raise not_found("space", space_id)
    return space
