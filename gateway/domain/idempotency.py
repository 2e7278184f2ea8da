"""Idempotency keys: a write that is sent again is answered as it was the first time, and is not run again.

A key belongs to the API key that sent it. Of requests with one key, on any gateways, one gets the `Ticket` and runs;
the others get its answer, or a conflict while it runs. A request that was running when its gateway died may be sent
again, and then runs again: its progress is unknown.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from dataclasses import dataclass, field
from uuid import UUID

import structlog

from gateway.core.errors import Conflict, RequestInvalid, Unavailable
from gateway.core.ids import new_id
from gateway.core.sealed import SealedSecret, SecretOwner
from gateway.core.shares import Shares
from gateway.crypto.keyring import DecryptionFailed
from gateway.domain.audit import Action, Audit
from gateway.domain.secrets import KeySource
from gateway.store import idempotency as store
from gateway.store.database import Database

_log = structlog.get_logger("gateway.idempotency")

KEY_CHARACTERS = 255
_KEY = re.compile(rf"[\x20-\x7e]{{1,{KEY_CHARACTERS}}}")
# Refusals of the caller or its rate, which do not depend on the request itself.
_NOT_STORED = frozenset((401, 429))
_SWEEP_BATCH = 1000
# Answers that wait for a database that is away. Those that find no room are lost, and their requests may run again.
_MAX_WAITING = 1000
_SHARES = Shares()


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """An answer as it was sent: status, headers in their order, and the body's bytes."""

    status: int
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Ticket:
    """The right to run a request. It ends with `complete` or `abandon`."""

    claim: store.Claim
    fingerprint: bytes


def request_fingerprint(contract: str, method: str, path: str, query: str, media_type: str, body: bytes) -> bytes:
    """The identity of a request, as a SHA-256. `media_type` is compared without its parameters."""
    essence = media_type.partition(";")[0].strip().lower()
    parts = (contract, method.upper(), path, query, essence, hashlib.sha256(body).hexdigest())
    return hashlib.sha256(json.dumps(parts).encode()).digest()


