"""The user ids of browsers, where the gateway is root: each for one runtime at a time on this machine.

A process can leave its runtime's group with setsid, and still has the runtime's user id. So an id is free again only
once no process has it. Ids are given out in turn. Each gateway of a machine has a block of the ids for itself, as long
as there is a free one, and which ids are taken is known to all of them: by locks on one file, a byte for each id and
another one for its place in a block, which the kernel releases when a gateway ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import secrets
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import structlog

from gateway.core.errors import LaunchFailed
from gateway.core.launch import Failure
from gateway.core.unprivileged import setpriv

_log = structlog.get_logger("gateway.launchers")

_END_SECONDS = 10.0
_POLL_SECONDS = 0.005
_KILLER_SECONDS = 1.0
_KILLED = 40
_NONE_THERE = 41
_MACHINE = Path("/run/browser-gateway-user-ids")
_STATUS_BYTES = 4096
# Where the bytes for blocks begin, far above every id.
_BLOCKS = 1 << 40
# Ids of a block for each runtime that may be live, so that an id rests between two of them, and for browsers kept warm.
_OF_A_RUNTIME = 2
_BESIDE = 64
_STATUS = re.compile(rb"^State:\t(\w).*?^PPid:\t(\d+)$.*?^Uid:\t(\d+)\t(\d+)\t(\d+)\t(\d+)$", re.MULTILINE | re.DOTALL)


class _Process(NamedTuple):
    """`users` are its real, effective, saved and file system ids."""

    pid: int
    parent: int
    users: frozenset[int]
    zombie: bool


class UserIds:
    """Ids after `base`, which is the group of all, up to the last but one of `count`: the last is the doctor's."""

    def __init__(
        self,
        base: int,
        count: int,
        directory: Path,
        end_seconds: float = _END_SECONDS,
        max_runtimes: int | None = None,
    ) -> None:
        """`directory` has the locks where the machine's /run can't be written to. `max_runtimes` decides the size of
        this gateway's block; None for all ids, which it shares."""
        self._group = base
        self._all = self._ids = range(base + 1, base + count - 1)
        self._block = len(self._all) if max_runtimes is None else _OF_A_RUNTIME * max_runtimes + _BESIDE
        self._directory = directory
        self._end_seconds = end_seconds
        # Set by `open`. Not the lowest one, so that an id rests for as long as possible, also over a restart.
        self._next = 0
        self._locks = -1
        self._taken: set[int] = set()
        self._cleared: set[int] = set()
        # Ids of this gateway beside its block.
        self._further: set[int] = set()
        self._out_of_use: set[int] = set()

    @property
    def out_of_use(self) -> set[int]:
        """Ids that are not given out as long as this gateway lives: processes of theirs could not be ended."""
        return set(self._out_of_use)

    @property
    def block(self) -> range:
        """The ids that this gateway gives out; others, which are in no block, once all of these are taken."""
        return self._ids

    async def open(self) -> None:
        """Take a block of ids, end the processes that an earlier gateway left in any, and keep ids out of use that
        have any which must stay."""
        self._locks = _open_locks(self._directory)
        self._take_block()
        everything = await asyncio.to_thread(lambda: list(_processes()))
        parents = {process.pid: process.parent for process in everything}
        left = [process for process in everything if not process.zombie and not process.users.isdisjoint(self._all)]
        for uid in sorted({uid for process in left for uid in process.users if uid in self._all}):
            # A locked id is another gateway's.
            if not self._lock(uid):
                continue
            if any(uid in process.users and _has_other_ancestor(process.pid, parents, left) for process in left):
                # Started by something that still runs: a gateway without these locks, for example.
                self._out_of_use.add(uid)
                _log.warning("a user id for browsers is used by other programs and stays out of use", uid=uid)
            elif await self.end(uid):
                self.free(uid)

    def _take_block(self) -> None:
        """The first free block; where there is none, all ids, which locks of their own still keep apart."""
        for start in range(0, len(self._all) - self._block + 1, self._block):
            block = self._all[start : start + self._block]
            with contextlib.suppress(BlockingIOError):
                self._set(fcntl.F_WRLCK, _BLOCKS + block.start, len(block))
                self._ids = block
                break
        else:
            _log.info("user ids for browsers are shared with other gateways", ids=len(self._all))
        self._next = secrets.randbelow(len(self._ids))

    async def take(self) -> int:
        """An id that no process has; raises LaunchFailed when all are taken."""
        uid = await self._take()
        if uid is None:
            raise LaunchFailed(
                f"All {len(self._all)} user ids for browsers are taken.",
                failure=Failure.OUT_OF_PROCESSES,
                advice="Raise GATEWAY_UID_COUNT.",
            )
        return uid

    async def _take(self) -> int | None:
        """An id that no process has; None when all are taken."""
        for step in range(len(self._ids)):
            position = (self._next + step) % len(self._ids)
            uid = self._ids[position]
            if self._lock(uid):
                self._next = position + 1
                if await self._clear(uid):
                    return uid
        # Runtimes that have ended keep their ids while their downloads are saved, so there may be more than the block
        # has. The last ids first, since blocks are taken from the first one on.
        for uid in reversed(self._all):
            if uid not in self._ids and self._reserve(uid) and self._lock(uid) and await self._clear(uid):
                return uid
        return None

    def _reserve(self, uid: int) -> bool:
        """Add an id to those of this gateway, if it is in no block of another one."""
        if uid not in self._further:
            try:
                self._set(fcntl.F_WRLCK, _BLOCKS + uid)
            except BlockingIOError:
                return False
            self._further.add(uid)
            # Another gateway may have used it since.
            self._cleared.discard(uid)
        return True

    async def _clear(self, uid: int) -> bool:
        """Whether no process has a locked id. It was ended after its last use; but at the start, reading /proc may have
        missed one that keeps forking."""
        try:
            return uid in self._cleared or await self.end(uid)
        except BaseException:
            self.free(uid)
            raise

    async def end(self, uid: int) -> bool:
        """Kill every process of a taken id until none is left; where some stay, the id does not become free."""
        began = time.monotonic()
        # Nearly always so, since the runtime's process group was ended before: nothing is started, and /proc not read.
        if not _has_processes(uid):
            self._cleared.add(uid)
            return True
        # What /proc shows counts only after a complete kill: then nothing is left that could fork while it is read.
        while not (await asyncio.to_thread(self._kill_all, uid) and await asyncio.to_thread(_none_left, uid)):
            if time.monotonic() - began > self._end_seconds:
                self._out_of_use.add(uid)
                _log.error("processes of a user id can't be ended; it stays out of use", uid=uid)
                return False
            await asyncio.sleep(_POLL_SECONDS)
        self._cleared.add(uid)
        return True

    def free(self, uid: int) -> None:
        """Let an id be taken again, once all of its processes are ended and its files are removed."""
        # A launch may end after the launcher: its lock is gone then.
        if uid not in self._out_of_use and self._locks >= 0:
            self._taken.discard(uid)
            self._set(fcntl.F_UNLCK, uid)

    def _kill_all(self, uid: int) -> bool:
        """Kill all processes of the user at one moment, as only the user itself can; whether that was done completely.

        A process of the user may end or stop the one that kills, whose status is then another one or none.
        """
        try:
            done = subprocess.run(
                [*setpriv(uid, self._group), "/bin/sh", "-c", f"kill -KILL -1; exit $(({_KILLED} + ($? > 0)))"],
                env={},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_KILLER_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
        return done.returncode in (_KILLED, _NONE_THERE)

    def close(self) -> None:
        if self._locks >= 0:
            os.close(self._locks)
            self._locks = -1

    def _lock(self, uid: int) -> bool:
        # A lock of this file itself would be granted once more.
        if uid in self._taken:
            return False
        try:
            self._set(fcntl.F_WRLCK, uid)
        except BlockingIOError:
            return False
        self._taken.add(uid)
        return True

    def _set(self, kind: int, start: int, count: int = 1) -> None:
        # A lock of the open file, not of the process, which would not hold against a second launcher in it.
        fcntl.fcntl(self._locks, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", kind, os.SEEK_SET, start, count, 0))


def _open_locks(directory: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(_MACHINE, flags, 0o600)
    except OSError:
        # A container whose system is read-only, in which there is no other gateway.
        return os.open(directory / _MACHINE.name, flags, 0o600)


def _has_processes(uid: int) -> bool:
    """Whether there is a process, a zombie too, whose real id this is, by the kernel's own list of all processes.

    The kernel looks through it in one go, and a process is added at its end, so that it misses none that keeps forking.
    Without privileges, and with no new ones, all that a browser starts has the browser's real id. Another real id
    means a set-user-id file, which a process may run at any later time, too.
    """
    try:
        os.getpriority(os.PRIO_USER, uid)
    except ProcessLookupError:
        return False
    return True


def _none_left(uid: int) -> bool:
    """Whether the user has no process. Those that have ended and are this process's children are reaped."""
    found = [process for process in _processes() if uid in process.users]
    for process in found:
        if process.zombie and process.parent == os.getpid():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)
    return all(process.zombie for process in found)


def _processes() -> Iterator[_Process]:
    for entry in os.listdir("/proc"):
        if not entry.isdecimal():
            continue
        try:
            # Without pathlib and buffers: this is read for each process of the machine, at each end of a runtime.
            file = os.open(f"/proc/{entry}/status", os.O_RDONLY)
            try:
                status = os.read(file, _STATUS_BYTES)
            finally:
                os.close(file)
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields := _STATUS.search(status):
            state, parent, *users = fields.groups()
            yield _Process(int(entry), int(parent), frozenset(map(int, users)), state in b"ZX")


def _has_other_ancestor(pid: int, parents: dict[int, int], left: list[_Process]) -> bool:
    """Whether a process descends from one, besides init and this gateway, that is not among those that were left."""
    own = {1, os.getpid(), *(process.pid for process in left)}
    while (pid := parents.get(pid, 0)) > 1:
        if pid == os.getpid():
            return False
        if pid not in own:
            return True
    return False
