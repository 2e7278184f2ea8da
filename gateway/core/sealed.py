"""Secrets as they are stored: encrypted, and bound to their row."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class SecretOwner:
    """Whose secret it is and where it is kept: the associated data of the encryption."""

    purpose: str
    organization_id: UUID | None
    subaccount_id: UUID | None
    row_id: UUID

    def associated_data(self) -> bytes:
        parts = (self.purpose, self.organization_id, self.subaccount_id, self.row_id)
        return "|".join("-" if part is None else str(part) for part in parts).encode()


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """A secret as it is stored. Both byte strings are nonce (12 bytes), ciphertext, tag (16 bytes)."""

    master_key_id: str
    wrapped_key: bytes
    ciphertext: bytes
