"""Leases: the short-lived right to attach to one runtime."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from uuid import UUID

import structlog

from gateway.core import steps
from gateway.core.browser_network import Connect
from gateway.core.closes import Close, Ended
from gateway.core.errors import (
    Conflict,
    Forbidden,
    GatewayError,
    Gone,
    LimitReached,
    Unauthorized,
    Unavailable,
    database_unavailable,
)
from gateway.core.ids import new_id, not_found
from gateway.core.observation import Observed, Record
from gateway.core.pace import Pace, Paces
from gateway.core.runtime_ref import RuntimeRef
from gateway.core.scope import Scope
from gateway.core.shares import Places, Taker
from gateway.core.slices import WHOLE_LIST, Slice
from gateway.crypto.tokens import TokenIssuer, lease_token_prefix
from gateway.domain import audit
from gateway.domain.attachments import Attachment, Attachments
from gateway.domain.audit import Action, Audit, Origin
from gateway.domain.controllers import busy
from gateway.domain.events.run_commands import Commands
from gateway.domain.events.service import Events, about_run
from gateway.domain.runtimes.service import SILENT_SECONDS, Runtimes
from gateway.settings import LeaseSettings, variable
from gateway.store import leases
from gateway.store.database import Connection, Database, constraint_as
from gateway.store.leases import EndedSocket, Lease, LeaseRecord, NewLease, Usage
from gateway.telemetry import metrics

__all__ = ["Grant", "Lease", "Leases", "Usage", "refusal", "refuse_closing"]

_log = structlog.get_logger("gateway.leases")

_SOCKETS_LISTED = 100
_RETRY_SOCKETS_SECONDS = 5
# Leases end on time also while the database does not answer.
_EXPIRY_SECONDS = 1.0
_CLOSES = {close.reason: close for close in Close}


@dataclass(frozen=True, slots=True)
class Grant:
    """Permission of a checked token: one socket to this browser, until its attachment is asked to close.

    The browser is either here (`devtools_url`) or on another gateway, which is reached at `host_url`. `origin` is the
    lease as the one who acts, and from where.
    """

    attachment: Attachment
    lease_id: UUID
    runtime_id: UUID
    run_id: UUID
    socket_id: UUID
    devtools_url: str | None
    host_url: str | None
    # Opens connections to `devtools_url`; None for another gateway's.
    connect: Connect | None
    # Where the browser is here: the directory whose files may be named, or None where everything may be commanded.
    files_dir: str | None
    # Ids of the extensions that a browser here has.
    extensions: frozenset[str]
    origin: Origin
    # Whose share of common limits its sockets take.
    taker: Taker
    # Of the messages of all its sockets, if limited.
    pace: Pace | None
    # Of the run, where the browser is here.
    record: Record | None


class _NotAnswered(Exception):
    """Carries what an upgrade's answer failed with past the database, which would take an OSError for its own."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class Leases:
    def __init__(
        self,
        database: Database,
        issuer: TokenIssuer,
        attachments: Attachments,
        runtimes: Runtimes,
        settings: LeaseSettings,
        gateway_id: UUID,
        audit: Audit,
        events: Events,
        commands: Commands,
    ) -> None:
        self._audit = audit
        self._events = events
        self._commands = commands
        self._database = database
        self._issuer = issuer
        self._attachments = attachments
        self._runtimes = runtimes
        self._settings = settings
        self._gateway_id = gateway_id
        self._places = Places(
            settings.max_sockets, settings.shares, "sockets", "gateway.max_sockets", _RETRY_SOCKETS_SECONDS
        )
        self._paces = Paces(settings.lease_messages_per_second)
        # How many ends of sockets are kept while the database is unavailable.
        self.kept_ends = 10_000
        self._unwritten: dict[UUID, tuple[float, Ended]] = {}
        self._dropped = 0
        self._expired: set[tuple[UUID, Attachment]] = set()
        self._ending_expired: asyncio.Task[None] | None = None

    @property
    def attachments(self) -> Attachments:
        """The sockets that are open on this gateway."""
        return self._attachments

    @property
    def unwritten_ends(self) -> int:
        """How many ends of sockets wait to be written."""
        return len(self._unwritten)

    def check_options(self, options: dict[str, Any] | None) -> None:
        """Raises Forbidden for a lease that the operator does not allow."""
        if _is_unrestricted(options) and not self._settings.unrestricted_leases:
            setting = variable("unrestricted_leases")
            raise Forbidden(
                f"The operator allows no unrestricted leases; leave options.policy out, or have {setting} set.",
                "connection.policy_forbidden",
                details={"setting": setting},
            )
        if options is not None and options.get("autoRenew") is True and not self._settings.auto_renewed_leases:
            setting = variable("auto_renewed_leases")
            raise Forbidden(
                f"The operator allows no leases that are renewed automatically; leave options.autoRenew out, or have "
                f"{setting} set.",
                "connection.auto_renew_forbidden",
                details={"setting": setting},
            )

    async def mint(
        self,
        scope: Scope,
        ref: RuntimeRef,
        *,
        protocol: str,
        ttl_seconds: int | None,
        options: dict[str, Any] | None,
        api_key_id: UUID | None = None,
    ) -> tuple[Lease, str]:
        """A new lease and its token, which is known this once. It holds the runtime for `api_key_id`.

        Raises NotFound, Forbidden (policy), Conflict (runtime not active, or controlled by another one).
        """
        self.check_options(options)
        return await self._mint(
            scope, ref, protocol=protocol, ttl_seconds=ttl_seconds, options=options, api_key_id=api_key_id
        )

    async def mint_internal(self, scope: Scope, ref: RuntimeRef, *, purpose: str) -> tuple[Lease, str]:
        """A lease of the gateway's own, such as for executions: renewed while it is used. Its sockets are no activity
        of the runtime, so that they do not put off its idle timeout. Raises what `mint` does."""
        lease, token = await self._mint(
            scope, ref, protocol="cdp", ttl_seconds=None, options={"autoRenew": True}, purpose=purpose
        )
        self._attachments.leave_idle(_own_prefix(token))
        return lease, token

    async def end_internal(self, scope: Scope, ref: RuntimeRef, lease_id: UUID, token: str) -> None:
        """Revoke a lease of the gateway's own. Raises what `revoke` does."""
        try:
            await self.revoke(scope, ref, lease_id)
        finally:
            self._attachments.forget_idle(_own_prefix(token))

    async def _mint(
        self,
        scope: Scope,
        ref: RuntimeRef,
        *,
        protocol: str,
        ttl_seconds: int | None,
        options: dict[str, Any] | None,
        api_key_id: UUID | None = None,
        purpose: str | None = None,
    ) -> tuple[Lease, str]:
        space_id, runtime_id = await self._runtimes.resolve(scope, ref)
        lease_id = new_id()
        with self._audit.noting(Action.LEASE_MINTED, lease_id) as noting:
            noting.details = {
                "runtimeId": str(runtime_id),
                "protocol": protocol,
                "policy": "unrestricted" if _is_unrestricted(options) else "standard",
            }
            if purpose is not None:
                noting.details["purpose"] = purpose
            ttl = ttl_seconds or self._settings.lease_ttl_seconds
            given = {"connectionId": str(lease_id), "protocol": protocol, "ttlSeconds": ttl}
            given["policy"] = noting.details["policy"]
            if purpose is not None:
                given["purpose"] = purpose
            with self._commands.noting(None, "connections.create", given) as command:
                token = self._issuer.lease_token()
                new = NewLease(
                    id=lease_id,
                    space_id=space_id,
                    runtime_id=runtime_id,
                    api_key_id=api_key_id,
                    protocol=protocol,
                    options=options,
                    ttl=ttl,
                    prefix=token.prefix,
                    digest=token.digest,
                )
                lease = await self._write(scope, new)
                steps.done("insert lease")
                command.run_id = lease.run_id
        self._events.update(lease.owner, "connection.created", _about(lease))
        return lease, token.secret

    async def _write(self, scope: Scope, new: NewLease) -> Lease:
        """Raises NotFound, Conflict (runtime not active, or controlled by another one)."""
        runtime_id = new.runtime_id
        # The runtime may be deleted with its space in the middle of this.
        with constraint_as(not_found("runtime", runtime_id)):
            async with self._database.connect() as connection:
                minting = await leases.mint(connection, scope, new, locked=self._settings.controller_lock)
        if minting is None or minting.runtime_status == "starting":
            raise not_found("runtime", runtime_id)
        if minting.holder is not None:
            raise busy(minting.holder)
        if minting.lease is None:
            raise Conflict(
                f"Runtime {runtime_id} is {minting.runtime_status}; a lease needs an active one.",
                "runtime.not_active",
                details={"status": minting.runtime_status},
            )
        self._runtimes.note_activity(runtime_id)
        return minting.lease

    async def listed(self, scope: Scope, ref: RuntimeRef, part: Slice = WHOLE_LIST) -> list[Lease]:
        at = await self._runtimes.resolve(scope, ref)
        runtime_id = at.runtime_id
        with self._audit.noting(Action.LEASE_READ) as noting:
            noting.details["runtimeId"] = str(runtime_id)
            await self._runtimes.find(scope, at)
            async with self._database.connect() as connection:
                return await leases.listed(connection, scope, runtime_id, part)

    async def get(self, scope: Scope, ref: RuntimeRef, lease_id: UUID) -> Lease:
        space_id, runtime_id = await self._runtimes.resolve(scope, ref)
        with self._audit.noting(Action.LEASE_READ, lease_id):
            async with self._database.connect() as connection:
                found = await leases.get(connection, scope, space_id, runtime_id, lease_id)
            if found is None:
                raise not_found("connection", lease_id)
            return found

    async def usage(self, lease: Lease) -> Usage:
        """Use of a lease; a socket's traffic is part of it once the socket has ended."""
        async with self._database.connect() as connection:
            found = await leases.usage(connection, lease.id, _SOCKETS_LISTED)
        if found is None:
            raise not_found("connection", lease.id)
        return found

    async def renew(self, scope: Scope, ref: RuntimeRef, lease_id: UUID, ttl_seconds: int | None) -> Lease:
        """Let the lease expire `ttl_seconds` from now, or its own lifetime; never sooner than it would.

        Raises NotFound, Gone (expired, revoked or closed).
        """
        space_id, runtime_id = await self._runtimes.resolve(scope, ref)
        given = {"connectionId": str(lease_id), "ttlSeconds": ttl_seconds}
        with (
            self._audit.noting(Action.LEASE_RENEWED, lease_id),
            self._commands.noting(None, "connections.renew", given) as command,
        ):
            async with self._database.begin() as connection:
                found = await leases.get(connection, scope, space_id, runtime_id, lease_id)
                if found is None:
                    raise not_found("connection", lease_id)
                command.run_id = found.run_id
                if not await leases.renew(connection, [lease_id], ttl_seconds):
                    raise refusal(_CLOSES[await leases.refusal_reason(connection, lease_id)])
                lease = await leases.get(connection, scope, space_id, runtime_id, lease_id)
            # Its row stays locked from the renewal on.
            assert lease is not None
        self._events.update(lease.owner, "connection.renewed", _about(lease))
        self._runtimes.note_activity(runtime_id)
        return lease

    async def revoke(self, scope: Scope, ref: RuntimeRef, lease_id: UUID) -> Lease:
        """Revoke; idempotent. When this returns, no socket attaches any more, on no gateway."""
        space_id, runtime_id = await self._runtimes.resolve(scope, ref)
        given = {"connectionId": str(lease_id)}
        with (
            self._audit.noting(Action.LEASE_REVOKED, lease_id),
            self._commands.noting(None, "connections.revoke", given) as command,
        ):
            async with self._database.connect() as connection:
                revoked = await leases.revoke(connection, scope, space_id, runtime_id, lease_id)
            if revoked is None:
                raise not_found("connection", lease_id)
            lease, prefix, first = revoked
            command.run_id = lease.run_id
        self._attachments.close_lease(prefix, Close.LEASE_REVOKED)
        if first:
            self._events.update(lease.owner, "connection.revoked", _about(lease))
        self._runtimes.note_activity(runtime_id)
        return lease

    async def attach(self, token: str, *, forwarded: bool = False) -> Grant:
        """Check a token for one socket. The caller must `leave` the grant when the socket is closed.

        `forwarded` is a request of another gateway, which is not forwarded again. Raises Unauthorized (401), Gone (410:
        which end it was is in the code), Conflict (409), LimitReached (429), Unavailable (503).
        """
        prefix = lease_token_prefix(token)
        if prefix is None:
            error = _unknown()
            self._audit.refused(Action.LEASE_REFUSED, error)
            raise error
        attachment = self._attachments.enter(prefix)
        lease: LeaseRecord | None = None
        try:
            lease = await self._lease(prefix, token)
            return self._grant(attachment, lease, forwarded)
        except BaseException as error:
            self._attachments.leave(attachment)
            self._note_refusal(error, prefix, lease)
            raise

    def _note_refusal(self, error: BaseException, prefix: str, lease: LeaseRecord | None) -> None:
        """A lease acts once its token was found to be right; before it is anybody."""
        if lease is None:
            self._audit.refused(Action.LEASE_REFUSED, error, prefix=prefix)
        else:
            self._audit.refused(Action.LEASE_REFUSED, error, lease.id, prefix=prefix, origin=_acting(lease))

    @contextlib.asynccontextmanager
    async def visit(self, token: str, *, forwarded: bool = False) -> AsyncIterator[Grant]:
        """A token checked for one plain request, which is what the block does.

        Raises what `attach` raises, also when the lease or the runtime has ended by the end of the block: what was
        received in it may then be of another browser.
        """
        grant = await self.attach(token, forwarded=forwarded)
        try:
            with self._audit.noting(Action.LEASE_VISITED, grant.lease_id, origin=grant.origin):
                yield grant
                refuse_closing(grant.attachment)
        finally:
            self.leave(grant, None)

    @contextlib.asynccontextmanager
    async def admit(self, grant: Grant) -> AsyncIterator[None]:
        """The last check. The caller answers the upgrade inside the block, at once and without waiting.

        The lease's row is locked for the block, and a revoke needs the same lock: it either comes before, and this
        raises what `attach` raises, or it is not answered before the upgrade is. An error at the end of the block means
        that the lock was lost because the database went away: the socket must then be closed.
        """
        try:
            refuse_closing(grant.attachment)
            async with contextlib.AsyncExitStack() as stack:
                try:
                    async with asyncio.timeout(self._settings.attach_timeout_seconds):
                        connection = await stack.enter_async_context(self._database.begin())
                        await self._write_admission(connection, grant)
                except TimeoutError:
                    raise database_unavailable() from None
                refuse_closing(grant.attachment)
                try:
                    yield
                except Exception as error:
                    raise _NotAnswered(error) from None
        except _NotAnswered as unanswered:
            raise unanswered.error from None
        except GatewayError as error:
            self._audit.refused(
                Action.LEASE_REFUSED, error, grant.lease_id, prefix=grant.attachment.prefix, origin=grant.origin
            )
            raise
        here = grant.devtools_url is not None
        self._audit.note(
            Action.LEASE_ATTACHED if here else Action.LEASE_FORWARDED,
            grant.lease_id,
            details={"socketId": str(grant.socket_id), "runtimeId": str(grant.runtime_id)},
            origin=grant.origin,
        )
        metrics.attaches.observe(asyncio.get_running_loop().time() - grant.attachment.entered_at)

    async def _write_admission(self, connection: Connection, grant: Grant) -> None:
        if grant.devtools_url is not None:
            admitted = await leases.admit(connection, grant.lease_id, grant.socket_id, self._gateway_id)
        else:
            # The gateway that has the browser writes it down.
            admitted = await leases.hold(connection, grant.lease_id)
        if not admitted:
            raise refusal(_CLOSES[await leases.refusal_reason(connection, grant.lease_id)])

    def opened(self, grant: Grant) -> None:
        """The upgrade was answered; nothing of what the client says was read yet."""
        if grant.record is not None:
            data = {"socketId": str(grant.socket_id)}
            grant.record.note("connection.opened", data, connection_id=grant.lease_id)

    def leave(self, grant: Grant, ended: Ended | None) -> None:
        """The socket is gone. How it ended is written with the supervisor's next round; None was never admitted."""
        self._attachments.leave(grant.attachment)
        self._runtimes.note_activity(grant.runtime_id)
        if ended is None:
            return
        metrics.count_traffic(ended.bytes_from_client, ended.bytes_to_client, ended.commands)
        if grant.devtools_url is None:
            return
        details: dict[str, Any] = {
            "socketId": str(grant.socket_id),
            "reason": ended.close.reason,
            "bytesFromClient": ended.bytes_from_client,
            "bytesToClient": ended.bytes_to_client,
            "commands": ended.commands,
        }
        self._audit.note(Action.LEASE_DETACHED, grant.lease_id, details=details, origin=grant.origin)
        if grant.record is not None:
            closed = {**details, "code": ended.close.code}
            grant.record.note("connection.closed", closed, connection_id=grant.lease_id)
        if len(self._unwritten) >= self.kept_ends:
            if not self._dropped:
                _log.error("the ends of sockets can't be kept any more", kept=self.kept_ends)
            self._dropped += 1
            return
        self._unwritten[grant.socket_id] = (asyncio.get_running_loop().time(), ended)

    # Called by the supervisor

    async def write_ended(self) -> None:
        """Write how sockets ended; what can't be written now stays for the next time."""
        if not self._unwritten:
            return
        now = asyncio.get_running_loop().time()
        written = [
            EndedSocket(
                socket_id=socket_id,
                seconds_ago=now - at,
                close_code=ended.close.code,
                close_reason=ended.close.reason,
                bytes_from_client=ended.bytes_from_client,
                bytes_to_client=ended.bytes_to_client,
                commands=ended.commands,
            )
            for socket_id, (at, ended) in self._unwritten.items()
        ]
        async with self._database.begin() as connection:
            await leases.end_sockets(connection, written)
        for socket in written:
            self._unwritten.pop(socket.socket_id, None)
        if self._dropped:
            _log.error("the ends of sockets were dropped", sockets=self._dropped)
            self._dropped = 0

    async def renew_used(self) -> None:
        """Renew leases with `options.autoRenew` that a client has used since they were last renewed."""
        used = self._attachments.to_renew()
        if used:
            async with self._database.begin() as connection:
                renewed = await leases.renew(connection, list(used))
            self._attachments.renewed(renewed)

    def _on_expiry(self, lease_id: UUID, attachment: Attachment) -> None:
        """A lease may have been renewed, on any gateway, so that its row decides."""
        self._expired.add((lease_id, attachment))
        if self._ending_expired is None or self._ending_expired.done():
            self._ending_expired = asyncio.create_task(self._end_expired())

    async def _end_expired(self) -> None:
        while self._expired:
            expired, self._expired = self._expired, set()
            seconds_left = await self._seconds_left({lease_id for lease_id, _ in expired})
            for lease_id, attachment in expired:
                seconds = seconds_left.get(lease_id, 0.0)
                if seconds > 0:
                    attachment.expire_in(seconds, partial(self._on_expiry, lease_id, attachment))
                else:
                    attachment.close(Close.LEASE_EXPIRED)

    async def _seconds_left(self, lease_ids: set[UUID]) -> dict[UUID, float]:
        """Empty where the database does not answer in time."""
        asking = asyncio.create_task(self._read_seconds_left(list(lease_ids)))
        # Cancelling it would wait for the database.
        await asyncio.wait([asking], timeout=_EXPIRY_SECONDS)
        if not asking.done():
            asking.cancel()
            return {}
        if isinstance(asking.exception(), Unavailable):
            return {}
        return asking.result()

    async def _read_seconds_left(self, lease_ids: list[UUID]) -> dict[UUID, float]:
        async with self._database.connect() as connection:
            return await leases.seconds_left(connection, lease_ids)

    async def close_ended(self) -> None:
        """Close the sockets of leases that have ended, which covers notifications that were lost."""
        attached = self._attachments.attached_leases()
        if not attached:
            return
        async with self._database.connect() as connection:
            ended = await leases.ended(connection, list(attached))
        for lease_id, reason in ended:
            self._attachments.close_lease(attached[lease_id], _CLOSES[reason])

    def on_revoked(self, prefix: str) -> None:
        """Another gateway has revoked the lease that is known by this prefix."""
        self._attachments.close_lease(prefix, Close.LEASE_REVOKED)

    # Checking

    async def _lease(self, prefix: str, token: str) -> LeaseRecord:
        """The lease of a token. Raises Unauthorized."""
        async with self._database.connect() as connection:
            lease = await leases.by_prefix(connection, prefix, SILENT_SECONDS)
        matches = self._issuer.matches(token, lease.digest if lease else bytes(32))
        if lease is None or not matches:
            raise _unknown()
        return lease

    def _grant(self, attachment: Attachment, lease: LeaseRecord, forwarded: bool) -> Grant:
        """Grant for a socket that was entered before the lease was read."""
        if lease.revoked:
            raise refusal(Close.LEASE_REVOKED)
        if lease.seconds_left <= 0:
            raise refusal(Close.LEASE_EXPIRED)
        if lease.runtime_status in ("stopped", "failed"):
            raise refusal(Close.RUNTIME_GONE)
        if lease.runtime_status != "active" or lease.devtools_url is None:
            raise Conflict("The runtime of this lease is not live yet.", "runtime.not_active")
        if self._runtimes.draining:
            attachment.close(Close.DRAINING)
        refuse_closing(attachment)
        here = self._runtimes.hosts(lease.runtime_id)
        host_url = None if here else self._host_url(lease, forwarded)
        if here and self._runtimes.is_ending(lease.runtime_id):
            raise refusal(Close.RUNTIME_GONE)
        self._refuse_over_limit(attachment.prefix, here)
        taker = Taker(lease.id, lease.owner)
        self._places.enter(taker)
        observed = self._runtimes.observed(lease.runtime_id)
        if observed is not None:
            # Its pages run until the socket, or the request, has ended.
            observed.browser.use.begin(attachment)
        attachment.leave_place = partial(self._leave_place, taker, attachment, observed)
        self._attachments.check_in(attachment, lease.id, lease.runtime_id)
        attachment.expire_in(lease.seconds_left, partial(self._on_expiry, lease.id, attachment))
        if self.is_auto_renewed(lease):
            attachment.renew_every(lease.ttl_seconds, lease.seconds_left)
        restricted = here and not self.is_unrestricted(lease)
        return Grant(
            attachment=attachment,
            lease_id=lease.id,
            runtime_id=lease.runtime_id,
            run_id=lease.run_id,
            socket_id=new_id(),
            devtools_url=lease.devtools_url if here else None,
            host_url=host_url,
            connect=observed.browser.connect if observed is not None else None,
            files_dir=self._runtimes.files_dir(lease.runtime_id) if restricted else None,
            extensions=observed.browser.extensions if observed is not None else frozenset(),
            origin=_acting(lease),
            taker=taker,
            pace=self._paces.of(lease.id),
            record=observed.record if observed is not None else None,
        )

    def _leave_place(self, taker: Taker, attachment: Attachment, observed: Observed | None) -> None:
        self._places.leave(taker)
        if observed is not None:
            observed.browser.use.end(attachment)

    def is_unrestricted(self, lease: Lease | LeaseRecord) -> bool:
        """Whether a lease may command everything: it was minted so, and the operator still allows it."""
        return lease.policy == "unrestricted" and self._settings.unrestricted_leases

    def is_auto_renewed(self, lease: Lease | LeaseRecord) -> bool:
        """Whether a lease is renewed while it is used: it was minted so, and the operator still allows it."""
        return lease.auto_renew and self._settings.auto_renewed_leases

    def _host_url(self, lease: LeaseRecord, forwarded: bool) -> str:
        """Where the gateway that has the browser is reached. Raises Unavailable."""
        if lease.gateway_id == self._gateway_id:
            # Its browser is gone; that is about to be written.
            raise refusal(Close.RUNTIME_GONE)
        if forwarded:
            raise _no_host("Another gateway has the browser of this lease, and the request was forwarded already.")
        if (url := self._runtimes.worker_url(lease.gateway_id)) is not None:
            return url
        if not lease.host_alive:
            raise _no_host("The gateway that has the browser of this lease does not respond; try again shortly.")
        if lease.host_url is None:
            raise _no_host(
                "The gateway that has the browser of this lease has no address for other gateways; "
                "its operator must set GATEWAY_INTERNAL_URL on it."
            )
        return lease.host_url

    def _refuse_over_limit(self, prefix: str, here: bool) -> None:
        most = self._settings.max_sockets_per_lease
        # The gateway that has the browser sees the sockets of all.
        if here and self._attachments.checked_of(prefix) >= most:
            raise LimitReached(
                f"A lease may have {most} sockets open at once, and this one has them.",
                "lease.max_sockets",
                details={"limit": most},
                retry_after=_RETRY_SOCKETS_SECONDS,
            )


