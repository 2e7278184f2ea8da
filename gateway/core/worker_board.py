"""Memory that workers of one gateway share: where each is reached, its runtimes, ports that no page may reach, rates,
and which of them has the largest runtime while the disk is nearly full.

A worker writes its own part and reads all parts, so nothing is locked. The supervising process clears the part of a
worker that has died, whose browsers died with it.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
from uuid import UUID

from gateway.core import shared_times
from gateway.core.shared_times import SharedTimes

_SERVING = 1
_DRAINING = 2

# Of each worker: its state, its port for the others, its live and starting runtimes, its largest runtime, its id.
_HEAD = struct.Struct("<BxHII4xQ16s")
_STATE, _PORT, _LIVE, _STARTING, _LARGEST, _ID = 0, 2, 4, 8, 16, 24
# In place of the size of a worker's largest runtime; sizes begin at 1.
_UNKNOWN, _ENDING = 0, 2**64 - 1
_ORGANIZATION_BYTES = 16
# A runtime of no organization, of which only benches have any.
_NONE = b"\xff" * _ORGANIZATION_BYTES
_FREE = bytes(_ORGANIZATION_BYTES)
_PORTS = 65536
_RATES = 3


class Board:
    """The shared memory, as one worker sees it. `max_runtimes` is of all workers together."""

    def __init__(
        self,
        descriptor: int,
        worker: int,
        workers: int,
        max_runtimes: int,
        host: str = "127.0.0.1",
        callers: int = 0,
    ) -> None:
        """`host` is where the workers listen for each other; `callers` is of how many rates are known."""
        self.worker = worker
        self.workers = workers
        self._host = host
        self._part = _HEAD.size + max_runtimes * _ORGANIZATION_BYTES
        self._memory = mmap.mmap(descriptor, _size(workers, max_runtimes, callers))
        self._own = worker * self._part
        self._marks = workers * self._part
        rates = self._marks + _PORTS
        # Of API keys, and of addresses without a credential or with a wrong one (domain/accounts/rate_limits.py).
        self.key_rates, self.anonymous_rates, self.failure_rates = (
            SharedTimes(self._memory, rates + table * shared_times.size(callers), callers) for table in range(_RATES)
        )
        # Places of this worker's list of organizations.
        self._free = list(range(max_runtimes))
        self._places: dict[bytes, list[int]] = {}

    @staticmethod
    def create(workers: int, max_runtimes: int, callers: int = 0) -> int:
        """A descriptor of fresh memory, for all workers to inherit."""
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("gateway-workers")
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, _size(workers, max_runtimes, callers))
        return descriptor

    @classmethod
    def of_parent(cls, descriptor: int, workers: int, max_runtimes: int) -> Board:
        """As the supervising process sees it, which has no part of its own. The ports that it reserves stay reserved
        when a worker ends."""
        return cls(descriptor, workers, workers, max_runtimes)

    def close(self) -> None:
        self._memory.close()

    def clear(self, worker: int) -> None:
        """Remove all that a worker wrote, which has died."""
        start = worker * self._part
        self._memory[start : start + self._part] = bytes(self._part)
        marks = bytearray(self._memory[self._marks : self._marks + _PORTS])
        for port, mark in enumerate(marks):
            if mark == worker + 1:
                self._memory[self._marks + port] = 0

    # Where each worker is reached

    def serves(self, gateway_id: UUID, port: int) -> None:
        """State that this worker serves, and where the others reach it."""
        self._write("<16s", _ID, gateway_id.bytes)
        self._write("<H", _PORT, port)
        self._write("<B", _STATE, _SERVING)

    def drains(self) -> None:
        self._write("<B", _STATE, _DRAINING)

    @property
    def serving(self) -> int:
        """How many workers serve, this one included."""
        return sum(self._read("<B", worker, _STATE) == _SERVING for worker in range(self.workers))

    def worker_of(self, gateway_id: UUID) -> int | None:
        """The worker with this id, if it is one of this machine's and runs."""
        for worker in range(self.workers):
            start = worker * self._part + _ID
            if self._memory[start : start + 16] == gateway_id.bytes:
                return worker
        return None

    def url_of(self, gateway_id: UUID) -> str | None:
        """Where another worker of this machine is reached; None for any other gateway."""
        worker = self.worker_of(gateway_id)
        return None if worker is None or worker == self.worker else self._url(worker)

    def worker_at(self, url: str) -> int | None:
        """The other worker of this machine that is reached there; None for any other gateway."""
        others = (worker for worker in range(self.workers) if worker != self.worker)
        return next((worker for worker in others if self._url(worker) == url), None)

    def quieter(self) -> str | None:
        """Where the worker with the fewest runtimes is reached, if it has fewer than this one or this one drains."""
        own = self._read("<B", self.worker, _STATE)
        found = [
            (self._read("<I", worker, _LIVE), worker)
            for worker in range(self.workers)
            if worker != self.worker and self._read("<B", worker, _STATE) == _SERVING
        ]
        if not found or (own != _DRAINING and min(found)[0] >= self._read("<I", self.worker, _LIVE)):
            return None
        return self._url(min(found)[1])

    def _url(self, worker: int) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._read('<H', worker, _PORT)}"

    # Runtimes (domain/runtimes/capacity.py)

    @property
    def live(self) -> int:
        """Runtimes of all workers."""
        return self._sum(_LIVE)

    def live_of(self, organization_id: UUID | None) -> int:
        """Those of one organization."""
        wanted = _bytes_of(organization_id)
        return sum(self._organizations(worker).count(wanted) for worker in range(self.workers))

    def enter(self, organization_id: UUID | None) -> None:
        """Count a runtime of this worker. The caller checks `live` afterwards: another may have taken its place."""
        own = _bytes_of(organization_id)
        place = self._free.pop()
        self._places.setdefault(own, []).append(place)
        self._write(f"<{_ORGANIZATION_BYTES}s", _HEAD.size + place * _ORGANIZATION_BYTES, own)
        self._write("<I", _LIVE, self._read("<I", self.worker, _LIVE) + 1)

    def leave(self, organization_id: UUID | None) -> None:
        own = _bytes_of(organization_id)
        places = self._places[own]
        place = places.pop()
        if not places:
            del self._places[own]
        self._free.append(place)
        self._write(f"<{_ORGANIZATION_BYTES}s", _HEAD.size + place * _ORGANIZATION_BYTES, _FREE)
        self._write("<I", _LIVE, self._read("<I", self.worker, _LIVE) - 1)

    @property
    def starting(self) -> int:
        """Runtimes that all workers are starting."""
        return self._sum(_STARTING)

    def starts(self, count: int) -> None:
        """State how many this worker is starting."""
        self._write("<I", _STARTING, count)

    # The largest runtime on a disk that is nearly full (launchers/local/disk_limits.py)

    def ends_largest(self, size: int) -> bool:
        """Whether this worker's largest runtime, of `size` bytes (0: there is none), is to end: no other worker has a
        larger one, is ending one, or has yet to measure its own. Others wait until the next call, or `has_room`."""
        self._write("<Q", _LARGEST, size + 1)
        if not size:
            return False
        for worker in range(self.workers):
            if worker == self.worker or self._read("<B", worker, _STATE) != _SERVING:
                continue
            other = self._read("<Q", worker, _LARGEST)
            if other == _UNKNOWN or (other, -worker) > (size + 1, -self.worker):
                return False
        self._write("<Q", _LARGEST, _ENDING)
        return True

    def has_room(self) -> None:
        """State that this worker finds room on the disk, so that sizes from before are not compared any more."""
        self._write("<Q", _LARGEST, _UNKNOWN)

    def _organizations(self, worker: int) -> list[bytes]:
        live = self._read("<I", worker, _LIVE)
        if not live:
            return []
        start = worker * self._part + _HEAD.size
        whole = self._memory[start : (worker + 1) * self._part]
        return [whole[at : at + _ORGANIZATION_BYTES] for at in range(0, len(whole), _ORGANIZATION_BYTES)]

    # Ports that no page may reach (egress/proxy.py)

    def __contains__(self, port: object) -> bool:
        """Whether a worker reserves this port."""
        return isinstance(port, int) and 0 <= port < _PORTS and self._memory[self._marks + port] != 0

    def reserve(self, port: int) -> None:
        self._memory[self._marks + port] = self.worker + 1

    def release(self, port: int) -> None:
        # One that several reserve, as that of a database, is the last one's.
        if self._memory[self._marks + port] == self.worker + 1:
            self._memory[self._marks + port] = 0

    def _sum(self, field: int) -> int:
        return sum(self._read("<I", worker, field) for worker in range(self.workers))

    def _read(self, form: str, worker: int, field: int) -> int:
        value: int = struct.unpack_from(form, self._memory, worker * self._part + field)[0]
        return value

    def _write(self, form: str, field: int, value: int | bytes) -> None:
        struct.pack_into(form, self._memory, self._own + field, value)


def _bytes_of(organization_id: UUID | None) -> bytes:
    return _NONE if organization_id is None else organization_id.bytes


def _size(workers: int, max_runtimes: int, callers: int) -> int:
    parts = workers * (_HEAD.size + max_runtimes * _ORGANIZATION_BYTES)
    return parts + _PORTS + _RATES * shared_times.size(callers)
