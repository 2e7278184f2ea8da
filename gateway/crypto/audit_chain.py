"""A chain of hashes: each entry's hash covers the entry and the hash of the one before it.

An entry is an object of JSON, whose member `previousHash` has the hash before it in hex.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

# What the first entry has for the hash before it.
START = bytes(32)

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def canonical(entry: dict[str, Any]) -> bytes:
    """The entry as JSON in ASCII, names sorted, without white space."""
    return _ENCODER.encode(entry).encode("ascii")


def digest(entry: dict[str, Any]) -> bytes:
    """SHA-256 over the canonical form, 32 bytes."""
    return hashlib.sha256(canonical(entry)).digest()
