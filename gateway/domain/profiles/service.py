"""Saved profiles of browsers: a launch configuration, and the state that a browser left, from which others start."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypedDict, Unpack, cast
from uuid import UUID

from gateway.core.errors import Conflict, GatewayError, Unavailable
from gateway.core.ids import new_id, not_found
from gateway.core.runtime_config import RuntimeConfig
from gateway.core.scope import Scope
from gateway.core.sealed import SecretOwner
from gateway.core.slices import WHOLE_LIST, Slice
from gateway.domain.audit import Action, Audit
from gateway.domain.events.service import Events
from gateway.domain.extensions.service import Extensions
from gateway.domain.profiles.launched import RuntimeProfile
from gateway.domain.profiles.limits import ProfileLimits
from gateway.domain.profiles.saving import ProfileSaves, publish
from gateway.domain.profiles.states import ProfileStates, State
from gateway.domain.proxies import check_own
from gateway.domain.secrets import SecretStore
from gateway.settings import ProfileSettings
from gateway.store import browser_profiles
from gateway.store.browser_profiles import BrowserProfile, NewProfile, ProfileChanges, SavedState
from gateway.store.database import Connection, Database, constraint_as
from gateway.telemetry import metrics

__all__ = ["BrowserProfile", "Changes", "ProfileRequest", "Profiles", "UseOfProfile"]

# Between two looks at a profile that is still being saved.
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class UseOfProfile:
    """A profile that a runtime is to be launched from, by its id or name. `read_only`: nothing is saved, and others may
    use it too."""

    name: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class ProfileRequest:
    """A caller's request for a new profile. `proxy_password` is that of the config's proxy."""

    name: str
    config: RuntimeConfig = field(default_factory=RuntimeConfig)
    metadata: dict[str, Any] | None = None
    proxy_password: str | None = field(default=None, repr=False)


class Changes(TypedDict, total=False):
    """Fields of a change; absent ones stay. `proxy_password` goes with `config`."""

    name: str
    config: RuntimeConfig
    metadata: dict[str, Any] | None
    proxy_password: str | None


class Profiles:
    def __init__(
        self,
        database: Database,
        secrets: SecretStore,
        states: ProfileStates,
        settings: ProfileSettings,
        audit: Audit,
        events: Events,
        extensions: Extensions,
        *,
        gateway_id: UUID,
        silent_seconds: int,
    ) -> None:
        """`silent_seconds`: a gateway without a heartbeat for so long is lost, and uses no profile any more."""
        self._limits = ProfileLimits(settings)
        self.saves = ProfileSaves(database, states, self._limits, settings, audit, events, gateway_id=gateway_id)
        self._gateway_id = gateway_id
        self._database = database
        self._secrets = secrets
        self._states = states
        self._settings = settings
        self._audit = audit
        self._events = events
        self._extensions = extensions
        self._silent_seconds = silent_seconds

    async def create(self, owner: Scope, request: ProfileRequest) -> BrowserProfile:
        """A new profile, without a state. Raises Conflict (the name is taken), LimitReached, RequestInvalid (its config
        names a saved proxy that is not there), and what `Extensions.chosen` raises for the extensions of its config."""
        profile_id = new_id()
        with self._audit.noting(Action.BROWSER_PROFILE_CREATED, profile_id):
            async with self._database.begin() as connection:
                await self._limits.check_number(connection, owner)
                await check_own(connection, owner, request.config.proxy)
                new = NewProfile(profile_id, request.name, request.config, request.metadata)
                await self._add(connection, owner, new, request.proxy_password)
                made = await self._find(connection, owner, profile_id)
        publish(self._events, "created", made)
        return made

    async def _add(self, connection: Connection, owner: Scope, new: NewProfile, proxy_password: str | None) -> None:
        with constraint_as(_name_taken(new.name)):
            await browser_profiles.add(connection, owner, new)
        await self._extensions.use_in_profile(connection, owner, new.id, new.config.extension_ids)
        if proxy_password is not None:
            await self._secrets.put(connection, proxy_secret(owner, new.id), proxy_password)

    async def listed(self, scope: Scope, part: Slice = WHOLE_LIST) -> list[BrowserProfile]:
        with self._audit.noting(Action.BROWSER_PROFILE_READ):
            async with self._database.connect() as connection:
                return await browser_profiles.listed(connection, scope, self._silent_seconds, part)

    async def get(self, scope: Scope, profile_id: UUID) -> BrowserProfile:
        with self._audit.noting(Action.BROWSER_PROFILE_READ, profile_id):
            async with self._database.connect() as connection:
                return await self._find(connection, scope, profile_id)

    async def change(self, scope: Scope, profile_id: UUID, **changes: Unpack[Changes]) -> BrowserProfile:
        """Change what is given; a new config replaces the one that was. Raises NotFound (also an extension), Conflict
        (the name), RequestInvalid as `create` does."""
        with self._audit.noting(Action.BROWSER_PROFILE_CHANGED, profile_id) as noting:
            noting.details["fields"] = sorted(name for name in changes if name != "proxy_password")
            async with self._database.begin() as connection:
                found = await self._find(connection, scope, profile_id, lock=True)
                if "config" in changes:
                    await check_own(connection, found.owner, changes["config"].proxy)
                    await self._extensions.use_in_profile(
                        connection, found.owner, profile_id, changes["config"].extension_ids
                    )
                    await self._secrets.remove(connection, profile_id)
                    password = changes.pop("proxy_password", None)
                    if password is not None:
                        await self._secrets.put(connection, proxy_secret(found.owner, profile_id), password)
                with constraint_as(_name_taken(changes.get("name", found.name))):
                    await browser_profiles.change(connection, profile_id, **cast(ProfileChanges, changes))
                return await self._find(connection, scope, profile_id)

    async def remove(self, scope: Scope, profile_id: UUID) -> None:
        """Remove a profile with its state, after a save that is in progress. Raises NotFound, Conflict (in use)."""
        with self._audit.noting(Action.BROWSER_PROFILE_DELETED, profile_id):
            await self._unsaving(lambda connection: self._find(connection, scope, profile_id))
            async with self._database.begin() as connection:
                found = await self._find(connection, scope, profile_id, lock=True)
                _refuse_in_use(found)
                await browser_profiles.remove(connection, profile_id)
        self._states.replaced(found.object_id)
        publish(self._events, "deleted", found)

    async def reset(self, scope: Scope, profile_id: UUID) -> BrowserProfile:
        """Forget the state, after a save that is in progress; the next browser starts empty. Raises NotFound, Conflict
        (in use)."""
        with self._audit.noting(Action.BROWSER_PROFILE_RESET, profile_id):
            await self._unsaving(lambda connection: self._find(connection, scope, profile_id))
            async with self._database.begin() as connection:
                before = await self._find(connection, scope, profile_id, lock=True)
                _refuse_in_use(before)
                await browser_profiles.forget_state(connection, profile_id)
                found = await self._find(connection, scope, profile_id)
        self._states.replaced(before.object_id)
        publish(self._events, "reset", found)
        return found

    async def clone(self, scope: Scope, profile_id: UUID, name: str) -> BrowserProfile:
        """A new profile of the same owner, with the config and the state that was saved last; waits for a save that is
        in progress, as a launch does.

        Raises NotFound, Conflict (the name is taken, no room), LimitReached, Unavailable (the storage), Internal
        (the state is damaged).
        """
        clone_id = new_id()
        with self._audit.noting(Action.BROWSER_PROFILE_CREATED, clone_id) as noting:
            noting.details["clonedFrom"] = str(profile_id)
            await self._unsaving(lambda connection: self._find(connection, scope, profile_id))
            source = None
            async with self._database.begin() as connection:
                found = await self._find(connection, scope, profile_id)
                # All that would refuse it is looked at before bytes are written, and again once they are.
                await self._check_clone(connection, found, name, found.stored_bytes)
                password = await self._secrets.open(connection, proxy_secret(found.owner, found.id))
                if found.object_id is not None:
                    source = await self._states.opened(connection, found.object_id, found.owner)
            new = NewProfile(clone_id, name, found.config, found.metadata)
            if source is None:
                made = await self._add_clone(found, new, password, None)
            else:
                target = State.new(new_id(), found.owner)
                stored = await self._states.copy(source, found.stored_bytes, target)
                new = replace(new, state=SavedState(target.object_id, found.size_bytes, stored, found.browser or ""))
                made = await self._add_clone(found, new, password, target)
        publish(self._events, "created", made)
        return made

    async def _add_clone(
        self, of: BrowserProfile, new: NewProfile, password: str | None, state: State | None
    ) -> BrowserProfile:
        try:
            async with self._database.begin() as connection:
                await self._check_clone(connection, of, new.name, new.state.stored_bytes if new.state else 0)
                await self._add(connection, of.owner, new, password)
                if state is not None:
                    await self._states.keep_key(connection, state)
                return await self._find(connection, of.owner, new.id)
        except Unavailable:
            # It may have been committed, so the sweep decides what becomes of its state.
            raise
        except GatewayError:
            if state is not None:
                with contextlib.suppress(Unavailable):
                    await self._states.remove([state.object_id])
            raise

    async def _check_clone(self, connection: Connection, of: BrowserProfile, name: str, stored_bytes: int) -> None:
        await self._limits.check_number(connection, of.owner)
        await self._limits.check_bytes(connection, of.owner, stored_bytes)
        if await browser_profiles.is_taken(connection, of.owner, name):
            raise _name_taken(name)

    async def _find(
        self, connection: Connection, scope: Scope, profile_id: UUID, *, lock: bool = False
    ) -> BrowserProfile:
        found = await browser_profiles.get(connection, scope, profile_id, self._silent_seconds, lock=lock)
        if found is None:
            raise not_found("browser_profile", profile_id)
        return found

    # The profile of a runtime

    async def open(self, owner: Scope, use: UseOfProfile, runtime_id: UUID) -> RuntimeProfile:
        """The profile of a runtime of `owner`, which is not claimed yet; waits for a save that is in progress.

        Raises NotFound (also for another owner's), Conflict (in use).
        """

        async def find(connection: Connection) -> BrowserProfile:
            found = await browser_profiles.named(connection, owner, use.name, self._silent_seconds)
            if found is None:
                raise not_found("browser_profile", use.name)
            return found

        found = await self._unsaving(find)
        if not use.read_only:
            _refuse_in_use(found)
        return RuntimeProfile(
            self._states,
            found,
            runtime_id,
            read_only=use.read_only,
            restore_seconds=self._settings.profile_restore_seconds,
            on_restored=metrics.profile_restores.observe,
        )

    async def _unsaving(self, find: Callable[[Connection], Awaitable[BrowserProfile]]) -> BrowserProfile:
        """What `find` returns once no save of it is in progress, or after GATEWAY_PROFILE_WAIT_SECONDS: a client
        that has stopped a runtime goes on with what it left."""
        deadline = asyncio.get_running_loop().time() + self._settings.profile_wait_seconds
        while True:
            async with self._database.connect() as connection:
                found = await find(connection)
            use = found.used_by
            if use is None or use.is_live or asyncio.get_running_loop().time() >= deadline:
                return found
            await asyncio.sleep(_POLL_SECONDS)

    async def proxy_password(self, profile: BrowserProfile) -> str | None:
        """The password of the proxy in the profile's config."""
        async with self._database.connect() as connection:
            return await self._secrets.open(connection, proxy_secret(profile.owner, profile.id))

    async def claim(self, connection: Connection, used: RuntimeProfile) -> None:
        """Make the runtime the one that may save the profile, unless it only reads it, and take the state of this
        moment. Raises NotFound, Conflict (in use), Internal (the state is damaged)."""
        profile = used.profile
        if used.read_only:
            await browser_profiles.note_use(connection, profile.id)
        else:
            while not await browser_profiles.claim(
                connection, profile.id, used.runtime_id, self._gateway_id, self._silent_seconds
            ):
                # Free again by now, or gone, or in use.
                _refuse_in_use(await self._find(connection, profile.owner, profile.id))
        opened_by = profile.browser
        used.profile = profile = await self._find(connection, profile.owner, profile.id)
        if profile.browser not in (None, opened_by):
            raise Conflict(
                "The browser profile was saved meanwhile, by another browser; try again.",
                "browser_profile.other_browser",
                details={"browser": profile.browser},
            )
        if profile.object_id is not None:
            used.state = await self._states.opened(connection, profile.object_id, profile.owner)

    async def close(self) -> None:
        """End what is still being saved, whose last state stays then."""
        await self.saves.close()
        await self._states.close()


def proxy_secret(owner: Scope, profile_id: UUID) -> SecretOwner:
    """Of the password of the proxy in a profile's config."""
    return SecretOwner("browser_profile.proxy_password", owner.organization_id, owner.subaccount_id, profile_id)


def _name_taken(name: str) -> Conflict:
    return Conflict(
        f"There is a browser profile of the name {name!r}; delete it, or take another name.",
        "browser_profile.name_taken",
        details={"name": name},
    )


def _refuse_in_use(profile: BrowserProfile) -> None:
    if profile.used_by is not None:
        raise in_use(profile)


def in_use(profile: BrowserProfile) -> Conflict:
    """Says where: `saving` is true once the runtime has ended."""
    use = profile.used_by
    assert use is not None
    doing = "uses" if use.is_live else "has ended and is still saving"
    named = "" if use.alias is None else f" ({use.alias!r})"
    return Conflict(
        f"Runtime {use.runtime_id}{named} {doing} this browser profile; stop it first, or launch with `readOnly`.",
        "browser_profile.in_use",
        details={
            "profileId": str(profile.id),
            "runtimeId": str(use.runtime_id),
            "spaceId": None if use.space_id is None else str(use.space_id),
            "alias": use.alias,
            "saving": not use.is_live,
        },
        retry_after=None if use.is_live else 1,
    )
