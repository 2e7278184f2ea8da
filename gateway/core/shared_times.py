"""A moment for each caller, in memory that the workers of one gateway share: the rates of all together.

A table of sets of eight entries. A caller's key decides its set; where that is full, the earliest moment makes room. No
entry is locked: two workers that write one at the same instant may lose one of the two requests' counts, which lets one
more request through and no more.
"""

from __future__ import annotations

import hashlib
import mmap
import struct
from collections.abc import Hashable

_ENTRY = struct.Struct("<16sd")
_WAYS = 8
_SET_BYTES = _WAYS * _ENTRY.size


class SharedTimes:
    """Entries in `memory` from `start` on, for some `callers` at once."""

    def __init__(self, memory: mmap.mmap, start: int, callers: int) -> None:
        self._memory = memory
        self._start = start
        self._sets = sets(callers)

    def get(self, caller: Hashable) -> float | None:
        """The caller's moment; None for one that is not in the table."""
        key = _key(caller)
        start = self._set_of(key)
        for wanted, moment in _ENTRY.iter_unpack(self._memory[start : start + _SET_BYTES]):
            if wanted == key:
                return float(moment)
        return None

    def put(self, caller: Hashable, moment: float) -> None:
        key = _key(caller)
        start = self._set_of(key)
        entries = list(_ENTRY.iter_unpack(self._memory[start : start + _SET_BYTES]))
        place = next((at for at, (wanted, _) in enumerate(entries) if wanted == key), None)
        if place is None:
            place = min(range(_WAYS), key=lambda at: entries[at][1])
        _ENTRY.pack_into(self._memory, start + place * _ENTRY.size, key, moment)

    def _set_of(self, key: bytes) -> int:
        return self._start + int.from_bytes(key[8:], "little") % self._sets * _SET_BYTES


def sets(callers: int) -> int:
    """Twice as many entries as callers, so that few sets are full before all are."""
    return max(1, 2 * callers // _WAYS)


def size(callers: int) -> int:
    """In bytes."""
    return sets(callers) * _SET_BYTES


def _key(caller: Hashable) -> bytes:
    """16 bytes that are the same in every process, as `hash` of a text is not."""
    return hashlib.blake2b(repr(caller).encode(), digest_size=16).digest()
