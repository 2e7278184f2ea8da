"""/v1/spaces/{id}/runtimes/{runtimeId}/connections."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from pydantic import AnyUrl, Field, field_validator

from gateway.contracts.spaces.example_values import CONNECTION, EXPIRES, LATER, OPAQUE, RUN, RUNTIME, STARTED
from gateway.contracts.spaces.runtimes import runtime_ref
from gateway.core.secret import Secret
from gateway.domain.leases.service import Lease as Record
from gateway.domain.leases.service import Usage as UsageRecord
from gateway.http.cursors import Listing, PageQuery, paged
from gateway.http.endpoints import Call, Endpoints
from gateway.http.models import WHOLE, Answer, Body, Metadata, Shown, Time, optional
from gateway.http.preferences import WARNING
from gateway.http.public_url import websocket_root

endpoints = Endpoints("Connections")

_POLICIES = ("standard", "unrestricted")
# The contract leaves `options` open; these members are read.
_OPTIONS = {
    "policy": {
        "enum": list(_POLICIES),
        "description": "Which commands the lease allows: `standard` by default, `unrestricted` where the operator "
        "permits it.",
    },
    "autoRenew": {
        "type": "boolean",
        "description": "Whether the lease is renewed as long as a client uses it; `false` by default.",
    },
}
_WARNED_OPTIONS = 5
_SHOWN_NAME = 100

Protocol = Literal["cdp", "cua", "rdp", "vnc", "mcp", "http"]


class CreateConnection(Body):
    """`ttlSeconds` is 60 to 7200; without it the lease lives for the gateway's default, an hour.

    Of `options`, `policy` and `autoRenew` are read. Any other member is ignored, which the answer says in
    `Gateway-Warning`.
    """

    example: ClassVar = {"protocol": "cdp", "ttlSeconds": 600}

    protocol: Literal["cdp"]
    """The protocol that the client speaks; only the DevTools protocol is served."""
    ttl_seconds: Annotated[int, Field(ge=60, le=7200), WHOLE] = optional()
    """Life of the lease in seconds; the default is the gateway's, an hour unless it is configured otherwise."""
    options: Annotated[Metadata, Shown(properties=_OPTIONS)] = optional()
    """`policy` and `autoRenew` are read; other members are ignored, with a `Gateway-Warning`."""

    @field_validator("options")
    @classmethod
    def _known_options(cls, options: dict[str, Any]) -> dict[str, Any]:
        policy = options.get("policy", "standard")
        if policy not in _POLICIES:
            raise ValueError(f"policy must be one of {', '.join(_POLICIES)}, and is {str(policy)[:100]!r}")
        renewed = options.get("autoRenew", False)
        if not isinstance(renewed, bool):
            raise ValueError(f"autoRenew must be true or false, and is {str(renewed)[:100]!r}")
        return options


class RenewConnection(Body):
    """`ttlSeconds` counts from now; without it the connection gets the lifetime that it was created with."""

    example: ClassVar = {"ttlSeconds": 600}

    ttl_seconds: Annotated[int, Field(ge=60, le=7200), WHOLE] = optional()
    """Life of the lease in seconds from now on; the default is as at its creation."""


class WebsocketEndpoint(Answer):
    """A websocket address."""

    type: Literal["websocket"]
    """Kind of endpoint."""
    url: Secret[AnyUrl]
    """The address to attach to. It is the only credential."""


class HttpEndpoint(Answer):
    """An HTTP address; not served by this gateway."""

    type: Literal["http"]
    """Kind of endpoint."""
    base_url: AnyUrl
    """The address below which the protocol is served."""


class RdpEndpoint(Answer):
    """A remote desktop; not served by this gateway."""

    type: Literal["rdp"]
    """Kind of endpoint."""
    host: str
    """Host name or address."""
    port: int
    """TCP port."""
    username: str
    """User to log in as."""
    password: Secret[str]
    """Password of the user."""


class CompositeEndpoint(Answer):
    """Several endpoints by name; not served by this gateway."""

    type: Literal["composite"]
    """Kind of endpoint."""
    endpoints: dict[str, Any]
    """Endpoints by name."""


Endpoint = Annotated[WebsocketEndpoint | HttpEndpoint | RdpEndpoint | CompositeEndpoint, Field(discriminator="type")]


