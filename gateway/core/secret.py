"""The mark of values that are never repeated: not in errors, log lines, recorded commands or the audit log.

    password: Secret[str]
    proxy: Secret[Proxy]    # also everything inside it, and whatever is given in its place

The mark is metadata of the annotation, which `gateway.http.models` reads. The values that a request's models mark are
remembered while the request is served, and `masked` replaces them in what is logged and recorded meanwhile.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Annotated, Any, Final, TypeVar
from urllib.parse import quote, quote_plus, unquote, urlsplit


class SecretMark:
    __slots__ = ()

    def __repr__(self) -> str:
        return "SECRET"


SECRET: Final = SecretMark()

T = TypeVar("T")

Secret = Annotated[T, SECRET]

# What stands in the place of a secret.
MASK: Final = "***"

# A shorter text may be part of another one by accident, so it is masked only where it stands alone.
SHORTEST_PART: Final = 5
# A request may have any number of values in the place of a secret; looking for all of them would take seconds.
_MOST = 1000
_DEEPEST = 50


class Secrets:
    """Secrets of one request or one run. `parts` are what to look for inside texts, the longest first."""

    __slots__ = ("_parts", "_texts", "_texts_of_parts")

    def __init__(self) -> None:
        self._texts: set[str] = set()
        self._parts: list[str] = []
        self._texts_of_parts = 0

    def __bool__(self) -> bool:
        return bool(self._texts)

    def add(self, text: str) -> None:
        """Mask this text from now on; those beyond a maximum are not."""
        if text and len(self._texts) < _MOST:
            self._texts.add(text)

    def masked(self, value: Any, depth: int = 0) -> Any:
        """The value with MASK for each of them."""
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self._masked_text(value)
        if isinstance(value, (int, float)):
            return MASK if str(value) in self._texts else value
        if depth < _DEEPEST:
            if isinstance(value, dict):
                items = value.items()
                return {self.masked(name, depth + 1): self.masked(item, depth + 1) for name, item in items}
            if isinstance(value, (list, tuple, set, frozenset)):
                return [self.masked(item, depth + 1) for item in value]
        # As a renderer writes it.
        for text in (str(value), repr(value)):
            if (clean := self._masked_text(text)) != text:
                return clean
        return value

    def _masked_text(self, text: str) -> str:
        if text in self._texts:
            return MASK
        for part in self._found_in_texts():
            if part in text:
                text = text.replace(part, MASK)
        return text

    def _found_in_texts(self) -> list[str]:
        """Made when the first line is logged after a secret came, which most requests never do."""
        if self._texts_of_parts != len(self._texts):
            parts = {part for text in self._texts if len(text) >= SHORTEST_PART for part in spellings(text)}
            self._parts = sorted(parts, key=len, reverse=True)
            self._texts_of_parts = len(self._texts)
        return self._parts


_remembered: ContextVar[Secrets | None] = ContextVar("secrets_of_request", default=None)


@contextlib.contextmanager
def remembering() -> Iterator[None]:
    """Secrets that `remember` is given in the block are masked up to its end, also in tasks that it starts."""
    token = _remembered.set(Secrets())
    try:
        yield
    finally:
        _remembered.reset(token)


def remember(values: Iterable[Any]) -> None:
    """Mask these values, and all texts and numbers in them, for the rest of the `remembering` block."""
    remembered = _remembered.get()
    if remembered is not None:
        for text in texts_in(values):
            remembered.add(text)
            if (password := _password(text)) is not None:
                remembered.add(password)
                remembered.add(unquote(password))


def masked(value: Any) -> Any:
    """The value, a JSON object or what a log line has, without the secrets of the current request."""
    remembered = _remembered.get()
    return remembered.masked(value) if remembered else value


def texts_in(value: Any, *, names: bool = True) -> Iterator[str]:
    """The texts and numbers in a value that stands in the place of a secret; with `names` those of members too."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending += [*(item.keys() if names else ()), *item.values()]
        elif isinstance(item, str):
            yield item
        elif isinstance(item, Iterable) and not isinstance(item, (bytes, bytearray)):
            pending += item
        elif item is not None and not isinstance(item, bool):
            yield str(item)


def _password(text: str) -> str | None:
    """The password of a URL, which is taken out of it to be used."""
    try:
        return urlsplit(text).password if "://" in text else None
    except ValueError:
        return None


def spellings(text: str) -> set[str]:
    """The text as it stands in other texts: by itself, in a repr, in JSON, in a URL."""
    if text.isalnum() and text.isascii():
        return {text}
    as_bytes = text.encode(errors="surrogatepass")
    plain = {text, repr(text)[1:-1], json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}
    plain |= {repr(as_bytes)[2:-1], quote(as_bytes), quote(as_bytes, safe=""), quote_plus(as_bytes)}
    # An exception often quotes the repr of a message that has a repr.
    return plain | {repr(each)[1:-1] for each in plain}
