"""What the functions of vocabularies take and return beside plain values and the library's objects."""

from __future__ import annotations

import base64
import binascii
import secrets as tokens
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from gateway.automation import options as o
from gateway.core.secret_entry import MARK


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
    """A reference to a secret of the vault. The gateway types it itself, so that this process never has its value."""

    key: str
    field: str
    step: int
    # Types the secret into the element of a page that has this mark, or in place of its text.
    entered: Callable[[Secret, Any, str, bool], Awaitable[None]]

    async def enter(self, element: Any, *, replaces: bool) -> None:
        """Have it typed into an element of the library, if its frame and all around it are of the secret's origins."""
        mark = tokens.token_hex(16)
        frame = await element.owner_frame()
        if frame is None:
            raise ValueError("The element is no longer in its page.")
        await element.evaluate("(element, mark) => element.setAttribute(...mark)", [MARK, mark])
        await self.entered(self, frame.page, mark, replaces)


def payloads(files: o.Files) -> Any:
    """Files for the library, by their content. Raises ValueError."""
    try:
        return [
            {
                "name": file["name"],
                "mimeType": file["mimeType"],
                "buffer": base64.b64decode(file["base64"], validate=True),
            }
            for file in files
        ]
    except binascii.Error:
        raise ValueError("The base64 of a file is not valid.") from None


def picture_file(content: bytes, kind: str, options: o.Picture) -> File:
    """A picture of the type that was asked for."""
    type_ = options.get("type", "png")
    return File(content, kind, f"screenshot.{type_}", f"image/{type_}")
