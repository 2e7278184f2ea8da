"""What each process that runs the words of strangers gets: a user id of its own (as root), a scratch directory, an end.

The processes of one kind have one `Containment`. A process is started with its `command` prefix and its `environment`,
and when its group has been killed, `give_back` ends what may have left the group, and removes the directory.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from gateway.core import background
from gateway.core.ids import new_id
from gateway.core.unprivileged import SETPRIV, grant_search, setpriv

_T = TypeVar("_T")


class Users(Protocol):
    """User ids that no other process has (launchers/local/user_ids.py)."""

    async def take(self) -> int: ...
    async def end(self, uid: int) -> bool: ...
    def free(self, uid: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Contained:
    """What one process has; `uid` is None where the gateway is not root."""

    uid: int | None
    directory: Path

    def environment(self) -> dict[str, str]:
        """HOME and TMPDIR; nothing of the gateway's."""
        place = str(self.directory)
        return {"HOME": place, "TMPDIR": place}


class Containment:
    """User ids and directories for the processes of one kind, and the tasks that must not be left half done."""

    def __init__(self, directory: Path, group: int, needed: Callable[[], Iterable[Path]]) -> None:
        """`directory` has the processes' own ones and is emptied at first use, `group` is that of unprivileged
        processes, and `needed` names what they must reach."""
        # Where the gateway is root: gives each process a user of its own.
        self.users: Users | None = None
        self._directory = directory
        self._group = group
        self._needed = needed
        self._opening: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def open(self) -> None:
        """Make the directory of all processes, once. Raises ConfigurationError, OSError."""
        if self._opening is None or (self._opening.done() and self._opening.exception() is not None):
            self._opening = background.start(asyncio.to_thread(self._make_directory))
        # The thread goes on where the caller is cancelled, and would remove what a second one makes.
        await asyncio.shield(self._opening)

    def _make_directory(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir(parents=True)
        if self.users is None:
            return
        self._directory.chmod(0o711)
        for place in (self._directory, *self._needed()):
            if place.is_absolute() and place.exists():
                grant_search(place, self._group)

    async def take(self) -> Contained:
        """A user id and a directory for one process, which are to be given back. Raises LaunchFailed, OSError."""
        await self.open()
        uid = await self.users.take() if self.users is not None else None
        contained = Contained(uid, self._directory / new_id().hex)
        try:
            contained.directory.mkdir(mode=0o700)
            if uid is not None:
                os.chown(contained.directory, uid, self._group)
        except BaseException:
            await self.whole(self.give_back(contained))
            raise
        return contained

    def command(self, contained: Contained, *options: str, keeps: Sequence[str] = ()) -> list[str]:
        """The prefix of a process's command, with `options` of setpriv. As root it drops all privileges but the
        capabilities `keeps`; else there are none to drop."""
        if contained.uid is None:
            return [SETPRIV, "--no-new-privs", *options, "--"] if options else []
        return setpriv(contained.uid, self._group, *options, keeps=keeps)

    async def give_back(self, contained: Contained) -> None:
        """End what is left of a process whose group was killed, and remove its directory."""
        if self.users is not None and contained.uid is not None and await self.users.end(contained.uid):
            self.users.free(contained.uid)
        await asyncio.to_thread(shutil.rmtree, contained.directory, ignore_errors=True)

    async def whole(self, work: Coroutine[Any, Any, None]) -> None:
        """Carry out work that is done to its end, also where the caller is cancelled meanwhile."""
        await asyncio.shield(self.keep(background.start_on_behalf(work)))

    def keep(self, task: asyncio.Task[_T]) -> asyncio.Task[_T]:
        """Hold a task until it is done; `drained` waits for it."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def drained(self) -> None:
        """Return when no task is left."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))
        if self._opening is not None:
            await asyncio.wait({self._opening})