class Idempotency:
    """Keeps answers for `hours`. A gateway without a heartbeat for `silent_seconds` counts as dead."""

    def __init__(
        self,
        database: Database,
        keys: KeySource,
        audit: Audit,
        gateway_id: UUID,
        *,
        hours: float,
        silent_seconds: float,
        max_waiting: int = _MAX_WAITING,
        shares: Shares = _SHARES,
    ) -> None:
        self._database = database
        self._keys = keys
        self._audit = audit
        self._gateway_id = gateway_id
        self._hours = hours
        self._silent_seconds = silent_seconds
        self._most_waiting = shares.of(max_waiting)
        # Answers that are not in the database yet; None is an abandoned request.
        self._waiting: dict[Ticket, StoredAnswer | None] = {}
        self._writing = asyncio.Lock()

    async def begin(self, principal_key_id: UUID, key: str, fingerprint: bytes) -> StoredAnswer | Ticket:
        """The answer that a request with this key got, or the ticket to run it.

        Raises RequestInvalid (`idempotency.key_invalid`), Conflict: `idempotency.mismatch` where another request had
        this key, `idempotency.in_progress` while the first one runs.
        """
        if not _KEY.fullmatch(key):
            raise RequestInvalid(
                f"The Idempotency-Key must have 1 to {KEY_CHARACTERS} printable ASCII characters.",
                "idempotency.key_invalid",
                details={"maximumLength": KEY_CHARACTERS},
            )
        wanted = store.Claim(principal_key_id, key, new_id())
        async with self._database.connect() as connection:
            # Each turn either ends, or follows the removal of a row that was in the way.
            while not await store.claim(connection, wanted, self._gateway_id, fingerprint):
                found = await store.find(
                    connection, principal_key_id, key, hours=self._hours, silent_seconds=self._silent_seconds
                )
                if found is None:
                    continue
                if found.is_stale:
                    await store.remove_stale(
                        connection,
                        store.Claim(principal_key_id, key, found.claim_id),
                        hours=self._hours,
                        silent_seconds=self._silent_seconds,
                    )
                    continue
                if found.fingerprint != fingerprint:
                    raise Conflict(
                        "The Idempotency-Key was used for another request; use a new key for a new request.",
                        "idempotency.mismatch",
                    )
                if not found.is_answered:
                    raise Conflict(
                        "The first request with this Idempotency-Key is still running; try again shortly.",
                        "idempotency.in_progress",
                        retry_after=1,
                    )
                return self._open(Ticket(store.Claim(principal_key_id, key, found.claim_id), fingerprint), found)
        return Ticket(wanted, fingerprint)

    async def complete(self, ticket: Ticket, answer: StoredAnswer) -> None:
        """Keep the answer for requests that repeat this one. A refusal of the caller (401, 429) and an error of the
        gateway (5xx) are not kept: the request may be sent again."""
        is_kept = answer.status < 500 and answer.status not in _NOT_STORED
        await self._end(ticket, answer if is_kept else None)

    async def abandon(self, ticket: Ticket) -> None:
        """Give up a request that got no answer, so that it may be sent again."""
        await self._end(ticket, None)

    async def release_left(self) -> int:
        """At a start: give up what an earlier process of this gateway was running; returns how many requests."""
        async with self._database.connect() as connection:
            return await store.release_all(connection, self._gateway_id)

    async def write_waiting(self) -> None:
        """Write the ends of tickets that the database could not take before. Raises Unavailable."""
        async with self._writing:
            while self._waiting:
                ticket, answer = next(iter(self._waiting.items()))
                await self._write(ticket, answer)
                del self._waiting[ticket]

    async def sweep(self) -> int:
        """Remove expired answers and the claims of dead gateways, a batch of each; returns how many."""
        async with self._database.connect() as connection:
            return await store.sweep(
                connection, hours=self._hours, silent_seconds=self._silent_seconds, limit=_SWEEP_BATCH
            )

    async def _end(self, ticket: Ticket, answer: StoredAnswer | None) -> None:
        try:
            await self._write(ticket, answer)
        except Unavailable:
            # The request is done, whether or not the database is there: its answer is kept as soon as it is back.
            api_key = ticket.claim.api_key_id
            own = sum(waiting.claim.api_key_id == api_key for waiting in self._waiting)
            if len(self._waiting) < self._most_waiting["gateway"] and own < self._most_waiting["caller"]:
                self._waiting[ticket] = answer
            else:
                _log.error("an idempotency key could not be completed", waiting=len(self._waiting))

    async def _write(self, ticket: Ticket, answer: StoredAnswer | None) -> None:
        if answer is None:
            async with self._database.connect() as connection:
                await store.release(connection, ticket.claim)
            return
        sealed = self._keys.ring().seal(_encode(ticket, answer), _owner(ticket))
        async with self._database.connect() as connection:
            kept = await store.answer(
                connection,
                ticket.claim,
                master_key_id=sealed.master_key_id,
                wrapped_key=sealed.wrapped_key,
                ciphertext=sealed.ciphertext,
            )
        if not kept:
            # Also after a try whose commit was not confirmed, in which case it is there.
            _log.info("an answer is not kept, since its idempotency key has been completed or taken over")

    def _open(self, ticket: Ticket, found: store.KeyRecord) -> StoredAnswer:
        owner = _owner(ticket)
        with self._audit.noting(Action.SECRET_DECRYPTED, owner.row_id) as noting:
            noting.details["purpose"] = owner.purpose
            if found.master_key_id is None or found.wrapped_key is None or found.ciphertext is None:
                raise DecryptionFailed(f"Secret {owner.row_id} ({owner.purpose}) is gone.")
            sealed = SealedSecret(found.master_key_id, found.wrapped_key, found.ciphertext)
            return _decode(ticket, self._keys.ring().open(sealed, owner))


def _owner(ticket: Ticket) -> SecretOwner:
    return SecretOwner(store.PURPOSE, None, None, ticket.claim.id)


def _identity(ticket: Ticket) -> str:
    """The request of an answer. It is sealed with the answer, so that no row can be moved to another request."""
    return json.dumps([str(ticket.claim.api_key_id), ticket.claim.key, ticket.fingerprint.hex()])


def _encode(ticket: Ticket, answer: StoredAnswer) -> bytes:
    head = {"identity": _identity(ticket), "status": answer.status, "headers": answer.headers}
    return json.dumps(head).encode() + b"\n" + answer.body


def _decode(ticket: Ticket, opened: bytes) -> StoredAnswer:
    line, _, body = opened.partition(b"\n")
    head = json.loads(line)
    if head["identity"] != _identity(ticket):
        raise DecryptionFailed(f"Secret {ticket.claim.id} ({store.PURPOSE}) was moved to another request.")
    return StoredAnswer(head["status"], tuple((name, value) for name, value in head["headers"]), body)
