"""Browsers on this machine, launched through Playwright.

Playwright gets a small shell script as its executable. The script leads the browser's process group, drops to the
runtime's own user id when the gateway is root, gives the browser its own profile directory, and notes the browser's
exit status, which Playwright's Python API does not expose. Layout of one runtime:

    DATA_DIR/runtimes/<id>/
        launch    the script          pid     its process group
        exit      the exit status     home/   HOME, TMPDIR, profile and downloads, owned by the runtime's user

A few browsers are kept warm: launched ahead, so that a runtime without options of its own gets one at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shlex
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import structlog
from playwright.async_api import Browser as PlaywrightBrowser
from playwright.async_api import Error as PlaywrightError
from playwright.async_api import Playwright, async_playwright

from gateway.core.endings import STOPPED, Ending
from gateway.core.errors import ConfigurationError, LaunchFailed
from gateway.core.launch import BrowserName, Failure, LaunchSpec
from gateway.core.unprivileged import grant_search
from gateway.egress.proxy import LOOPBACK, EgressListener, EgressProxy
from gateway.launchers import failures
from gateway.launchers.base import FilesHold
from gateway.launchers.local import control_groups, limits, processes
from gateway.launchers.local.browsers import Browsers
from gateway.launchers.local.control_groups import ControlGroup, ControlGroups
from gateway.settings import Settings

_log = structlog.get_logger("gateway.launchers")

_PORT_POLL_SECONDS = 0.002
_KEEP_SECONDS = 120.0

# What a program does to itself; every other signal was sent to it.
_CRASHES = {
    signal.SIGABRT,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGSEGV,
    signal.SIGSYS,
    signal.SIGTRAP,
}

# A reserved name (RFC 2606) that only the browser's resolver rules know.
_PROXY_HOST = "exit.invalid"

# Full Chromium's viewer of PDFs is an extension, in which a client could open any file; the headless shell has none.
_PREFERENCES = '{"plugins": {"always_open_pdf_externally": true}}'
# Pages of the browser's own, which a client could attach to and which may do more than a web page. Added to
# Playwright's list of features that are off, since of two lists only the last one counts.
_NO_FEATURES = "WebUIOmniboxPopup,WebUIOmniboxAimPopup"

_PROFILE = "--user-data-dir="
_ARGUMENTS = [
    "--remote-debugging-port=0",
    "--disable-component-update",
    "--disable-quic",
    "--no-first-run",
    # Everything goes through the runtime's egress listener, loopback too.
    f"--proxy-server={_PROXY_HOST}",
    "--proxy-bypass-list=<-loopback>",
    # The first is what the headless shell knows, the second full Chromium.
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--webrtc-ip-handling-policy=disable_non_proxied_udp",
]


class LocalBrowser:
    """A browser of this machine (see base.Browser)."""

    def __init__(
        self,
        name: BrowserName,
        devtools_url: str,
        files_dir: str,
        group: int,
        driver: Driver,
        launched: PlaywrightBrowser,
        listener: EgressListener,
    ) -> None:
        self.name = name
        self.version = launched.version
        self.launched = launched
        self.devtools_url = devtools_url
        self.files_dir = files_dir
        self.files = FilesHold()
        self.group = group
        self.listener = listener
        self.usage = listener.usage
        self.ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._driver = driver
        self._asked = False
        self._memory_kills = processes.out_of_memory_kills()

    async def stop(self) -> None:
        # Its profile is deleted anyway, so a graceful shutdown would only take time.
        self._asked = True
        if not self.ended.done():
            await processes.end_group(self.group)
        await asyncio.shield(self.ended)

    def ending(self, exit_file: Path, group: ControlGroup | None) -> Ending:
        """Why it ended, judged by whether a stop was requested, by its driver, and by its exit status."""
        if self._asked:
            return STOPPED
        if self._driver.has_ended():
            return Ending("driver.exited", "The Playwright driver that held the browser's pipe ended.")
        if group is not None and group.out_of_memory():
            return Ending("browser.out_of_memory", "The kernel ended the browser at its limit of memory.")
        status = _read_exit_status(exit_file)
        if status is None:
            return Ending("browser.killed", "The browser's process group was killed from outside.")
        if status <= 128:
            return Ending("browser.exited", f"The browser exited by itself with status {status}.")
        name = _signal_name(status - 128)
        if status - 128 in _CRASHES:
            return Ending("browser.crashed", f"The browser crashed ({name}).")
        if status - 128 == signal.SIGKILL and processes.out_of_memory_kills() > self._memory_kills:
            return Ending("browser.out_of_memory", "The kernel killed the browser because memory ran out.")
        return Ending("browser.killed", f"The browser was killed from outside ({name}).")


class Driver:
    """One Playwright driver process, which holds the pipes of the browsers that it launched."""

    def __init__(self, playwright: Playwright, pid: int, temp_dir: Path) -> None:
        self.playwright = playwright
        self.pid = pid
        self.launches = 0
        self.browsers = 0
        self._temp_dir = temp_dir
        self._watch = processes.ProcessWatch(pid, lambda: None)

    @classmethod
    async def start(cls, temp_root: Path) -> Driver:
        temp_dir = Path(tempfile.mkdtemp(prefix="driver-", dir=temp_root))
        before = {child.pid for child in psutil.Process().children()}
        with _environment(TMPDIR=str(temp_dir)):
            playwright = await async_playwright().start()
        pid = next(
            child.pid
            for child in psutil.Process().children()
            if child.pid not in before and "run-driver" in child.cmdline()
        )
        return cls(playwright, pid, temp_dir)

    def has_ended(self) -> bool:
        return self._watch.has_ended()

    async def close(self) -> None:
        self._watch.close()
        with contextlib.suppress(PlaywrightError):
            await self.playwright.stop()
        await asyncio.to_thread(shutil.rmtree, self._temp_dir, ignore_errors=True)


class LocalLauncher:
    """Launches browsers on this machine (see base.Launcher)."""

    def __init__(
        self,
        settings: Settings,
        browsers: Browsers,
        egress: EgressProxy | None = None,
        arguments: Callable[[int], list[str]] | None = None,
    ) -> None:
        self._settings = settings
        self._browsers = browsers
        self.egress = egress or EgressProxy(settings)
        self._base_arguments = arguments or base_arguments
        self._root = settings.runtimes_dir.absolute()
        self._temp_root = settings.data_dir.absolute() / "tmp"
        self._parallel = asyncio.Semaphore(settings.launch_parallel)
        self._driver: Driver | None = None
        self._driver_lock = asyncio.Lock()
        self._retired: set[Driver] = set()
        self._warming = asyncio.Lock()
        self._measuring = asyncio.Lock()
        self._live: set[LocalBrowser] = set()
        self._warm: list[LocalBrowser] = []
        self._directories: set[str] = set()
        self._control_groups: ControlGroups | None = None
        self._groups: dict[str, ControlGroup] = {}
        self._asked = 0
        self._closing = False
        self._uids: set[int] = set()
        self._frame_height: int | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def runtimes_dir(self) -> Path:
        """The directory that has one directory for each runtime."""
        return self._root

    @property
    def warm(self) -> list[LocalBrowser]:
        """The browsers that are ready to be handed out."""
        return list(self._warm)

    async def open(self) -> None:
        """Clear what an earlier process left, and have a driver ready before the first launch needs it."""
        processes.adopt_orphans()
        await asyncio.to_thread(self._make_directories)
        self._open_control_groups()
        await self.sweep()
        await self._current_driver()
        self._spawn(self._keep_warm())

    def _make_directories(self) -> None:
        shutil.rmtree(self._temp_root, ignore_errors=True)
        self._temp_root.mkdir(parents=True, mode=0o700)
        self._root.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            self._root.chmod(0o711)
            grant_search(self._root, self._settings.uid_base)

    def _open_control_groups(self) -> None:
        """Raises ConfigurationError where a limit is wanted that the machine can't keep."""
        memory = self._settings.runtime_memory_bytes
        if not memory:
            return
        try:
            own = control_groups.own_group()
        except ConfigurationError as error:
            raise ConfigurationError(
                f"GATEWAY_RUNTIME_MEMORY_BYTES is set, but memory can't be limited: {error.message}. "
                "Let the gateway write its control group (`Delegate=yes` of a service), or leave the option out."
            ) from error
        self._control_groups = ControlGroups(own, self._root, memory, self._settings.runtime_max_processes)
        self._control_groups.open()

    async def launch(self, spec: LaunchSpec) -> LocalBrowser:
        self._asked += 1
        try:
            return self._take_warm(spec) or await self._launch(spec)
        finally:
            self._asked -= 1
            self._spawn(self._keep_warm())

    def _take_warm(self, spec: LaunchSpec) -> LocalBrowser | None:
        if spec.is_customized or not self._warm:
            return None
        browser = self._warm.pop(0)
        browser.listener.adopt(spec.runtime_id, spec.traffic, spec.upstream)
        return browser

    async def _keep_warm(self) -> None:
        """Launch what is missing to the wanted number; one that fails is tried again at the next launch."""
        if self._warming.locked():
            return
        async with self._warming:
            # Requested launches come first.
            while len(self._warm) < self._settings.warm_browsers and not self._asked and not self._closing:
                try:
                    self._warm.append(await self._launch(LaunchSpec(uuid4())))
                except LaunchFailed as error:
                    _log.error("no browser can be kept warm", failure=error.failure, error=error.message)
                    return

    async def _launch(self, spec: LaunchSpec) -> LocalBrowser:
        binary = self._browsers.get(spec.browser)
        if binary.name == "chromium" and spec.viewport is not None:
            async with self._measuring:
                if self._frame_height is None:
                    self._frame_height = await self._measure_frame()
        async with self._parallel:
            driver = await self._current_driver()
            uid = self._take_uid()
            driver.launches += 1
            driver.browsers += 1
            directory = self._root / str(spec.runtime_id)
            self._directories.add(directory.name)
            listener = await self.egress.open_listener(spec.runtime_id, uid)
            try:
                listener.adopt(spec.runtime_id, spec.traffic, spec.upstream)
                await self._prepared(directory, binary.path, uid)
                browser = await self._start(driver, spec, directory, binary.name, listener)
            except BaseException:
                driver.browsers -= 1
                await self._clear(directory, uid, listener)
                raise
        self._live.add(browser)
        # The watch keeps itself alive in the event loop until the process ends.
        processes.ProcessWatch(browser.group, lambda: self._on_end(browser, driver, directory, uid))
        return browser

    async def _prepared(self, directory: Path, binary: Path, uid: int | None) -> None:
        try:
            await asyncio.to_thread(self._prepare, directory, binary, uid)
        except OSError as error:
            # A container whose root has no other user ids can't give one away.
            refused = error.errno in (errno.EINVAL, errno.EPERM)
            raise LaunchFailed(
                f"The directory of a browser can't be made: {error.strerror}.",
                failure=Failure.SANDBOX_REFUSED if refused else Failure.EXITED,
                advice="Run `gateway doctor`.",
            ) from error

    def _prepare(self, directory: Path, binary: Path, uid: int | None) -> None:
        home = directory / "home"
        directory.mkdir()
        directory.chmod(0o711)
        home.mkdir(mode=0o700)
        group = self._settings.uid_base
        drop = ""
        if uid is not None:
            os.chown(home, uid, group)
            drop = limits.as_user(self._settings, uid)
        for name in ("tmp", "profile", "downloads", "profile/Default"):
            (home / name).mkdir(mode=0o700)
            if uid is not None:
                os.chown(home / name, uid, group)
        preferences = home / "profile" / "Default" / "Preferences"
        preferences.write_text(_PREFERENCES)
        if uid is not None:
            os.chown(preferences, uid, group)
        at, to = shlex.quote(str(directory)), shlex.quote(str(home / "profile"))
        script = directory / "launch"
        # Where the directory is gone the launch was given up meanwhile, and nothing may start any more.
        script.write_text(
            f"#!/bin/sh\necho $$ >{at}/pid && cd {at}/home || exit\n"
            f"{self._enter_group(directory)}{limits.script_lines(self._settings)}"
            f'for a do shift; case $a in --disable-features=*) a=$a,{_NO_FEATURES};; esac; set -- "$@" "$a"; done\n'
            f'{drop}{shlex.quote(str(binary))} "$@" {_PROFILE}{to}\n'
            f"status=$?\necho $status >{at}/exit\nexit $status\n"
        )
        script.chmod(0o755)

    def _enter_group(self, directory: Path) -> str:
        """The line of the script that enters the runtime's control group, if runtimes have those."""
        if self._control_groups is None:
            return ""
        group = self._groups[directory.name] = self._control_groups.make(directory.name)
        return f"echo $$ >{shlex.quote(str(group.entrance))} || exit\n"

    async def _start(
        self, driver: Driver, spec: LaunchSpec, directory: Path, name: BrowserName, listener: EgressListener
    ) -> LocalBrowser:
        frame_height = (self._frame_height or 0) if name == "chromium" else 0
        deadline = time.monotonic() + self._settings.launch_timeout_seconds
        try:
            launched = await driver.playwright.chromium.launch(
                executable_path=directory / "launch",
                args=[*self._base_arguments(listener.port), *_arguments(spec, frame_height)],
                chromium_sandbox=not self._settings.unsafe_no_sandbox,
                env=_environment_of(spec, directory / "home"),
                timeout=self._settings.launch_timeout_seconds * 1000,
                handle_sigint=False,
                handle_sigterm=False,
                handle_sighup=False,
            )
            # Clients expect the first page that a browser opens with; started with a pipe, it opens none by itself.
            session = await launched.new_browser_cdp_session()
            await session.send("Target.createTarget", {"url": "about:blank"})
        except Exception as error:
            # Not only Playwright's own Error: for a driver that has ended it raises a plain Exception.
            raise failures.classify(str(error)) from error
        group = int((directory / "pid").read_text())
        port_file = directory / "home" / "profile" / "DevToolsActivePort"
        while not (content := _read_port_file(port_file)):
            if not launched.is_connected():
                raise failures.classify("")
            if time.monotonic() > deadline:
                raise failures.classify(f"Timeout {self._settings.launch_timeout_seconds * 1000}ms exceeded.")
            await asyncio.sleep(_PORT_POLL_SECONDS)
        port, path = content
        listener.reserve_port(port)
        files_dir = str(directory / "home" / "downloads")
        return LocalBrowser(name, f"ws://{LOOPBACK}:{port}{path}", files_dir, group, driver, launched, listener)

    async def _measure_frame(self) -> int:
        """Height of what full Chromium draws around a page, which its window has and a viewport has not."""
        browser = await self._launch(LaunchSpec(uuid4(), "chromium"))
        try:
            page = await (await browser.launched.new_context(no_viewport=True)).new_page()
            height: int = await page.evaluate("outerHeight - innerHeight")
            return height
        finally:
            await browser.stop()

    def _on_end(self, browser: LocalBrowser, driver: Driver, directory: Path, uid: int | None) -> None:
        ending = browser.ending(directory / "exit", self._groups.get(directory.name))
        self._live.discard(browser)
        if browser in self._warm:
            self._warm.remove(browser)
        driver.browsers -= 1
        browser.ended.set_result(ending)
        self._spawn(self._clear_after(browser.files, directory, uid, browser.listener))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _clear_after(self, files: FilesHold, directory: Path, uid: int | None, listener: EgressListener) -> None:
        """Clear once what the browser left in its directory is kept, or at the latest in two minutes."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(files.free(), _KEEP_SECONDS)
        await self._clear(directory, uid, listener)

    async def _clear(self, directory: Path, uid: int | None, listener: EgressListener) -> None:
        """End what is left of a runtime's processes, its listener and its directory, then release its user id."""
        group = _read_group(directory)
        if group is not None and not await processes.end_group(group):
            _log.error("processes of a runtime can't be ended", directory=directory.name, group=group)
            return
        own_group = self._groups.pop(directory.name, None)
        if own_group is not None and not await own_group.end():
            _log.error(
                "processes of a runtime can't be ended", directory=directory.name, control_group=str(own_group.path)
            )
            return
        await listener.close()
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
        self._directories.discard(directory.name)
        if uid is not None:
            self._uids.discard(uid)
        await self._close_retired()

    async def _current_driver(self) -> Driver:
        """The driver for the next launch: the present one, or a fresh one when it died or has launched enough."""
        async with self._driver_lock:
            driver = self._driver
            if driver is not None and driver.has_ended():
                _log.error("playwright driver ended", pid=driver.pid)
                self._retired.add(driver)
                driver = None
            elif driver is not None and driver.launches >= self._settings.driver_launches:
                self._retired.add(driver)
                driver = None
            if driver is None:
                driver = self._driver = await Driver.start(self._temp_root)
            return driver

    async def _close_retired(self) -> None:
        for driver in [driver for driver in self._retired if driver.browsers <= 0 or driver.has_ended()]:
            self._retired.discard(driver)
            await driver.close()

    def _take_uid(self) -> int | None:
        if os.geteuid() != 0:
            return None
        first = self._settings.uid_base + 1
        for uid in range(first, first + self._settings.uid_count - 1):
            if uid not in self._uids:
                self._uids.add(uid)
                return uid
        raise LaunchFailed(
            f"All {self._settings.uid_count} user ids for browsers are taken.",
            failure=Failure.OUT_OF_PROCESSES,
            advice="Raise GATEWAY_UID_COUNT.",
        )

    async def sweep(self) -> int:
        await asyncio.to_thread(processes.reap_orphans)
        own = set(self._directories)
        groups = await asyncio.to_thread(_groups_below, self._root)
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
        for directory in self._root.iterdir():
            group = _read_group(directory)
            if group is not None:
                processes.kill_group(group)

    async def close(self) -> None:
        self._closing = True
        # A warm one that is just being launched is awaited, and then stopped with the others.
        while self._live or self._tasks:
            await asyncio.gather(*(browser.stop() for browser in self._live), *self._tasks, return_exceptions=True)
        drivers = {*self._retired, *([self._driver] if self._driver else [])}
        self._retired.clear()
        self._driver = None
        await asyncio.gather(*(driver.close() for driver in drivers))
        await self.egress.close()
        await asyncio.to_thread(shutil.rmtree, self._temp_root, ignore_errors=True)


