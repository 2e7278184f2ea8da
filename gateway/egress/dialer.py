"""Outbound connections: directly to a checked address, or through a runtime's own upstream proxy.

An upstream proxy is always asked for a tunnel (HTTP CONNECT or SOCKS5), also for plain http. So it receives the address
that was checked, and no request of a page that it could parse in another way than the gateway did.
"""

from __future__ import annotations

import asyncio
import base64
import re
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address
from typing import TypeVar

from gateway.core.hosts import Address, Host, Refusal
from gateway.core.upstream_proxy import UpstreamProxy
from gateway.egress.http_heads import end_of_head

NEXT_ADDRESS_SECONDS = 0.25
_HEAD_BYTES = 65536
_STATUS = re.compile(rb"HTTP/1\.[01] +([0-9]{3})")

_SOCKS_NO_USER = 0
_SOCKS_USER = 2
_SOCKS_REFUSALS = {2: "does not allow it", 3: "can't reach the network", 4: "can't reach the host", 5: "was refused"}


P = TypeVar("P", bound=asyncio.Protocol)
# Makes the protocol of an outbound connection from the bytes that were received on it before, and the addresses that
# the asked host was resolved to.
Factory = Callable[[bytes, Sequence[Address]], P]


class Unreachable(Exception):
    """Raised when a connection can't be made; the message is for the page."""


class ProxyFailed(Exception):
    """Raised when the runtime's own proxy makes no connection; the message is for the page, and does not name it."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule
        self.message = message


class ProxyRefused(Refusal):
    """Raised when the address of the runtime's own proxy is forbidden."""


async def open_direct(make: Callable[[], P], addresses: Sequence[Address], port: int) -> P:
    """The protocol of a connection to one of the addresses. Raises Unreachable."""
    if len(addresses) > 1:
        return await open_on(make, await connect(addresses, port))
    # As most are. The event loop connects by itself, which costs less than a socket that it has to watch.
    try:
        _, protocol = await asyncio.get_running_loop().create_connection(make, str(addresses[0]), port)
    except OSError as error:
        raise _unreachable_by([error]) from error
    return protocol


async def open_on(make: Callable[[], P], connected: socket.socket) -> P:
    """The protocol of a connection that is made already, and closed if that fails."""
    try:
        _, protocol = await asyncio.get_running_loop().create_connection(make, sock=connected)
    except BaseException:
        connected.close()
        raise
    return protocol


async def connect(
    addresses: Sequence[Address], port: int, next_address_seconds: float = NEXT_ADDRESS_SECONDS
) -> socket.socket:
    """A socket connected to one of the addresses; the next one is tried when one fails or takes `next_address_seconds`.

    Raises Unreachable.
    """
    loop = asyncio.get_running_loop()
    left = list(addresses)
    failures: list[BaseException | None] = []
    trying: set[asyncio.Task[socket.socket]] = set()
    try:
        while left or trying:
            if left:
                trying.add(loop.create_task(_connected(left.pop(0), port)))
            done, trying = await asyncio.wait(
                trying, timeout=next_address_seconds if left else None, return_when=asyncio.FIRST_COMPLETED
            )
            won = [task for task in done if task.exception() is None]
            failures += [task.exception() for task in done]
            if won:
                # Where two connected at once, the other one is closed below.
                trying.update(won[1:])
                return won[0].result()
        raise _unreachable_by(failures)
    finally:
        for task in trying:
            task.cancel()
            task.add_done_callback(_close)


def _unreachable_by(failures: Iterable[BaseException | None]) -> Unreachable:
    is_refused = any(isinstance(failure, ConnectionRefusedError) for failure in failures)
    return Unreachable("The server refuses the connection." if is_refused else "The server can't be reached.")


async def _connected(address: Address, port: int) -> socket.socket:
    family = socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        await asyncio.get_running_loop().sock_connect(made, (str(address), port))
    except BaseException:
        made.close()
        raise
    return made