class ConnectionRow(Answer):
    """A connection as it is listed: without its URL, which only its creation returns."""

    example: ClassVar[dict[str, Any]] = {
        "id": CONNECTION,
        "runtimeId": RUNTIME,
        "runId": RUN,
        "protocol": "cdp",
        "status": "active",
        "createdAt": STARTED,
        "expiresAt": EXPIRES,
        "closedAt": None,
        "revokedAt": None,
    }

    id: UUID
    """Id of the connection."""
    runtime_id: UUID
    """The runtime that it leads to."""
    run_id: UUID
    """The run in which it was created."""
    protocol: Protocol
    """The protocol that it speaks."""
    status: Literal["active", "expired", "revoked", "closed"]
    """`active` until it expires, is revoked, or is closed by the end of its runtime."""
    created_at: Time
    """When it was created."""
    expires_at: Time | None
    """When it expires: from then on no client can attach."""
    closed_at: Time | None
    """When the end of the runtime closed it; null otherwise."""
    revoked_at: Time | None
    """When it was revoked; null otherwise."""

    @classmethod
    def of(cls, record: Record) -> ConnectionRow:
        return cls(**_common(record), status=record.status)


class Socket(Answer):
    """One socket that was let in. What passed through it is known once it has ended."""

    opened_at: Time
    """When the client attached."""
    ended_at: Time | None
    """When the socket ended; null while it is open."""
    close_code: int | None
    """The websocket close code; null while it is open."""
    close_reason: str | None
    """The close reason; null while it is open."""
    bytes_from_client: int
    """Bytes received from the client."""
    bytes_to_client: int
    """Bytes sent to the client."""
    commands: int
    """Commands that the client sent."""


class Usage(Answer):
    """What a connection was used for; `sockets` are the newest 100. Bytes and commands come with a socket's end."""

    attaches: int
    """How often a client attached."""
    first_attached_at: Time | None
    """When a client attached first; null if never."""
    last_active_at: Time | None
    """When a socket was last open; null if never."""
    bytes_from_client: int
    """Bytes received from clients."""
    bytes_to_client: int
    """Bytes sent to clients."""
    commands: int
    """Commands that clients sent."""
    sockets: list[Socket]
    """The newest sockets, at most 100."""

    @classmethod
    def of(cls, record: UsageRecord) -> Usage:
        counts = {name: getattr(record, name) for name in cls.model_fields if name != "sockets"}
        sockets = [Socket(**{name: getattr(socket, name) for name in Socket.model_fields}) for socket in record.sockets]
        return cls(**counts, sockets=sockets)


class ConnectionDetails(ConnectionRow):
    """A connection as it is listed, what it was used for, and which options are in force."""

    example: ClassVar = {
        **ConnectionRow.example,
        "usage": {
            "attaches": 1,
            "firstAttachedAt": STARTED,
            "lastActiveAt": LATER,
            "bytesFromClient": 5120,
            "bytesToClient": 262144,
            "commands": 37,
            "sockets": [
                {
                    "openedAt": STARTED,
                    "endedAt": LATER,
                    "closeCode": 1000,
                    "closeReason": "client_closed",
                    "bytesFromClient": 5120,
                    "bytesToClient": 262144,
                    "commands": 37,
                }
            ],
        },
        "autoRenew": False,
        "policy": "standard",
    }

    usage: Usage = optional()
    """What it was used for."""
    auto_renew: bool = optional()
    """Whether the gateway renews it while it is used."""
    policy: Literal["standard", "unrestricted"] = optional()
    """Which commands it allows, as the operator permits now."""


class CreatedConnection(Answer):
    """A new connection. `endpoint.url` alone is the credential, and is never returned again."""

    example: ClassVar = {
        **ConnectionRow.example,
        "endpoint": {"type": "websocket", "url": f"wss://gateway.example.com/v1/connect/{OPAQUE}"},
    }

    id: UUID
    """Id of the connection."""
    runtime_id: UUID
    """The runtime that it leads to."""
    run_id: UUID
    """The run in which it was created."""
    protocol: Protocol
    """The protocol that it speaks."""
    status: Literal["active"]
    """A new connection is active."""
    endpoint: Endpoint
    """Where to attach; shown in this response only."""
    created_at: Time
    """When it was created."""
    expires_at: Time | None
    """When it expires: from then on no client can attach."""
    closed_at: Time | None
    """Null for a new connection."""
    revoked_at: Time | None
    """Null for a new connection."""


class ConnectionList(Answer):
    """Connections of a runtime."""

    example: ClassVar = {"connections": [ConnectionRow.example], "nextCursor": None}

    connections: list[ConnectionRow]
    """A page of connections, newest first, without URLs."""
    next_cursor: str | None
    """The `cursor` of the next page; null on the last."""


_SAME_LIFETIME = RenewConnection()
_ROOT = "/v1/spaces/{id}/runtimes/{runtimeId}/connections"


