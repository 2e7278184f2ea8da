"""The mark of values that are never repeated: not in errors, log lines, recorded commands or the audit log.

    password: Secret[str]
    proxy: Secret[Proxy]    # also everything inside it, and whatever is given in its place

The mark is metadata of the annotation, which `gateway.http.models` reads. The values that a request's models mark are
remembered while the request is served, and `masked` replaces them in what is logged and recorded meanwhile. So are
those that steps type into pages. A page may return them in another form; the usual ones are replaced too. Texts of
pages are often cut before they come here, and a page may place a secret across the cut: `masked_cut` replaces what a
text ends in of a secret, too.
"""

from __future__ import annotations

import base64
import contextlib
import html
import json
import re
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
# What stands at the end of a text that was cut, in some places.
CUT_MARK: Final = "…"
# A request may have any number of values in the place of a secret; looking for all of them would take seconds.
_MOST = 1000
# Of them, the first ones are looked for in the usual encodings too: some 70 texts each.
_MOST_ENCODED = 20
_DEEPEST = 50
# What functions leave as it is when they percent-encode: Python's, encodeURIComponent, encodeURI, forms, the parser of
# addresses (in a query, in a path), and escape.
_LEFT_ALONE = ("", "/", "!'()*", ";,/?:@&=+$!*'()#", "*", "!$%&()*+,/:;=?@[]^`{|}\\", "!$%&'()*+,/:;=@[]^|", "@*+/")


class Secrets:
    """Secrets of one request, one run or one process. `parts` are what to look for inside texts, the longest first."""

    __slots__ = ("_heads", "_parts", "_texts", "_texts_of_parts")

    def __init__(self) -> None:
        # In the order of their coming.
        self._texts: dict[str, None] = {}
        self._parts: list[str] = []
        # Parts by their first SHORTEST_PART characters.
        self._heads: dict[str, list[str]] = {}
        self._texts_of_parts = 0

    def __bool__(self) -> bool:
        return bool(self._texts)

    def add(self, text: str) -> None:
        """Mask this text from now on; those beyond a maximum are not."""
        if text and len(self._texts) < _MOST:
            self._texts[text] = None

    def add_all(self, values: Iterable[Any]) -> None:
        """Mask these values, all texts and numbers in them, and the passwords of those that are URLs, from now on."""
        for text in texts_in(values):
            self.add(text)
            if (password := _password(text)) is not None:
                self.add(password)
                self.add(unquote(password))

    def masked(self, value: Any, depth: int = 0, *, is_cut: bool = False) -> Any:
        """The value with MASK for each of them. `is_cut`: texts may have been cut, and end in a part of one."""
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self._without_beginning(self._masked_text(value)) if is_cut else self._masked_text(value)
        if isinstance(value, (int, float)):
            return MASK if str(value) in self._texts else value
        if depth < _DEEPEST:
            if isinstance(value, dict):
                return {
                    self.masked(name, depth + 1, is_cut=is_cut): self.masked(item, depth + 1, is_cut=is_cut)
                    for name, item in value.items()
                }
            if isinstance(value, (list, tuple, set, frozenset)):
                return [self.masked(item, depth + 1, is_cut=is_cut) for item in value]
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

    def _without_beginning(self, text: str) -> str:
        """The text with MASK for the beginning of a secret that it ends in, of SHORTEST_PART characters or more."""
        found = self._found_in_texts()
        if not found:
            return text
        whole = text.rstrip(CUT_MARK)
        first = max(0, len(whole) - len(found[0]) + 1)
        end = whole[first:]
        masked_from = len(end)
        for head, parts in self._heads.items():
            at = end.find(head, 0, masked_from + len(head) - 1)
            while at >= 0:
                if any(part.startswith(end[at:]) for part in parts):
                    masked_from = at
                    break
                at = end.find(head, at + 1, masked_from + len(head) - 1)
        if masked_from == len(end):
            return text
        return f"{whole[: first + masked_from]}{MASK}{text[len(whole) :]}"

    def _found_in_texts(self) -> list[str]:
        """Made when the first line is logged after a secret came, which most requests never do."""
        if self._texts_of_parts != len(self._texts):
            texts = [text for text in self._texts if len(text) >= SHORTEST_PART]
            parts = {part for text in texts for part in spellings(text)}
            parts |= {part for text in texts[:_MOST_ENCODED] for part in encodings(text)}
            self._parts = sorted(parts, key=len, reverse=True)
            self._heads = {}
            for part in self._parts:
                self._heads.setdefault(part[:SHORTEST_PART], []).append(part)
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
        remembered.add_all(values)


