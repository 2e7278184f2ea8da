"""The bytes of files: objects by key, in a directory of this machine or in a bucket (S3 and what speaks like it).

An object is whole or not there. In a directory it is written beside its place, moved there once it is complete, and
then synced to the disk, file and directory; in a bucket it is a multipart upload, which is completed or aborted. Both
ways take constant memory: chunks of 1 MiB are handed over one at a time, parts of 8 MiB are written two at a time.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import obstore
import structlog
from obstore.exceptions import BaseError
from obstore.store import LocalStore, S3Store

from gateway.core.errors import ConfigurationError, Unavailable
from gateway.settings import FileSettings

if TYPE_CHECKING:
    from obstore.store import S3Config

_log = structlog.get_logger("gateway.objects")

CHUNK_BYTES = 1024 * 1024
# A bucket takes 10,000 parts an object, so that GATEWAY_MAX_FILE_BYTES may be 78 GiB at most.
_PART_BYTES = 8 * 1024 * 1024
_PARTS_AT_ONCE = 2
_WINDOW_BYTES = 4 * 1024 * 1024
# For a store to discard what was given up.
_DISCARD_SECONDS = 3.0
# Suffix of a local object until it is complete; such are not listed.
_UNFINISHED = re.compile(r".+#\d+")

# What obstore raises for a store that fails; some are Python's own errors.
_FAILURES = (BaseError, OSError)


@dataclass(frozen=True, slots=True)
class Listed:
    key: str
    modified: datetime


class _GivenUp(Exception):
    """Ends a write whose chunks have failed."""


class Objects:
    """Raises Unavailable (`storage.unavailable`) where the store fails, and where an object that should be there is
    not."""

    def __init__(self, store: LocalStore | S3Store, directory: Path | None, place: str) -> None:
        self._store = store
        self._directory = directory
        # Says which store it is, to those that share it.
        self.place = place
        self._writing: set[asyncio.Task[Any]] = set()

    @classmethod
    def of(cls, settings: FileSettings) -> Objects:
        """The store of the settings; raises ConfigurationError for an unusable directory."""
        url = settings.files_url
        if url is not None and url.startswith("s3://"):
            return cls(_bucket(settings, url), None, url)
        directory = Path(unquote(urlsplit(url).path)) if url else settings.data_dir.absolute() / "files"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            if url is None:
                # Objects are readable for all, so the directory above them is not.
                directory.chmod(0o700)
        except OSError as error:
            raise ConfigurationError(
                f"The directory of files {str(directory)!r} can't be used ({error.strerror}); see GATEWAY_FILES_URL."
            ) from error
        return cls(LocalStore(prefix=directory, automatic_cleanup=True), directory, str(directory))

    @property
    def directory(self) -> Path | None:
        """Where the objects of this machine are; None for a bucket."""
        return self._directory

    async def put(self, key: str, chunks: AsyncIterator[bytes]) -> int:
        """Write an object and return its size. When `chunks` raises, or this is cancelled, nothing is kept of it."""
        handed: asyncio.Queue[bytes | _GivenUp | None] = asyncio.Queue(1)
        putting = asyncio.create_task(self._put(key, handed))
        self._writing.add(putting)
        putting.add_done_callback(self._writing.discard)
        size = 0
        try:
            async for chunk in _gathered(chunks):
                size += len(chunk)
                await _hand(handed, chunk, putting)
            await _hand(handed, None, putting)
            with _unavailable("written"):
                await asyncio.shield(putting)
        except BaseException:
            # The writer discards what has arrived so far.
            while not handed.empty():
                handed.get_nowait()
            handed.put_nowait(_GivenUp())
            if not (await asyncio.wait({putting}, timeout=_DISCARD_SECONDS))[0]:
                # A store that does not answer: what it has is removed as that of a killed gateway.
                putting.cancel()
                await asyncio.wait({putting})
            putting.cancelled() or putting.exception()
            raise
        return size

    async def _put(self, key: str, handed: asyncio.Queue[bytes | _GivenUp | None]) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            while True:
                item = await handed.get()
                if item is None:
                    return
                if isinstance(item, _GivenUp):
                    raise item
                yield item

        await obstore.put_async(
            self._store, key, chunks(), chunk_size=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE, use_multipart=True
        )
        if self._directory is not None:
            await asyncio.to_thread(_sync, self._directory, key)

    async def read(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """Bytes from `start` up to but without `end`, of which there must be that many."""
        while start < end:
            length = min(_WINDOW_BYTES, end - start)
            with _unavailable("read"):
                window = await obstore.get_range_async(self._store, key, start=start, length=length)
            if len(window) != length:
                raise _no_storage("read", "an object is shorter than its row states")
            start += length
            yield window.to_bytes()

    async def remove(self, keys: list[str]) -> None:
        """Remove objects; one that is not there is removed already."""
        if self._directory is None:
            with _unavailable("removed"):
                await obstore.delete_async(self._store, keys)
            return
        for key in keys:
            with _unavailable("removed"):
                try:
                    await obstore.delete_async(self._store, key)
                except FileNotFoundError:
                    continue

    async def listed(self) -> AsyncIterator[list[Listed]]:
        """All objects, some hundreds at a time."""
        listing = obstore.list(self._store, chunk_size=500)
        while True:
            with _unavailable("listed"):
                try:
                    page = await listing.__anext__()
                except StopAsyncIteration:
                    return
            yield [Listed(entry["path"], entry["last_modified"]) for entry in page]

    async def clear_unfinished(self, older_than_seconds: float) -> int:
        """Remove what a killed gateway has left half written in a directory; a bucket does so by its lifecycle rule.
        Returns how many there were."""
        if self._directory is None:
            return 0
        return await asyncio.to_thread(_clear_unfinished, self._directory, time.time() - older_than_seconds)


def _bucket(settings: FileSettings, url: str) -> S3Store:
    parts = urlsplit(url)
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    endpoint = options.get("endpoint")
    config: S3Config = {"virtual_hosted_style_request": endpoint is None}
    if endpoint is not None:
        config["endpoint"] = endpoint
    if "region" in options:
        config["region"] = options["region"]
    if settings.files_access_key is not None and settings.files_secret_key is not None:
        config["access_key_id"] = settings.files_access_key
        config["secret_access_key"] = settings.files_secret_key
        if settings.files_session_token is not None:
            config["session_token"] = settings.files_session_token
    return S3Store(
        parts.netloc,
        prefix=parts.path.strip("/") or None,
        config=config,
        client_options={"allow_http": endpoint is not None and endpoint.startswith("http://"), "timeout": "120s"},
        retry_config={"max_retries": 3},
    )


async def _gathered(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in chunks of 1 MiB or more, but the last."""
    waiting = bytearray()
    async for chunk in chunks:
        waiting += chunk
        if len(waiting) >= CHUNK_BYTES:
            yield bytes(waiting)
            waiting.clear()
    if waiting:
        yield bytes(waiting)


