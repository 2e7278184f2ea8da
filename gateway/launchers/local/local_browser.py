"""A browser of this machine: how it is ended, and why it ended."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

from gateway.core.browser_network import BrowserNetwork, Opened
from gateway.core.browser_use import BrowserUse
from gateway.core.endings import STOPPED, Ending
from gateway.core.launch import BrowserName
from gateway.egress.proxy import EgressListener
from gateway.launchers.local import processes
from gateway.launchers.local.control_groups import ControlGroup
from gateway.launchers.local.launch_process import LaunchProcess
from gateway.launchers.local.local_files import LocalFiles
from gateway.launchers.local.networks import Network

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


class LocalBrowser:
    """A browser of this machine (see base.Browser)."""

    def __init__(
        self,
        name: BrowserName,
        version: str,
        devtools_url: str,
        files_dir: str,
        process: LaunchProcess,
        listener: EgressListener,
        network: Network | None = None,
        warning: str | None = None,
        user_agent_override: dict[str, Any] | None = None,
        extensions: frozenset[str] = frozenset(),
    ) -> None:
        self.name = name
        self.warning = warning
        self.user_agent_override = user_agent_override
        self.extensions = extensions
        self.version = version
        self.devtools_url = devtools_url
        self.files_dir = files_dir
        self.files = LocalFiles(files_dir)
        self.use = BrowserUse()
        self.process = process
        self.group = process.pid
        self.listener = listener
        # In which `devtools_url` is an address; None for the gateway's own.
        self.network: BrowserNetwork | None = network
        self.usage = listener.usage
        self.ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        # Set once its directory is removed, or can't be.
        self.removed = asyncio.Event()
        # Called once when it is killed by the gateway; set by the launcher.
        self.on_killed: Callable[[], None] = lambda: None
        self._asked = False
        self._cause: Ending | None = None
        self._memory_kills = processes.out_of_memory_kills()

    async def connect(self, protocol: Callable[[], Opened], host: str, port: int) -> tuple[asyncio.Transport, Opened]:
        loop = asyncio.get_running_loop()
        if self.network is None:
            return await loop.create_connection(protocol, host, port)
        return await loop.create_connection(protocol, sock=await self.network.connect(host, port))

    async def stop(self) -> None:
        # Its profile is deleted anyway, so a graceful shutdown would only take time.
        self._asked = True
        await self._kill()

    async def end_for(self, cause: Ending) -> None:
        """End it because of a limit that it has passed, unless it ends already."""
        if not self._asked:
            self._cause = cause
            await self._kill()

    async def _kill(self) -> None:
        """From the signal on, no process of the group executes anything more. How long the kernel needs to take them
        down is waited for by what clears it."""
        if not self.ended.done():
            processes.kill_group(self.group)
            self.on_killed()

    def ending(self, group: ControlGroup | None) -> Ending:
        """Why it ended, judged by whether a stop was requested and by its exit status."""
        if self._cause is not None:
            return self._cause
        if self._asked:
            return STOPPED
        if group is not None and group.out_of_memory():
            return Ending("browser.out_of_memory", "The kernel ended the browser at its limit of memory.")
        status = processes.exit_status(self.group)
        if status == 128 + signal.SIGKILL and processes.out_of_memory_kills() > self._memory_kills:
            return Ending("browser.out_of_memory", "The kernel killed the browser because memory ran out.")
        return ending_of(status)


def ending_of(status: int | None) -> Ending:
    """The end of a browser that nobody asked for, by the exit status of its launch script."""
    if status is None or status < 0:
        return Ending("browser.killed", "The browser's process group was killed from outside.")
    if status <= 128:
        return Ending("browser.exited", f"The browser exited by itself with status {status}.")
    name = _signal_name(status - 128)
    if status - 128 in _CRASHES:
        return Ending("browser.crashed", f"The browser crashed ({name}).")
    return Ending("browser.killed", f"The browser was killed from outside ({name}).")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
