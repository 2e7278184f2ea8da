"""Answers without the key, which a server may repeat: by value, in each form that a text may have it."""

from __future__ import annotations

import re
from typing import Any

from gateway.core.ai_providers import MASK, without_key
from gateway.core.secret import encodings, spellings

# A shorter one is a word that local servers take for a key, and may be part of any answer.
_SHORTEST = 8
_DEEPEST = 50


class KeyMask:
    """Of one key, for as long as one answer is passed on."""

    __slots__ = ("_forms", "_key", "_pattern")

    def __init__(self, key: str | None) -> None:
        self._key = key
        self._forms: tuple[bytes, ...] = ()
        self._pattern: re.Pattern[bytes] | None = None
        if key is not None and len(key) >= _SHORTEST:
            forms = {form.encode() for form in spellings(key) | encodings(key)}
            # A part of base64 that is shorter may stand for anything.
            self._forms = tuple({form.lower() for form in forms if len(form) >= _SHORTEST})

    def bytes(self, data: bytes) -> bytes:
        """The data without the key, in either case."""
        lowered = data.lower()
        if not any(form in lowered for form in self._forms):
            return data
        if self._pattern is None:
            longest_first = sorted(self._forms, key=len, reverse=True)
            self._pattern = re.compile(b"|".join(map(re.escape, longest_first)), re.IGNORECASE)
        return self._pattern.sub(MASK.encode(), data)

    def text(self, text: str) -> str:
        """A provider's own words without any piece of the key."""
        return text if self._key is None else without_key(text, self._key)

    def document(self, value: Any, depth: int = 0) -> Any:
        """A provider's error, each of whose texts may quote a piece of the key."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            if depth >= _DEEPEST:
                return None
            return {self.text(name): self.document(item, depth + 1) for name, item in value.items()}
        if isinstance(value, list):
            return [self.document(item, depth + 1) for item in value] if depth < _DEEPEST else None
        return value
