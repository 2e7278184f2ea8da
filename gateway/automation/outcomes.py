"""What the functions of vocabularies take and return beside plain values and the library's objects."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class File:
    """Bytes that become an artifact of the run."""

    content: bytes = field(repr=False)
    kind: str
    name: str
    content_type: str

    def described(self) -> dict[str, Any]:
        return {"kind": self.kind, "name": self.name, "contentType": self.content_type}


@dataclass(frozen=True, slots=True)
class Bound:
    """An object that is bound, with the value of its step."""

    item: Any
    value: Any


@dataclass(frozen=True, slots=True)
class Secret:
    """A reference to a secret of the vault, whose value is asked for when it is typed."""

    key: str
    field: str
    step: int
    _ask: Callable[[str, str, int, list[str]], Awaitable[str]]

    async def value_for(self, element: Any) -> str:
        """For an element of the library: the origins of its frame and of all frames around it must be the secret's."""
        frame = await element.owner_frame()
        origins = []
        while frame is not None:
            # Not asked of the page. An empty frame has the origin of the one around it, which is checked too.
            if frame.parent_frame is None or not frame.url.startswith("about:"):
                origins.append(origin_of(frame.url))
            frame = frame.parent_frame
        return await self._ask(self.key, self.field, self.step, origins)


def origin_of(url: str) -> str:
    """The origin of a page's address; `null` where it has none."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.scheme in ("http", "https") else "null"
