"""Process groups of browsers: watching them end, ending them, and leaving no zombie.

A browser's group is led by the small shell that starts it (local.py), so its id is known before the browser runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
import select
import signal
import sys
import time
from collections.abc import Callable

import psutil

_PR_SET_CHILD_SUBREAPER = 36
_GROUP_END_SECONDS = 10.0
# The kernel takes some 20 ms to clear a browser, and nothing waits for it.
_GROUP_POLL_SECONDS = 0.01
_REAPING_SECONDS = 0.2


def adopt_orphans() -> None:
    """Make this process the parent of its grandchildren whose own parent died, so that it can reap them."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def reap_orphans() -> None:
    """Reap what was adopted and has ended by itself: Chromium's crash handlers, which leave the browser's group.

    A process that we started ourselves is in our session or leads one, and is left to who waits for it.
    """
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError, ChildProcessError):
            if child.status() == psutil.STATUS_ZOMBIE and os.getsid(child.pid) not in (child.pid, os.getsid(0)):
                os.waitpid(child.pid, os.WNOHANG)


def exit_status(pid: int) -> int | None:
    """Exit status of a child that has ended, negative for a signal; None while it runs. It stays to be reaped, so that
    its id, which is its group's too, belongs to no other process yet."""
    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if ended is None:
        return None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def group_exists(group: int) -> bool:
    """Whether any process of the group is left, reaping zombies of this process."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-group, os.WNOHANG) != (0, 0):
            pass
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def kill_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


async def end_group(group: int) -> bool:
    """Kill the group and wait until nothing of it is left; False when something stays (uninterruptible I/O)."""
    began = time.monotonic()
    kill_group(group)
    while group_exists(group):
        waited = time.monotonic() - began
        if waited > _GROUP_END_SECONDS:
            return False
        if waited > _REAPING_SECONDS and not await asyncio.to_thread(_lives, group):
            return True
        # On a busy machine the kernel takes longer, and a look at all processes takes some time of it.
        await asyncio.sleep(_GROUP_POLL_SECONDS if waited <= _REAPING_SECONDS else _REAPING_SECONDS)
        kill_group(group)
    return True


def _lives(group: int) -> bool:
    """Whether the group has more than zombies, which are gone but for a parent that is slow to reap them."""
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


class ProcessWatch:
    """Calls `on_end` once when a process has ended, which need not be a child of this one."""

    def __init__(self, pid: int, on_end: Callable[[], None]) -> None:
        self.pid = pid
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._descriptor: int | None = None
        try:
            self._descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            self._loop.call_soon(on_end)
            return
        self._loop.add_reader(self._descriptor, self._ended)

    def has_ended(self) -> bool:
        if self._descriptor is None:
            return True
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(0))

    def _ended(self) -> None:
        self.close()
        self._on_end()

    def close(self) -> None:
        if self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None


def out_of_memory_kills() -> int:
    """How many processes this machine's kernel has killed because memory ran out, since it booted."""
    try:
        with open("/proc/vmstat") as file:
            for line in file:
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return int(value)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EACCES):
            raise
    return 0
