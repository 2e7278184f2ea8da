"""The life of a runtime: start, stop, and every other way to end.

The requested state of a runtime and its actual one are rows. Browsers of this gateway are in hosted.py, ends that are
to be written and published in endings.py. The supervisor (domain/supervisor.py) makes rows and browsers agree when
anything else fails.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, cast
from uuid import UUID

import structlog

from gateway.core import background, extras, steps
from gateway.core.closes import Close
from gateway.core.disk_space import ALWAYS_ROOM, DiskSpace, Use
from gateway.core.endings import GATEWAY_STOPPED, IDLE_TIMEOUT, STOPPED, Ending
from gateway.core.errors import (
    Conflict,
    GatewayError,
    HostedElsewhere,
    LimitReached,
    NotSupported,
    Unavailable,
    invalid_field,
)
from gateway.core.hosts import Refusal
from gateway.core.ids import new_id, not_found
from gateway.core.launch import BrowserName, LaunchSpec
from gateway.core.mounts import Mounts, narrowed
from gateway.core.observation import EventLimits, Level, Observed, Observers
from gateway.core.runtime_config import NetworkTraffic, Proxy, RuntimeConfig
from gateway.core.runtime_ref import ByAlias, ById, RuntimeAt, RuntimeRef
from gateway.core.scope import Scope
from gateway.core.sealed import SecretOwner
from gateway.core.shares import Taker
from gateway.core.slices import WHOLE_LIST, Slice
from gateway.core.traffic_rules import Traffic
from gateway.core.upstream_proxy import UpstreamProxy
from gateway.core.worker_board import Board
from gateway.domain import audit
from gateway.domain.attachments import Attachments
from gateway.domain.audit import Action, Audit
from gateway.domain.events.run_commands import Commands
from gateway.domain.events.service import Events, about_run
from gateway.domain.extensions.service import Extensions, RuntimeExtensions
from gateway.domain.profiles.launched import RuntimeProfile
from gateway.domain.profiles.service import Profiles, UseOfProfile
from gateway.domain.proxies import SavedProxies
from gateway.domain.runtimes.capacity import Caller, Capacity, Patience, subaccount_max_starting
from gateway.domain.runtimes.endings import Endings
from gateway.domain.runtimes.hosted import HostedRuntime, HostedRuntimes
from gateway.domain.runtimes.usage import RuntimeUsage
from gateway.domain.secrets import SecretStore
from gateway.domain.spaces import find_space, space_closed
from gateway.launchers.base import Browser, Launcher
from gateway.settings import RecordingSettings
from gateway.store import accounts, gateways, runs, runtimes
from gateway.store.database import Connection, Database, constraint_as
from gateway.store.runs import Run, RunFilter
from gateway.store.runtimes import EndedRuntime, NewRuntime, Runtime
from gateway.store.spaces import Space
from gateway.telemetry import metrics

__all__ = [
    "SILENT_SECONDS",
    "Host",
    "Recording",
    "Run",
    "RunFilter",
    "Runtime",
    "RuntimeRequest",
    "Runtimes",
    "Timings",
    "not_active",
]

_log = structlog.get_logger("gateway.runtimes")

# A gateway without a heartbeat for this long counts as lost.
SILENT_SECONDS = 30


@dataclass(frozen=True, slots=True)
class RuntimeRequest:
    """A caller's request. `proxy_password` is that of the config's proxy.

    `mounts` narrow those of the space. Of one alias, one runtime may be live in a space.
    """

    config: RuntimeConfig = field(default_factory=RuntimeConfig)
    name: str | None = None
    metadata: dict[str, Any] | None = None
    proxy_password: str | None = field(default=None, repr=False)
    alias: str | None = None
    driver: str | None = None
    mounts: Mounts | None = None
    profile: UseOfProfile | None = None

    def from_profile(self, profile: RuntimeProfile, proxy_password: str | None) -> RuntimeRequest:
        """The request, with what it lacks from the config of a profile. Raises Conflict where it asks for another
        browser than the one that saved the state."""
        saved_by, config = profile.profile.browser, self.config.over(profile.profile.config)
        if saved_by is not None and config.browser not in (None, saved_by):
            raise Conflict(
                f"This browser profile has the state of {saved_by}, and can't be launched with {config.browser}; reset "
                "it, or leave the browser out.",
                "browser_profile.other_browser",
                details={"browser": saved_by},
            )
        return replace(
            self,
            config=replace(config, browser=cast(BrowserName | None, saved_by) or config.browser),
            proxy_password=proxy_password if self.config.proxy is None else self.proxy_password,
        )

    def with_proxy(self, proxy: Proxy, password: str | None) -> RuntimeRequest:
        """The request, with the proxy that its config names."""
        return replace(self, config=replace(self.config, proxy=proxy), proxy_password=password)

    def with_extensions(self, profile: RuntimeProfile | None) -> RuntimeRequest:
        """The request for full Chromium, which alone loads extensions. Raises RequestInvalid, and Conflict where the
        state of the profile is of another browser."""
        if profile is not None and profile.profile.browser not in (None, "chromium"):
            raise Conflict(
                f"This browser profile has the state of {profile.profile.browser}, which loads no extensions; reset "
                "it, or launch it without extensions.",
                "browser_profile.other_browser",
                details={"browser": profile.profile.browser},
            )
        if self.config.browser not in (None, "chromium"):
            message = "Only full Chromium loads extensions; give `chromium`, or leave it out"
            raise invalid_field("browser", message, self.config.browser)
        return replace(self, config=replace(self.config, browser="chromium"))

    def spec(
        self,
        runtime_id: UUID,
        taker: Taker,
        profile: RuntimeProfile | None = None,
        extensions: RuntimeExtensions | None = None,
    ) -> LaunchSpec:
        """The request to the launcher; `taker` is who waits for the launch."""
        config, proxy = self.config, self.config.proxy
        assert not isinstance(proxy, str), "the proxy is replaced by the saved one that it names"
        viewport, traffic = config.any_viewport, config.network_traffic or NetworkTraffic()
        return LaunchSpec(
            runtime_id,
            browser=config.browser,
            viewport=(viewport.width, viewport.height) if viewport else None,
            locale=config.any_locale,
            timezone=config.timezone,
            user_agent=config.user_agent,
            traffic=Traffic(traffic.url_allowlist or (), traffic.url_blocklist or ()),
            upstream=UpstreamProxy(
                proxy.protocol,
                proxy.host,
                proxy.port,
                proxy.username,
                self.proxy_password,
                resolves_names=proxy.dns_resolution == "proxy",
            )
            if proxy
            else None,
            taker=taker,
            profile=profile,
            extensions=() if extensions is None else extensions.launched,
        )


@dataclass(frozen=True, slots=True)
class Host:
    """This gateway as a host of browsers: what starts them, and the sockets that are attached to them."""

    gateway_id: UUID
    launcher: Launcher
    attachments: Attachments
    # What the workers of this gateway share, if there are several.
    board: Board | None = None


@dataclass(frozen=True, slots=True)
class Recording:
    """Where the lives of runtimes are recorded: audit log, events, commands of runs, and observers of browsers."""

    audit: Audit
    events: Events
    commands: Commands
    observers: Observers


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds: `elsewhere` is the timeout of an end on another gateway, `sockets` that of sockets to close before a
    drain ends the browsers, `row` how long a browser lives on while its requested end is written."""

    elsewhere: float = 15.0
    row: float = 0.1
    elsewhere_poll: float = 0.2
    drain_poll: float = 0.05
    sockets: float = 3.0


