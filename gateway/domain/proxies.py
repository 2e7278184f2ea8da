"""Saved proxies: addresses and logins of proxies, whose passwords are written and never returned."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any, Literal, TypedDict, Unpack
from uuid import UUID

import httpcore

from gateway.core.errors import Conflict, Forbidden, RequestInvalid, invalid_field
from gateway.core.hosts import Refusal
from gateway.core.ids import new_id, not_found
from gateway.core.mounts import Mounts, ProxiesMount
from gateway.core.runtime_config import Proxy
from gateway.core.scope import Scope
from gateway.core.sealed import SecretOwner
from gateway.core.slices import WHOLE_LIST, Slice
from gateway.core.upstream_proxy import UpstreamProxy
from gateway.domain.audit import Action, Audit
from gateway.domain.secrets import SecretStore
from gateway.egress.dialer import ProxyFailed, Unreachable
from gateway.egress.outbound import Outbound
from gateway.egress.resolver import NameNotFound
from gateway.store import proxies
from gateway.store.database import Connection, Database, constraint_as
from gateway.store.proxies import NewProxy, SavedProxy
from gateway.store.spaces import Space

__all__ = ["Changes", "ProxyTest", "SavedProxies", "SavedProxy", "check_known", "check_own"]

_BODY_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class ProxyTest:
    """Whether a request through the proxy was answered, from which address, with which status, after how long."""

    ok: bool
    latency_ms: int
    exit_ip: str | None = None
    http_status: int | None = None
    error: str | None = None


class Changes(TypedDict, total=False):
    """Fields of a change; absent ones stay. `password` None removes it."""

    name: str
    protocol: Literal["http", "socks5"]
    host: str
    port: int
    username: str | None
    password: str | None
    dns_resolution: Literal["local", "proxy"]


class SavedProxies:
    """`test_url` is requested through a proxy to test it; it answers with the address of who asks."""

    def __init__(
        self,
        database: Database,
        secrets: SecretStore,
        outbound: Outbound,
        audit: Audit,
        test_url: str,
        test_seconds: float,
    ) -> None:
        self._database = database
        self._secrets = secrets
        self._outbound = outbound
        self._audit = audit
        self._test_url = test_url
        self._test_seconds = test_seconds

    async def create(self, owner: Scope, name: str, proxy: UpstreamProxy) -> SavedProxy:
        """Raises RequestInvalid (the address is not allowed), Conflict (the name is taken)."""
        proxy_id = new_id()
        with self._audit.noting(Action.PROXY_CREATED, proxy_id):
            await self._check(proxy)
            new = NewProxy(
                proxy_id,
                name,
                proxy.protocol,
                proxy.host,
                proxy.port,
                proxy.username,
                proxy.password is not None,
                "proxy" if proxy.resolves_names else "local",
            )
            async with self._database.begin() as connection:
                with constraint_as(_name_taken(name)):
                    made = await proxies.add(connection, owner, new)
                if proxy.password is not None:
                    await self._secrets.put(connection, _secret(made), proxy.password)
            return made

    async def listed(self, scope: Scope, part: Slice = WHOLE_LIST) -> list[SavedProxy]:
        with self._audit.noting(Action.PROXY_READ):
            async with self._database.connect() as connection:
                return await proxies.listed(connection, scope, part)

    async def get(self, scope: Scope, proxy_id: UUID) -> SavedProxy:
        with self._audit.noting(Action.PROXY_READ, proxy_id):
            async with self._database.connect() as connection:
                return await self._find(connection, scope, proxy_id)

    async def change(self, scope: Scope, proxy_id: UUID, **changes: Unpack[Changes]) -> SavedProxy:
        """Change what is given. A stored password goes to no other proxy than the one that it was given for.

        Raises NotFound, RequestInvalid (the address is not allowed), Conflict (the name, the login).
        """
        with self._audit.noting(Action.PROXY_CHANGED, proxy_id) as noting:
            noting.details["fields"] = sorted(changes)
            async with self._database.connect() as connection:
                before = await self._find(connection, scope, proxy_id)
            await self._check(_merged(before, changes))
            async with self._database.begin() as connection:
                found = await self._find(connection, scope, proxy_id, lock=True)
                merged = _merged(found, changes)
                _check_login(found, merged, changes)
                values: dict[str, Any] = {**changes}
                if "password" in values:
                    password = values.pop("password")
                    values["has_password"] = password is not None
                    await self._secrets.remove(connection, proxy_id)
                    if password is not None:
                        await self._secrets.put(connection, _secret(found), password)
                with constraint_as(_name_taken(changes.get("name", found.name))):
                    return await proxies.change(connection, proxy_id, values)

    async def remove(self, scope: Scope, proxy_id: UUID) -> None:
        with self._audit.noting(Action.PROXY_DELETED, proxy_id):
            async with self._database.begin() as connection:
                await self._find(connection, scope, proxy_id, lock=True)
                await self._secrets.remove(connection, proxy_id)
                await proxies.remove(connection, proxy_id)

    async def test(self, scope: Scope, proxy_id: UUID) -> ProxyTest:
        """Send a request through the proxy. What it does is an answer, not an error."""
        with self._audit.noting(Action.PROXY_TESTED, proxy_id) as noting:
            async with self._database.connect() as connection:
                found = await self._find(connection, scope, proxy_id)
                password = await self._secrets.open(connection, _secret(found)) if found.has_password else None
            tested = await self._tested(replace(_upstream(found), password=password))
            noting.details["ok"] = tested.ok
            return tested

    async def for_launch(self, space: Space, mounts: Mounts, named: str) -> tuple[Proxy, str | None]:
        """The proxy of a new runtime, by the id or name of a saved one, and its password. `mounts` are the runtime's.

        Raises RequestInvalid (there is none), Forbidden (the mounts do not allow it), both with the field `proxy`.
        """
        with self._audit.noting(Action.PROXY_USED) as noting:
            async with self._database.connect() as connection:
                found = await proxies.named(connection, space.owner, named, _lent(space))
                if found is None:
                    raise _no_such()
                noting.object_id = found.id
                noting.details["spaceId"] = str(space.id)
                if not mounts.allows_proxy(str(found.id), found.name):
                    raise _not_allowed(found.name)
                password = await self._secrets.open(connection, _secret(found)) if found.has_password else None
        return _as_given(found), password

    async def _tested(self, proxy: UpstreamProxy) -> ProxyTest:
        began = time.monotonic()

        def failed(error: str) -> ProxyTest:
            return ProxyTest(False, _milliseconds(began), error=error)

        try:
            async with asyncio.timeout(self._test_seconds):
                response = await self._outbound.get(self._test_url, {}, _BODY_BYTES, proxy)
        except TimeoutError:
            return failed(f"No answer came through the proxy within {self._test_seconds:g} seconds.")
        except (ProxyFailed, Refusal) as error:
            return failed(error.message)
        except NameNotFound:
            return failed("The name of the server that is asked can't be resolved.")
        except Unreachable as error:
            return failed(str(error))
        except (OSError, httpcore.NetworkError, httpcore.ProtocolError):
            return failed("The proxy or the server behind it ended the connection.")
        latency = _milliseconds(began)
        is_fine = 200 <= response.status < 300
        wrong = None if is_fine else f"The server that was asked answered {response.status}."
        return ProxyTest(is_fine, latency, _address(response.body), response.status, wrong)

    async def _find(self, connection: Connection, scope: Scope, proxy_id: UUID, *, lock: bool = False) -> SavedProxy:
        found = await proxies.get(connection, scope, proxy_id, lock=lock)
        if found is None:
            raise not_found("proxy", proxy_id)
        return found

    async def _check(self, proxy: UpstreamProxy) -> None:
        """Raises RequestInvalid where the egress rules do not allow the proxy's address."""
        try:
            await self._outbound.check(proxy.host, proxy.port)
        except Refusal as error:
            reason = error.message.removesuffix(".")
            message = f"The egress rules of this gateway do not allow it ({reason}); its operator may"
            raise invalid_field("host", message, code=error.rule) from error


