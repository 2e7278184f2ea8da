"""Saves what the browsers of profiles leave, behind the answers to their stops, and ends the use of profiles."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar
from uuid import UUID

import structlog

from gateway.core import background
from gateway.core.endings import Ending
from gateway.core.errors import GatewayError, Unavailable
from gateway.core.ids import new_id
from gateway.core.observation import LiveBrowser
from gateway.domain import audit as origins
from gateway.domain.audit import OK, Action, Audit
from gateway.domain.events.service import Events
from gateway.domain.profiles.launched import RuntimeProfile
from gateway.domain.profiles.limits import ProfileLimits
from gateway.domain.profiles.packing import TooLarge
from gateway.domain.profiles.states import ProfileStates, State
from gateway.settings import ProfileSettings
from gateway.store import accounts, browser_profiles
from gateway.store.browser_profiles import BrowserProfile, SavedState
from gateway.store.database import Connection, Database
from gateway.telemetry import metrics

_log = structlog.get_logger("gateway.profiles")

# Between two attempts to write what became of a save.
_AGAIN_SECONDS = 1.0
# `saveError` of profiles whose gateway ended before they were saved.
_LEFT = ("browser_profile.not_saved", "The gateway ended before the profile was saved.")

Result = TypeVar("Result")


class ProfileSaves:
    def __init__(
        self,
        database: Database,
        states: ProfileStates,
        limits: ProfileLimits,
        settings: ProfileSettings,
        audit: Audit,
        events: Events,
        *,
        gateway_id: UUID,
    ) -> None:
        self._database = database
        self._states = states
        self._limits = limits
        self._settings = settings
        self._audit = audit
        self._events = events
        self._gateway_id = gateway_id
        self._saving: set[asyncio.Task[None]] = set()
        self._releasing: set[asyncio.Task[None]] = set()

    def close_browser(self, used: RuntimeProfile, browser: LiveBrowser) -> None:
        """Begin to close the browser in order, unless that has begun."""
        if used.closing is None:
            used.closing = background.start(used.close(browser, self._settings.profile_close_seconds))

    def ended(self, used: RuntimeProfile, ending: Ending) -> None:
        """The browser has ended: begin to save what it left, if it may and has closed in order."""
        if used.read_only:
            used.release_files()
        else:
            _spawn(self._save(used, ending), self._saving)

    def give_up(self, used: RuntimeProfile) -> None:
        """The launch has failed: let others use the profile."""
        used.release_files()
        if not used.read_only:
            _spawn(
                self._until_written(
                    lambda connection: browser_profiles.release(connection, used.profile.id, used.runtime_id)
                ),
                self._releasing,
            )

    async def saved(self) -> None:
        """Return once nothing is being saved."""
        while self._saving:
            await asyncio.wait(set(self._saving))

    async def release_left(self) -> None:
        """Let others use the profiles that an earlier process of this gateway used; their last states stay."""
        async with self._database.begin() as connection:
            left = await browser_profiles.release_of(connection, self._gateway_id, *_LEFT)
        if left:
            _log.warning("an earlier process left profiles unsaved", profiles=left)

    async def close(self) -> None:
        """End what is still being saved, whose last state stays then, and let others use it."""
        if left := self._saving | self._releasing:
            for task in left:
                task.cancel()
            await asyncio.wait(left)
        # Also what browsers use that have not closed yet.
        with contextlib.suppress(Unavailable):
            async with self._database.begin() as connection:
                await browser_profiles.release_of(connection, self._gateway_id, *_LEFT)

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
        failure = {} if code == OK else {"code": code, "message": message}
        publish(
            self._events,
            "saved" if code == OK else "save_failed",
            used.profile,
            runtimeId=str(used.runtime_id),
            **failure,
        )

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
        most = await self._until_written(lambda connection: self._limits.of_one(connection, profile.owner))
        packing, chunks = used.packing(most)
        seconds = self._settings.profile_store_seconds
        try:
            async with asyncio.timeout(seconds):
                stored = await self._states.write(state, chunks)
        except TimeoutError:
            raise NotSaved(f"Storing the profile took more than {seconds:g} seconds.") from None
        saved = SavedState(state.object_id, packing.size, stored, used.browser_name)

        async def move(connection: Connection) -> UUID | None:
            await accounts.lock_owner(connection, profile.owner)
            if await browser_profiles.has_state(connection, profile.id, state.object_id):
                # An earlier attempt was committed, though its answer was lost.
                return profile.object_id
            await self._limits.check_bytes(connection, profile.owner, stored - profile.stored_bytes)
            await self._states.keep_key(connection, state)
            return await browser_profiles.save(connection, profile.id, used.runtime_id, profile.generation, saved)

        try:
            replaced = await self._until_written(move)
        except GatewayError:
            # The row was not moved. After any other end of the attempt it may have been, so the sweep decides then.
            with contextlib.suppress(Unavailable):
                await self._states.remove([state.object_id])
            raise
        self._states.replaced(replaced)

    async def _until_written(self, write: Callable[[Connection], Awaitable[Result]]) -> Result:
        """Result of `write` in a transaction, repeated as long as the database is away."""
        while True:
            try:
                async with self._database.begin() as connection:
                    return await write(connection)
            except Unavailable as error:
                _log.error("what became of a profile can't be written yet", cause=error.message)
            await asyncio.sleep(_AGAIN_SECONDS)


class NotSaved(Exception):
    """Raised where there is nothing whole to save; the message says why, as a whole sentence."""


def publish(events: Events, what: str, profile: BrowserProfile, **more: str) -> None:
    """An update about a profile."""
    about = {"profileId": str(profile.id), "name": profile.name}
    events.update(profile.owner, f"browser_profile.{what}", about | more)


def _spawn(work: Coroutine[Any, Any, None], tasks: set[asyncio.Task[None]]) -> None:
    task = background.start(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
