"""Outbound connections: racing addresses, and the handshakes with upstream proxies, byte by byte."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from ipaddress import ip_address
from typing import Literal

import pytest
import pytest_asyncio

from gateway.core.hosts import Host
from gateway.core.upstream_proxy import UpstreamProxy
from gateway.egress import dialer
from gateway.egress.dialer import ProxyFailed, Unreachable
from tests.support.waiting import until

ADDRESSES = [ip_address("127.0.0.1"), ip_address("::1")]


class Race:
    """Decides when and how each connection attempt ends, in place of the loop's own `sock_connect`."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.sockets: list[socket.socket] = []
        self.outcomes: list[asyncio.Future[None]] = [loop.create_future() for _ in ADDRESSES]

    async def sock_connect(self, made: socket.socket, address: object) -> None:
        self.sockets.append(made)
        await self.outcomes[len(self.sockets) - 1]

    def is_closed(self, number: int) -> bool:
        return self.sockets[number].fileno() == -1


@pytest_asyncio.fixture
async def race(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Race]:
    made = Race()
    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", made.sock_connect)
    yield made
    for each in made.sockets:
        each.close()


def connecting(race: Race) -> asyncio.Task[socket.socket]:
    return asyncio.create_task(dialer.connect(ADDRESSES, 80, next_address_seconds=0))


async def test_of_two_that_connect_at_once_one_is_closed(race: Race) -> None:
    task = connecting(race)
    await until(lambda: len(race.sockets) == 2)
    for outcome in race.outcomes:
        outcome.set_result(None)
    won = await task
    await until(lambda: sum(map(race.is_closed, (0, 1))) == 1)
    assert won.fileno() != -1


async def test_a_slow_attempt_is_abandoned_when_the_next_one_connects(race: Race) -> None:
    task = connecting(race)
    await until(lambda: len(race.sockets) == 2)
    race.outcomes[1].set_result(None)
    assert await task is race.sockets[1]
    await until(lambda: race.is_closed(0))


async def test_a_slow_attempt_wins_when_the_others_fail(race: Race) -> None:
    task = connecting(race)
    await until(lambda: len(race.sockets) == 2)
    race.outcomes[1].set_exception(OSError())
    await until(lambda: race.is_closed(1))
    race.outcomes[0].set_result(None)
    assert await task is race.sockets[0]


@pytest.mark.parametrize(
    ("failure", "message"), [(OSError(), "can't be reached"), (ConnectionRefusedError(), "refuses the connection")]
)
async def test_it_is_unreachable_when_all_attempts_fail(race: Race, failure: OSError, message: str) -> None:
    for outcome in race.outcomes:
        outcome.set_exception(failure)
    with pytest.raises(Unreachable, match=message):
        await connecting(race)
    assert all(map(race.is_closed, (0, 1)))


async def test_a_connected_socket_is_closed_when_it_becomes_no_connection() -> None:
    def fail() -> asyncio.Protocol:
        raise ValueError("no protocol")

    near, far = socket.socketpair()
    with far, pytest.raises(ValueError, match="no protocol"):
        await dialer.open_on(fail, near)
    assert near.fileno() == -1


