"""The gateway's own requests to addresses that callers gave: certificates that do not fit, and ways through proxies."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

import httpcore
import pytest

from gateway.core.hosts import Address, Host, Refusal
from gateway.core.upstream_proxy import UpstreamProxy
from gateway.egress.dialer import ProxyFailed, ProxyRefused, Unreachable
from gateway.egress.outbound import Outbound, Response
from tests.support.certificates import Authority
from tests.support.egress import serving
from tests.support.upstreams import UpstreamServer

HOST = "server.example"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LOOPBACK = ip_address("127.0.0.1")
PASSWORD = "pass"

Protocol = Literal["http", "socks5"]


class Rules:
    """Names are of loopback; `refused` are refused."""

    def __init__(self, *refused: str) -> None:
        self.refused = refused
        self.checks: list[str] = []

    def reserve_port(self, port: int) -> None:
        raise AssertionError("nothing listens")

    release_port = reserve_port

    async def checked(self, host: Host, port: int, lookups: asyncio.Semaphore) -> list[Address]:
        self.checks.append(f"{host}:{port}")
        if str(host) in self.refused:
            raise Refusal("egress.private_address", "It is refused.")
        return [LOOPBACK]


class Server:
    """Answers each request; notes the heads."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(ANSWER)
        await writer.drain()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@contextlib.asynccontextmanager