class Runtimes:
    def __init__(
        self,
        database: Database,
        secrets: SecretStore,
        host: Host,
        settings: RecordingSettings,
        recording: Recording,
        profiles: Profiles,
        proxies: SavedProxies,
        extensions: Extensions,
        timings: Timings = Timings(),
        space: DiskSpace = ALWAYS_ROOM,
    ) -> None:
        """`space` is of the disk that has the runtimes' directories."""
        self._space = space
        self.elsewhere_seconds = timings.elsewhere
        self._timings = timings
        self._audit = recording.audit
        self._events = recording.events
        self._commands = recording.commands
        self._observers = recording.observers
        self._database = database
        self._secrets = secrets
        self._profiles = profiles
        self._proxies = proxies
        self._extensions = extensions
        self._launcher = host.launcher
        self._attachments = host.attachments
        self._gateway_id = host.gateway_id
        self._board = host.board
        self._settings = settings
        self.browsers = HostedRuntimes()
        self._usage = RuntimeUsage()
        self._endings = Endings(
            database, recording.audit, recording.events, self.browsers, self._usage, settings.event_level
        )
        self._event_limits = EventLimits(
            settings.events_per_second,
            settings.events_per_run,
            settings.event_bytes_per_run,
            settings.event_bytes_per_second,
            settings.event_command_kinds,
        )
        self._noted: set[UUID] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.capacity = Capacity(
            settings.max_runtimes,
            settings.max_starting,
            settings.subaccount_max_starting,
            settings.max_waiting_launches,
            settings.shares,
            host.board,
        )
        self.draining = False

    # Asking

    def patience(self, wanted: int | None, disconnected: Callable[[], Awaitable[None]]) -> Patience:
        """How long a launch waits for its turn: `wanted` seconds, or the default, up to the gateway's maximum."""
        seconds = self._settings.launch_wait_seconds if wanted is None else wanted
        return Patience(min(seconds, self._settings.launch_max_wait_seconds), disconnected)

    async def create(
        self,
        scope: Scope,
        space_id: UUID,
        request: RuntimeRequest,
        key_id: UUID,
        patience: Patience,
        *,
        forward: bool = False,
    ) -> Runtime:
        """Start a browser and return its runtime once it is live, after waiting for its turn. `key_id`: the caller's.

        Raises HostedElsewhere, with `forward`, where another worker of this gateway has fewer runtimes: so a client of
        one connection uses all. Raises RequestInvalid (a lifetime above the gateway's maximum, a proxy that is not
        allowed or not there, extensions that can't be loaded together), Forbidden (mounts beyond the space's, a saved
        proxy that they do not allow), NotFound (space, profile, extension), Conflict (closed space, an alias or a
        profile that is in use), LimitReached (429), NotSupported (501, recording, extensions), LaunchFailed (503).
        """
        if forward and self._board is not None and (url := self._board.quieter()) is not None:
            raise HostedElsewhere(url)
        self._check_lifetime(request.config.max_lifetime_seconds)
        runtime_id = new_id()
        with self._audit.noting(Action.RUNTIME_CREATED, runtime_id) as noting:
            noting.details["spaceId"] = str(space_id)
            return await self._create(scope, space_id, runtime_id, request, key_id, patience)

    def _check_lifetime(self, seconds: int | None) -> None:
        most = self._settings.max_lifetime_seconds
        if seconds is not None and seconds > most:
            message = f"This gateway ends runtimes after {most} seconds at most"
            raise invalid_field("max_lifetime_seconds", message, seconds, code="less_than_equal")

    async def _create(
        self,
        scope: Scope,
        space_id: UUID,
        runtime_id: UUID,
        request: RuntimeRequest,
        key_id: UUID,
        patience: Patience,
    ) -> Runtime:
        self._refuse_while_draining()
        if not self._space.has_room(Use.FILES):
            raise Unavailable(
                "The disk of this gateway is nearly full; it starts no runtimes. Try again later.",
                "gateway.disk_full",
                retry_after=30,
            )
        async with self._database.connect() as connection:
            space = await find_space(connection, scope, space_id)
            if space.closed_at is not None:
                raise space_closed(space_id)
            mounts = space.mounts if request.mounts is None else narrowed(space.mounts, request.mounts)
            organization_id = space.owner.organization_id
            is_alone = not await accounts.has_others(connection, organization_id)
        steps.done("find space")
        profile: RuntimeProfile | None = None
        if request.profile is not None:
            profile = await self._profiles.open(space.owner, request.profile, runtime_id)
            request = request.from_profile(profile, await self._profiles.proxy_password(profile.profile))
            self._check_lifetime(request.config.max_lifetime_seconds)
            steps.done("open profile")
        if isinstance(request.config.proxy, str):
            request = request.with_proxy(*await self._proxies.for_launch(space, mounts, request.config.proxy))
            steps.done("open proxy")
        if request.config.recording and not extras.RECORDINGS.installed:
            raise NotSupported(f"{extras.RECORDINGS.missing} {extras.RECORDINGS.advice}", "recording.not_installed")
        extensions = await self._extensions.for_runtime(space.owner, request.config.extension_ids)
        if extensions is not None:
            request = request.with_extensions(profile)
        spec = request.spec(runtime_id, Taker(key_id, space.owner), profile, extensions)
        await self._check_proxy(spec)
        async with self.capacity.start(Caller(key_id, space.subaccount_id, organization_id, is_alone), patience):
            self._refuse_while_draining()
            with metrics.launches.time():
                return await self._start(space, spec, request, profile, extensions)

    async def _check_proxy(self, spec: LaunchSpec) -> None:
        """Refuse a proxy that the egress rules do not allow: no page of the runtime would load."""
        try:
            await self._launcher.check(spec)
        except Refusal as error:
            reason = error.message.removesuffix(".")
            message = f"The egress rules of this gateway do not allow it ({reason}); its operator may"
            raise invalid_field("proxy", message, code=error.rule) from error

    async def _start(
        self,
        space: Space,
        spec: LaunchSpec,
        request: RuntimeRequest,
        profile: RuntimeProfile | None,
        extensions: RuntimeExtensions | None,
    ) -> Runtime:
        runtime_id = spec.runtime_id
        hosted = self.browsers.start(runtime_id, profile, extensions)
        try:
            await self._add_row(space, hosted, request)
            steps.done("insert runtime")
            browser = await self._launch(spec, hosted)
            return await self._activate(hosted, self._observed(space, runtime_id, request, browser))
        except BaseException:
            self.browsers.discard(runtime_id)
            # A drain may have requested its end meanwhile, and waits for it.
            hosted.written.set()
            hosted.over.set()
            if profile is not None:
                self._profiles.saves.give_up(profile)
            if extensions is not None:
                extensions.release()
            raise

    async def _add_row(self, space: Space, hosted: HostedRuntime, request: RuntimeRequest) -> None:
        runtime_id, profile = hosted.runtime_id, hosted.profile
        new = NewRuntime(
            id=runtime_id,
            space_id=space.id,
            gateway_id=self._gateway_id,
            name=request.name or f"runtime-{runtime_id.hex[-8:]}",
            region=space.region,
            metadata=request.metadata,
            config=request.config,
            idle_timeout_seconds=request.config.idle_timeout_seconds or self._settings.idle_timeout_seconds,
            max_lifetime_seconds=request.config.max_lifetime_seconds or self._settings.max_lifetime_seconds,
            alias=request.alias,
            driver=request.driver,
            mounts=request.mounts,
            profile_id=None if profile is None else profile.profile.id,
            profile_read_only=None if profile is None else profile.read_only,
        )
        # Nothing else in the row or the secret's can be there twice.
        with constraint_as(_alias_active(space.id, request.alias)):
            await self._write_new(space, new, request, hosted)

    async def _write_new(self, space: Space, new: NewRuntime, request: RuntimeRequest, hosted: HostedRuntime) -> None:
        profile, extensions = hosted.profile, hosted.extensions
        # One statement needs no transaction of three more.
        is_single = space.subaccount_id is None and request.proxy_password is None and not (profile or extensions)
        async with self._database.connect() if is_single else self._database.begin() as connection:
            if space.subaccount_id is not None:
                await self._check_subaccount(connection, space.owner, space.subaccount_id)
            if not await runtimes.add(connection, space.owner, new):
                # Closed or deleted since it was found.
                await find_space(connection, space.owner, space.id)
                raise space_closed(space.id)
            if profile is not None:
                await self._profiles.claim(connection, profile)
            if extensions is not None:
                await extensions.claim(connection, new.id)
            if request.proxy_password is not None:
                await self._secrets.put(connection, _owner(space.owner, new.id), request.proxy_password)

    async def _check_subaccount(self, connection: Connection, scope: Scope, subaccount_id: UUID) -> None:
        # The row's lock lets two requests of one subaccount count one after the other.
        account = await accounts.subaccount(connection, scope, subaccount_id, lock=True)
        live, starting = await runtimes.count_live(connection, subaccount_id)
        most = self._settings.subaccount_max_runtimes
        if account is not None and account.limits.max_active_runs is not None:
            most = min(most, account.limits.max_active_runs)
        if live >= most:
            raise LimitReached(
                f"This subaccount may have {most} runtimes live at once, and has {live}.",
                "subaccount.max_runtimes",
                details={"limit": most},
                retry_after=5,
            )
        if starting >= self._settings.subaccount_max_starting:
            # Others of it are starting on other gateways: here they would have waited.
            raise subaccount_max_starting(self._settings.subaccount_max_starting)

    async def _launch(self, spec: LaunchSpec, hosted: HostedRuntime) -> Browser:
        profile = hosted.profile
        try:
            if hosted.extensions is not None:
                await hosted.extensions.unpack()
                steps.done("unpack extensions")
            browser = await self._launcher.launch(spec)
            if profile is not None:
                if not profile.is_restored:
                    await browser.stop()
                    raise NotSupported("The launcher of this gateway has no browser profiles.", "browser_profile.none")
                profile.launched(browser)
            return browser
        except GatewayError as error:
            metrics.launch_failures.labels(error.details.get("class", "other")).inc()
            error.details["runtimeId"] = str(spec.runtime_id)
            await self._endings.write(spec.runtime_id, Ending(error.code, error.message))
            raise

    def _observed(self, space: Space, runtime_id: UUID, request: RuntimeRequest, browser: Browser) -> Observed:
        config = request.config
        level = Level.named(config.event_level or self._settings.event_level)
        recording = self._settings.recording if config.recording is None else config.recording
        run_id = new_id()
        record = self._events.record(run_id, level)
        return Observed(
            space.id,
            runtime_id,
            run_id,
            space.owner,
            browser,
            record,
            recording,
            self._event_limits,
            alias=request.alias,
        )

    async def _activate(self, hosted: HostedRuntime, observed: Observed) -> Runtime:
        runtime_id, browser = observed.runtime_id, observed.browser
        hosted.launched(observed)
        # The first event of the run. If activation fails, it is orphaned and swept.
        observed.record.note("runtime.lifecycle", {"status": "started", "browser": browser.name})
        observing = background.start_on_behalf(self._observers.begin(observed))
        try:
            async with self._database.connect() as connection:
                runtime = await runtimes.activate(
                    connection,
                    runtime_id,
                    observed.run_id,
                    browser.devtools_url,
                    browser.name,
                    browser.version,
                    recording=observed.recording,
                )
            if runtime is None:
                raise Conflict("The runtime was stopped while it started.", "runtime.stopped")
            steps.done("activate runtime")
            await observing
            steps.done("wait for the observer")
        except BaseException as error:
            hosted.not_activated()
            observing.cancel()
            await browser.stop()
            await self._observers.end(observed)
            if isinstance(error, Conflict):
                await self._endings.write(runtime_id, STOPPED)
            raise
        self.browsers.live(hosted, runtime)
        _log.info(
            "runtime started",
            runtime_id=str(runtime_id),
            run_id=str(observed.run_id),
            space_id=str(observed.space_id),
            browser=browser.name,
        )
        self._usage.begin(runtime_id, browser.usage)
        metrics.runtimes_live.inc()
        self._events.update(
            observed.owner,
            "runtime.started",
            about_run(observed.space_id, runtime_id, observed.run_id, observed.alias),
        )
        browser.ended.add_done_callback(lambda _: self._spawn(self._after_end(hosted)))
        return runtime

    async def listed(
        self, scope: Scope, space_id: UUID, part: Slice = WHOLE_LIST, *, live: bool = False
    ) -> list[Runtime]:
        """Runtimes of a space, or those of them that are live. Raises NotFound."""
        with self._audit.noting(Action.RUNTIME_READ) as noting:
            noting.details["spaceId"] = str(space_id)
            async with self._database.connect() as connection:
                await find_space(connection, scope, space_id)
                return await runtimes.listed(connection, scope, space_id, part, live=live)

    async def resolve(self, scope: Scope, ref: RuntimeRef) -> RuntimeAt:
        """Where the runtime of a reference is. Raises NotFound.

        An id within a space needs no query: each statement that uses it checks both, and the scope.
        """
        if isinstance(ref, ById) and ref.space_id is not None:
            return RuntimeAt(ref.space_id, ref.runtime_id)
        async with self._database.connect() as connection:
            found = await runtimes.locate(connection, scope, ref)
        if found is None:
            raise not_found("runtime", _named(ref))
        return found

    async def get(self, scope: Scope, ref: RuntimeRef) -> Runtime:
        at = await self.resolve(scope, ref)
        runtime_id = at.runtime_id
        with self._audit.noting(Action.RUNTIME_READ, runtime_id):
            return await self.find(scope, at)

    async def find(self, scope: Scope, at: RuntimeAt) -> Runtime:
        """As `get`, without a read in the audit log. Raises NotFound."""
        space_id, runtime_id = at
        async with self._database.connect() as connection:
            found = await runtimes.get(connection, scope, space_id, runtime_id)
        if found is None or found.status == "starting":
            raise not_found("runtime", runtime_id)
        return found

    def live_here(self, scope: Scope, ref: RuntimeRef) -> Runtime | None:
        """The runtime of a reference, if it is live on this gateway: its row as it was when it became active.

        Owner, space, alias, driver and mounts of a row never change, so what needs no more of it needs no query.
        """
        hosted = self.browsers.live_for(scope, ref)
        return None if hosted is None else hosted.row

    async def _host_url(self, scope: Scope, at: RuntimeAt) -> str | None:
        """URL of the gateway that has the browser, to ask it for a stop; None when that is this one, or not known."""
        runtime_id = at.runtime_id
        if self.hosts(runtime_id):
            return None
        with self._audit.noting(Action.RUNTIME_STOPPED, runtime_id, failures_only=True):
            found = await self.find(scope, at)
        if found.status != "active" or found.gateway_id == self._gateway_id:
            return None
        url = await self.gateway_url(found.gateway_id)
        if url is not None:
            self._audit.note(Action.RUNTIME_STOP_WANTED, runtime_id, details={"by": "request"})
        return url

    async def gateway_url(self, gateway_id: UUID) -> str | None:
        """Where another gateway is reached; None when it can't be, or is silent."""
        if (url := self.worker_url(gateway_id)) is not None:
            return url
        async with self._database.connect() as connection:
            return await gateways.url(connection, gateway_id, SILENT_SECONDS)

    def worker_url(self, gateway_id: UUID) -> str | None:
        """Where another worker of this gateway is reached; None for any other gateway."""
        return None if self._board is None else self._board.url_of(gateway_id)

    async def elsewhere(self, scope: Scope, ref: RuntimeRef) -> str | None:
        """Where the gateway that has the browser of a live runtime is reached; None when that is this one.

        Raises NotFound, Conflict (not active), Unavailable (unknown).
        """
        at = await self.resolve(scope, ref)
        runtime_id = at.runtime_id
        found = await self.find(scope, at)
        if self.hosts(runtime_id):
            return None
        if found.status != "active":
            raise not_active(runtime_id, found.status)
        url = await self.gateway_url(found.gateway_id)
        if url is None or found.gateway_id == self._gateway_id:
            raise Unavailable(
                "The gateway that has the browser of this runtime is unknown.",
                "runtime.host_unavailable",
                retry_after=1,
            )
        return url

    async def stop(self, scope: Scope, ref: RuntimeRef, *, forward: bool) -> Runtime:
        """Stop a runtime and return it as it then is; one that has ended already is returned as it is.

        Raises HostedElsewhere, with `forward`, where another gateway that can be reached has the browser. Without it,
        that gateway is asked by the database, which takes longer.
        """
        at = await self.resolve(scope, ref)
        runtime_id = at.runtime_id
        if forward and (url := await self._host_url(scope, at)) is not None:
            raise HostedElsewhere(url)
        with self._audit.noting(Action.RUNTIME_STOPPED, runtime_id, failures_only=True):
            hosted = self.browsers.find(runtime_id)
            if hosted is not None and hosted.is_live_for(scope, at.space_id):
                run_id: UUID | None = hosted.observed.run_id
            else:
                found = await self.find(scope, at)
                if found.status != "active":
                    return found
                run_id = found.active_run_id
                steps.done("find runtime")
            with self._commands.noting(run_id, "runtimes.stop", {}) as command:
                if hosted is not None:
                    hosted.commands.append(command)
                await self.end([runtime_id], STOPPED)
            return (hosted and hosted.ended) or await self.find(scope, at)

    async def runs(self, scope: Scope, wanted: RunFilter, part: Slice) -> list[Run]:
        """Runs, newest first."""
        with self._audit.noting(Action.RUN_READ):
            async with self._database.connect() as connection:
                return await runs.listed(connection, scope, wanted, part)

    async def run(self, scope: Scope, run_id: UUID, *, record: str | None = None) -> Run:
        """The run; `record` is what of its record is read besides."""
        with self._audit.noting(Action.RUN_READ, run_id) as noting:
            if record is not None:
                noting.details["record"] = record
            async with self._database.connect() as connection:
                found = await runs.get(connection, scope, run_id)
            if found is None:
                raise not_found("run", run_id)
            return found

    async def latest_run(self, scope: Scope, ref: RuntimeRef, *, record: str | None = None) -> tuple[Runtime, UUID]:
        """A runtime and its newest run; `record` is what of the run's record is read besides. Raises NotFound."""
        runtime = await self.find(scope, await self.resolve(scope, ref))
        run_id = runtime.active_run_id
        if run_id is None:
            async with self._database.connect() as connection:
                run_id = await runs.latest(connection, runtime.id)
        if run_id is None:
            raise not_found("run", runtime.id)
        if record is not None:
            self._audit.note(Action.RUN_READ, run_id, details={"record": record})
        return runtime, run_id

    # Ending

    async def end(self, runtime_ids: Iterable[UUID], reason: Ending) -> None:
        """End runtimes, here or on the gateways that have them, and return when their rows say so."""
        here, elsewhere = [], []
        for runtime_id in runtime_ids:
            if (hosted := self.browsers.find(runtime_id)) is not None:
                here.append(hosted)
            else:
                elsewhere.append(runtime_id)
        await asyncio.gather(*(self._end_here(hosted, reason) for hosted in here))
        if elsewhere:
            await self._end_elsewhere(elsewhere)

    async def _end_here(self, hosted: HostedRuntime, reason: Ending) -> None:
        """Write its end, close its sockets, end the browser, and return when all of it is done.

        The row comes first: the kernel takes some 20 ms of all cores to clear a browser's processes, and a client that
        loses its socket has work too, which the write would wait for. A slow database does not let a browser live on.
        Should this process die in between, the browser dies with it, and the next start writes the row.
        """
        runtime_id, was_live = hosted.runtime_id, hosted.is_live
        hosted.end_requested(reason, audit.origin())
        if was_live or hosted.writing is not None:
            await asyncio.wait({self._write_end(hosted, hosted.requested)}, timeout=self._timings.row)
            steps.done("write end")
        close = Close.IDLE_TIMEOUT if reason is IDLE_TIMEOUT else Close.RUNTIME_GONE
        self._attachments.close_runtime(runtime_id, close)
        if hosted.profile is not None and hosted.profile.is_to_be_saved(was_live):
            # It closes in order, and then its profile is saved, behind the answer.
            self._profiles.saves.close_browser(hosted.profile, hosted.browser)
            if hosted.writing is not None and not await self._observers.owes(hosted.observed):
                await asyncio.wait({hosted.writing})
                if hosted.ended is not None:
                    return
        else:
            await hosted.browser.stop()
        steps.done("end browser")
        await hosted.written.wait()
        steps.done("rest of the end")

    def _write_end(self, hosted: HostedRuntime, ending: Ending) -> asyncio.Task[Runtime | None]:
        """Begin to write its end, unless that has begun already."""
        if hosted.writing is None:
            hosted.writing = background.start_on_behalf(self._endings.write(hosted.runtime_id, ending))
        return hosted.writing

    async def _end_elsewhere(self, runtime_ids: list[UUID]) -> None:
        async with self._database.connect() as connection:
            await runtimes.want_stopped(connection, runtime_ids=runtime_ids)
        for runtime_id in runtime_ids:
            self._audit.note(Action.RUNTIME_STOP_WANTED, runtime_id, details={"by": "database"})
        deadline = asyncio.get_running_loop().time() + self.elsewhere_seconds
        while True:
            async with self._database.connect() as connection:
                if not await runtimes.any_live(connection, runtime_ids):
                    return
            if asyncio.get_running_loop().time() > deadline:
                raise Unavailable(
                    "The gateway that has the browser has not stopped it yet; ask again.",
                    "runtime.host_unavailable",
                    retry_after=2,
                )
            await asyncio.sleep(self._timings.elsewhere_poll)

    async def _after_end(self, hosted: HostedRuntime) -> None:
        """Clean up after the end of a browser's process, whatever its cause."""
        runtime_id = hosted.runtime_id
        self._attachments.close_runtime(runtime_id, Close.RUNTIME_GONE)
        hosted.browser_ended()
        observed, ending = hosted.observed, hosted.browser.ended.result()
        if hosted.profile is not None:
            self._profiles.saves.ended(hosted.profile, ending)
        # From here on this runs on behalf of the runtime's creator, which may not be the one that ends it.
        ended_by = audit.GATEWAY
        # Once its end is being written as requested, how its browser ends meanwhile does not count.
        if hosted.reason is not None and (ending.asked or hosted.writing is not None):
            ending, ended_by = hosted.reason, hosted.ended_by
        elif self.draining:
            # A stop may reach the whole process tree, and the browser before us.
            ending = GATEWAY_STOPPED
        about: dict[str, Any] = {"runtime_id": str(runtime_id), "run_id": str(observed.run_id), "code": ending.code}
        if not ending.asked:
            _log.error("runtime failed", **about, cause=ending.message)
        else:
            by = {"request_id": ended_by.request_id} if ended_by.request_id is not None else {}
            _log.info("runtime stopped", **about, **by)
        self._endings.audit(runtime_id, observed.owner, ending, ended_by)
        self.capacity.release(observed.owner.organization_id)
        metrics.runtimes_live.dec()
        metrics.runtimes_ended.labels(ending.code).inc()
        try:
            with steps.traced() as taken:
                await self._write_end(hosted, ending)
                steps.done("write row")
                if not await self._observers.owes(observed):
                    hosted.written.set()
                await self._observers.end(observed)
                steps.done("end observer")
                await self._endings.write_last_usage(runtime_id)
            _log.debug("steps of an end", **about, ms=taken.ms)
            observed.close()
            for command in hosted.commands:
                command.done()
            self._endings.publish(observed, ending)
        finally:
            if hosted.extensions is not None:
                hosted.extensions.release()
            self.browsers.discard(runtime_id)
            hosted.written.set()
            hosted.over.set()

    async def write_endings(self) -> None:
        """Write the ends that are not written yet. Raises Unavailable; ends that could not be written are kept."""
        await self._endings.write_all()

    async def write_usage(self, connection: Connection) -> None:
        """Write the traffic of this gateway's browsers, where it changed since the last time."""
        await self._usage.write(connection, self.browsers.with_browser())

    async def drain(self) -> None:
        """Refuse new runtimes, close every socket, end every browser; returns when rows say so."""
        self.draining = True
        if self._board is not None:
            self._board.drains()
        self.capacity.refuse_waiting(_draining)
        self._attachments.close_all(Close.DRAINING)
        with contextlib.suppress(TimeoutError):
            # Sockets that wait for a browser that does not answer close when the browser ends.
            await asyncio.wait_for(self._attachments.emptied(), self._timings.sockets)
        while self.browsers.ids():
            ending = [self.browsers.get(runtime_id) for runtime_id in self.browsers.with_browser()]
            await self.end([hosted.runtime_id for hosted in ending], GATEWAY_STOPPED)
            await asyncio.gather(*(hosted.over.wait() for hosted in ending))
            if self.browsers.any_starting():
                await asyncio.sleep(self._timings.drain_poll)

    # Called by the supervisor

    def held(self) -> set[UUID]:
        """Runtimes that this gateway is starting, has a browser of, or has still to write the end of."""
        return self.browsers.ids() | self._endings.unwritten()

    def hosted(self) -> set[UUID]:
        """Runtimes whose browser this gateway has."""
        return self.browsers.with_browser()

    def hosts(self, runtime_id: UUID) -> bool:
        """Whether this gateway has the runtime's browser."""
        return self.browsers.find(runtime_id) is not None

    def files_dir(self, runtime_id: UUID) -> str:
        """The one directory of a hosted runtime whose files a client may name."""
        return self.browsers.get(runtime_id).browser.files_dir

    def observed(self, runtime_id: UUID) -> Observed | None:
        """The live run of a runtime whose browser this gateway has."""
        hosted = self.browsers.find(runtime_id)
        return None if hosted is None else hosted.observed

    def is_ending(self, runtime_id: UUID) -> bool:
        """Whether a hosted runtime's end has begun, which its row may not say yet."""
        return self.browsers.get(runtime_id).is_ending

    def ended_for_peer(self, ended: EndedRuntime, ending: Ending) -> None:
        """Audit and publish an end that this gateway wrote of a runtime whose browser it does not have."""
        self._endings.written_for_peer(ended, ending)

    def note_activity(self, runtime_id: UUID) -> None:
        """An API action on a runtime, which puts its idle timeout off; written by the supervisor in one go."""
        self._noted.add(runtime_id)
        if (hosted := self.browsers.find(runtime_id)) is not None:
            hosted.browser.use.act()

    def take_activity(self) -> set[UUID]:
        """Runtimes that were active since the last time, by the API or by an attached socket."""
        noted, self._noted = self._noted, set()
        return noted | set(self._attachments.attached_runtimes())

    def _spawn(self, work: Any) -> None:
        # An end is seldom the doing of the request that created the runtime.
        task = background.start_on_behalf(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _refuse_while_draining(self) -> None:
        if self.draining:
            raise _draining()


def _draining() -> Unavailable:
    return Unavailable("This gateway is stopping and takes no new runtimes.", "gateway.draining", retry_after=5)


def _named(ref: RuntimeRef) -> object:
    """A reference as the caller gave it."""
    if isinstance(ref, ById):
        return ref.runtime_id
    return ref.alias if isinstance(ref, ByAlias) else ref.name


def _alias_active(space_id: UUID, alias: str | None) -> Conflict:
    return Conflict(
        f"A live runtime has the alias {alias!r}; stop it first, or take another alias.",
        "runtime.alias_active",
        details={"spaceId": str(space_id), "alias": alias},
    )


def not_active(runtime_id: UUID, status: str) -> Conflict:
    return Conflict(
        f"Runtime {runtime_id} is {status}; this needs an active one.",
        "runtime.not_active",
        details={"id": str(runtime_id), "status": status},
    )


def _owner(scope: Scope, runtime_id: UUID) -> SecretOwner:
    """Of the password of a runtime's proxy, which is removed with the runtime's end."""
    return SecretOwner("runtime.proxy_password", scope.organization_id, scope.subaccount_id, runtime_id)