def _close(task: asyncio.Task[socket.socket]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


async def tunnel(through: socket.socket, proxy: UpstreamProxy, host: Host, port: int) -> bytes:
    """Have the proxy connect to the host; returns the bytes that followed its positive answer.

    Raises ProxyFailed.
    """
    try:
        if proxy.protocol == "http":
            return await _http(through, proxy, host, port)
        await _socks(through, proxy, host, port)
        return b""
    except (OSError, EOFError) as error:
        raise _unreachable("closed the connection") from error


def _unreachable(what: str) -> ProxyFailed:
    return ProxyFailed("egress.proxy_unreachable", f"The runtime's proxy {what}.")


def _protocol(name: str) -> ProxyFailed:
    return ProxyFailed("egress.proxy_protocol", f"The runtime's proxy does not speak {name}.")


def _login(what: str) -> ProxyFailed:
    return ProxyFailed("egress.proxy_login", f"The runtime's proxy {what}.")


def _refused(reason: str) -> ProxyFailed:
    return ProxyFailed("egress.proxy_refused", f"The runtime's proxy refused the connection {reason}.")


async def _http(through: socket.socket, proxy: UpstreamProxy, host: Host, port: int) -> bytes:
    loop = asyncio.get_running_loop()
    authority = f"{host}:{port}" if isinstance(host, str | IPv4Address) else f"[{host}]:{port}"
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
    if proxy.username is not None:
        pair = f"{proxy.username}:{proxy.password or ''}".encode()
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(pair).decode()}")
    await loop.sock_sendall(through, ("\r\n".join(lines) + "\r\n\r\n").encode())
    answer = b""
    while (end := end_of_head(answer)) is None:
        if len(answer) > _HEAD_BYTES:
            raise _protocol("HTTP/1")
        answer += await _some(through, _HEAD_BYTES)
    found = _STATUS.match(answer)
    if found is None:
        raise _protocol("HTTP/1")
    status = int(found[1])
    if status == 407:
        raise _login("rejected its username and password")
    if not 200 <= status < 300:
        raise _refused(f"({status})")
    return answer[end:]


async def _socks(through: socket.socket, proxy: UpstreamProxy, host: Host, port: int) -> None:
    """RFC 1928, with the user and password of RFC 1929."""
    loop = asyncio.get_running_loop()
    methods = [_SOCKS_NO_USER] if proxy.username is None else [_SOCKS_NO_USER, _SOCKS_USER]
    await loop.sock_sendall(through, bytes((5, len(methods), *methods)))
    version, method = await _exactly(through, 2)
    if version != 5:
        raise _protocol("SOCKS5")
    if method == _SOCKS_USER and proxy.username is not None:
        username, password = proxy.username.encode(), (proxy.password or "").encode()
        pair = bytes((len(username),)) + username + bytes((len(password),)) + password
        await loop.sock_sendall(through, b"\x01" + pair)
        if (await _exactly(through, 2))[1] != 0:
            raise _login("rejected its username and password")
    elif method != _SOCKS_NO_USER:
        raise _login("requires a username and password")
    if isinstance(host, str):
        target = b"\x03" + bytes((len(host),)) + host.encode()
    else:
        target = (b"\x01" if host.version == 4 else b"\x04") + host.packed
    await loop.sock_sendall(through, b"\x05\x01\x00" + target + struct.pack("!H", port))
    _, code, _, kind = await _exactly(through, 4)
    if code != 0:
        reason = _SOCKS_REFUSALS.get(code, f"answered {code}")
        raise _refused(f"(it {reason})")
    length = {1: 4, 4: 16}.get(kind)
    await _exactly(through, (length if length is not None else (await _exactly(through, 1))[0]) + 2)


async def _exactly(through: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += await _some(through, count - len(data))
    return data


async def _some(through: socket.socket, most: int) -> bytes:
    data = await asyncio.get_running_loop().sock_recv(through, most)
    if not data:
        raise EOFError
    return data
