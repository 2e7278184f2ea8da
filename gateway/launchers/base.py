"""The interface that every launcher implements."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from gateway.core.browser_files import BrowserFiles, WritingFile
from gateway.core.browser_network import Opened
from gateway.core.browser_use import BrowserUse
from gateway.core.endings import Ending
from gateway.core.launch import BrowserName, LaunchedExtension, LaunchProfile, LaunchSpec
from gateway.core.usage import Usage

# The public interface for launchers outside this package.
__all__ = [
    "Browser",
    "BrowserFiles",
    "BrowserName",
    "Ending",
    "FilesHold",
    "LaunchProfile",
    "LaunchSpec",
    "LaunchedExtension",
    "Launcher",
    "WritingFile",
]


class FilesHold:
    """Keeps the files of a browser that has ended, while something still reads them; each BrowserFiles is one.

    `staged_bytes` is how much the gateway copied into the browser's directory, which has a limit of its own.
    `settled` is set by the launcher once the browser has ended and no process of it is left that could write: only
    then is a profile saved.
    """

    def __init__(self) -> None:
        self.staged_bytes = 0
        self.settled = asyncio.Event()
        self._holders: set[object] = set()
        self._free = asyncio.Event()
        self._free.set()

    def hold(self, holder: object) -> None:
        self._holders.add(holder)
        self._free.clear()

    def release(self, holder: object) -> None:
        self._holders.discard(holder)
        if not self._holders:
            self._free.set()

    async def free(self) -> None:
        """Return once all holders have released them."""
        await self._free.wait()


class Browser(Protocol):
    """A live browser. `ended` is done when its process has ended, for whatever reason."""

    name: BrowserName
    version: str
    devtools_url: str
    # Absolute path, as the browser sees it, of the one directory whose files a client may name: for downloads and
    # uploads. The gateway reaches what is in it by `files` alone.
    files_dir: str
    use: BrowserUse
    usage: Usage
    ended: asyncio.Future[Ending]
    # What of its spec it does not do, in one sentence; None where it does everything.
    warning: str | None
    # For pages whose client hints are to match the user agent: parameters of Emulation.setUserAgentOverride.
    user_agent_override: dict[str, Any] | None
    # Ids of the extensions that it has loaded.
    extensions: frozenset[str]

    @property
    def files(self) -> BrowserFiles: ...

    async def connect(self, protocol: Callable[[], Opened], host: str, port: int) -> tuple[asyncio.Transport, Opened]:
        """Open a connection to its DevTools, at host and port of `devtools_url`; as an event loop's create_connection.
        Raises OSError."""

    async def stop(self) -> None:
        """End the browser and return when it can do no more: its processes are killed, its connections broken.

        What is left of it is removed right after.
        """


class Launcher(Protocol):
    """Starts browsers and removes what they leave behind.

    - `check` raises core.hosts.Refusal for the runtime's own proxy, if the egress rules do not allow it, and
      NotSupported for extensions that it can't load or contain.
    - `launch` returns a browser whose DevTools address responds, or raises LaunchFailed and leaves nothing behind.
    - `sweep` ends every process and removes every directory that an earlier launcher left.
    - `close` stops all browsers that are left.
    """

    async def check(self, spec: LaunchSpec) -> None: ...

    async def launch(self, spec: LaunchSpec) -> Browser: ...

    async def sweep(self) -> int:
        """Returns how many runtimes' leftovers were cleared."""

    async def close(self) -> None: ...
