"""Saved profiles of browsers: a launch configuration, and the state that a browser left, from which others start."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypedDict, TypeVar, Unpack, cast
from uuid import UUID

import structlog

from gateway.core import background
from gateway.core.endings import Ending
from gateway.core.errors import Conflict, GatewayError, LimitReached, Unavailable
from gateway.core.ids import new_id, not_found
from gateway.core.observation import LiveBrowser
from gateway.core.runtime_config import RuntimeConfig
from gateway.core.scope import Scope
from gateway.core.sealed import SecretOwner
from gateway.core.slices import WHOLE_LIST, Slice
from gateway.domain import audit as origins
from gateway.domain.audit import OK, Action, Audit
from gateway.domain.events.service import Events
from gateway.domain.profiles.launched import RuntimeProfile
from gateway.domain.profiles.packing import TooLarge
from gateway.domain.profiles.states import ProfileStates, State
from gateway.domain.proxies import check_own
from gateway.domain.secrets import SecretStore
from gateway.settings import ProfileSettings
from gateway.store import browser_profiles
from gateway.store.browser_profiles import BrowserProfile, NewProfile, ProfileChanges, SavedState, Totals
from gateway.store.database import Connection, Database, constraint_as
from gateway.telemetry import metrics

__all__ = ["BrowserProfile", "Changes", "ProfileRequest", "Profiles", "UseOfProfile"]

_log = structlog.get_logger("gateway.profiles")

# A state that was replaced stays for this long, for launches that still read it.
_REPLACED_SECONDS = 60.0
# For packing and storing a state. The launcher keeps the directory of a browser that has ended for two minutes.
_STORE_SECONDS = 100.0
# Between two looks at a profile that is still being saved, and between two attempts to write what became of a save.
_POLL_SECONDS = 0.05
_AGAIN_SECONDS = 1.0

Result = TypeVar("Result")


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
        *,
        gateway_id: UUID,
        silent_seconds: int,
        replaced_seconds: float = _REPLACED_SECONDS,
    ) -> None:
        """`silent_seconds`: a gateway without a heartbeat for so long is lost, and uses no profile any more."""
        self._gateway_id = gateway_id
        self._database = database
        self._secrets = secrets
        self._states = states
        self._settings = settings
        self._audit = audit
        self._events = events
        self._silent_seconds = silent_seconds
        self._replaced_seconds = replaced_seconds
        self._tasks: set[asyncio.Task[None]] = set()
        self._saving: set[asyncio.Task[None]] = set()

    async def create(self, owner: Scope, request: ProfileRequest) -> BrowserProfile:
        """A new profile, without a state. Raises Conflict (the name is taken), LimitReached, RequestInvalid (its config
        names a saved proxy that is not there)."""
        profile_id = new_id()
        with self._audit.noting(Action.BROWSER_PROFILE_CREATED, profile_id):
            async with self._database.begin() as connection:
                await self._check_number(connection, owner)
                await check_own(connection, owner, request.config.proxy)
                new = NewProfile(profile_id, request.name, request.config, request.metadata)
                await self._add(connection, owner, new, request.proxy_password)
                made = await self._find(connection, owner, profile_id)
        self._publish("created", made)
        return made

    async def _add(self, connection: Connection, owner: Scope, new: NewProfile, proxy_password: str | None) -> None:
        with constraint_as(_name_taken(new.name)):
            await browser_profiles.add(connection, owner, new)
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
        """Change what is given; a new config replaces the one that was. Raises NotFound, Conflict (the name),
        RequestInvalid as `create` does."""
        with self._audit.noting(Action.BROWSER_PROFILE_CHANGED, profile_id) as noting:
            noting.details["fields"] = sorted(name for name in changes if name != "proxy_password")
            async with self._database.begin() as connection:
                found = await self._find(connection, scope, profile_id, lock=True)
                if "config" in changes:
                    await check_own(connection, found.owner, changes["config"].proxy)
                    await self._secrets.remove(connection, profile_id)
                    password = changes.pop("proxy_password", None)
                    if password is not None:
                        await self._secrets.put(connection, proxy_secret(found.owner, profile_id), password)
                with constraint_as(_name_taken(changes.get("name", found.name))):
                    await browser_profiles.change(connection, profile_id, **cast(ProfileChanges, changes))
                return await self._find(connection, scope, profile_id)

    async def remove(self, scope: Scope, profile_id: UUID) -> None:
        """Remove a profile with its state. Raises NotFound, Conflict (in use)."""
        with self._audit.noting(Action.BROWSER_PROFILE_DELETED, profile_id):
            async with self._database.begin() as connection:
                found = await self._find(connection, scope, profile_id, lock=True)
                _refuse_in_use(found)
                await browser_profiles.remove(connection, profile_id)
        self._replaced(found.object_id)
        self._publish("deleted", found)

    async def reset(self, scope: Scope, profile_id: UUID) -> BrowserProfile:
        """Forget the state; the next browser starts empty. Raises NotFound, Conflict (in use)."""
        with self._audit.noting(Action.BROWSER_PROFILE_RESET, profile_id):
            async with self._database.begin() as connection:
                before = await self._find(connection, scope, profile_id, lock=True)
                _refuse_in_use(before)
                await browser_profiles.forget_state(connection, profile_id)
                found = await self._find(connection, scope, profile_id)
        self._replaced(before.object_id)
        self._publish("reset", found)
        return found

    async def clone(self, scope: Scope, profile_id: UUID, name: str) -> BrowserProfile:
        """A new profile of the same owner, with the config and the state that was saved last.

        Raises NotFound, Conflict (the name is taken, no room), LimitReached, Unavailable (the storage), Internal
        (the state is damaged).
        """
        clone_id = new_id()
        with self._audit.noting(Action.BROWSER_PROFILE_CREATED, clone_id) as noting:
            noting.details["clonedFrom"] = str(profile_id)
            async with self._database.begin() as connection:
                found = await self._find(connection, scope, profile_id)
                await self._check_number(connection, found.owner)
                await self._check_bytes(connection, found.owner, found.stored_bytes)
                password = await self._secrets.open(connection, proxy_secret(found.owner, found.id))
                source = None
                if found.object_id is not None:
                    source = await self._states.opened(connection, found.object_id, found.owner)
            target = State.new(new_id(), found.owner)
            saved = None
            if source is not None:
                stored = await self._states.copy(source, found.stored_bytes, target)
                saved = SavedState(target.object_id, found.size_bytes, stored, found.browser or "")
            new = NewProfile(clone_id, name, found.config, found.metadata, saved)
            async with self._database.begin() as connection:
                await self._check_number(connection, found.owner)
                await self._check_bytes(connection, found.owner, new.state.stored_bytes if new.state else 0)
                await self._add(connection, found.owner, new, password)
                if saved is not None:
                    await self._states.keep_key(connection, target)
                made = await self._find(connection, scope, clone_id)
        self._publish("created", made)
        return made

    async def _find(
        self, connection: Connection, scope: Scope, profile_id: UUID, *, lock: bool = False
    ) -> BrowserProfile:
        found = await browser_profiles.get(connection, scope, profile_id, self._silent_seconds, lock=lock)
        if found is None:
            raise not_found("browser_profile", profile_id)
        return found

    # Limits

    async def _check_number(self, connection: Connection, owner: Scope) -> None:
        """Raises LimitReached. Counting is serialized within an organization."""
        await browser_profiles.lock_owner(connection, owner)
        totals = await browser_profiles.totals(connection, owner.organization_id, owner.subaccount_id)
        settings = self._settings
        for noun, total, most in _of_each(
            owner, totals, settings.organization_max_profiles, settings.subaccount_max_profiles
        ):
            if total.profiles >= most:
                raise LimitReached(
                    f"This {noun} may have {most} browser profiles, and has them.",
                    f"{noun}.max_profiles",
                    details={"limit": most},
                    retry_after=60,
                )

    async def _check_bytes(self, connection: Connection, owner: Scope, more: int) -> None:
        """Raises Conflict where `more` bytes have no room. Counting is serialized within an organization."""
        await browser_profiles.lock_owner(connection, owner)
        totals = await browser_profiles.totals(connection, owner.organization_id, owner.subaccount_id)
        settings = self._settings
        for noun, total, most in _of_each(
            owner, totals, settings.organization_max_profile_bytes, settings.subaccount_max_profile_bytes
        ):
            if total.stored_bytes + more > most:
                raise Conflict(
                    f"The browser profiles of this {noun} use {total.stored_bytes} of {most} bytes, and {more} more "
                    "have no room; delete or reset some.",
                    f"{noun}.profiles_full",
                    details={"limit": most, "used": total.stored_bytes},
                )

    # The profile of a runtime

    async def open(self, owner: Scope, use: UseOfProfile, runtime_id: UUID) -> RuntimeProfile:
        """The profile of a runtime of `owner`, which is not claimed yet; waits for a save that is in progress.

        Raises NotFound (also for another owner's), Conflict (in use).
        """
        deadline = asyncio.get_running_loop().time() + self._settings.profile_wait_seconds
        while True:
            async with self._database.connect() as connection:
                found = await browser_profiles.named(connection, owner, use.name, self._silent_seconds)
            if found is None:
                raise not_found("browser_profile", use.name)
            if use.read_only or found.used_by is None:
                return RuntimeProfile(
                    self._states,
                    found,
                    runtime_id,
                    read_only=use.read_only,
                    on_restored=metrics.profile_restores.observe,
                )
            if found.used_by.is_live or asyncio.get_running_loop().time() >= deadline:
                raise in_use(found)
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
        elif not await browser_profiles.claim(
            connection, profile.id, used.runtime_id, self._gateway_id, self._silent_seconds
        ):
            raise in_use(await self._find(connection, profile.owner, profile.id))
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

    def close_browser(self, used: RuntimeProfile, browser: LiveBrowser) -> None:
        """Begin to close the browser in order, unless that has begun."""
        if used.closing is None:
            used.closing = background.start(used.close(browser, self._settings.profile_close_seconds))

    def ended(self, used: RuntimeProfile, ending: Ending) -> None:
        """The browser has ended: begin to save what it left, if it may and has closed in order."""
        if used.read_only:
            used.release_files()
            return
        task = background.start(self._save(used, ending))
        self._saving.add(task)
        task.add_done_callback(self._saving.discard)

    def give_up(self, used: RuntimeProfile) -> None:
        """The launch has failed: let others use the profile."""
        used.release_files()
        if not used.read_only:
            self._spawn(
                self._until_written(
                    lambda connection: browser_profiles.release(connection, used.profile.id, used.runtime_id)
                )
            )

    async def _save(self, used: RuntimeProfile, ending: Ending) -> None:
        about = {"profile_id": str(used.profile.id), "runtime_id": str(used.runtime_id)}
        began = asyncio.get_running_loop().time()
        code, message = OK, ""
        try:
            await self._save_state(used, ending)
        except NotSaved as error:
            code, message = "browser_profile.not_saved", str(error)
        except TooLarge as error:
            code, message = "browser_profile.too_large", f"The profile can't be saved: {error}."
        except GatewayError as error:
            code, message = error.code, error.message
        except OSError as error:
            code, message = "browser_profile.unreadable", f"The browser's files can't be read ({error.strerror})."
        except Exception:
            code, message = "internal.error", "The gateway failed; its log says how."
            _log.exception("a profile can't be saved", **about)
        finally:
            used.release_files()
        if code == OK:
            metrics.profile_saves.observe(asyncio.get_running_loop().time() - began)
            _log.info("profile saved", **about)
        else:
            metrics.profile_save_failures.inc()
            _log.error("a profile is not saved", **about, code=code, cause=message)
            await self._until_written(
                lambda connection: browser_profiles.save_failed(
                    connection, used.profile.id, used.runtime_id, code, message
                )
            )
        self._audit.note(
            Action.BROWSER_PROFILE_SAVED,
            used.profile.id,
            outcome=code,
            details={"runtimeId": str(used.runtime_id)},
            origin=origins.GATEWAY,
            scope=used.profile.owner,
        )
        self._publish("saved" if code == OK else "save_failed", used.profile, runtimeId=str(used.runtime_id))

    async def _save_state(self, used: RuntimeProfile, ending: Ending) -> None:
        """Store a new state, and let the row have it. Raises what prevents it; the row is as before then."""
        if used.closing is not None:
            await asyncio.wait({used.closing})
        if used.closed is None:
            raise NotSaved(used.why_not_closed(ending))
        if not await used.settled():
            raise NotSaved("Processes of the browser could not be ended.")
        profile = used.profile
        state = State.new(new_id(), profile.owner)
        packing, chunks = used.packing()
        try:
            async with asyncio.timeout(_STORE_SECONDS):
                stored = await self._states.write(state, chunks)
        except TimeoutError:
            raise NotSaved(f"Storing the profile took more than {_STORE_SECONDS:g} seconds.") from None
        saved = SavedState(state.object_id, packing.size, stored, used.browser_name)

        async def move(connection: Connection) -> UUID | None:
            await self._check_bytes(connection, profile.owner, stored - profile.stored_bytes)
            await self._states.keep_key(connection, state)
            return await browser_profiles.save(connection, profile.id, used.runtime_id, profile.generation, saved)

        try:
            replaced = await self._until_written(move)
        except BaseException:
            with contextlib.suppress(Unavailable):
                await asyncio.shield(self._states.remove([state.object_id]))
            raise
        self._replaced(replaced)

    async def _until_written(self, write: Callable[[Connection], Awaitable[Result]]) -> Result:
        """Result of `write` in a transaction, repeated as long as the database is away."""
        while True:
            try:
                async with self._database.begin() as connection:
                    return await write(connection)
            except Unavailable as error:
                _log.error("what became of a profile can't be written yet", cause=error.message)
            await asyncio.sleep(_AGAIN_SECONDS)

    async def release_left(self) -> None:
        """Let others use the profiles that an earlier process of this gateway used; their last states stay."""
        async with self._database.begin() as connection:
            left = await browser_profiles.release_of(connection, self._gateway_id)
        if left:
            _log.warning("an earlier process left profiles unsaved", profiles=left)

    async def saved(self) -> None:
        """Return once nothing is being saved."""
        while self._saving:
            await asyncio.wait(set(self._saving))

    # States that no profile has any more

    def _replaced(self, object_id: UUID | None) -> None:
        """Remove a state later, since a launch may be reading it. If this gateway ends before, the sweep does so."""
        if object_id is not None:
            self._spawn(self._remove_later(object_id))

    async def _remove_later(self, object_id: UUID) -> None:
        await asyncio.sleep(self._replaced_seconds)
        try:
            await self._states.remove([object_id])
        except Unavailable as error:
            _log.warning("the state of a profile can't be removed yet", cause=error.message)

    def _spawn(self, work: Any) -> None:
        task = background.start(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End what is still being saved, whose last state stays then."""
        if left := self._tasks | self._saving:
            for task in left:
                task.cancel()
            await asyncio.wait(left)
        self._states.close()

    def _publish(self, what: str, profile: BrowserProfile, **more: str) -> None:
        about = {"profileId": str(profile.id), "name": profile.name}
        self._events.update(profile.owner, f"browser_profile.{what}", about | more)


class NotSaved(Exception):
    """Raised where there is nothing whole to save; the message says why, as a whole sentence."""


def _of_each(
    owner: Scope, totals: tuple[Totals, Totals], of_organization: int, of_subaccount: int
) -> list[tuple[str, Totals, int]]:
    """Nouns, what there is, and limits that count for an owner."""
    counted = [("organization", totals[0], of_organization)]
    if owner.subaccount_id is not None:
        counted.append(("subaccount", totals[1], of_subaccount))
    return counted


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
    )
