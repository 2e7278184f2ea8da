"""Hands accepted connections from worker to worker: descriptors over a socket pair for each worker.

The supervising process keeps both ends of each pair, so a connection that was sent to a worker which dies is served
when that worker is back.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

import structlog

from gateway.core.worker_board import Board

_log = structlog.get_logger("gateway.workers")

# A browser that is being launched must not inherit a client's connection. The flag is one of Linux.
_NOT_INHERITED: int = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
# Above the largest head of a request.
_LARGEST = 2 * 1024 * 1024
# A descriptor.
_INT = struct.Struct("i")


def pairs(workers: int) -> list[tuple[socket.socket, socket.socket]]:
    """For each worker the end that others send to, and its own."""
    made = []
    for _ in range(workers):
        sending, own = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for end in (sending, own):
            end.setblocking(False)
        sending.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LARGEST)
        made.append((sending, own))
    return made


class Handover:
    """One worker's part: `sending` has an end for each worker, `own` is where this one receives."""

    def __init__(self, board: Board, sending: Sequence[socket.socket], own: socket.socket) -> None:
        self._board = board
        self._sending = sending
        self._own = own
        self._tasks: set[asyncio.Task[None]] = set()

    def to(self, host_url: str) -> Callable[[bytes, int], bool] | None:
        worker = self._board.worker_at(host_url)
        return None if worker is None else partial(self._send, worker)

    def _send(self, worker: int, head: bytes, descriptor: int) -> bool:
        try:
            socket.send_fds(self._sending[worker], [head], [descriptor])
        except OSError as error:
            # It has too many to take already, or is about to end: the connection is forwarded.
            _log.warning("a connection can't be handed over", to=worker, cause=error.strerror)
            return False
        return True

    def begin(self, take: Callable[[bytes, socket.socket], Coroutine[Any, Any, None]]) -> None:
        """Have `take` serve what arrives."""
        asyncio.get_running_loop().add_reader(self._own.fileno(), self._receive, take)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._own.fileno())

    def _receive(self, take: Callable[[bytes, socket.socket], Coroutine[Any, Any, None]]) -> None:
        # `recv_fds` of Python 3.11 takes flags and ignores them, and a thread may be launching a browser right now.
        head, ancillary, _, _ = self._own.recvmsg(_LARGEST, socket.CMSG_LEN(_INT.size), _NOT_INHERITED)
        for descriptor in (found for _, _, data in ancillary for (found,) in _INT.iter_unpack(data)):
            connection = socket.socket(fileno=descriptor)
            connection.set_inheritable(False)
            connection.setblocking(False)
            task = asyncio.create_task(take(head, connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
