"""The clients of the bench: epoll and plain sockets in one process, which cost a tenth of what a proxy does."""

from __future__ import annotations

import multiprocessing
import os
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from bench.egress.origin import ANSWER, DOWN, ECHO, HEAD_END, LESS_URGENT, UP, urgent

# Of a browser to one server.
CONNECTIONS = 6

_MIB = 1 << 20
_PIECE = memoryview(bytes(_MIB))
_ECHOED = ECHO * 64
_ESTABLISHED = b" 200 "
_WAIT_SECONDS = 30.0
# Between two questions of the client whose latency is measured, so that it leaves a flood the cores to be one.
_PAUSE_SECONDS = 0.001
# As Chromium asks a proxy for an image.
_REQUEST = (
    b"GET http://127.0.0.1:%(port)d/image?1 HTTP/1.1\r\nHost: 127.0.0.1:%(port)d\r\n%(connection)s: %(keep)s\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 "
    b"Safari/537.36\r\nAccept: image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8\r\n"
    b"Referer: http://127.0.0.1:%(port)d/page?1\r\nAccept-Encoding: gzip, deflate\r\n"
    b"Accept-Language: en-US,en;q=0.9\r\n\r\n"
)


class Target:
    """The origin's port, and the proxies' ports, one a browser; `direct`: these are the origin's own."""

    def __init__(self, ports: Sequence[int], origin: int, *, direct: bool = False) -> None:
        self.ports = ports
        self.origin = origin
        self.direct = direct

    def request(self, *, keep: bool) -> bytes:
        name = b"Connection" if self.direct else b"Proxy-Connection"
        fields = {b"port": self.origin, b"connection": name, b"keep": b"keep-alive" if keep else b"close"}
        return _REQUEST % fields

    def connection(self, port: int, first: bytes) -> socket.socket:
        """A connection whose first bytes are sent; through a proxy, a tunnel without waiting for its answer."""
        opened = socket.create_connection(("127.0.0.1", port), _WAIT_SECONDS)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.sendall(first)
        return opened

    def tunnel(self, port: int, first: bytes) -> socket.socket:
        """A tunnel to the origin, whose first bytes are sent."""
        if self.direct:
            return self.connection(port, first)
        opened = self.connection(port, self.connect)
        head = b""
        while not head.endswith(HEAD_END):
            piece = opened.recv(1)
            assert piece, head
            head += piece
        assert _ESTABLISHED in head, head
        opened.sendall(first)
        return opened

    @property
    def connect(self) -> bytes:
        return b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % (self.origin, self.origin)


class _Asking:
    """Connections on which one request each is under way. `ask` opens one for a port; `is_answered` says whether
    what it received so far is a whole answer."""

    def __init__(self, ask: Callable[[int], socket.socket], is_answered: Callable[[bytes], bool]) -> None:
        self._ask = ask
        self._is_answered = is_answered
        self._epoll = select.epoll()
        self._open: dict[int, tuple[socket.socket, int]] = {}
        self._received: dict[int, bytes] = {}

    def open(self, port: int) -> None:
        opened = self._ask(port)
        opened.setblocking(False)
        descriptor = opened.fileno()
        self._open[descriptor] = opened, port
        self._received[descriptor] = b""
        self._epoll.register(descriptor, select.EPOLLIN)

    def close(self, descriptor: int) -> int:
        self._epoll.unregister(descriptor)
        opened, port = self._open.pop(descriptor)
        opened.close()
        return port

    def close_all(self) -> None:
        for descriptor in list(self._open):
            self.close(descriptor)

    def run(self, seconds: float, again: bytes | None) -> int:
        """How many answers came; `again` is sent for the next one, or a new connection is opened."""
        count = 0
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for descriptor, _ in self._epoll.poll(seconds):
                opened, _port = self._open[descriptor]
                try:
                    data = opened.recv(65536)
                except BlockingIOError:
                    continue
                received = self._received[descriptor] + data
                if not self._is_answered(received):
                    # A proxy that keeps no connections closes between two requests.
                    assert data or not received, received[:300]
                    self._received[descriptor] = received
                    if not data:
                        self.open(self.close(descriptor))
                    continue
                count += 1
                self._received[descriptor] = b""
                if again is None:
                    self.open(self.close(descriptor))
                else:
                    opened.send(again)
        return count


