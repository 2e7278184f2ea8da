"""/v1/proxies: saved proxies, and tests of them."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal
from uuid import UUID

from pydantic import Field

from gateway.contracts.shared.network import Credential, Proxy
from gateway.core import mounts
from gateway.core.canonical import texts
from gateway.core.secret import Secret
from gateway.domain.proxies import Changes
from gateway.domain.proxies import SavedProxy as Record
from gateway.http.cursors import Listing, WholeListQuery, following_page
from gateway.http.endpoints import Call, Endpoints
from gateway.http.models import NAME_CHARACTERS, STORABLE, WHOLE, Answer, Body, Name, Shown, Text, Time, optional

endpoints = Endpoints("Proxies")


ProxyReference = Annotated[str, Field(min_length=1, max_length=NAME_CHARACTERS), STORABLE, Shown(format="saved-proxy")]
ProxyReferences = Annotated[list[ProxyReference], Field(max_length=1000)]


class ProxiesMount(Body):
    """Which saved proxies launches may name; by default those of the same owner."""

    allow: ProxyReferences = optional()
    """Ids or names of saved proxies. To what belongs to a subaccount, an organization's key may lend one of the
    organization's, by its id."""

    def to_domain(self) -> mounts.ProxiesMount:
        return mounts.ProxiesMount(texts(self.allow))


class CreateProxy(Proxy):
    """A proxy, given as `url` or as its parts."""

    example: ClassVar = {"name": "berlin", "protocol": "http", "host": "proxy.example", "port": 3128}

    name: Name
    """Name, unique within its owner."""
    type: Literal["custom"] = optional()
    """The only kind that there is."""
    subaccount_id: Text = optional()
    """The subaccount that owns it; only for a key of the organization."""


class UpdateProxy(Body):
    """What is given is changed. With another address goes the password, or null: a stored one is for one proxy (409
    `proxy.password_required`)."""

    example: ClassVar = {"name": "hamburg"}

    name: Name = optional()
    """New name."""
    protocol: Literal["http", "socks5"] = optional()
    """New protocol."""
    host: Annotated[str, Field(min_length=1, max_length=253), Shown(format="proxy-host")] = optional()
    """New host name or address."""
    port: Annotated[int, Field(ge=1, le=65535), WHOLE] = optional()
    """New TCP port."""
    username: Credential | None = None
    """New user at the proxy; null removes it."""
    password: Secret[Credential] | None = None
    """New password; null removes the stored one."""
    dns_resolution: Literal["local", "proxy"] = optional()
    """Who resolves names: `local` is the gateway."""


class SavedProxy(Answer):
    """A saved proxy, without its password."""

    example: ClassVar = {
        "id": "01a22630-9540-7a11-8c2d-3e4f5a6b7c81",
        "name": "berlin",
        "type": "custom",
        "protocol": "http",
        "host": "proxy.example",
        "port": 3128,
        "username": None,
        "hasPassword": False,
        "dnsResolution": "local",
        "subaccountId": None,
        "createdAt": "2026-11-29T09:00:00.000Z",
        "updatedAt": "2026-11-29T09:00:00.000Z",
    }

    id: UUID
    """Id of the proxy."""
    name: str
    """Name, unique within its owner."""
    type: Literal["custom"]
    """The only kind that there is."""
    protocol: Literal["http", "socks5"]
    """Protocol of the proxy."""
    host: str
    """Host name or address."""
    port: int
    """TCP port."""
    username: str | None
    """User at the proxy."""
    has_password: bool
    """Whether a password is stored; it is never returned."""
    dns_resolution: Literal["local", "proxy"]
    """Who resolves names: `local` is the gateway."""
    subaccount_id: UUID | None
    """The subaccount that owns it; null for the organization."""
    created_at: Time
    """When it was created."""
    updated_at: Time
    """When it was last changed."""

    @classmethod
    def of(cls, record: Record) -> SavedProxy:
        return cls(
            id=record.id,
            name=record.name,
            type="custom",
            protocol=record.protocol,
            host=record.host,
            port=record.port,
            username=record.username,
            has_password=record.has_password,
            dns_resolution=record.dns_resolution,
            subaccount_id=record.subaccount_id,
            created_at=record.created_at,
            updated_at=record.updated_at,
        )


