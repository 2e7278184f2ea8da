"""The profile of one runtime, from its launch to the save after its end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from gateway.core.browser_files import FilesHold
from gateway.core.endings import Ending
from gateway.core.errors import Unavailable
from gateway.core.observation import LiveBrowser
from gateway.domain.profiles.packing import MOST_ENTRIES, Packing, PackLimits, Unpacking
from gateway.domain.profiles.states import ProfileStates, State
from gateway.observer.closing import NotClosed, close_in_order
from gateway.store.browser_profiles import BrowserProfile

# For what is left of a browser's processes, which are killed.
_SETTLE_SECONDS = 5.0


class RuntimeProfile:
    """Restored by the launcher (core.launch.LaunchProfile); what follows is done by `Profiles`.

    `read_only`: it is neither claimed nor saved. `profile` and `state` are those of the claim, once there is one.
    """

    def __init__(
        self,
        states: ProfileStates,
        profile: BrowserProfile,
        runtime_id: UUID,
        *,
        read_only: bool,
        restore_seconds: float,
        on_restored: Callable[[float], None],
    ) -> None:
        self.profile = profile
        self.runtime_id = runtime_id
        self.read_only = read_only
        self.state: State | None = None
        self.is_restored = False
        # Its session cookies, once the browser has closed in order; else why it did not.
        self.closed: list[dict[str, Any]] | None = None
        self.not_closed = ""
        self._states = states
        self._restore_seconds = restore_seconds
        self._on_restored = on_restored
        self._directory: Path | None = None
        self._uid = -1
        self._cookies: list[dict[str, Any]] = []
        self._files: FilesHold | None = None
        self.closing: asyncio.Task[None] | None = None
        self.browser_name = ""

    # core.launch.LaunchProfile

    async def restore(self, directory: Path, owner: tuple[int, int] | None) -> None:
        began = asyncio.get_running_loop().time()
        self._directory, self._uid = directory, os.geteuid() if owner is None else owner[0]
        if self.state is not None:
            header = json.loads(await self._unpacked(self.state, directory, owner))
            self._cookies = header["cookies"]
            self._on_restored(asyncio.get_running_loop().time() - began)
        self.is_restored = True

    async def _unpacked(self, state: State, directory: Path, owner: tuple[int, int] | None) -> bytes:
        """The header of the state, whose files are in the directory then; raises Unavailable, Internal (damaged)."""

        def unpack(unpacking: Unpacking) -> bytes:
            header = unpacking.header()
            unpacking.into(directory, lambda entry: None if owner is None else os.chown(entry, *owner))
            return header

        # What was saved within the limits of that time can be launched under those of today.
        limits = PackLimits(self.profile.size_bytes, MOST_ENTRIES)
        try:
            async with asyncio.timeout(self._restore_seconds):
                return await self._states.read(state, self.profile.stored_bytes, limits, unpack)
        except TimeoutError:
            message = f"The profile could not be read from the storage within {self._restore_seconds:g} seconds."
            raise Unavailable(message, "storage.unavailable", retry_after=5) from None
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            message = "The disk of this gateway is full: the profile can't be restored. Try again later."
            raise Unavailable(message, "gateway.disk_full", retry_after=30) from error

    @property
    def cookies(self) -> Sequence[dict[str, Any]]:
        return self._cookies

    # The end

    def launched(self, browser: LiveBrowser) -> None:
        """The browser lives; its files stay until they are released."""
        self._files = browser.files
        self.browser_name = browser.name
        browser.files.hold(self)

    def release_files(self) -> None:
        if self._files is not None:
            self._files.release(self)

    def is_to_be_saved(self, was_live: bool) -> bool:
        """Whether its end is to close the browser in order: what lives does so, also when it is ended twice."""
        return not self.read_only and (was_live or self.closing is not None)

    async def close(self, browser: LiveBrowser, seconds: float) -> None:
        """Close the browser in order; one that does not close within `seconds` is killed."""
        try:
            self.closed = await close_in_order(browser, seconds)
        except NotClosed as error:
            self.not_closed = str(error)
        finally:
            await browser.stop()

    def why_not_closed(self, ending: Ending) -> str:
        """For one that can't be saved."""
        return self.not_closed or f"The browser ended before it was closed in order: {ending.message}"

    async def settled(self) -> bool:
        """Whether no process is left that could write into the directory."""
        assert self._files is not None
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._files.settled.wait(), _SETTLE_SECONDS)
        return self._files.settled.is_set()

    def packing(self, limits: PackLimits) -> tuple[Packing, Iterator[bytes]]:
        """What is saved, and the stream of it."""
        assert self._directory is not None
        packing = Packing(self._directory, limits, self._uid)
        return packing, packing.chunks(json.dumps({"cookies": self.closed}).encode())