def base_arguments(port: int) -> list[str]:
    """The arguments of every browser whose egress listener has this port."""
    return [*_ARGUMENTS, _resolver_rules(port)]


def _resolver_rules(port: int) -> str:
    """Leaves the browser one address to connect to: its egress listener. No other name or address resolves, not even in
    a context with another proxy or none, and no name server is asked, by DNS or DNS over HTTPS."""
    return f"--host-resolver-rules=MAP {_PROXY_HOST} {LOOPBACK}:{port} , MAP * ~NOTFOUND"


def _arguments(spec: LaunchSpec, frame_height: int) -> list[str]:
    """What can be set for the whole browser, so that it holds in every context and for every client."""
    arguments = []
    if spec.viewport is not None:
        arguments.append(f"--window-size={spec.viewport[0]},{spec.viewport[1] + frame_height}")
    if spec.locale is not None:
        arguments += [f"--lang={spec.locale}", f"--accept-lang={spec.locale}"]
    if spec.user_agent is not None:
        arguments.append(f"--user-agent={spec.user_agent}")
    return arguments


def _environment_of(spec: LaunchSpec, home: Path) -> dict[str, str | float | bool]:
    """A browser's whole environment; nothing of the gateway's own is in it."""
    environment: dict[str, str | float | bool] = {
        "HOME": str(home),
        # Chromium makes a socket in it, whose path may have 107 bytes; the launch script goes to the home directory.
        "TMPDIR": "/proc/self/cwd/tmp",
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
    }
    if spec.timezone is not None:
        environment["TZ"] = spec.timezone
    return environment


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _read_port_file(path: Path) -> tuple[int, str] | None:
    """Port and path that the browser wrote, or None as long as it has not written both."""
    try:
        port, _, rest = path.read_text().partition("\n")
    except FileNotFoundError:
        return None
    return (int(port), rest.strip()) if rest else None


def _read_exit_status(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except FileNotFoundError:
        return None
    return int(text) if text else None


def _read_group(directory: Path) -> int | None:
    try:
        text = (directory / "pid").read_text().strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return int(text) if text else None


def _groups_below(root: Path) -> dict[str, set[int]]:
    """Name of each runtime directory -> process groups that run from it, also where the directory is gone."""
    groups: dict[str, set[int]] = {entry.name: set() for entry in root.iterdir()}
    for process in psutil.process_iter():
        try:
            name = _runtime_of(process.cmdline(), root)
            if name is not None:
                groups.setdefault(name, set()).add(os.getpgid(process.pid))
        except (psutil.Error, ProcessLookupError):
            continue
    return groups


def _runtime_of(command: list[str], root: Path) -> str | None:
    """The runtime whose launch script or browser this command is; None for anything else, an editor, say."""
    paths = [argument.removeprefix(_PROFILE) for argument in command if argument.startswith(_PROFILE)]
    if len(command) > 1 and command[0] == "/bin/sh" and command[1].endswith("/launch"):
        paths.append(command[1])
    return next((path[len(f"{root}/") :].split("/", 1)[0] for path in paths if path.startswith(f"{root}/")), None)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
