"""The mark of values that are never repeated: not in errors, not in logs, not in recorded commands.

    password: Secret[str]
    proxy: Secret[Proxy]    # also everything inside it, and whatever is given in its place

The mark is metadata of the annotation; who reads models (`gateway.http.models`) looks for it.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeVar


class SecretMark:
    __slots__ = ()

    def __repr__(self) -> str:
        return "SECRET"


SECRET: Final = SecretMark()

T = TypeVar("T")

Secret = Annotated[T, SECRET]
