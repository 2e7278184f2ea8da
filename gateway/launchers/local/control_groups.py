"""A control group for each runtime (cgroup v2): its processes, however they were started, and limits for them.

Groups with limits are used when GATEWAY_RUNTIME_MEMORY_BYTES is set, and are possible where the gateway may write its
own group: under systemd with `Delegate=yes`, in a container with a writable /sys/fs/cgroup, as root outside of one. The
kernel lets a group have either processes or limited groups below it, so all of the gateway's own moves into a group
below it first.
Groups without limits are used where the gateway is not root and may write its own group: runtimes have no user ids of
their own then, by which what left a runtime's process group could be found (user_ids.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import signal
import time
from pathlib import Path

from gateway.core.errors import ConfigurationError

_CONTROLLERS = ("memory", "pids")
_OWN = "gateway-itself"
_END_SECONDS = 10.0
_POLL_SECONDS = 0.002
_MOVES = 10

PROC = Path("/proc/self")


class ControlGroup:
    """One runtime's group. A process that writes its id to `entrance` is in it, with all that it starts then."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def entrance(self) -> Path:
        return self.path / "cgroup.procs"

    def out_of_memory(self) -> bool:
        """Whether the kernel ended a process of the group because of its limit."""
        try:
            events = (self.path / "memory.events").read_text()
        except FileNotFoundError:
            return False
        return any(line.startswith("oom_kill ") and line != "oom_kill 0" for line in events.splitlines())

    async def end(self) -> bool:
        """Kill what is in it, also what left the runtime's process group, and remove it; False when something stays."""
        began = time.monotonic()
        while not self.remove():
            if time.monotonic() - began > _END_SECONDS:
                return False
            await asyncio.sleep(_POLL_SECONDS)
        return True

    def remove(self) -> bool:
        """Remove the group; False while processes are in it, which are then killed."""
        try:
            self.path.rmdir()
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            self._kill()
            return False
        return True

    def _kill(self) -> None:
        try:
            # Its owner may write it, but not read it; and open() would create it with any mode that only writes.
            descriptor = os.open(self.path / "cgroup.kill", os.O_WRONLY)
        except FileNotFoundError:  # before Linux 5.14
            for pid in self.entrance.read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            return
        try:
            os.write(descriptor, b"1")
        finally:
            os.close(descriptor)


class ControlGroups:
    """The groups of one gateway's runtimes, below its own."""

    def __init__(self, own: Path, data_dir: Path, memory_bytes: int, processes: int) -> None:
        """With `memory_bytes` of 0 they have no limits."""
        self._own = own
        self._memory_bytes = memory_bytes
        self._processes = processes
        # Another gateway may have its groups beside these.
        self._prefix = f"runtime-{hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:12]}-"

    async def open(self) -> None:
        """Make room for limited groups, and end those that an earlier process left. Raises ConfigurationError."""
        try:
            if self._memory_bytes:
                _make_room(self._own)
            for left in list(self._own.glob(f"{self._prefix}*")):
                await ControlGroup(left).end()
        except OSError as error:
            why = "GATEWAY_RUNTIME_MEMORY_BYTES is set, but the" if self._memory_bytes else "The"
            raise ConfigurationError(
                f"{why} control group {self._own} can't be used ({error.strerror}). Run `gateway doctor`."
            ) from error

    def make(self, name: str) -> ControlGroup:
        """A new group with its limits; raises OSError."""
        path = self._own / f"{self._prefix}{name}"
        path.mkdir()
        if not self._memory_bytes:
            return ControlGroup(path)
        limits = {
            "memory.max": self._memory_bytes,
            "memory.oom.group": 1,
            "pids.max": self._processes,
        }
        for file, value in limits.items():
            (path / file).write_text(str(value))
        # There is no such file where the kernel has no swap.
        with contextlib.suppress(FileNotFoundError), (path / "memory.swap.max").open("r+") as swap:
            swap.write("0")
        return ControlGroup(path)


def own_path(proc: Path = PROC) -> Path:
    """The directory of the gateway's own group, from what `proc` says of it; raises ConfigurationError."""
    mount = _mount(proc / "mountinfo")
    if mount is None:
        raise ConfigurationError("there is no cgroup v2 on this machine")
    path = mount / _membership(proc / "cgroup").lstrip("/")
    return path.parent if path.name == _OWN else path


def own_group(proc: Path = PROC) -> Path:
    """The gateway's own group, below which it may make limited ones; raises ConfigurationError with the reason."""
    path = own_path(proc)
    try:
        offered = (path / "cgroup.controllers").read_text().split()
    except OSError as error:
        raise ConfigurationError(f"the gateway's control group {path} can't be read ({error.strerror})") from None
    missing = [name for name in _CONTROLLERS if name not in offered]
    if missing:
        raise ConfigurationError(f"the control group {path} offers no {' and no '.join(missing)} controller")
    for written in (path, path / "cgroup.procs", path / "cgroup.subtree_control"):
        if not os.access(written, os.W_OK):
            raise ConfigurationError(f"{written} can't be written to")
    return path


def writable_group(proc: Path = PROC) -> Path | None:
    """The gateway's own group, if it may make groups without limits below it."""
    try:
        path = own_path(proc)
        probe = path / f"gateway-probe-{os.getpid()}"
        probe.mkdir()
        probe.rmdir()
    except (ConfigurationError, OSError):
        return None
    # The kernel wants that to move a process from this group to one below.
    return path if os.access(path / "cgroup.procs", os.W_OK) else None


def _mount(mounts: Path) -> Path | None:
    """Where cgroup v2 is mounted, as the gateway sees it (proc(5): mountinfo)."""
    try:
        lines = mounts.read_text().splitlines()
    except FileNotFoundError:
        return None
    for line in lines:
        mounted, _, kind = line.partition(" - ")
        if kind.split(" ", 1)[0] == "cgroup2":
            return Path(mounted.split(" ")[4].replace("\\040", " "))
    return None


def _membership(memberships: Path) -> str:
    """The path of the gateway's group below the mount (cgroups(7))."""
    for line in memberships.read_text().splitlines():
        if line.startswith("0::"):
            return line.removeprefix("0::")
    return "/"


def _make_room(own: Path) -> None:
    """Let groups below `own` be limited, which needs that no process is in it; raises OSError."""
    below = own / _OWN
    wanted = " ".join(f"+{name}" for name in _CONTROLLERS)
    for attempt in range(_MOVES):
        try:
            (own / "cgroup.subtree_control").write_text(wanted)
            return
        except OSError as error:
            if error.errno != errno.EBUSY or attempt == _MOVES - 1:
                raise
        below.mkdir(exist_ok=True)
        for pid in (own / "cgroup.procs").read_text().split():
            # It may have ended meanwhile, or have started another one, for which there is the next round.
            with contextlib.suppress(ProcessLookupError):
                (below / "cgroup.procs").write_text(pid)