@endpoints.post(
    _ROOT,
    id="runtimes-connections-create",
    summary="Create a protocol connection lease",
    errors=(403, 404, 409),
    creates=True,
)
async def create(call: Call, body: CreateConnection) -> CreatedConnection:
    """Mint a short-lived lease of a live runtime, for a client that attaches to `endpoint.url`.

    A runtime has one controller at a time: 409 `runtime.controller_busy` where an invocation, or a connection of
    another API key, has it. Several connections of one API key are allowed.

    `Gateway-Warning` names members of `options` that are not read, with the nearest one that is.
    """
    ref = runtime_ref(call)
    call.services.leases.check_options(body.options)
    # First, so that a host that is not trusted leaves no lease behind.
    root = websocket_root(call.request, call.services.settings)
    lease, token = await call.services.leases.mint(
        call.scope,
        ref,
        protocol=body.protocol,
        ttl_seconds=body.ttl_seconds,
        options=body.options,
        api_key_id=call.principal.key_id,
    )
    if (ignored := _ignored(body.options)) is not None:
        call.headers[WARNING] = ignored
    return CreatedConnection(
        **_common(lease),
        status="active",
        endpoint=WebsocketEndpoint(type="websocket", url=AnyUrl(f"{root}/v1/connect/{token}")),
    )


@endpoints.get(_ROOT, id="runtimes-connections-list", summary="List connection leases", errors=(404,))
async def listed(call: Call, query: PageQuery) -> ConnectionList:
    """Newest first, without URLs."""
    ref = runtime_ref(call)
    listing = Listing("connections", query, ref.runtime_id)
    records = await call.services.leases.listed(call.scope, ref, query.part(listing))
    page, next_cursor = paged(records, query.limit, listing)
    return ConnectionList(connections=[ConnectionRow.of(record) for record in page], next_cursor=next_cursor)


@endpoints.get(
    _ROOT + "/{connectionId}", id="runtimes-connections-get", summary="Get a connection lease", errors=(404,)
)
async def get(call: Call) -> ConnectionDetails:
    """Also the options in force, and what the connection was used for: attaches, bytes, commands, ends of sockets."""
    leases = call.services.leases
    record = await leases.get(call.scope, runtime_ref(call), call.path_id("connectionId", "connection"))
    return ConnectionDetails(
        **_common(record),
        status=record.status,
        usage=Usage.of(await leases.usage(record)),
        auto_renew=leases.is_auto_renewed(record),
        policy="unrestricted" if leases.is_unrestricted(record) else "standard",
    )


@endpoints.post(
    _ROOT + "/{connectionId}/renew",
    id="runtimes-connections-renew",
    summary="Renew a connection lease",
    errors=(404, 410),
)
async def renew(call: Call, body: RenewConnection = _SAME_LIFETIME) -> ConnectionRow:
    """Let the connection expire later; its URL and its sockets stay. One that has ended can't be renewed.

    The body may be left out.
    """
    record = await call.services.leases.renew(
        call.scope, runtime_ref(call), call.path_id("connectionId", "connection"), body.ttl_seconds
    )
    return ConnectionRow.of(record)


@endpoints.delete(
    _ROOT + "/{connectionId}", id="runtimes-connections-delete", summary="Revoke a connection lease", errors=(404,)
)
async def revoke(call: Call) -> ConnectionRow:
    """Once this has answered no socket attaches with the lease any more. Idempotent."""
    return ConnectionRow.of(
        await call.services.leases.revoke(call.scope, runtime_ref(call), call.path_id("connectionId", "connection"))
    )


def _ignored(options: dict[str, Any] | None) -> str | None:
    """A sentence in ASCII about the members that are not read; None where all are."""
    unknown = [name for name in options or {} if name not in _OPTIONS]
    if not unknown:
        return None
    by_lower = {name.lower(): name for name in _OPTIONS}
    named = []
    for name in unknown[:_WARNED_OPTIONS]:
        nearest = difflib.get_close_matches(name[:_SHOWN_NAME].lower(), by_lower, n=1)
        named.append(ascii(name[:_SHOWN_NAME]) + (f" (did you mean {by_lower[nearest[0]]}?)" if nearest else ""))
    more = f" and {len(unknown) - _WARNED_OPTIONS} more" if len(unknown) > _WARNED_OPTIONS else ""
    return f"These members of options are ignored: {', '.join(named)}{more}"


def _common(record: Record) -> dict[str, Any]:
    return {
        "id": record.id,
        "runtime_id": record.runtime_id,
        "run_id": record.run_id,
        "protocol": record.protocol,
        "created_at": record.created_at,
        "expires_at": record.expires_at,
        "closed_at": record.closed_at,
        "revoked_at": record.revoked_at,
    }
