"""Browsers on this machine, each started by the gateway itself, which shares no process with another one.

A small shell script starts the browser. It leads the browser's process group, drops to the runtime's own user id when
the gateway is root, gives the browser its own profile directory, and waits for its end. Layout of one runtime:

    DATA_DIR/runtimes/<id>/
        launch    the script, which leads the process group
        home/     HOME, TMPDIR, profile and downloads, owned by the runtime's user

Some browsers are launched in advance, so that a runtime gets one at once (warm_pool.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import os
import shlex
import shutil
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import structlog

from gateway.core import background, steps
from gateway.core.cores import usable_cores
from gateway.core.disk_space import DiskSpace
from gateway.core.errors import ConfigurationError, LaunchFailed, NotSupported
from gateway.core.launch import BrowserName, Failure, LaunchSpec, Variant
from gateway.core.shares import Turns
from gateway.core.unprivileged import grant_search
from gateway.core.worker_board import Board
from gateway.egress.proxy import LOOPBACK, EgressListener, EgressProxy
from gateway.launchers import failures
from gateway.launchers.local import (
    command_line,
    control_groups,
    extension_policy,
    extensions,
    locales,
    networks,
    processes,
    runtime_directory,
    stray_processes,
    user_agent,
)
from gateway.launchers.local.browsers import Binary, Browsers
from gateway.launchers.local.control_groups import ControlGroup, ControlGroups
from gateway.launchers.local.demand import Demand
from gateway.launchers.local.disk_limits import DiskLimits
from gateway.launchers.local.freezer import Freezer
from gateway.launchers.local.launch_process import LaunchProcess, PipeClosed
from gateway.launchers.local.local_browser import LocalBrowser
from gateway.launchers.local.networks import Network, Networks
from gateway.launchers.local.readiness import ready
from gateway.launchers.local.user_ids import UserIds
from gateway.launchers.local.warm_pool import WarmPool
from gateway.settings import Settings
from gateway.telemetry import metrics

_log = structlog.get_logger("gateway.launchers")

_KEEP_SECONDS = 120.0

# Full Chromium makes no narrower window, so its screen must not be narrower either.
_NARROWEST_WINDOW = 500


class LocalLauncher:
    """Launches browsers on this machine (see base.Launcher)."""

    def __init__(
        self,
        settings: Settings,
        browsers: Browsers,
        egress: EgressProxy | None = None,
        arguments: Callable[[int], list[str]] | None = None,
        path: str = command_line.NO_PROGRAMS,
        user_ids: UserIds | None = None,
        measure_seconds: tuple[float, float] | None = None,
        space: DiskSpace | None = None,
        groups: ControlGroups | None = None,
        board: Board | None = None,
    ) -> None:
        """`measure_seconds` are the shortest and the longest time between two measurements of a runtime's directory;
        `space` is of the disk that has them; `board` is what workers of this gateway share, if there are several."""
        self._disk = DiskLimits(
            space or DiskSpace(settings.data_dir.absolute(), settings.disk_reserve_bytes),
            settings.runtime_max_disk_bytes,
            lambda: self._live,
            measure_seconds,
            board,
        )
        self._watching_space: asyncio.Task[None] | None = None
        self.freezer = Freezer(settings.freeze_after_seconds)
        self._freezing: asyncio.Task[None] | None = None
        self._settings = settings
        self._browsers = browsers
        self.egress = egress or EgressProxy(settings)
        self._base_arguments = arguments or command_line.base_arguments
        self._path = path
        self._root = settings.runtimes_dir.absolute()
        self._parallel = Turns(settings.launch_parallel)
        default = Variant(browsers.default.name, settings.viewport_size)
        self._pool: WarmPool[LocalBrowser] = WarmPool(
            self._launch,
            Demand(default, *settings.warm_range),
            parallel=min(settings.launch_parallel, max(1, int(usable_cores() // 2))),
            free_bytes=settings.warm_free_memory_bytes,
        )
        self._measuring = asyncio.Lock()
        self._live: set[LocalBrowser] = set()
        self._directories: set[str] = set()
        self._processes: dict[str, LaunchProcess] = {}
        self._control_groups = groups
        self._groups: dict[str, ControlGroup] = {}
        self._users = user_ids
        if user_ids is None and os.geteuid() == 0:
            self._users = UserIds(
                settings.uid_base,
                settings.uid_count,
                settings.data_dir.absolute(),
                max_runtimes=settings.max_runtimes,
            )
        # Why runtimes have no networks of their own; None where they have, once it is open.
        self.no_networks: str | None = None
        self._networks: Networks | None = None
        self._network_of: dict[str, Network] = {}
        self._frame_height: int | None = None
        # Set once it is seen that extensions can be contained on this machine.
        self.contains_extensions = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def runtimes_dir(self) -> Path:
        """The directory that has one directory for each runtime."""
        return self._root

    @property
    def warm(self) -> list[LocalBrowser]:
        """The browsers that are ready to be handed out."""
        return self._pool.ready

    def _claimed(self) -> set[LocalBrowser]:
        """The browsers of runtimes. Pages of the others are blank, and are configured at once when they are claimed."""
        return self._live.difference(self._pool.ready)

    async def open(self) -> None:
        """Clear what an earlier process left, and begin to keep browsers warm."""
        processes.adopt_orphans()
        await asyncio.to_thread(self._make_directories)
        await self._open_control_groups()
        await self.sweep()
        if self._users is not None:
            await self._users.open()
        await self._open_networks()
        self._watching_space = asyncio.create_task(self._disk.watch_space())
        self._freezing = asyncio.create_task(self.freezer.run(self._claimed))
        self._pool.open()

    def _make_directories(self) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            self._root.chmod(0o711)
            grant_search(self._root, self._settings.uid_base)

    async def _open_control_groups(self) -> None:
        """Raises ConfigurationError where a limit is wanted that the machine can't keep."""
        memory = self._settings.runtime_memory_bytes
        own: Path | None = None
        if memory:
            try:
                own = control_groups.own_group()
            except ConfigurationError as error:
                raise ConfigurationError(
                    f"GATEWAY_RUNTIME_MEMORY_BYTES is set, but memory can't be limited: {error.message}. "
                    "Let the gateway write its control group (`Delegate=yes` of a service), or leave the option out."
                ) from error
        elif self._users is None:
            own = control_groups.writable_group()
        if self._control_groups is None and own is not None:
            self._control_groups = ControlGroups(own, self._root, memory, self._settings.runtime_max_processes)
        if self._control_groups is not None:
            await self._control_groups.open()

    async def _open_networks(self) -> None:
        """Raises ConfigurationError where networks are required and can't be made."""
        wanted = self._settings.browser_network
        reason = await asyncio.to_thread(networks.why_none, wanted)
        if reason is not None and wanted == "require":
            raise ConfigurationError(
                f"GATEWAY_BROWSER_NETWORK is `require`, but a runtime can't have a network of its own: {reason}. "
                "Run `gateway doctor`, or set it to `auto`."
            )
        self.no_networks = reason
        if reason is None:
            self._networks = Networks()
        metrics.browser_networks.set(reason is None)

    @property
    def users(self) -> UserIds | None:
        """User ids of this gateway's unprivileged processes; None where it is not root."""
        return self._users

    async def check(self, spec: LaunchSpec) -> None:
        if spec.extensions:
            await self._check_extensions(spec)
        if spec.upstream is not None:
            await self.egress.check_upstream(spec.upstream)

    async def _check_extensions(self, spec: LaunchSpec) -> None:
        """Raises NotSupported where a browser can't have them."""
        reason, advice = None, extension_policy.ADVICE
        if self._browsers.chromium is None:
            reason, advice = "there is no full Chromium on this machine", "The operator can install it."
        elif spec.browser == "headless-shell":
            reason, advice = "the headless shell has none", "Ask for chromium, or leave the browser out."
        elif not self.contains_extensions:
            reason = await asyncio.to_thread(extension_policy.why_none, self.no_networks, self.runtimes_dir)
            self.contains_extensions = reason is None
        if reason is not None:
            raise NotSupported(
                f"A browser can't have extensions: {reason}. {advice}",
                "extensions.not_available",
                details={"reason": reason, "advice": advice},
            )

    async def launch(self, spec: LaunchSpec) -> LocalBrowser:
        if spec.extensions:
            await self._check_extensions(spec)
            spec = dataclasses.replace(spec, browser="chromium")
        if spec.profile is not None or spec.extensions:
            # A warm browser has a directory and its preferences already.
            with self._pool.requested():
                return await self._launch(spec)
        browser = await self._pool.claim(self._variant(spec), spec.taker)
        if browser is None:
            with self._pool.requested():
                return await self._launch(spec)
        browser.listener.adopt(spec.runtime_id, spec.traffic, spec.upstream)
        steps.done("claim warm browser")
        return browser

    def _variant(self, spec: LaunchSpec) -> Variant:
        """The spec's variant, with the defaults that take the place of None. Raises LaunchFailed (not installed)."""
        viewport = spec.viewport or self._settings.viewport_size
        return dataclasses.replace(spec.variant, browser=self._browsers.get(spec.browser).name, viewport=viewport)

    async def _launch(self, spec: LaunchSpec) -> LocalBrowser:
        binary = self._browsers.get(spec.browser)
        if binary.name == "chromium":
            async with self._measuring:
                if self._frame_height is None:
                    self._frame_height = await self._measure_frame(binary)
        return await self._launch_binary(binary, spec)

    async def _launch_binary(self, binary: Binary, spec: LaunchSpec) -> LocalBrowser:
        async with self._parallel.turn(spec.taker):
            steps.done("turn")
            uid = await self._users.take() if self._users is not None else None
            steps.done("user id")
            directory = self._root / str(spec.runtime_id)
            try:
                network = await self._make_network(directory)
                listener = await self.egress.open_listener(spec.runtime_id, uid, network)
            except BaseException:
                self._close_network(directory)
                self._free_user(uid)
                raise
            self._directories.add(directory.name)
            try:
                listener.adopt(spec.runtime_id, spec.traffic, spec.upstream)
                steps.done("egress listener")
                await self._prepared(directory, binary.path, uid, spec)
                steps.done("directory")
                browser = await self._start(spec, directory, binary, listener)
            except BaseException:
                await self._clear(directory, uid, listener)
                raise
        self._live.add(browser)
        browser.on_killed = lambda: self._on_end(browser, directory, uid)
        # The watch keeps itself alive in the event loop until the process ends, which is after a kill.
        processes.ProcessWatch(browser.group, browser.on_killed)
        self._spawn(self._disk.watch(browser, directory / "home"))
        return browser

    async def _make_network(self, directory: Path) -> Network | None:
        """A network for the runtime, if runtimes have those: where it can't be made then, the launch fails."""
        if self._networks is None:
            return None
        try:
            network = self._network_of[directory.name] = await self._networks.take()
            return network
        except OSError as error:
            raise LaunchFailed(
                f"The network of a browser can't be made: {error.strerror}.",
                failure=Failure.EXITED,
                advice="Run `gateway doctor`.",
            ) from error

    async def _prepared(self, directory: Path, binary: Path, uid: int | None, spec: LaunchSpec) -> None:
        profile, launched = spec.profile, spec.extensions
        owner = None if uid is None else (uid, self._settings.uid_base)
        place = directory / "home" / "profile"
        try:
            enter_group = partial(self._enter_group, directory)
            await asyncio.to_thread(
                runtime_directory.make,
                self._settings,
                directory,
                binary,
                owner,
                enter_group,
                preferences=profile is None,
                launched=launched,
            )
            if profile is not None:
                await profile.restore(place, owner)
                steps.done("restore profile")
                await asyncio.to_thread(runtime_directory.write_preferences, place, owner, launched)
        except OSError as error:
            # A container whose root has no other user ids can't give one away.
            refused = error.errno in (errno.EINVAL, errno.EPERM)
            raise LaunchFailed(
                f"The directory of a browser can't be made: {error.strerror}.",
                failure=Failure.SANDBOX_REFUSED if refused else Failure.EXITED,
                advice="Run `gateway doctor`.",
            ) from error

    def _enter_group(self, directory: Path) -> str:
        """The line of the script that enters the runtime's control group, if runtimes have those."""
        if self._control_groups is None:
            return ""
        group = self._groups[directory.name] = self._control_groups.make(directory.name)
        return f"echo $$ >{shlex.quote(str(group.entrance))} || exit\n"

    async def _start(self, spec: LaunchSpec, directory: Path, binary: Binary, listener: EgressListener) -> LocalBrowser:
        home = directory / "home"
        features: tuple[str, ...] = ()
        override: dict[str, Any] | None = None
        if not self._settings.headless_user_agent:
            features = user_agent.blank_hints(binary.name, spec)
            if spec.user_agent is None:
                override = user_agent.override(binary.version)
                spec = dataclasses.replace(spec, user_agent=user_agent.ordinary(binary.version))
        arguments = command_line.arguments(
            self._base_arguments(listener.port),
            spec,
            self._window(spec, binary.name),
            home / "profile",
            sandbox=not self._settings.unsafe_no_sandbox,
            storage_bytes=self._settings.runtime_max_disk_bytes // 2,
            features=features,
            added=extensions.ARGUMENTS if spec.extensions else (),
            left_out=extensions.LEFT_OUT if spec.extensions else (),
        )
        environment = command_line.environment(spec, home, self._path)
        network = self._network_of.get(directory.name)
        spawn = os.posix_spawn if network is None else network.spawn
        try:
            process = LaunchProcess(directory / "launch", arguments, environment, spawn)
        except OSError as error:
            raise failures.classify_start(error) from error
        self._processes[directory.name] = process
        steps.done("start process")
        port_file = home / "profile" / "DevToolsActivePort"
        cookies = () if spec.profile is None else spec.profile.cookies
        product, port, path = await ready(
            process, port_file, self._settings.launch_timeout_seconds, cookies, spec.extensions
        )
        process.close_output()
        listener.reserve_port(port)
        version = product.rpartition("/")[2]
        url = f"ws://{LOOPBACK}:{port}{path}"
        warning = None if spec.locale is None else locales.warning(binary.path, spec.locale)
        files_dir = str(home / "downloads")
        loaded = frozenset(extension.id for extension in spec.extensions)
        return LocalBrowser(binary.name, version, url, files_dir, process, listener, network, warning, override, loaded)

    def _window(self, spec: LaunchSpec, name: BrowserName) -> tuple[int, int]:
        """The size of a window whose page has the spec's viewport."""
        width, height = spec.viewport or self._settings.viewport_size
        if name == "headless-shell":
            return width, height
        return max(width, _NARROWEST_WINDOW), height + (self._frame_height or 0)

    async def _measure_frame(self, binary: Binary) -> int:
        """Height of what full Chromium draws around a page, which its window has and a viewport does not have."""
        browser = await self._launch_binary(binary, LaunchSpec(uuid4(), "chromium"))
        try:
            command = browser.process.command
            (page,) = (await command("Target.getTargets"))["targetInfos"]
            attached = await command("Target.attachToTarget", targetId=page["targetId"], flatten=True)
            # The page's own `outerHeight` is that of the page until it is shown.
            window = await command("Browser.getWindowForTarget", targetId=page["targetId"])
            measured = await command(
                "Runtime.evaluate", attached["sessionId"], expression="innerHeight", returnByValue=True
            )
            window_height: int = window["bounds"]["height"]
            page_height: int = measured["result"]["value"]
            return window_height - page_height
        except PipeClosed as error:
            raise failures.classify_exit("", 1) from error
        finally:
            await browser.stop()

    def _on_end(self, browser: LocalBrowser, directory: Path, uid: int | None) -> None:
        """The first of two: it was killed by the gateway, or its leader has ended."""
        if browser.ended.done():
            return
        ending = browser.ending(self._groups.get(directory.name))
        self._live.discard(browser)
        self._pool.discard(browser)
        browser.listener.shut()
        browser.ended.set_result(ending)
        self._spawn(self._clear_after(browser, directory, uid))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = background.start(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _clear_after(self, browser: LocalBrowser, directory: Path, uid: int | None) -> None:
        """End its processes at once; remove its directory when nothing reads it, at the latest in two minutes."""
        try:
            if await self._end_processes(directory, uid):
                browser.files.settled.set()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(browser.files.free(), _KEEP_SECONDS)
                await self._remove(directory, uid, browser.listener)
        finally:
            browser.removed.set()

    async def _clear(self, directory: Path, uid: int | None, listener: EgressListener) -> None:
        if await self._end_processes(directory, uid):
            await self._remove(directory, uid, listener)

    async def _end_processes(self, directory: Path, uid: int | None) -> bool:
        """End what is left of a runtime's processes, also those that left its group; False when some stay."""
        process = self._processes.pop(directory.name, None)
        if process is not None:
            process.close()
            if not await processes.end_group(process.pid):
                _log.error("processes of a runtime can't be ended", directory=directory.name, group=process.pid)
                return False
        own_group = self._groups.pop(directory.name, None)
        if own_group is not None and not await own_group.end():
            _log.error(
                "processes of a runtime can't be ended", directory=directory.name, control_group=str(own_group.path)
            )
            return False
        return uid is None or self._users is None or await self._users.end(uid)

    async def _remove(self, directory: Path, uid: int | None, listener: EgressListener) -> None:
        """Remove a runtime's listener and directory, then release its user id."""
        await listener.close()
        self._close_network(directory)
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
        self._directories.discard(directory.name)
        self._free_user(uid)

    def _close_network(self, directory: Path) -> None:
        network = self._network_of.pop(directory.name, None)
        if network is not None:
            network.close()

    def _free_user(self, uid: int | None) -> None:
        if uid is not None and self._users is not None:
            self._users.free(uid)

    async def sweep(self) -> int:
        await asyncio.to_thread(processes.reap_orphans)
        own = set(self._directories)
        groups = await asyncio.to_thread(stray_processes.groups_below, self._root)
        # Some may have been launched or have ended meanwhile.
        stray = set(groups) - own - self._directories
        await asyncio.gather(*(processes.end_group(group) for name in stray for group in groups[name]))
        for name in stray:
            await asyncio.to_thread(shutil.rmtree, self._root / name, ignore_errors=True)
        if stray:
            _log.warning("cleared what runtimes had left", runtimes=sorted(stray))
        return len(stray)

    def kill(self) -> None:
        """End every browser at once, those that are just starting too; what is left is cleared by `close`."""
        for process in self._processes.values():
            processes.kill_group(process.pid)

    async def close(self) -> None:
        # One that is just being launched is awaited, and then stopped with the others.
        await self._pool.close()
        if watches := {watch for watch in (self._watching_space, self._freezing) if watch is not None}:
            for watch in watches:
                watch.cancel()
            await asyncio.wait(watches)
        while self._live or self._tasks:
            await asyncio.gather(*(browser.stop() for browser in self._live), *self._tasks, return_exceptions=True)
        await self.egress.close()
        if self._users is not None:
            self._users.close()
        if self._networks is not None:
            # Of a runtime whose processes could not be ended.
            for network in self._network_of.values():
                network.close()
            self._networks.close()
