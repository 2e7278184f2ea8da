"""Requests of the gateway itself to addresses that callers gave, under the rules that hold for pages.

Each address that the host resolves to is checked, and a checked one is connected to; nothing resolves a name a second
time. Redirects are answers. No connection serves two requests, but for those of one `pool`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpcore

from gateway.core.hosts import Address, Host, Refusal, parse_host
from gateway.core.upstream_proxy import UpstreamProxy
from gateway.egress import dialer
from gateway.egress.resolver import NameNotFound

__all__ = ["Outbound", "Response", "Streaming"]

_READ_BYTES = 65_536
_CHECK_SECONDS = 5.0
# A compressed body could grow past every limit, so none is requested and none is unpacked.
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "gateway"}


class Checking(Protocol):
    """The rules (EgressProxy has them)."""

    def reserve_port(self, port: int) -> None:
        """A port of this machine that nothing may reach by them."""

    def release_port(self, port: int) -> None: ...

    async def checked(self, host: Host, port: int, lookups: asyncio.Semaphore) -> list[Address]:
        """Every address of the host, each checked. Raises Refusal, NameNotFound."""


@dataclass(frozen=True, slots=True)
class Response:
    """`body` is None where it is larger than what was allowed."""

    status: int
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Streaming:
    """A response whose body is still to be read, within the block that it was given in. Names of `headers` are in lower
    case."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    chunks: AsyncIterator[bytes]


class Outbound:
    """Sends requests to addresses that callers gave. `lookups`: how many names it resolves at once."""

    def __init__(self, rules: Checking, lookups: int = 8, tls: ssl.SSLContext | None = None) -> None:
        """`tls`: what the certificates of servers are verified by; by default the certificates that all trust."""
        # Those of the proxy that pages go through, once there is one: it knows the reserved ports of this machine.
        self.rules = rules
        self._lookups = asyncio.Semaphore(lookups)
        self._tls = tls

    async def check(self, host: str, port: int, seconds: float = _CHECK_SECONDS) -> None:
        """Raises Refusal where the rules do not allow this host now.

        A name that can't be resolved, or not in time, is not refused: each request is checked again.
        """
        with contextlib.suppress(NameNotFound, TimeoutError):
            async with asyncio.timeout(seconds):
                await self._checked(host, port)

    async def get(
        self, url: str, headers: Mapping[str, str], max_bytes: int, through: UpstreamProxy | None = None
    ) -> Response:
        """The response to a GET. The caller has a timeout around it. With `through`, a caller's proxy, `url` is the
        operator's: where the proxy resolves names, the name is not checked.

        Raises Refusal (also of the proxy's address), NameNotFound, ProxyFailed, Unreachable, and httpcore's errors.
        """
        async with self.stream(url, headers, through) as response:
            return await _read(response, max_bytes)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, max_bytes: int) -> Response:
        """The response to a POST. The caller has a timeout around it. Raises as `get` does."""
        async with self._sending("POST", url, headers, body, None) as response:
            return await _read(response, max_bytes)

    @contextlib.asynccontextmanager
    async def stream(
        self, url: str, headers: Mapping[str, str], through: UpstreamProxy | None = None
    ) -> AsyncIterator[Streaming]:
        """As `get`, with a body of any size that is read in the block."""
        async with self._sending("GET", url, headers, None, through) as response:
            yield response

    @contextlib.asynccontextmanager
    async def _sending(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, through: UpstreamProxy | None
    ) -> AsyncIterator[Streaming]:
        async with (
            httpcore.AsyncConnectionPool(
                ssl_context=self._tls, max_keepalive_connections=0, network_backend=_Network(self, through)
            ) as pool,
            pool.stream(method, url, headers=[*(_HEADERS | dict(headers)).items()], content=body) as response,
        ):
            found = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
            yield Streaming(response.status, found, response.aiter_stream())

    def pool(self, connections: int, tls: ssl.SSLContext, kept_seconds: float) -> httpcore.AsyncConnectionPool:
        """Connections to callers' addresses. It keeps up to `connections` open between requests: each goes to an
        address that was checked when it was opened.

        Requests raise Refusal, NameNotFound, Unreachable, and httpcore's errors.
        """
        return httpcore.AsyncConnectionPool(
            ssl_context=self._tls or tls,
            max_connections=connections,
            keepalive_expiry=kept_seconds,
            network_backend=_Network(self, None),
        )

    async def open(self, host: str, port: int, through: UpstreamProxy | None) -> httpcore.AsyncNetworkStream:
        """A connection to a host that is allowed."""
        target, addresses = await self._target(host, port, through)
        if through is None:
            connected, early = await dialer.connect(addresses, port), b""
        else:
            connected = await self._reach(through)
            try:
                early = await dialer.tunnel(connected, through, target, port)
            except BaseException:
                connected.close()
                raise
        try:
            reader, writer = await asyncio.open_connection(sock=connected)
        except BaseException:
            connected.close()
            raise
        return _Stream(reader, writer, early)

    async def _target(self, host: str, port: int, through: UpstreamProxy | None) -> tuple[Host, list[Address]]:
        """What a proxy is asked for, and the addresses that were checked."""
        if through is not None and through.resolves_names:
            return _parsed(host), []
        addresses = await self._checked(host, port)
        return addresses[0], addresses

    async def _reach(self, through: UpstreamProxy) -> socket.socket:
        try:
            return await dialer.connect(await self._checked(through.host, through.port), through.port)
        except Refusal as error:
            raise dialer.ProxyRefused(error.rule, error.message) from error
        except NameNotFound as error:
            raise dialer.ProxyFailed("egress.proxy_name_not_found", "The proxy's name can't be resolved.") from error
        except dialer.Unreachable as error:
            raise dialer.ProxyFailed("egress.proxy_unreachable", "The proxy can't be reached.") from error

    async def _checked(self, host: str, port: int) -> list[Address]:
        return await self.rules.checked(_parsed(host), port, self._lookups)


async def _read(response: Streaming, max_bytes: int) -> Response:
    body = bytearray()
    async for chunk in response.chunks:
        body += chunk
        if len(body) > max_bytes:
            return Response(response.status, None)
    return Response(response.status, bytes(body))


def _parsed(host: str) -> Host:
    return parse_host(f"[{host}]" if ":" in host and not host.startswith("[") else host)


class _Network(httpcore.AsyncNetworkBackend):
    """What httpcore connects with."""

    def __init__(self, outbound: Outbound, through: UpstreamProxy | None) -> None:
        self._outbound = outbound
        self._through = through

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return await self._outbound.open(host, port, self._through)


class _Stream(httpcore.AsyncNetworkStream):
    """A connection as httpcore uses it. Its timeouts are not kept: the caller's is around the whole request."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, early: bytes = b"") -> None:
        self._reader = reader
        self._writer = writer
        # Received before this was a connection of httpcore.
        self._early = early

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._early:
            early, self._early = self._early[:max_bytes], self._early[max_bytes:]
            return early
        try:
            return await self._reader.read(min(max_bytes, _READ_BYTES))
        except OSError as error:
            raise httpcore.ReadError(str(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            self._writer.write(buffer)
            await self._writer.drain()
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    async def aclose(self) -> None:
        self._writer.transport.abort()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        try:
            await self._writer.start_tls(ssl_context, server_hostname=server_hostname)
        except (OSError, EOFError) as error:
            self._writer.transport.abort()
            raise httpcore.ConnectError(str(error)) from error
        return self

    def get_extra_info(self, info: str) -> Any:
        return self._writer.get_extra_info("ssl_object") if info == "ssl_object" else None
