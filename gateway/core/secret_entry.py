"""How a process of steps asks the gateway to type a secret into a page: by an element that it has marked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

# The attribute of the element; its value is 32 hexadecimal digits, chosen for this once.
MARK = "data-gateway-entry"
_VALUE = re.compile(r"[0-9a-f]{32}")
_LONGEST = 1024


@dataclass(frozen=True, slots=True)
class SecretEntry:
    """A field of a secret, to be typed into the element of a page, or in place of its text. `step` is its place.

    It says nothing of origins: the gateway finds the element, and asks the browser.
    """

    key: str
    field: str
    step: int
    page_id: str
    mark: str
    replaces: bool

    @classmethod
    def of(cls, message: dict[str, Any]) -> SecretEntry:
        """Raises ValueError for what is no such message: the process may be under an attacker's control."""
        texts = [message.get(name) for name in ("key", "field", "page", "mark")]
        step, replaces = message.get("index"), message.get("replaces")
        if (
            not all(isinstance(each, str) and len(each) <= _LONGEST for each in texts)
            or not _VALUE.fullmatch(str(texts[3]))
            or type(step) is not int
            or not isinstance(replaces, bool)
        ):
            raise ValueError("what a step asks to be typed is not described as it should be")
        return cls(str(texts[0]), str(texts[1]), step, str(texts[2]), str(texts[3]), replaces)