def masked(value: Any) -> Any:
    """The value, a JSON object or what a log line has, without the secrets of the current request."""
    remembered = _remembered.get()
    return remembered.masked(value) if remembered else value


def masked_cut(value: Any) -> Any:
    """As `masked`, of texts that may have been cut before, and end in the beginning of a secret."""
    remembered = _remembered.get()
    return remembered.masked(value, is_cut=True) if remembered else value


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


def encodings(text: str) -> set[str]:
    """The text as a page or a library may have encoded it, also as a part of a longer text that was encoded."""
    as_bytes = text.encode(errors="surrogatepass")
    little, big = (text.encode(f"utf-16-{order}", "surrogatepass") for order in ("le", "be"))
    found = set()
    for is_ascii in (True, False):
        within = json.dumps(text, ensure_ascii=is_ascii)[1:-1]
        found |= {json.dumps(within, ensure_ascii=is_ascii)[1:-1], within.replace("/", "\\/")}
    # UTF-16 that was read as bytes, and escapes of each character.
    found |= {each.decode("latin-1").strip("\0") for each in (little, big)}
    found |= {"".join(f"\\u{unit}" for unit in re.findall("....", big.hex()))}
    found |= _in_html(text)
    # What `btoa` and `escape` make of it in a page, where it has such characters only.
    latin = {text.encode("latin-1")} if text.isascii() or max(text) <= "\xff" else set()
    for encoded in {as_bytes, *latin}:
        found |= _percent_encoded(encoded)
    for encoded in {as_bytes, little, big, *latin}:
        found |= {encoded.hex(), encoded.hex().upper()} | _in_base64(encoded)
    found |= {each.upper().replace("\\U", "\\u") for each in found if each.startswith("\\u")}
    return {each for each in found if len(each) >= SHORTEST_PART}


def _percent_encoded(text: bytes) -> set[str]:
    found = {quote(text, safe=safe) for safe in _LEFT_ALONE} | {"".join(f"%{byte:02X}" for byte in text)}
    # Forms encode what is left alone everywhere else, and write a blank as a plus.
    found.add(quote_plus(text, safe="*").replace("~", "%7E"))
    return found | {re.sub("%[0-9A-F]{2}", lambda each: each[0].lower(), part) for part in found}


def _in_html(text: str) -> set[str]:
    found = {html.escape(text), html.escape(text, quote=False), html.escape(text, quote=False).replace('"', "&quot;")}
    found |= {html.escape(text).replace("&#x27;", "&#39;").replace("&quot;", quoted) for quoted in ("&quot;", "&#34;")}
    # As a browser writes an attribute, and texts without characters that are not ASCII.
    found.add(text.replace("&", "&amp;").replace('"', "&quot;"))
    found |= {each.encode("ascii", "xmlcharrefreplace").decode() for each in found}
    for written in ("&#{};", "&#x{:x};", "&#x{:X};"):
        found.add("".join(written.format(ord(character)) for character in text))
    return found


def _in_base64(text: bytes) -> set[str]:
    """The whole; and, for each place at which it may begin in a longer text, the characters that depend on it alone."""
    whole = base64.b64encode(text).decode()
    found = {whole, whole.rstrip("=")}
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + text).decode()
        found.add(encoded[-(-before * 8 // 6) : (before + len(text)) * 8 // 6])
    return found | {each.replace("+", "-").replace("/", "_") for each in found}
