"""A chain of hashes: each entry's hash covers the entry and the hash of the one before it.

An entry is a JSON object whose member `previousHash` is the hash before it in hex.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

# The `previousHash` of the first entry.
START = bytes(32)


class Form(IntEnum):
    """How an entry is written before it is hashed. Entries keep the form in which they were added."""

    # Names in the order of their code points, no white space, everything but printable ASCII escaped.
    ASCII = 1
    # JSON Canonicalization Scheme, RFC 8785.
    RFC_8785 = 2


LATEST = Form.RFC_8785
# Larger integers are not exact in JSON's numbers, and RFC 8785 refuses them.
MAX_INTEGER = 2**53 - 1

# Entries have no floats, no larger integers and no names outside ASCII. Without these the standard encoder's output is
# RFC 8785 (tests/unit/test_audit_chain.py compares it with a general implementation), in a tenth of the time: a batch
# is hashed in the event loop.
_ENCODERS = {
    form: json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=form is Form.ASCII, allow_nan=False)
    for form in Form
}


def canonical(entry: dict[str, Any], form: Form) -> bytes:
    """The entry as the bytes that are hashed."""
    return _ENCODERS[form].encode(entry).encode()


def canonical_around(entry: dict[str, Any], later: Sequence[str], form: Form) -> list[bytes]:
    """The canonical form of an entry that still lacks the members `later`: one or more plain names, in order.

    Returns the bytes before, between and after the values of these members.
    """
    pieces, begin, after = [], "{", ""
    for name in later:
        between = _members({key: value for key, value in entry.items() if after < key < name}, form)
        pieces.append(f'{begin}{between},"{name}":' if between else f'{begin}"{name}":')
        begin, after = ",", name
    rest = _members({key: value for key, value in entry.items() if key > after}, form)
    pieces.append(f",{rest}}}" if rest else "}")
    return [piece.encode() for piece in pieces]


def _members(entry: dict[str, Any], form: Form) -> str:
    return _ENCODERS[form].encode(entry)[1:-1]


def digest(entry: dict[str, Any], form: Form) -> bytes:
    """SHA-256 over the canonical form, 32 bytes."""
    return hashlib.sha256(canonical(entry, form)).digest()