async def check_known(connection: Connection, owner: Scope, caller: Scope, mount: ProxiesMount | None) -> None:
    """Every proxy that a mount names must be the owner's, or one whose id an organization's caller lends it.

    Raises RequestInvalid.
    """
    named = list(mount.named()) if mount is not None else []
    if not named:
        return
    names = {name for _, name in named}
    known = await proxies.known_names(connection, owner, names, lends=caller.subaccount_id is None)
    errors = [
        {
            "field": field,
            "message": f"There is no saved proxy {name!r} that this space may use; give the id or name of one.",
            "value": name,
            "code": "proxy.not_found",
        }
        for field, name in named
        if name not in known
    ]
    if errors:
        raise RequestInvalid("A mount names a saved proxy that is not there.", details={"errors": errors})


async def check_own(connection: Connection, owner: Scope, proxy: Proxy | str | None) -> None:
    """The saved proxy that a config names must be the owner's. Raises RequestInvalid with the field `proxy`."""
    if isinstance(proxy, str) and await proxies.named(connection, owner, proxy) is None:
        raise _no_such()


def _no_such() -> RequestInvalid:
    # What was given may be a URL with a password, and is not repeated.
    message = "There is no saved proxy of this id or name; give that of one, or a proxy in full"
    return invalid_field("proxy", message, code="proxy.not_found")


