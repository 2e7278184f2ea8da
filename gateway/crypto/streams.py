"""Encryption of a stream in chunks that are authenticated in their order.

Each chunk is AES-256-GCM under one data key, which encrypts nothing else, so a chunk's number is its nonce. The number,
whether it is the last chunk, and the stream's context are the associated data: a chunk that is altered, moved, left
out, repeated, of another stream, or missing at the end does not decrypt. Both sides hold two chunks at most.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.crypto.keyring import KEY_BYTES, NONCE_BYTES

# Plain bytes of every chunk but the last.
CHUNK_BYTES = 1024 * 1024
_TAG_BYTES = 16


class StreamAltered(Exception):
    """Raised where a stream does not decrypt: it is not the one that was encrypted, or not all of it."""


def new_key() -> bytes:
    """A data key for one stream."""
    return os.urandom(KEY_BYTES)


class StreamSealer:
    """Encrypts one stream. `context` is what it belongs to, which decryption must be given too."""

    def __init__(self, key: bytes, context: bytes, chunk_bytes: int = CHUNK_BYTES) -> None:
        self._chunks = _Chunks(key, context)
        self._size = chunk_bytes
        self._waiting = bytearray()

    def update(self, data: bytes) -> Iterator[bytes]:
        """The chunks that are whole by now; one that may be the last is kept back."""
        for chunk in _whole(self._waiting, data, self._size):
            yield self._chunks.seal(chunk, last=False)

    def finish(self) -> bytes:
        """The last chunk. Nothing may follow."""
        return self._chunks.seal(bytes(self._waiting), last=True)


class StreamOpener:
    """Decrypts one stream. What it returns is authentic, but whole only once `finish` has returned."""

    def __init__(self, key: bytes, context: bytes, chunk_bytes: int = CHUNK_BYTES) -> None:
        self._chunks = _Chunks(key, context)
        self._size = chunk_bytes + _TAG_BYTES
        self._waiting = bytearray()

    def update(self, data: bytes) -> Iterator[bytes]:
        """The plain chunks that are there by now; raises StreamAltered."""
        for chunk in _whole(self._waiting, data, self._size):
            yield self._chunks.open(chunk, last=False)

    def finish(self) -> bytes:
        """The last plain chunk, at the end of the data; raises StreamAltered."""
        return self._chunks.open(bytes(self._waiting), last=True)


def _whole(waiting: bytearray, data: bytes, size: int) -> Iterator[bytes]:
    """Add data to what waits, and take the chunks that can't be the last from its beginning."""
    waiting += data
    while len(waiting) > size:
        chunk = bytes(waiting[:size])
        del waiting[:size]
        yield chunk


class _Chunks:
    """Encrypts or decrypts the chunks of one stream, one after the other."""

    def __init__(self, key: bytes, context: bytes) -> None:
        self._cipher = AESGCM(key)
        self._context = context
        self._number = 0

    def seal(self, chunk: bytes, *, last: bool) -> bytes:
        nonce, associated = self._next(last)
        return self._cipher.encrypt(nonce, chunk, associated)

    def open(self, chunk: bytes, *, last: bool) -> bytes:
        nonce, associated = self._next(last)
        try:
            return self._cipher.decrypt(nonce, chunk, associated)
        except InvalidTag:
            raise StreamAltered("a chunk is not the one that was encrypted at its place") from None

    def _next(self, last: bool) -> tuple[bytes, bytes]:
        """Nonce and associated data of the next chunk."""
        number = self._number.to_bytes(NONCE_BYTES, "big")
        self._number += 1
        return number, number + (b"\x01" if last else b"\x00") + self._context
