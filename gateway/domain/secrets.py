"""Secrets that must be read again: sealing, opening, and re-wrapping all of them under a new master key."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.crypto.keyring import DecryptionFailed, KeyRing, Owner
from gateway.errors import ConfigurationError
from gateway.settings import Settings
from gateway.store import secrets
from gateway.store.database import Database

PEPPER_BYTES = 32
_PEPPER_ROW = UUID(int=0)
_ROTATION_BATCH = 1000


class KeySource:
    """The key ring, read anew when its file has changed, so that a rotation needs no restart."""

    def __init__(self, read: Callable[[], str], file: Path | None = None) -> None:
        self._read = read
        self._file = file
        self._seen = self._stamp()
        self._ring = KeyRing.parse(read())

    @classmethod
    def of(cls, settings: Settings) -> KeySource:
        if settings.master_keys is not None:
            text = settings.master_keys
            return cls(lambda: text)
        file = settings.master_keys_file
        if file is None:
            raise ConfigurationError(
                "There is no master key; give GATEWAY_MASTER_KEYS (`id:base64`, 32 bytes) or GATEWAY_MASTER_KEYS_FILE."
            )
        try:
            return cls(file.read_text, file)
        except OSError as error:
            raise ConfigurationError(f"The master key file {file} can't be read: {error.strerror}.") from None

    def ring(self) -> KeyRing:
        stamp = self._stamp()
        if stamp != self._seen:
            self._ring = KeyRing.parse(self._read())
            self._seen = stamp
        return self._ring

    def _stamp(self) -> tuple[int, int] | None:
        if self._file is None:
            return None
        found = os.stat(self._file)
        return found.st_mtime_ns, found.st_ino


class SecretStore:
    def __init__(self, keys: KeySource) -> None:
        self._keys = keys

    async def put(self, connection: AsyncConnection, owner: Owner, secret: str) -> None:
        """Keep a secret for its owner, in place of the one that was there."""
        await secrets.remove(connection, owner.row_id)
        await secrets.put(connection, owner, self._keys.ring().seal(secret.encode(), owner))

    async def open(self, connection: AsyncConnection, owner: Owner) -> str | None:
        """The owner's secret, or None when it has none; raises DecryptionFailed when the row is not the owner's."""
        found = await secrets.get(connection, owner.row_id)
        if found is None:
            return None
        stated, sealed = found
        if stated != owner:
            raise DecryptionFailed(f"Secret {owner.row_id} ({owner.purpose}) was moved to another row or tenant.")
        return self._keys.ring().open(sealed, owner).decode()

    async def remove(self, connection: AsyncConnection, row_id: UUID) -> None:
        await secrets.remove(connection, row_id)

    async def pepper(self, connection: AsyncConnection) -> bytes:
        """The pepper of API keys and lease tokens, made at the first start, and the same on every gateway."""
        owner = Owner("pepper", None, None, _PEPPER_ROW)
        found = await secrets.get(connection, _PEPPER_ROW)
        if found is None:
            await secrets.put(connection, owner, self._keys.ring().seal(os.urandom(PEPPER_BYTES), owner))
            found = await secrets.get(connection, _PEPPER_ROW)
        assert found is not None
        return self._keys.ring().open(found[1], owner)


async def rotate(database: Database, keys: KeySource, report: Callable[[int], None]) -> dict[str, int]:
    """Re-wrap every secret under the writing key, in batches that each stand by themselves.

    Safe to interrupt and to run twice. `report` hears how many are done. Returns how many secrets each key holds then.
    """
    ring = keys.ring()
    done = 0
    while True:
        async with database.begin() as connection:
            batch = await secrets.to_rewrap(connection, ring.writing_id, _ROTATION_BATCH)
            if not batch:
                break
            await secrets.rewrap(connection, [(owner, ring.rewrap(sealed, owner)) for owner, sealed in batch])
        done += len(batch)
        report(done)
    async with database.connect() as connection:
        return await secrets.count_by_master_key(connection)
