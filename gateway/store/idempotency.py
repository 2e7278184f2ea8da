"""Idempotency keys: the claim of a request, and its answer. The answer itself is a row of `secrets`."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.rows import record

PURPOSE = "idempotency.answer"

# Whether the gateway that runs a request is gone: it has stopped, or its heartbeat is too old.
_ORPHANED = """
    answered_at IS NULL AND NOT EXISTS (
        SELECT FROM gateways WHERE gateways.id = idempotency_keys.gateway_id
            AND gateways.heartbeat_at >= now() - :silent * interval '1 second'
    )
"""
_EXPIRED = "idempotency_keys.created_at < now() - :hours * interval '1 hour'"

_CLAIM = text(
    """
    INSERT INTO idempotency_keys (api_key_id, key, id, gateway_id, fingerprint)
    VALUES (:api_key_id, :key, :id, :gateway_id, :fingerprint) ON CONFLICT DO NOTHING RETURNING id
    """
)
_FIND = text(
    f"""
    SELECT idempotency_keys.id AS claim_id, fingerprint, answered_at IS NOT NULL AS is_answered,
        {_EXPIRED} OR ({_ORPHANED}) AS is_stale,
        master_key_id, wrapped_key, ciphertext
    FROM idempotency_keys LEFT JOIN secrets ON secrets.id = idempotency_keys.id
    WHERE api_key_id = :api_key_id AND key = :key
    """
)
# Only by the gateway whose claim is still valid: another may have taken over the request of one that stalled.
_ANSWER = text(
    """
    WITH answered AS (
        UPDATE idempotency_keys SET answered_at = now()
        WHERE api_key_id = :api_key_id AND key = :key AND id = :id AND answered_at IS NULL RETURNING id
    )
    INSERT INTO secrets (id, purpose, master_key_id, wrapped_key, ciphertext)
    SELECT id, :purpose, :master_key_id, :wrapped_key, :ciphertext FROM answered
    """
)
_RELEASE = text(
    "DELETE FROM idempotency_keys WHERE api_key_id = :api_key_id AND key = :key AND id = :id AND answered_at IS NULL"
)
_RELEASE_ALL = text("DELETE FROM idempotency_keys WHERE gateway_id = :gateway_id AND answered_at IS NULL")
_REMOVE = """
    WITH old AS (
        SELECT api_key_id, key FROM idempotency_keys WHERE {which} LIMIT :limit FOR UPDATE SKIP LOCKED
    ), removed AS (
        DELETE FROM idempotency_keys USING old
        WHERE idempotency_keys.api_key_id = old.api_key_id AND idempotency_keys.key = old.key
        RETURNING idempotency_keys.id, answered_at
    ), answers AS (
        DELETE FROM secrets USING removed WHERE secrets.id = removed.id AND removed.answered_at IS NOT NULL
    )
    SELECT count(*) FROM removed
"""
_REMOVE_ONE = text(
    _REMOVE.format(which=f"api_key_id = :api_key_id AND key = :key AND id = :id AND ({_EXPIRED} OR ({_ORPHANED}))")
)
_REMOVE_EXPIRED = text(_REMOVE.format(which=_EXPIRED))
_REMOVE_ORPHANED = text(_REMOVE.format(which=_ORPHANED))


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to run the request that an API key sent with an idempotency key. `id` is this claim's own."""

    api_key_id: UUID
    key: str
    id: UUID

    def values(self) -> dict[str, object]:
        return {"api_key_id": self.api_key_id, "key": self.key, "id": self.id}


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """State of an idempotency key. `stale`: it has expired, or its gateway died before it answered.

    The sealed parts are None while the request runs, and where the answer was removed meanwhile.
    """

    claim_id: UUID
    fingerprint: bytes
    is_answered: bool
    is_stale: bool
    master_key_id: str | None
    wrapped_key: bytes | None
    ciphertext: bytes | None


async def claim(connection: AsyncConnection, wanted: Claim, gateway_id: UUID, fingerprint: bytes) -> bool:
    """Claim a key; False where there is a row for it. Of several at once one gets it."""
    made = await connection.execute(_CLAIM, {**wanted.values(), "gateway_id": gateway_id, "fingerprint": fingerprint})
    return made.first() is not None


async def find(
    connection: AsyncConnection, api_key_id: UUID, key: str, *, hours: float, silent_seconds: float
) -> KeyRecord | None:
    values = {"api_key_id": api_key_id, "key": key, "hours": hours, "silent": silent_seconds}
    row = (await connection.execute(_FIND, values)).first()
    return record(KeyRecord, row) if row else None


async def answer(
    connection: AsyncConnection, claimed: Claim, *, master_key_id: str, wrapped_key: bytes, ciphertext: bytes
) -> bool:
    """Keep the sealed answer; False where the claim no longer stands, or was answered before."""
    sealed = {"master_key_id": master_key_id, "wrapped_key": wrapped_key, "ciphertext": ciphertext}
    written = await connection.execute(_ANSWER, {**claimed.values(), **sealed, "purpose": PURPOSE})
    return written.rowcount > 0


async def release(connection: AsyncConnection, claimed: Claim) -> None:
    """Give up a claim without an answer, so that the request may be sent again."""
    await connection.execute(_RELEASE, claimed.values())


async def release_all(connection: AsyncConnection, gateway_id: UUID) -> int:
    """Give up the claims that an earlier process of this gateway left; returns how many."""
    return (await connection.execute(_RELEASE_ALL, {"gateway_id": gateway_id})).rowcount


async def remove_stale(connection: AsyncConnection, claimed: Claim, *, hours: float, silent_seconds: float) -> None:
    """Remove the row of this claim, if it is stale still."""
    values = {**claimed.values(), "hours": hours, "silent": silent_seconds, "limit": 1}
    await connection.execute(_REMOVE_ONE, values)


async def sweep(connection: AsyncConnection, *, hours: float, silent_seconds: float, limit: int) -> int:
    """Remove up to `limit` expired keys and as many orphaned claims; returns how many. Locked rows are skipped."""
    expired = (await connection.execute(_REMOVE_EXPIRED, {"hours": hours, "limit": limit})).scalar_one()
    orphaned = (await connection.execute(_REMOVE_ORPHANED, {"silent": silent_seconds, "limit": limit})).scalar_one()
    return int(expired) + int(orphaned)
