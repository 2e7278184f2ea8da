"""The server behind the proxies of the bench, in a process of its own: plain sockets and epoll, which cost little.

A connection begins with one of: an HTTP request, which is answered with `BODY_BYTES`, as are all that follow; `D`, for
bytes without end; `U`, for bytes that are dropped; `E`, for an echo.
"""

from __future__ import annotations

import multiprocessing
import os
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress

BODY_BYTES = 1024
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: image/gif\r\nContent-Length: %d\r\n\r\n%s" % (BODY_BYTES, b"x" * BODY_BYTES)
DOWN, UP, ECHO = b"D", b"U", b"E"
HEAD_END = b"\r\n\r\n"

_PIECE_BYTES = 1 << 20
_BACKLOG = 1024
# As the clients that flood: what is measured is a proxy's share of work, not who else gets the cores.
LESS_URGENT = 10
_URGENT = 1


class _Connection:
    def __init__(self, accepted: socket.socket) -> None:
        accepted.setblocking(False)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = accepted
        self.kind = b""
        self.unread = b""


class _Origin:
    def __init__(self, listening: socket.socket) -> None:
        listening.setblocking(False)
        self._listening = listening
        self._epoll = select.epoll()
        self._epoll.register(listening, select.EPOLLIN)
        self._open: dict[int, _Connection] = {}
        self._piece = memoryview(bytes(_PIECE_BYTES))
        self._dropped = bytearray(_PIECE_BYTES)

    def run(self) -> None:
        while True:
            for descriptor, _ in self._epoll.poll():
                if descriptor == self._listening.fileno():
                    self._accept()
                    continue
                one = self._open[descriptor]
                try:
                    self._serve(one)
                except BlockingIOError:
                    continue
                except (ConnectionError, EOFError):
                    self._epoll.unregister(descriptor)
                    del self._open[descriptor]
                    one.socket.close()

    def _accept(self) -> None:
        try:
            accepted, _ = self._listening.accept()
        except BlockingIOError:
            return
        self._open[accepted.fileno()] = _Connection(accepted)
        self._epoll.register(accepted, select.EPOLLIN)

    def _serve(self, one: _Connection) -> None:
        if one.kind == DOWN:
            one.socket.send(self._piece)
        elif one.kind == UP:
            # The kernel drops what it would have to copy.
            if not one.socket.recv_into(self._dropped, _PIECE_BYTES, socket.MSG_TRUNC):
                raise EOFError
        else:
            self._answer(one, one.socket.recv(65536))

    def _answer(self, one: _Connection, data: bytes) -> None:
        if not data:
            raise EOFError
        if not one.kind:
            one.kind = data[:1]
            if one.kind == DOWN:
                self._epoll.modify(one.socket, select.EPOLLOUT)
        if one.kind == ECHO:
            one.socket.send(data)
        elif one.kind not in (DOWN, UP):
            *heads, one.unread = (one.unread + data).split(HEAD_END)
            one.socket.send(ANSWER * len(heads))
            if heads and b"\nConnection: close" in heads[-1]:
                raise EOFError


@contextmanager
def urgent() -> Iterator[None]:
    """Have this process get a core at once, where that is permitted, and not once a proxy has run for some 3 ms."""
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_URGENT))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _serve(listening: socket.socket, is_urgent: bool | None) -> None:
    if is_urgent is False:
        os.nice(LESS_URGENT)
    with urgent() if is_urgent else nullcontext():
        _Origin(listening).run()


@contextmanager
def serving(*, is_urgent: bool | None = None) -> Iterator[int]:
    """The port of an origin that runs as long as the block does: as urgent as other processes, more, or less."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
    process = multiprocessing.get_context("fork").Process(target=_serve, args=(listening, is_urgent), daemon=True)
    process.start()
    port: int = listening.getsockname()[1]
    listening.close()
    try:
        yield port
    finally:
        process.kill()
        process.join()
