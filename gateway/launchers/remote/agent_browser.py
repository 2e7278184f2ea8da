"""The one browser of an agent: its directory, its start and its end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import shlex
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from gateway.core.unprivileged import setpriv
from gateway.launchers.local.launch_process import LaunchProcess, PipeClosed

_PORT_POLL_SECONDS = 0.005
_VERSION = re.compile(rb"\d+\.\d+\.\d+\.\d+")
# Of what it printed, in a message.
_LAST_WORDS = 16 * 1024


class NotStarted(Exception):
    """Raised where a browser did not start; `status` is that of its script, None if it was killed after its time."""

    def __init__(self, printed: str, status: int | None) -> None:
        super().__init__(printed)
        self.printed = printed
        self.status = status


@dataclass(frozen=True, slots=True)
class Started:
    product: str
    port: int
    path: str


class AgentBrowser:
    """The browser. `status` is that of its launch script, once it has ended."""

    def __init__(self, binary: Path, directory: Path, uid: int | None) -> None:
        self.home = directory / "home"
        self.started: Started | None = None
        self.status: int | None = None
        self.was_asked = False
        self.ended = asyncio.Event()
        self._binary = binary
        self._script = directory / "launch"
        self._uid = uid
        self._process: LaunchProcess | None = None
        self._pidfd = -1

    @property
    def files_dir(self) -> str:
        return str(self.home / "downloads")

    def make_directory(self) -> None:
        """Raises OSError."""
        self.home.parent.chmod(0o711)
        for path in (self.home, *(self.home / name for name in ("tmp", "profile", "profile/Default", "downloads"))):
            path.mkdir(mode=0o700)
            if self._uid is not None:
                os.chown(path, self._uid, self._uid)
        drop = "" if self._uid is None else f"{shlex.join(setpriv(self._uid, self._uid))} "
        self._script.write_text(
            f"cd {shlex.quote(str(self.home))} || exit\nulimit -c 0\n"
            # The DevTools pipe, and the one output for all that is printed.
            "exec 3<&0 4>&1 </dev/null >&2\ntrap '' PIPE\n"
            f'{drop}{shlex.quote(str(self._binary))} "$@"\n'
            "exit $?\n"
        )

    async def version(self) -> str:
        """What the program says that it is. Raises OSError."""
        drop = [] if self._uid is None else setpriv(self._uid, self._uid)
        asked = await asyncio.create_subprocess_exec(
            *drop,
            self._binary,
            "--version",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env={"HOME": str(self.home)},
        )
        said, _ = await asked.communicate()
        found = _VERSION.search(said)
        if found is None:
            raise OSError(errno.ENOEXEC, f"{self._binary} does not say its version")
        return found[0].decode()

    async def start(
        self, arguments: list[str], environment: dict[str, str], preferences: str, seconds: float
    ) -> Started:
        """Raises NotStarted, and OSError."""
        path = self.home / "profile" / "Default" / "Preferences"
        path.write_text(preferences)
        if self._uid is not None:
            os.chown(path, self._uid, self._uid)
        process = self._process = LaunchProcess(self._script, arguments, environment)
        self._pidfd = os.pidfd_open(process.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_end)
        try:
            async with asyncio.timeout(seconds):
                try:
                    version = process.send("Browser.getVersion")
                    page = process.send("Target.createTarget", url="about:blank")
                    product: str = (await process.result(version))["product"]
                    await process.result(page)
                    self.started = Started(product, *await self._address())
                    return self.started
                except PipeClosed:
                    await self.ended.wait()
        except TimeoutError:
            printed = process.printed()
            await self.stop()
            raise NotStarted(printed[-_LAST_WORDS:], None) from None
        raise NotStarted(process.printed()[-_LAST_WORDS:], self.status)

    async def _address(self) -> tuple[int, str]:
        """Port and path of its DevTools, once it has written both. Raises PipeClosed."""
        file = self.home / "profile" / "DevToolsActivePort"
        while not self.ended.is_set():
            with contextlib.suppress(FileNotFoundError):
                port, _, rest = file.read_text().partition("\n")
                if rest:
                    return int(port), rest.strip()
            await asyncio.sleep(_PORT_POLL_SECONDS)
        raise PipeClosed

    def printed(self) -> str:
        """Its last words."""
        return "" if self._process is None else self._process.printed()[-_LAST_WORDS:]

    async def stop(self) -> None:
        """Kill it; returns when none of its processes is left."""
        self.was_asked = True
        if self._process is not None and not self.ended.is_set():
            self._kill(self._process.pid)
            await self.ended.wait()

    def _on_end(self) -> None:
        assert self._process is not None
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        # Before it is reaped: until then no other group can have its id.
        self._kill(self._process.pid)
        _, waited = os.waitpid(self._process.pid, 0)
        self.status = os.waitstatus_to_exitcode(waited)
        self.ended.set()

    def _kill(self, group: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        if self._uid is not None:
            # Those that left the group keep the user. All at one moment, which none that forks escapes.
            kill = [*setpriv(self._uid, self._uid), "/bin/sh", "-c", "kill -9 -1"]
            subprocess.run(kill, check=False, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def close(self) -> None:
        if self._process is not None:
            self._process.close()