def _lent(space: Space) -> list[UUID]:
    """Those that an organization may have lent to a space of its subaccount."""
    if space.subaccount_id is None or space.mounts.proxies is None:
        return []
    lent = []
    for name in space.mounts.proxies.allow or ():
        with contextlib.suppress(ValueError):
            lent.append(UUID(name))
    return lent


def _as_given(saved: SavedProxy) -> Proxy:
    return Proxy(
        saved.protocol,
        saved.host,
        saved.port,
        saved.username,
        saved.has_password,
        saved.dns_resolution,
        str(saved.id),
        saved.name,
    )


def _not_allowed(name: str) -> Forbidden:
    message = "The mounts do not allow this saved proxy: `proxies.allow` of the space or the runtime lacks it"
    error = {"field": "proxy", "message": message, "value": name, "code": "proxy.not_allowed"}
    return Forbidden(f"proxy: {message}.", "proxy.not_allowed", details={"errors": [error]})


def _upstream(saved: SavedProxy) -> UpstreamProxy:
    return UpstreamProxy(
        saved.protocol, saved.host, saved.port, saved.username, resolves_names=saved.dns_resolution == "proxy"
    )


def _merged(saved: SavedProxy, changes: Changes) -> UpstreamProxy:
    before = _upstream(saved)
    return replace(
        before,
        protocol=changes.get("protocol", before.protocol),
        host=changes.get("host", before.host),
        port=changes.get("port", before.port),
        username=changes.get("username", before.username),
    )


def _check_login(found: SavedProxy, merged: UpstreamProxy, changes: Changes) -> None:
    before = _upstream(found)
    is_elsewhere = (merged.protocol, merged.host, merged.port) != (before.protocol, before.host, before.port)
    if is_elsewhere and found.has_password and "password" not in changes:
        message = "The stored password was given for another proxy; give the `password` of this one too, or null."
        raise Conflict(message, "proxy.password_required")
    has_password = changes["password"] is not None if "password" in changes else found.has_password
    if has_password and merged.username is None:
        raise Conflict("A password needs a username.", "proxy.login_mismatch")
    if merged.protocol == "http" and ":" in (merged.username or ""):
        raise Conflict("The username of an http proxy can't have a colon.", "proxy.login_mismatch")


def _milliseconds(began: float) -> int:
    return round((time.monotonic() - began) * 1000)


def _address(body: bytes | None) -> str | None:
    """The address that a server answers with; None for anything else."""
    try:
        return str(ip_address((body or b"").decode("ascii").strip()))
    except ValueError:
        return None


def _secret(saved: SavedProxy) -> SecretOwner:
    return SecretOwner("proxy.password", saved.organization_id, saved.subaccount_id, saved.id)


def _name_taken(name: str) -> Conflict:
    return Conflict(
        f"There is a proxy of the name {name!r}; delete it, or take another name.",
        "proxy.conflict",
        details={"name": name},
    )