# Upstream proxies


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The gateway's end of a connection to a proxy, and the proxy's."""
    near, far = socket.socketpair()
    near.setblocking(False)
    with near, far:
        yield near, far


def proxy(
    protocol: Literal["http", "socks5"], username: str | None = None, password: str | None = None
) -> UpstreamProxy:
    return UpstreamProxy(protocol, "127.0.0.1", 3128, username, password)


@pytest.mark.parametrize(
    ("host", "authority"),
    [
        ("a.example", "a.example:443"),
        (ip_address("8.8.8.8"), "8.8.8.8:443"),
        (ip_address("2001:db8::1"), "[2001:db8::1]:443"),
    ],
)
async def test_http_asks_for_a_tunnel_and_keeps_what_follows_the_answer(
    ends: tuple[socket.socket, socket.socket], host: Host, authority: str
) -> None:
    near, far = ends
    far.sendall(b"HTTP/1.1 200 OK\r\nX: y\r\n\r\nearly")
    assert await dialer.tunnel(near, proxy("http"), host, 443) == b"early"
    assert far.recv(1000).decode() == f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n"


@pytest.mark.parametrize(("password", "pair"), [("pass", b"dXNlcjpwYXNz"), (None, b"dXNlcjo=")])
async def test_http_authenticates(ends: tuple[socket.socket, socket.socket], password: str | None, pair: bytes) -> None:
    near, far = ends
    far.sendall(b"HTTP/1.0 204 No Content\r\n\r\n")
    assert await dialer.tunnel(near, proxy("http", "user", password), "a.example", 443) == b""
    assert b"\r\nProxy-Authorization: Basic " + pair + b"\r\n" in far.recv(1000)


GRANTED = b"\x05\x00\x00"
BOUND = b"\x01" + bytes(6)


@pytest.mark.parametrize(
    ("host", "target"),
    [
        ("a.example", b"\x03\x09a.example"),
        (ip_address("8.8.8.8"), b"\x01\x08\x08\x08\x08"),
        (ip_address("::1"), b"\x04" + bytes(15) + b"\x01"),
    ],
)
@pytest.mark.parametrize("bound", [BOUND, b"\x04" + bytes(18), b"\x03\x02ab" + bytes(2)])
async def test_socks_names_the_target_and_skips_the_bound_address(
    ends: tuple[socket.socket, socket.socket], host: Host, target: bytes, bound: bytes
) -> None:
    near, far = ends
    far.sendall(b"\x05\x00" + GRANTED + bound + b"early")
    assert await dialer.tunnel(near, proxy("socks5"), host, 443) == b""
    assert far.recv(1000) == b"\x05\x01\x00" + b"\x05\x01\x00" + target + b"\x01\xbb"
    assert near.recv(1000) == b"early"


@pytest.mark.parametrize(("password", "pair"), [("pass", b"\x04user\x04pass"), (None, b"\x04user\x00")])
async def test_socks_authenticates(
    ends: tuple[socket.socket, socket.socket], password: str | None, pair: bytes
) -> None:
    near, far = ends
    far.sendall(b"\x05\x02" + b"\x01\x00" + GRANTED + BOUND)
    await dialer.tunnel(near, proxy("socks5", "user", password), "a.example", 443)
    assert far.recv(1000).startswith(b"\x05\x02\x00\x02" + b"\x01" + pair + b"\x05\x01\x00")


@pytest.mark.parametrize(
    ("using", "answer", "message"),
    [
        (proxy("http"), b"HTTP/1.1 407 Who\r\n\r\n", "rejected its username and password"),
        (proxy("http"), b"HTTP/1.1 503 No\r\n\r\n", r"refused the connection \(503\)"),
        (proxy("http"), b"SSH-2.0\r\n\r\n", "does not speak HTTP/1"),
        (proxy("http"), b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000, "does not speak HTTP/1"),
        (proxy("http"), b"HTTP/1.1 200", "closed the connection"),
        (proxy("socks5"), b"\x04\x00", "does not speak SOCKS5"),
        (proxy("socks5"), b"\x05\xff", "requires a username and password"),
        (proxy("socks5"), b"\x05\x02", "requires a username and password"),
        (proxy("socks5", "user", "wrong"), b"\x05\x02\x01\x01", "rejected its username and password"),
        (proxy("socks5"), b"\x05\x00\x05\x02\x00\x01", "it does not allow it"),
        (proxy("socks5"), b"\x05\x00\x05\x09\x00\x01", "it answered 9"),
        (proxy("socks5"), b"\x05", "closed the connection"),
    ],
)
async def test_a_proxy_that_does_not_connect_is_reported(
    ends: tuple[socket.socket, socket.socket], using: UpstreamProxy, answer: bytes, message: str
) -> None:
    near, far = ends
    far.sendall(answer)
    far.shutdown(socket.SHUT_WR)
    with pytest.raises(ProxyFailed, match=message):
        await dialer.tunnel(near, using, "a.example", 443)
