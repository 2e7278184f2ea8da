"""The state of a profile in object storage: written from a browser's directory, and read into one.

A state is an object of its own, encrypted under a data key of its own, which the master keys wrap as any secret. It is
streamed, so that memory is bounded by chunks, and all that computes or touches a browser's directory is done by
threads of its own.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import UUID

import structlog

from gateway.core import background
from gateway.core.disk_space import DiskSpace
from gateway.core.errors import Internal, Unavailable
from gateway.core.scope import Scope
from gateway.core.sealed import SecretOwner
from gateway.crypto.keyring import DecryptionFailed
from gateway.crypto.streams import StreamAltered, StreamOpener, StreamSealer, new_key
from gateway.domain.files.service import check_disk
from gateway.domain.profiles.packing import Malformed, PackLimits, Unpacking
from gateway.domain.secrets import SecretStore
from gateway.store.browser_profiles import PREFIX
from gateway.store.database import Connection
from gateway.store.objects import Objects

_log = structlog.get_logger("gateway.profiles")

# Profiles that are packed or unpacked at once; further ones wait.
_AT_ONCE = 4

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class State:
    """A state in object storage, and what decrypts it."""

    object_id: UUID
    owner: Scope
    key: bytes = field(repr=False)

    @classmethod
    def new(cls, object_id: UUID, owner: Scope) -> State:
        return cls(object_id, owner, new_key())

    @property
    def object_key(self) -> str:
        return object_key(self.object_id)

    @property
    def secret(self) -> SecretOwner:
        """What the data key is stored as."""
        return SecretOwner(
            "browser_profile.state", self.owner.organization_id, self.owner.subaccount_id, self.object_id
        )


def object_key(object_id: UUID) -> str:
    return f"{PREFIX}{object_id}"


def damaged(object_id: UUID, cause: Exception) -> Internal:
    _log.error("the state of a profile can't be read", object_id=str(object_id), cause=str(cause))
    return Internal(
        "The saved state of this profile can't be read: it is damaged, or its key is missing. Reset the profile, or "
        "ask the gateway's operator.",
        "browser_profile.damaged",
    )


class ProfileStates:
    def __init__(
        self, objects: Objects, secrets: SecretStore, space: DiskSpace, replaced_seconds: float = 60.0
    ) -> None:
        """`space` is of the disk that has the objects. A state that was replaced stays for `replaced_seconds`, for
        launches and clones that still read it."""
        self._objects = objects
        self._secrets = secrets
        self._space = space
        self._replaced_seconds = replaced_seconds
        self._removing: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(_AT_ONCE, "profiles")

    async def opened(self, connection: Connection, object_id: UUID, owner: Scope) -> State:
        """A state with its data key; raises Internal (damaged)."""
        state = State(object_id, owner, b"")
        try:
            encoded = await self._secrets.open(connection, state.secret)
        except DecryptionFailed as error:
            raise damaged(object_id, error) from error
        if encoded is None:
            raise damaged(object_id, LookupError("it has no data key"))
        return State(object_id, owner, base64.b64decode(encoded))

    async def keep_key(self, connection: Connection, state: State) -> None:
        """Store the data key of a new state."""
        await self._secrets.put(connection, state.secret, base64.b64encode(state.key).decode())

    async def write(self, state: State, plain: Iterator[bytes]) -> int:
        """Store what `plain` yields, in a thread; returns the size of the object. Whole, or not at all.

        Raises Unavailable (the storage, a full disk), and whatever `plain` raises.
        """
        check_disk(self._space)
        return await self._objects.put(state.object_key, self._stepped(_sealed(state, plain)))

    async def read(
        self, state: State, stored_bytes: int, limits: PackLimits, use: Callable[[Unpacking], Result]
    ) -> Result:
        """Result of `use`, called in a thread with the stored stream; raises Unavailable (the storage), Internal
        (damaged, or beyond the limits), and what `use` raises."""
        plain = _Pulled(self._objects.read(state.object_key, 0, stored_bytes))
        try:
            return await self._in_thread(lambda: use(Unpacking(_opened(state, plain), limits)), plain.stop)
        except (StreamAltered, Malformed) as error:
            raise damaged(state.object_id, error) from error
        finally:
            await plain.close()

    async def copy(self, source: State, stored_bytes: int, target: State) -> int:
        """Store a state again under a key of its own; returns the size of the object. Raises as `read` and `write`."""
        check_disk(self._space)
        chunks = _Pulled(self._objects.read(source.object_key, 0, stored_bytes))
        try:
            return await self._objects.put(
                target.object_key, self._stepped(_sealed(target, _opened(source, chunks)), chunks.stop)
            )
        except StreamAltered as error:
            raise damaged(source.object_id, error) from error
        finally:
            await chunks.close()

    async def remove(self, object_ids: list[UUID]) -> None:
        """Remove states that no profile has any more; raises Unavailable, and the sweep of files removes them then."""
        await self._objects.remove([object_key(object_id) for object_id in object_ids])

    def replaced(self, object_id: UUID | None) -> None:
        """Remove a state later, since a launch may be reading it. If this gateway ends before, the sweep does so."""
        if object_id is not None:
            task = background.start(self._remove_later(object_id))
            self._removing.add(task)
            task.add_done_callback(self._removing.discard)

    async def _remove_later(self, object_id: UUID) -> None:
        await asyncio.sleep(self._replaced_seconds)
        try:
            await self.remove([object_id])
        except Unavailable as error:
            _log.warning("the state of a profile can't be removed yet", cause=error.message)

    async def close(self) -> None:
        for task in self._removing:
            task.cancel()
        if self._removing:
            await asyncio.wait(set(self._removing))
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _stepped(self, chunks: Iterator[bytes], stop: Callable[[], None] = lambda: None) -> AsyncIterator[bytes]:
        """What a blocking iterator yields, each made by a thread."""
        try:
            while (chunk := await self._in_thread(lambda: next(chunks, None), stop)) is not None:
                check_disk(self._space)
                yield chunk
        finally:
            if isinstance(chunks, Generator):
                await self._in_thread(chunks.close, stop)

    async def _in_thread(self, work: Callable[[], Result], stop: Callable[[], None]) -> Result:
        """As core.threads.in_thread, by a thread of these; `stop` makes the work end soon when this is cancelled."""
        working = asyncio.get_running_loop().run_in_executor(self._threads, work)
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            stop()
            await asyncio.wait({working})
            working.exception()
            raise


def _sealed(state: State, plain: Iterator[bytes]) -> Iterator[bytes]:
    sealer = StreamSealer(state.key, state.secret.associated_data())
    for piece in plain:
        yield from sealer.update(piece)
    yield sealer.finish()


def _opened(state: State, chunks: Iterator[bytes]) -> Iterator[bytes]:
    opener = StreamOpener(state.key, state.secret.associated_data())
    for chunk in chunks:
        yield from opener.update(chunk)
    yield opener.finish()


class Stopped(Exception):
    """Raised in a thread whose work is not wanted any more."""


class _Pulled:
    """What an asynchronous iterator yields, for a thread; one piece is fetched ahead."""

    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self._loop = asyncio.get_running_loop()
        self._is_stopped = False
        self._next: asyncio.Task[bytes | None] | None = asyncio.ensure_future(self._fetch())

    async def _fetch(self) -> bytes | None:
        return await anext(self._pieces, None)

    async def _take(self) -> bytes | None:
        """The piece that is fetched; None at the end."""
        if self._next is None or self._is_stopped:
            raise Stopped
        try:
            piece = await asyncio.shield(self._next)
        except asyncio.CancelledError:
            if self._is_stopped:
                raise Stopped from None
            raise
        self._next = None if piece is None or self._is_stopped else asyncio.ensure_future(self._fetch())
        return piece

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece = asyncio.run_coroutine_threadsafe(self._take(), self._loop).result()
        if piece is None:
            raise StopIteration
        return piece

    def stop(self) -> None:
        """The thread gets no further piece, also not the one that it waits for."""
        self._is_stopped = True
        if self._next is not None:
            self._next.cancel()

    async def close(self) -> None:
        if self._next is not None:
            self._next.cancel()
            await asyncio.wait({self._next})
            self._next.cancelled() or self._next.exception()
        if isinstance(self._pieces, AsyncGenerator):
            with contextlib.suppress(Exception):
                await self._pieces.aclose()
