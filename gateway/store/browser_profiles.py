"""Saved profiles of browsers; their states are objects (objects.py)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, TypedDict, Unpack
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    String,
    and_,
    case,
    cast,
    delete,
    func,
    insert,
    not_,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.errors import Conflict
from gateway.core.runtime_config import RuntimeConfig
from gateway.core.scope import Scope
from gateway.core.slices import WHOLE_LIST, Slice
from gateway.store.rows import by_name
from gateway.store.scope import owner_columns, within
from gateway.store.slices import sliced
from gateway.store.tables import browser_profiles, gateways, runtimes, secrets

# Of the keys of objects; the rest is the object's id.
PREFIX = "profiles/"


@dataclass(frozen=True, slots=True)
class SavedState:
    """What was saved last: an object and its sizes. `size_bytes` is of the browser's files, `stored_bytes` of the
    object."""

    object_id: UUID
    size_bytes: int
    stored_bytes: int
    browser: str


@dataclass(frozen=True, slots=True)
class Use:
    """The runtime that may save a profile. `is_live`: it has not ended, else it is being saved; `space_id` and `alias`
    are None where the runtime is gone."""

    runtime_id: UUID
    is_live: bool
    space_id: UUID | None
    alias: str | None


@dataclass(frozen=True, slots=True)
class BrowserProfile:
    id: UUID
    organization_id: UUID
    subaccount_id: UUID | None
    name: str
    config: RuntimeConfig
    metadata: dict[str, Any] | None
    browser: str | None
    object_id: UUID | None
    generation: int
    size_bytes: int
    stored_bytes: int
    last_used_at: datetime | None
    saved_at: datetime | None
    save_error_code: str | None
    save_error_message: str | None
    created_at: datetime
    updated_at: datetime
    used_by: Use | None

    @property
    def owner(self) -> Scope:
        return Scope(self.organization_id, self.subaccount_id)


@dataclass(frozen=True, slots=True)
class NewProfile:
    id: UUID
    name: str
    config: RuntimeConfig
    metadata: dict[str, Any] | None
    state: SavedState | None = None


class ProfileChanges(TypedDict, total=False):
    """Fields of a change; absent ones stay."""

    name: str
    config: RuntimeConfig
    metadata: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Totals:
    """Number of profiles, and bytes of their objects."""

    profiles: int
    stored_bytes: int


_OWN = tuple(browser_profiles.c[field.name] for field in fields(BrowserProfile) if field.name != "used_by")


def _gateway_lives(silent_seconds: int) -> ColumnElement[bool]:
    return (
        select(gateways.c.id)
        .where(
            gateways.c.id == browser_profiles.c.gateway_id,
            gateways.c.heartbeat_at >= func.now() - func.make_interval(0, 0, 0, 0, 0, 0, silent_seconds),
        )
        .exists()
    )


def _rows(silent_seconds: int) -> Select[Any]:
    used = case((_gateway_lives(silent_seconds), browser_profiles.c.runtime_id)).label("runtime_id")
    return select(
        *_OWN,
        used,
        runtimes.c.space_id,
        runtimes.c.alias,
        runtimes.c.status,
    ).select_from(browser_profiles.outerjoin(runtimes, runtimes.c.id == browser_profiles.c.runtime_id))


def _profile(row: Row[Any]) -> BrowserProfile:
    values = by_name(row)
    runtime_id, space_id, alias, status = (values.pop(name) for name in ("runtime_id", "space_id", "alias", "status"))
    used_by = None
    if runtime_id is not None:
        used_by = Use(runtime_id, status in ("starting", "active"), space_id, alias)
    config = values.pop("config")
    return BrowserProfile(
        **values, config=RuntimeConfig.from_json(config, config.pop("event_level", None)), used_by=used_by
    )


def _config(config: RuntimeConfig) -> dict[str, Any]:
    level = {} if config.event_level is None else {"event_level": config.event_level}
    return config.to_json() | level


def _exactly(owner: Scope) -> ColumnElement[bool]:
    return and_(
        browser_profiles.c.organization_id == owner.organization_id,
        browser_profiles.c.subaccount_id.is_not_distinct_from(owner.subaccount_id),
    )


async def totals(
    connection: AsyncConnection, organization_id: UUID, subaccount_id: UUID | None
) -> tuple[Totals, Totals]:
    """Of an organization with all its subaccounts, and of the subaccount, if there is one."""
    of_subaccount = browser_profiles.c.subaccount_id == subaccount_id
    row = (
        await connection.execute(
            select(
                func.count(),
                func.coalesce(func.sum(browser_profiles.c.stored_bytes), 0),
                func.count().filter(of_subaccount),
                func.coalesce(func.sum(browser_profiles.c.stored_bytes).filter(of_subaccount), 0),
            ).where(browser_profiles.c.organization_id == organization_id)
        )
    ).one()
    return Totals(row[0], int(row[1])), Totals(row[2], int(row[3]))


async def add(connection: AsyncConnection, owner: Scope, new: NewProfile) -> None:
    """Raises IntegrityError where the owner has a profile of that name."""
    state = new.state
    saved = {} if state is None else {**_of_state(state), "generation": 1, "saved_at": func.now()}
    await connection.execute(
        insert(browser_profiles).values(
            **owner_columns(owner), id=new.id, name=new.name, config=_config(new.config), metadata=new.metadata, **saved
        )
    )


def _of_state(state: SavedState) -> dict[str, Any]:
    return {field.name: getattr(state, field.name) for field in fields(SavedState)}


async def listed(
    connection: AsyncConnection, scope: Scope, silent_seconds: int, part: Slice = WHOLE_LIST
) -> list[BrowserProfile]:
    query = _rows(silent_seconds).where(within(scope, browser_profiles))
    return [_profile(row) for row in await connection.execute(sliced(query, browser_profiles, part))]


async def get(
    connection: AsyncConnection, scope: Scope, profile_id: UUID, silent_seconds: int, *, lock: bool = False
) -> BrowserProfile | None:
    """`lock`: until the end of the transaction nothing else changes it or uses it."""
    wanted = (within(scope, browser_profiles), browser_profiles.c.id == profile_id)
    if lock:
        # A statement of its own: one that had to wait for the lock has read the rows of runtimes before.
        await connection.execute(select(browser_profiles.c.id).where(*wanted).with_for_update())
    row = (await connection.execute(_rows(silent_seconds).where(*wanted))).first()
    return None if row is None else _profile(row)


async def named(connection: AsyncConnection, owner: Scope, name: str, silent_seconds: int) -> BrowserProfile | None:
    """The profile of exactly this owner with this id or name; an id comes first."""
    query = _rows(silent_seconds).where(
        _exactly(owner), or_(cast(browser_profiles.c.id, String) == name.lower(), browser_profiles.c.name == name)
    )
    is_named = browser_profiles.c.name == name
    row = (await connection.execute(query.order_by(is_named).limit(1))).first()
    return None if row is None else _profile(row)


async def is_taken(connection: AsyncConnection, owner: Scope, name: str) -> bool:
    """Whether exactly this owner has a profile of this name."""
    query = select(browser_profiles.c.id).where(_exactly(owner), browser_profiles.c.name == name)
    return (await connection.execute(query)).first() is not None


async def change(connection: AsyncConnection, profile_id: UUID, **changes: Unpack[ProfileChanges]) -> None:
    """Raises IntegrityError where the owner has another profile of that name."""
    values: dict[str, Any] = dict(changes)
    if "config" in changes:
        values["config"] = _config(changes["config"])
    await connection.execute(
        update(browser_profiles).where(browser_profiles.c.id == profile_id).values(**values, updated_at=func.now())
    )


async def remove(connection: AsyncConnection, profile_id: UUID) -> None:
    """Remove a profile with its secrets: the password of its proxy, and the data key of its state."""
    removed = (
        delete(browser_profiles)
        .where(browser_profiles.c.id == profile_id)
        .returning(browser_profiles.c.id, browser_profiles.c.object_id)
        .cte("removed")
    )
    await connection.execute(
        delete(secrets).where(or_(secrets.c.id == removed.c.id, secrets.c.id == removed.c.object_id)).add_cte(removed)
    )


async def forget_state(connection: AsyncConnection, profile_id: UUID) -> None:
    """Remove what was saved, and the data key of it."""
    old = select(browser_profiles.c.object_id).where(browser_profiles.c.id == profile_id).scalar_subquery()
    await connection.execute(delete(secrets).where(secrets.c.id == old))
    await connection.execute(
        update(browser_profiles)
        .where(browser_profiles.c.id == profile_id)
        .values(
            object_id=None,
            browser=None,
            size_bytes=0,
            stored_bytes=0,
            saved_at=None,
            save_error_code=None,
            save_error_message=None,
            generation=browser_profiles.c.generation + 1,
            updated_at=func.now(),
        )
    )


# A profile is used by one runtime

_LOST = ("browser_profile.not_saved", "The gateway was lost before the profile was saved.")


async def claim(
    connection: AsyncConnection, profile_id: UUID, runtime_id: UUID, gateway_id: UUID, silent_seconds: int
) -> bool:
    """Make a runtime the one that may save it; False where another one is, whose gateway lives. What a lost gateway
    did not save is noted as such."""
    is_free = browser_profiles.c.runtime_id.is_(None)
    code, message = _LOST
    claimed = await connection.execute(
        update(browser_profiles)
        .where(browser_profiles.c.id == profile_id, or_(is_free, not_(_gateway_lives(silent_seconds))))
        .values(
            runtime_id=runtime_id,
            gateway_id=gateway_id,
            last_used_at=func.now(),
            save_error_code=case((is_free, browser_profiles.c.save_error_code), else_=code),
            save_error_message=case((is_free, browser_profiles.c.save_error_message), else_=message),
        )
        .returning(browser_profiles.c.id)
    )
    return claimed.first() is not None


async def note_use(connection: AsyncConnection, profile_id: UUID) -> None:
    await connection.execute(
        update(browser_profiles).where(browser_profiles.c.id == profile_id).values(last_used_at=func.now())
    )


async def release(connection: AsyncConnection, profile_id: UUID, runtime_id: UUID) -> None:
    """Let others use it, if this runtime does."""
    await connection.execute(
        update(browser_profiles)
        .where(browser_profiles.c.id == profile_id, browser_profiles.c.runtime_id == runtime_id)
        .values(runtime_id=None, gateway_id=None)
    )


async def release_of(connection: AsyncConnection, gateway_id: UUID, code: str, message: str) -> int:
    """Let others use all that a gateway used, and write why it was not saved; returns how many there were."""
    released = await connection.execute(
        update(browser_profiles)
        .where(browser_profiles.c.gateway_id == gateway_id, browser_profiles.c.runtime_id.is_not(None))
        .values(runtime_id=None, gateway_id=None, save_error_code=code, save_error_message=message)
        .returning(browser_profiles.c.id)
    )
    return len(released.all())


async def save_failed(connection: AsyncConnection, profile_id: UUID, runtime_id: UUID, code: str, message: str) -> None:
    """Write why the state of a runtime could not be saved, and let others use the profile, if this runtime does."""
    await connection.execute(
        update(browser_profiles)
        .where(browser_profiles.c.id == profile_id, browser_profiles.c.runtime_id == runtime_id)
        .values(runtime_id=None, gateway_id=None, save_error_code=code, save_error_message=message)
    )


async def has_state(connection: AsyncConnection, profile_id: UUID, object_id: UUID) -> bool:
    """Whether this object is what a profile has."""
    query = select(browser_profiles.c.id).where(
        browser_profiles.c.id == profile_id, browser_profiles.c.object_id == object_id
    )
    return (await connection.execute(query)).first() is not None


_SAVE = text(
    """
    WITH before AS (
        SELECT id, object_id FROM browser_profiles
        WHERE id = :id AND runtime_id = :runtime_id AND generation = :generation FOR UPDATE
    ), moved AS (
        UPDATE browser_profiles SET object_id = :object_id, size_bytes = :size_bytes, stored_bytes = :stored_bytes,
            browser = :browser, generation = generation + 1, saved_at = now(), save_error_code = NULL,
            save_error_message = NULL, runtime_id = NULL, gateway_id = NULL
        FROM before WHERE browser_profiles.id = before.id
    ), forgotten AS (
        DELETE FROM secrets USING before WHERE secrets.id = before.object_id
    )
    SELECT id, object_id FROM before
    """
)


async def save(
    connection: AsyncConnection, profile_id: UUID, runtime_id: UUID, generation: int, state: SavedState
) -> UUID | None:
    """Let a profile have a new state, and end the use by the runtime that saved it; returns the object of the state
    before, whose data key goes. Raises Conflict where the runtime does not use this generation of it any more."""
    values = {"id": profile_id, "runtime_id": runtime_id, "generation": generation, **_of_state(state)}
    row = (await connection.execute(_SAVE, values)).first()
    if row is None:
        raise Conflict("Another runtime uses this browser profile by now.", "browser_profile.in_use")
    before: UUID | None = row.object_id
    return before