async def secure(server: Server, context: ssl.SSLContext) -> AsyncIterator[int]:
    """The port of the server, behind TLS."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await server(reader, writer)
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()


async def get(outbound: Outbound, port: int, through: UpstreamProxy | None = None, scheme: str = "https") -> Response:
    async with asyncio.timeout(30):
        return await outbound.get(f"{scheme}://{HOST}:{port}/path", {"X-Key": "value"}, 100, through)


# Certificates


async def test_a_server_with_a_right_certificate_is_asked(authority: Authority) -> None:
    server = Server()
    async with secure(server, authority.server(HOST)) as port:
        assert await get(Outbound(Rules(), tls=authority.trusting()), port) == Response(200, b"ok")
    (head,) = server.heads
    assert head.startswith(b"GET /path HTTP/1.1\r\nHost: server.example:")
    assert b"\r\nX-Key: value\r\n" in head


WRONG = {
    "self-signed": ("self-signed certificate", HOST, (-1, 1), True),
    "of another name": (
        "Hostname mismatch, certificate is not valid for 'server.example'",
        "other.example",
        (-1, 1),
        False,
    ),
    "of a name below": ("Hostname mismatch", f"a.{HOST}", (-1, 1), False),
    "expired": ("certificate has expired", HOST, (-3, -1), False),
    "not valid yet": ("certificate is not yet valid", HOST, (1, 3), False),
}


@pytest.mark.parametrize("protocol", [None, "http", "socks5"])
@pytest.mark.parametrize("wrong", WRONG)
async def test_a_server_with_a_wrong_certificate_gets_no_request(
    authority: Authority, wrong: str, protocol: Protocol | None
) -> None:
    reason, host, days, self_signed = WRONG[wrong]
    server = Server()
    async with secure(server, authority.server(host, days=days, self_signed=self_signed)) as port:
        upstream = UpstreamServer(port)
        async with serving(upstream.http if protocol == "http" else upstream.socks) as at:
            through = UpstreamProxy(protocol, "127.0.0.1", at, "user", PASSWORD) if protocol else None
            with pytest.raises(httpcore.ConnectError, match=reason):
                await get(Outbound(Rules(), tls=authority.trusting()), port, through)
    assert server.heads == []


async def test_a_certificate_of_an_authority_that_is_not_trusted_is_refused(
    authority: Authority, tmp_path: Path
) -> None:
    """Also with the certificates that all trust."""
    server = Server()
    async with secure(server, Authority(tmp_path, "other").server(HOST)) as port:
        for tls in (authority.trusting(), None):
            with pytest.raises(httpcore.ConnectError, match="unable to get local issuer certificate"):
                await get(Outbound(Rules(), tls=tls), port)
    assert server.heads == []


async def test_a_server_without_tls_gets_no_request(authority: Authority) -> None:
    seen = bytearray()

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.extend(await reader.read(65536))
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with serving(plain) as port:
        with pytest.raises(httpcore.ConnectError, match=r"WRONG_VERSION_NUMBER|record layer failure"):
            await get(Outbound(Rules(), tls=authority.trusting()), port)
    assert seen
    assert b"X-Key" not in seen


async def test_a_connection_that_ends_within_the_handshake_is_an_error(authority: Authority) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(5)

    async with serving(hang_up) as port:
        with pytest.raises(httpcore.ConnectError):
            await get(Outbound(Rules(), tls=authority.trusting()), port)


# Proxies


@pytest.mark.parametrize("protocol", ["http", "socks5"])
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("resolves_names", [False, True])
async def test_a_server_is_asked_through_a_proxy(
    authority: Authority, protocol: Protocol, scheme: str, resolves_names: bool
) -> None:
    server, rules = Server(), Rules()
    async with secure(server, authority.server(HOST)) if scheme == "https" else serving(server) as port:
        upstream = UpstreamServer(port)
        async with serving(upstream.http if protocol == "http" else upstream.socks) as at:
            through = UpstreamProxy(protocol, "127.0.0.1", at, "user", PASSWORD, resolves_names)
            outbound = Outbound(rules, tls=authority.trusting())
            assert await get(outbound, port, through, scheme) == Response(200, b"ok")
    # Where the proxy resolves names it gets the name, else the address that was checked.
    assert upstream.asked == [f"{HOST if resolves_names else LOOPBACK}:{port}"]
    assert rules.checks == [*([] if resolves_names else [f"{HOST}:{port}"]), f"127.0.0.1:{at}"]
    assert len(server.heads) == 1


@pytest.mark.parametrize("protocol", ["http", "socks5"])
async def test_a_proxy_is_reached_under_the_rules_as_well(protocol: Protocol) -> None:
    upstream = UpstreamServer(1)
    async with serving(upstream.http if protocol == "http" else upstream.socks) as at:
        through = UpstreamProxy(protocol, "127.0.0.1", at, "user", PASSWORD)
        with pytest.raises(ProxyRefused):
            await get(Outbound(Rules("127.0.0.1")), 80, through)
        with pytest.raises(Refusal):
            await get(Outbound(Rules(HOST)), 80, through)
    assert upstream.asked == []


@pytest.mark.parametrize(
    ("login", "rule"),
    [(("user", "wrong-secret"), "egress.proxy_login"), ((None, None), "egress.proxy_login")],
)
async def test_a_socks_proxy_that_wants_another_login_is_an_error(
    login: tuple[str | None, str | None], rule: str
) -> None:
    upstream = UpstreamServer(1)
    async with serving(upstream.socks) as at:
        with pytest.raises(ProxyFailed) as raised:
            await get(Outbound(Rules()), 80, UpstreamProxy("socks5", "127.0.0.1", at, *login))
    # The server answers 0xff where no password is offered, for which there is no method.
    assert raised.value.rule == rule
    assert "wrong-secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("code", "words"),
    [(2, "does not allow it"), (3, "can't reach the network"), (4, "can't reach the host"), (5, "was refused")],
)
async def test_a_refusal_of_a_socks_proxy_says_why(code: int, words: str) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(3)
        writer.write(b"\x05\x00")
        await reader.readexactly(10)
        writer.write(bytes((5, code, 0, 1)) + bytes(6))

    async with serving(refuse) as at:
        with pytest.raises(ProxyFailed, match=words) as raised:
            await get(Outbound(Rules()), 80, UpstreamProxy("socks5", "127.0.0.1", at))
    assert raised.value.rule == "egress.proxy_refused"


async def test_a_proxy_that_hangs_up_or_is_not_there_is_an_error() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(3)

    async with serving(hang_up) as at:
        through = UpstreamProxy("socks5", "127.0.0.1", at)
        with pytest.raises(ProxyFailed, match="closed the connection"):
            await get(Outbound(Rules()), 80, through)
    with pytest.raises(ProxyFailed, match="can't be reached"):
        await get(Outbound(Rules()), 80, through)
    with pytest.raises(Unreachable):
        await get(Outbound(Rules()), at)
