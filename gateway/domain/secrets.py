"""Stored secrets: sealing, opening, and re-wrapping all of them under a new master key."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import structlog

from gateway.core.errors import ConfigurationError
from gateway.core.sealed import SealedSecret, SecretOwner
from gateway.crypto.keyring import DecryptionFailed, KeyRing
from gateway.domain.audit import Action, Audit
from gateway.settings import DataSettings
from gateway.store import secrets
from gateway.store.database import Connection, Database

_log = structlog.get_logger("gateway.secrets")

PEPPER_BYTES = 32
_PEPPER_ROW = UUID(int=0)
_PEPPER = SecretOwner("pepper", None, None, _PEPPER_ROW)


class KeySource:
    """The key ring, reloaded when its file has changed, so that a rotation needs no restart.

    A file that is invalid, or not completely written yet, leaves the ring unchanged.
    """

    def __init__(self, read: Callable[[], str], file: Path | None = None) -> None:
        self._read = read
        self._file = file
        self._seen = self._stamp()
        self._ring = self._parsed()

    @classmethod
    def of(cls, settings: DataSettings) -> KeySource:
        if settings.master_keys is not None:
            text = settings.master_keys
            return cls(lambda: text)
        file = settings.master_keys_file
        if file is None:
            raise ConfigurationError(
                "The master key is missing; set GATEWAY_MASTER_KEYS (`id:base64`, 32 bytes) or"
                " GATEWAY_MASTER_KEYS_FILE."
            )
        try:
            return cls(file.read_text, file)
        except OSError as error:
            raise ConfigurationError(f"The master key file {file} can't be read: {error.strerror}.") from None

    def ring(self) -> KeyRing:
        stamp = self._stamp()
        if stamp != self._seen:
            try:
                self._ring = self._parsed()
            except (OSError, ValueError, ConfigurationError) as error:
                reason = error.message if isinstance(error, ConfigurationError) else type(error).__name__
                _log.error("the changed master key file can't be used; the keys from before stay", reason=reason)
            self._seen = stamp
        return self._ring

    def _parsed(self) -> KeyRing:
        setting = "GATEWAY_MASTER_KEYS" if self._file is None else "GATEWAY_MASTER_KEYS_FILE"
        return KeyRing.parse(self._read(), setting)

    def _stamp(self) -> tuple[int, int, int] | None:
        """Identifies a version of the file; None without a file."""
        if self._file is None:
            return None
        try:
            found = os.stat(self._file)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size


class SecretStore:
    """Stores and opens secrets. Each opening is in the audit log, if there is one."""

    def __init__(self, keys: KeySource, audit: Audit | None = None) -> None:
        self._keys = keys
        self._audit = audit

    async def put(self, connection: Connection, owner: SecretOwner, secret: str) -> None:
        """Keep a secret for its owner, in place of the one that was there."""
        await secrets.remove(connection, owner.row_id)
        await secrets.put(connection, owner, self._keys.ring().seal(secret.encode(), owner))

    async def open(self, connection: Connection, owner: SecretOwner) -> str | None:
        """The owner's secret, or None when it has none; raises DecryptionFailed when the row is not the owner's."""
        found = await secrets.get(connection, owner.row_id)
        return None if found is None else self.opened(found, owner)

    def opened(self, found: tuple[SecretOwner, SealedSecret], owner: SecretOwner) -> str:
        """As `open`, of a row that was read already, with the owner that it states."""
        return self._open(*found, owner).decode()

    async def remove(self, connection: Connection, row_id: UUID) -> None:
        await secrets.remove(connection, row_id)

    async def pepper(self, connection: Connection) -> bytes:
        """The pepper of API keys and lease tokens, made at the first start, and the same on every gateway."""
        owner = _PEPPER
        found = await secrets.get(connection, _PEPPER_ROW)
        if found is None:
            sealed = self._keys.ring().seal(os.urandom(PEPPER_BYTES), owner)
            await secrets.put(connection, owner, sealed, keep=True)  # another gateway may be at it as well
            found = await secrets.get(connection, _PEPPER_ROW)
        assert found is not None
        return self._open(*found, owner)

    def _open(self, stated: SecretOwner, sealed: SealedSecret, owner: SecretOwner) -> bytes:
        with contextlib.ExitStack() as noted:
            if self._audit is not None:
                noting = noted.enter_context(self._audit.noting(Action.SECRET_DECRYPTED, owner.row_id))
                noting.details["purpose"] = owner.purpose
            if stated != owner:
                raise DecryptionFailed(f"Secret {owner.row_id} ({owner.purpose}) was moved to another row or tenant.")
            return self._keys.ring().open(sealed, owner)


async def verify_keys(database: Database, ring: KeyRing) -> None:
    """Open the pepper, which a start needs, and write nothing. Raises DecryptionFailed where the ring lacks the key
    of this database; a database without a pepper takes any."""
    async with database.connect() as connection:
        found = await secrets.get(connection, _PEPPER_ROW)
    if found is not None:
        ring.open(found[1], _PEPPER)


@dataclass(frozen=True, slots=True)
class Rotation:
    """How many secrets each master key holds after a rotation, and what did not decrypt."""

    writing_id: str
    held: dict[str, int]
    undecryptable: list[DecryptionFailed]

    @property
    def left(self) -> dict[str, int]:
        """Secrets by the old master key that they still need."""
        return {key_id: count for key_id, count in self.held.items() if key_id != self.writing_id}


async def rotate(
    database: Database, keys: KeySource, report: Callable[[int, int], None], *, maximum_batch: int = 1000
) -> Rotation:
    """Re-wrap every secret under the writing key, in batches that each stand by themselves.

    Safe to interrupt and to repeat. `report` is called with the numbers of done and of remaining secrets. A secret that
    does not decrypt stays as it is and does not hold up the others.
    """
    ring = keys.ring()
    done = 0
    failed: dict[UUID, DecryptionFailed] = {}
    while True:
        async with database.begin() as connection:
            batch = await secrets.to_rewrap(connection, ring.writing_id, maximum_batch, failed)
            fresh = []
            for owner, sealed in batch:
                try:
                    fresh.append((owner, ring.rewrap(sealed, owner)))
                except DecryptionFailed as error:
                    failed[owner.row_id] = error
            if fresh:
                await secrets.rewrap(connection, fresh)
            held = await secrets.count_by_master_key(connection)
        rotation = Rotation(ring.writing_id, held, list(failed.values()))
        if not batch:
            return rotation
        done += len(fresh)
        report(done, sum(rotation.left.values()))