def _own_prefix(token: str) -> str:
    """The prefix of a token that this module has issued."""
    prefix = lease_token_prefix(token)
    assert prefix is not None
    return prefix


def _is_unrestricted(options: dict[str, Any] | None) -> bool:
    return options is not None and options.get("policy") == "unrestricted"


def _about(lease: Lease) -> dict[str, str]:
    """A lease in updates."""
    return {**about_run(lease.space_id, lease.runtime_id, lease.run_id), "connectionId": str(lease.id)}


def _acting(lease: LeaseRecord) -> Origin:
    """The lease as the one who acts, from where the request came."""
    return replace(audit.origin(), actor=str(lease.id), scope=lease.owner)


def refuse_closing(attachment: Attachment) -> None:
    """Raise the reason of a socket that was asked to close already."""
    if attachment.closing is not None:
        raise refusal(attachment.closing)


def refusal(why: Close) -> GatewayError:
    """The error for a client that is refused, by the reason for which an open socket would be closed."""
    if why is Close.LEASE_REVOKED:
        return Gone("This lease was revoked; mint a new connection.", "lease.revoked")
    if why is Close.LEASE_EXPIRED:
        return Gone("This lease has expired; mint a new connection.", "lease.expired")
    if why is Close.DRAINING:
        return Unavailable("This gateway is stopping.", "gateway.draining", retry_after=1)
    return Gone("The runtime of this lease has ended; create a new one.", "runtime.gone")


def _unknown() -> Unauthorized:
    return Unauthorized("The address holds no lease of this gateway.", "lease.unknown")


def _no_host(message: str) -> Unavailable:
    return Unavailable(message, "runtime.host_unavailable", retry_after=1)