def _is_whole(received: bytes) -> bool:
    assert not received or received.startswith((b"HTTP/1.1 200 ", b"HTTP/1.0 200 ")), received[:300]
    return len(received) >= len(ANSWER) and received.endswith(ANSWER[-100:])


def kept(target: Target, seconds: float) -> float:
    """Plain requests on connections that are kept."""
    request = target.request(keep=True)
    asking = _Asking(lambda port: target.connection(port, request), _is_whole)
    return _asked(asking, target, seconds, request)


def fresh(target: Target, seconds: float) -> float:
    """Plain requests on a connection each, which the server closes."""
    request = target.request(keep=False)
    asking = _Asking(lambda port: target.connection(port, request), _is_whole)
    return _asked(asking, target, seconds, None)


def connects(target: Target, seconds: float) -> float:
    """Tunnels that are opened for one plain request in them, after which the server closes."""
    inside = b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"
    asking = _Asking(lambda port: target.connection(port, target.connect + inside), _is_whole_in_tunnel)
    return _asked(asking, target, seconds, None)


def _is_whole_in_tunnel(received: bytes) -> bool:
    assert not received or _ESTABLISHED in received[:20], received[:300]
    return len(received) > len(ANSWER) and received.endswith(ANSWER[-100:])


def _asked(asking: _Asking, target: Target, seconds: float, again: bytes | None) -> float:
    for port in target.ports:
        for _ in range(CONNECTIONS):
            asking.open(port)
    try:
        return asking.run(seconds, again)
    finally:
        asking.close_all()


def down(target: Target, seconds: float) -> float:
    """MiB that came through tunnels, one a browser."""
    dropped = bytearray(_MIB)
    opened = [target.tunnel(port, DOWN) for port in target.ports]
    return _moved(opened, select.EPOLLIN, lambda one: one.recv_into(dropped, _MIB, socket.MSG_TRUNC), seconds)


def up(target: Target, seconds: float) -> float:
    """MiB that were sent through tunnels, one a browser."""
    opened = [target.tunnel(port, UP) for port in target.ports]
    return _moved(opened, select.EPOLLOUT, lambda one: one.send(_PIECE), seconds)


def _moved(opened: list[socket.socket], event: int, move: Callable[[socket.socket], int], seconds: float) -> float:
    moved = 0
    epoll = select.epoll()
    by_descriptor = {one.fileno(): one for one in opened}
    for one in opened:
        one.setblocking(False)
        epoll.register(one, event)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for descriptor, _ in epoll.poll(seconds):
            try:
                moved += move(by_descriptor[descriptor])
            except BlockingIOError:
                continue
    for one in opened:
        one.close()
    return moved / _MIB


LOADS: dict[str, Callable[[Target, float], float]] = {
    "kept": kept,
    "fresh": fresh,
    "connects": connects,
    "down": down,
    "up": up,
}


@contextmanager
def flooding(load: str, target: Target) -> Iterator[None]:
    """A process that loads the target as long as the block runs, and leaves the cores to others."""
    process = multiprocessing.get_context("fork").Process(target=_flood, args=(load, target), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def _flood(load: str, target: Target) -> None:
    os.nice(LESS_URGENT)
    LOADS[load](target, 3600.0)


def latencies(target: Target, seconds: float) -> dict[str, list[float]]:
    """Seconds that one client waits which asks for one thing at a time, in turn: a plain request, and an echo in a
    tunnel."""
    request = target.request(keep=True)
    port = target.ports[0]
    found: dict[str, list[float]] = {"plain": [], "tunnel": []}
    with urgent(), closing(target.connection(port, request)) as plain, closing(target.tunnel(port, _ECHOED)) as tunnel:
        asked: list[tuple[list[float], socket.socket, bytes, int]] = [
            (found["plain"], plain, request, len(ANSWER)),
            (found["tunnel"], tunnel, _ECHOED, len(_ECHOED)),
        ]
        for _, one, _, size in asked:
            _exactly(one, size)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for times, one, question, size in asked:
                started = time.perf_counter()
                one.sendall(question)
                _exactly(one, size)
                times.append(time.perf_counter() - started)
            time.sleep(_PAUSE_SECONDS)
    return found


def _exactly(one: socket.socket, size: int) -> None:
    got: Any = 0
    while got < size:
        piece = len(one.recv(65536))
        assert piece
        got += piece