class ProxyList(Answer):
    """Proxies that the API key can see."""

    example: ClassVar = {"proxies": [SavedProxy.example]}

    proxies: list[SavedProxy]
    """Proxies, oldest first."""
    next_cursor: str = optional()
    """The `cursor` of the next page; absent if there is none."""


class ProxyDeleted(Answer):
    """Confirms that a proxy was deleted."""

    example: ClassVar = {"id": SavedProxy.example["id"], "deleted": True}

    id: UUID
    """Id of what was deleted."""
    deleted: Literal[True]
    """Always true."""


class ProxyTested(Answer):
    """The result of a request through the proxy."""

    example: ClassVar = {"ok": True, "exitIp": "198.51.100.7", "country": None, "httpStatus": 200, "latency": 182}

    ok: bool
    """Whether the request was answered with success."""
    exit_ip: str | None
    """The address that the request came from, as the server that was asked says."""
    country: str | None
    """Always null: the gateway knows no countries."""
    http_status: int | None
    """Status of the answer; null without one."""
    latency: int
    """Milliseconds of the whole request."""
    error: str = optional()
    """What went wrong, in a sentence for people; absent where nothing did."""


@endpoints.post("/v1/proxies", id="proxies-create", summary="Save a proxy", errors=(404, 409), creates=True)
async def create(call: Call, body: CreateProxy) -> SavedProxy:
    """Save a proxy. Its password is stored encrypted and never returned."""
    owner = await call.owner(body.subaccount_id)
    return SavedProxy.of(await call.services.proxies.create(owner, body.name, body.upstream()))


@endpoints.get("/v1/proxies", id="proxies-list", summary="List proxies")
async def listed(call: Call, query: WholeListQuery) -> ProxyList:
    """All that the key can see, oldest first."""
    listing = Listing("proxies", query)
    found = await call.services.proxies.listed(call.scope, query.part(listing))
    page, following = following_page(found, query, listing)
    return ProxyList(proxies=[SavedProxy.of(record) for record in page], **following)


@endpoints.get("/v1/proxies/{id}", id="proxies-get", summary="Get a proxy", errors=(404,))
async def get(call: Call) -> SavedProxy:
    return SavedProxy.of(await call.services.proxies.get(call.scope, call.path_id("id", "proxy")))


@endpoints.patch("/v1/proxies/{id}", id="proxies-update", summary="Update a proxy", errors=(404, 409))
async def update(call: Call, body: UpdateProxy) -> SavedProxy:
    """Change what is given."""
    changes: Changes = body.model_dump(include=body.model_fields_set)  # type: ignore[assignment]
    return SavedProxy.of(await call.services.proxies.change(call.scope, call.path_id("id", "proxy"), **changes))


@endpoints.delete("/v1/proxies/{id}", id="proxies-delete", summary="Delete a proxy", errors=(404,))
async def delete(call: Call) -> ProxyDeleted:
    """Delete the proxy and its stored password."""
    proxy_id = call.path_id("id", "proxy")
    await call.services.proxies.remove(call.scope, proxy_id)
    return ProxyDeleted(id=proxy_id, deleted=True)


@endpoints.post("/v1/proxies/{id}/test", id="proxies-test", summary="Test a proxy", errors=(404,))
async def test(call: Call) -> ProxyTested:
    """Send a request through the proxy. The answer is 200 also when the proxy fails; then `ok` is false."""
    tested = await call.services.proxies.test(call.scope, call.path_id("id", "proxy"))
    failed = {} if tested.error is None else {"error": tested.error}
    return ProxyTested(
        ok=tested.ok,
        exit_ip=tested.exit_ip,
        country=None,
        http_status=tested.http_status,
        latency=tested.latency_ms,
        **failed,
    )
