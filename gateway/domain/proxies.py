"""Saved proxies: addresses and logins of proxies, whose passwords are written and never returned."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any, Literal, TypedDict, Unpack
from uuid import UUID

import httpcore

from gateway.core.errors import Conflict, invalid_field
from gateway.core.hosts import Refusal
from gateway.core.ids import new_id, not_found
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

__all__ = ["Changes", "ProxyTest", "SavedProxies", "SavedProxy"]

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