async def _hand(
    handed: asyncio.Queue[bytes | _GivenUp | None], item: bytes | None, putting: asyncio.Task[None]
) -> None:
    """Give `item` to the one that writes as soon as it takes it; raises what has ended it."""
    handing = asyncio.create_task(handed.put(item))
    try:
        await asyncio.wait({handing, putting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        handing.cancel()
    if putting.done():
        with _unavailable("written"):
            putting.result()


def _sync(directory: Path, key: str) -> None:
    """Make an object outlast a loss of power, with the directories that it may be the first in."""
    path = directory / key
    while True:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if path == directory:
            return
        path = path.parent


def _clear_unfinished(directory: Path, before: float) -> int:
    cleared = 0
    for root, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(root, name)
            if _UNFINISHED.fullmatch(name) and os.stat(path).st_mtime <= before:
                os.unlink(path)
                cleared += 1
    return cleared


class _unavailable:
    """Around what may fail with the store."""

    def __init__(self, done: str) -> None:
        self._done = done

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, _FAILURES):
            raise _no_storage(self._done, str(error).partition("\n")[0]) from error


def _no_storage(done: str, cause: str) -> Unavailable:
    _log.error("an object can't be " + done, cause=cause[:300])
    if f"os error {errno.ENOSPC}" in cause or f"os error {errno.EDQUOT}" in cause:
        return Unavailable("The disk of the storage is full; it takes no files.", "storage.disk_full", retry_after=30)
    return Unavailable(f"The storage does not work: a file can't be {done}.", "storage.unavailable", retry_after=5)
