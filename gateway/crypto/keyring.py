"""Envelope encryption: a data key per secret, AES-256-GCM, wrapped by a master key with an id.

The identity of the row is the associated data of both layers, so that a row that was moved to another tenant or
another id does not decrypt. The first master key writes; the others only read, until a rotation has re-wrapped what
they hold.
"""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.core.errors import ConfigurationError, GatewayError
from gateway.core.sealed import SealedSecret, SecretOwner

KEY_BYTES = 32
NONCE_BYTES = 12
_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class DecryptionFailed(GatewayError):
    """Raised when a secret does not decrypt: it was moved or altered, or its master key is not in the ring."""

    default_code = "secret.undecryptable"


class KeyRing:
    """Master keys by id, in order: the first one writes. Errors name the setting that they are from."""

    def __init__(self, keys: dict[str, bytes], setting: str = "GATEWAY_MASTER_KEYS") -> None:
        if not keys:
            raise ConfigurationError("The master key is missing; give one as `id:base64` of 32 bytes.")
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self.writing_id = next(iter(keys))
        self._setting = setting

    @property
    def key_ids(self) -> list[str]:
        return list(self._ciphers)

    @classmethod
    def parse(cls, text: str, setting: str = "GATEWAY_MASTER_KEYS") -> Self:
        """Read `id:base64` entries, split by commas or lines.

        Errors name the position and show nothing of the entry: where id and key are swapped, the id is a key.
        """
        keys: dict[str, bytes] = {}
        entries = [entry for entry in re.split(r"[,\s]+", text) if entry]
        for number, entry in enumerate(entries, 1):
            key_id, separator, encoded = entry.partition(":")
            if not separator or not _KEY_ID.fullmatch(key_id):
                raise ConfigurationError(
                    f"Master key {number} must be `id:base64`, where the id has 1 to 64 letters, digits, `.`, `_`, `-`."
                )
            try:
                key = base64.b64decode(encoded, validate=True)
            except ValueError:  # binascii.Error is one; text that is not ASCII raises a plain one
                raise ConfigurationError(f"Master key {number} is not valid base64.") from None
            if len(key) != KEY_BYTES:
                raise ConfigurationError(f"Master key {number} has {len(key)} bytes; it must have {KEY_BYTES}.")
            if key_id in keys:
                raise ConfigurationError(f"Master key {number} has an id that was given before.")
            keys[key_id] = key
        return cls(keys, setting)

    def seal(self, secret: bytes, owner: SecretOwner) -> SealedSecret:
        associated = owner.associated_data()
        data_key = os.urandom(KEY_BYTES)
        nonce = os.urandom(NONCE_BYTES)
        ciphertext = nonce + AESGCM(data_key).encrypt(nonce, secret, associated)
        return SealedSecret(self.writing_id, self._wrap(data_key, associated), ciphertext)

    def open(self, sealed: SealedSecret, owner: SecretOwner) -> bytes:
        """Raises DecryptionFailed, which names the row and never the secret."""
        data_key = self._unwrap(sealed, owner)
        return _decrypt(AESGCM(data_key), sealed.ciphertext, owner, "")

    def rewrap(self, sealed: SealedSecret, owner: SecretOwner) -> SealedSecret:
        """The same secret under the writing key; the secret itself is not touched."""
        data_key = self._unwrap(sealed, owner)
        return SealedSecret(self.writing_id, self._wrap(data_key, owner.associated_data()), sealed.ciphertext)

    def _wrap(self, data_key: bytes, associated: bytes) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._ciphers[self.writing_id].encrypt(nonce, data_key, associated)

    def _unwrap(self, sealed: SealedSecret, owner: SecretOwner) -> bytes:
        cipher = self._ciphers.get(sealed.master_key_id)
        if cipher is None:
            raise DecryptionFailed(
                f"Secret {owner.row_id} ({owner.purpose}) is wrapped by master key {sealed.master_key_id!r}, "
                f"which is not given; known are {', '.join(self.key_ids)} of {self._setting}."
            )
        other_key = f", or the master key {sealed.master_key_id!r} of {self._setting} is not the one that encrypted it"
        return _decrypt(cipher, sealed.wrapped_key, owner, other_key)


def _decrypt(cipher: AESGCM, stored: bytes, owner: SecretOwner, other_reason: str) -> bytes:
    """Raises DecryptionFailed, for too short a text too, where the cipher would raise a ValueError."""
    try:
        if len(stored) < NONCE_BYTES:
            raise InvalidTag
        return cipher.decrypt(stored[:NONCE_BYTES], stored[NONCE_BYTES:], owner.associated_data())
    except InvalidTag:
        raise DecryptionFailed(
            f"Secret {owner.row_id} ({owner.purpose}) does not decrypt for its row: "
            f"it was moved to another row or tenant, or altered{other_reason}."
        ) from None


def create_key_file(path: Path, key_id: str = "main") -> None:
    """Write a fresh master key, readable by its owner alone; raises FileExistsError rather than replace one.

    It is on the disk when this returns, and a write that failed leaves no file: all secrets hang on it.
    """
    encoded = base64.b64encode(os.urandom(KEY_BYTES)).decode()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{key_id}:{encoded}\n")
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink()
        raise
