"""Leases: the short-lived right to attach to one runtime (contract: seed 001; spaces.md, 2.5 and 4.3)."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.exc import IntegrityError

from gateway.crypto.tokens import TokenIssuer, lease_token_prefix
from gateway.domain.attachments import Attachment, Attachments, Close
from gateway.domain.identifiers import new_id, not_found
from gateway.domain.runtimes import Runtimes
from gateway.errors import Conflict, GatewayError, Gone, Unauthorized, Unavailable
from gateway.store import leases
from gateway.store.database import Database
from gateway.store.leases import Lease
from gateway.store.scope import Scope


@dataclass(frozen=True, slots=True)
class Grant:
    """What a checked token allows: one socket to this browser, until its attachment is told to close."""

    attachment: Attachment
    lease_id: UUID
    runtime_id: UUID
    devtools_url: str


class Leases:
    def __init__(
        self, database: Database, issuer: TokenIssuer, attachments: Attachments, runtimes: Runtimes, default_ttl: int
    ) -> None:
        self._database = database
        self._issuer = issuer
        self._attachments = attachments
        self._runtimes = runtimes
        self._default_ttl = default_ttl

    async def mint(
        self,
        scope: Scope,
        space_id: UUID,
        runtime_id: UUID,
        *,
        protocol: str,
        ttl_seconds: int | None,
        options: dict[str, Any] | None,
    ) -> tuple[Lease, str]:
        """A new lease and its token, which is known this once. Raises NotFound, Conflict (runtime not active)."""
        token = self._issuer.lease_token()
        try:
            async with self._database.connect() as connection:
                minting = await leases.mint(
                    connection,
                    scope,
                    runtime_id=runtime_id,
                    id=new_id(),
                    space_id=space_id,
                    protocol=protocol,
                    options=options,
                    prefix=token.prefix,
                    digest=token.digest,
                    ttl=ttl_seconds or self._default_ttl,
                )
        except IntegrityError:
            # The runtime was deleted with its space in the midst of this.
            raise not_found("runtime", runtime_id) from None
        if minting is None or minting.runtime_status == "starting":
            raise not_found("runtime", runtime_id)
        if minting.lease is None:
            raise Conflict(
                f"Runtime {runtime_id} is {minting.runtime_status}; a lease needs an active one.",
                "runtime.not_active",
                details={"status": minting.runtime_status},
            )
        self._runtimes.note_activity(runtime_id)
        return minting.lease, token.secret

    async def listed(self, scope: Scope, space_id: UUID, runtime_id: UUID) -> list[Lease]:
        await self._runtimes.get(scope, space_id, runtime_id)
        async with self._database.connect() as connection:
            return await leases.listed(connection, scope, runtime_id)

    async def get(self, scope: Scope, space_id: UUID, runtime_id: UUID, lease_id: UUID) -> Lease:
        async with self._database.connect() as connection:
            found = await leases.get(connection, scope, space_id, runtime_id, lease_id)
        if found is None:
            raise not_found("connection", lease_id)
        return found

    async def revoke(self, scope: Scope, space_id: UUID, runtime_id: UUID, lease_id: UUID) -> Lease:
        """Revoke, as often as one likes. When this returns, no socket attaches any more."""
        async with self._database.connect() as connection:
            revoked = await leases.revoke(connection, scope, space_id, runtime_id, lease_id)
        if revoked is None:
            raise not_found("connection", lease_id)
        lease, prefix = revoked
        self._attachments.close_lease(prefix, Close.LEASE_REVOKED)
        self._runtimes.note_activity(runtime_id)
        return lease

    async def attach(self, token: str) -> Grant:
        """Check a token for one socket. The caller must `leave` the grant's attachment when the socket is closed.

        Raises Unauthorized (401), Gone (410: which end it was is in the code), Conflict (409), Unavailable (503).
        """
        prefix = lease_token_prefix(token)
        if prefix is None:
            raise _unknown()
        attachment = self._attachments.enter(prefix)
        try:
            return await self._check(attachment, token)
        except BaseException:
            self._attachments.leave(attachment)
            raise

    @contextlib.asynccontextmanager
    async def visit(self, token: str) -> AsyncIterator[Grant]:
        """A token checked for one plain request, which is what the block does.

        Raises what `attach` raises, also when the lease or the runtime has ended by the end of the block: what was
        heard in it may then be of another browser.
        """
        grant = await self.attach(token)
        try:
            yield grant
            if grant.attachment.closing.done():
                raise refusal(grant.attachment.closing.result())
        finally:
            self.leave(grant)

    def leave(self, grant: Grant) -> None:
        self._attachments.leave(grant.attachment)
        self._runtimes.note_activity(grant.runtime_id)

    async def _check(self, attachment: Attachment, token: str) -> Grant:
        async with self._database.connect() as connection:
            lease = await leases.by_prefix(connection, attachment.lease_prefix)
        matches = self._issuer.matches(token, lease.digest if lease else bytes(32))
        if lease is None or not matches:
            raise _unknown()
        if lease.revoked:
            raise refusal(Close.LEASE_REVOKED)
        if lease.seconds_left <= 0:
            raise refusal(Close.LEASE_EXPIRED)
        if lease.runtime_status in ("stopped", "failed"):
            raise refusal(Close.RUNTIME_GONE)
        if lease.runtime_status != "active" or lease.devtools_url is None:
            raise Conflict("The runtime of this lease is not live yet.", "runtime.not_active")
        if lease.runtime_id not in self._runtimes.hosted():
            raise Unavailable(
                "Another gateway has the browser of this lease.", "runtime.host_unavailable", retry_after=1
            )
        if self._runtimes.is_ending(lease.runtime_id):
            raise refusal(Close.RUNTIME_GONE)
        attachment.runtime_id = lease.runtime_id
        attachment.expire_in(lease.seconds_left)
        if self._runtimes.draining:
            attachment.close(Close.DRAINING)
        return Grant(attachment, lease.id, lease.runtime_id, lease.devtools_url)


def refusal(why: Close) -> GatewayError:
    """What a client hears that is not let in: the reason for which an open socket would be closed."""
    if why is Close.LEASE_REVOKED:
        return Gone("This lease was revoked; mint a new connection.", "lease.revoked")
    if why is Close.LEASE_EXPIRED:
        return Gone("This lease has expired; mint a new connection.", "lease.expired")
    if why is Close.DRAINING:
        return Unavailable("This gateway is stopping.", "gateway.draining", retry_after=1)
    return Gone("The runtime of this lease has ended; create a new one.", "runtime.gone")


def _unknown() -> Unauthorized:
    return Unauthorized("The address holds no lease of this gateway.", "lease.unknown")
