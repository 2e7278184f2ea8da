"""Looks for many secrets at once, in each form that they may have in a text."""

from __future__ import annotations

import base64
import html
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote, quote_plus

from ahocorasick_rs import BytesAhoCorasick
from hypothesis import currently_in_test_context

# A shorter text, or one of fewer different bytes, may be part of another one by accident.
SHORTEST = 10
DIFFERENT = 6
# Of a random secret each piece of this length counts: a part of 2 * PIECE - 1 bytes is found wherever it begins.
PIECE = 10
# What is held until a module's end, when all of its secrets are known. Beyond that it is searched earlier.
MOST_HELD_BYTES = 64 * 1024 * 1024
AROUND = 80

# A bytea as PostgreSQL writes it.
_BYTEA = re.compile(rb"\\x((?:[0-9a-f]{2}){8,})")
# What a piece of a secret may be a part of.
_WORD = re.compile(rb"[A-Za-z0-9+/=_%.~-]*")


class Search:
    """Notes secrets, takes texts, in any order. `found` names a secret and a place and shows no secret."""

    def __init__(self) -> None:
        self.weak = 0
        self.bytes_taken = 0
        self._names: dict[bytes, str] = {}
        self._noted: set[bytes] = set()
        self._held: list[tuple[str, bytes]] = []
        self._held_bytes = 0
        self._found: dict[tuple[str, str], str] = {}

    @property
    def secrets(self) -> int:
        """How many secrets are searched for."""
        return len(self._noted)

    def note(self, name: str, secret: str | bytes, *, random: bool = False) -> None:
        """Search for a secret; a `random` one also for its parts, which no text has by chance."""
        raw = secret.encode(errors="surrogatepass") if isinstance(secret, str) else secret
        if raw in self._noted:
            return
        # Hypothesis draws constants of the code, which are in many texts, as readily as random values.
        if len(raw) < SHORTEST or len(set(raw)) < DIFFERENT or currently_in_test_context():
            self.weak += 1
            return
        self._noted.add(raw)
        name += _of_test()
        patterns = forms(raw)
        if random:
            patterns |= {raw[at : at + PIECE] for at in range(0, len(raw) - PIECE + 1, PIECE)}
        for pattern in patterns:
            self._names.setdefault(pattern, name)

    def take(self, place: str, text: str | bytes) -> None:
        """Search this text, too."""
        raw = text.encode(errors="surrogatepass") if isinstance(text, str) else text
        self._held.append((place, raw))
        self._held_bytes += len(raw)
        self.bytes_taken += len(raw)
        if self._held_bytes > MOST_HELD_BYTES:
            self._search()

    def found(self) -> list[str]:
        """A line for each secret and place: their names, and the text around with `***` for secrets."""
        self._search()
        return list(self._found.values())

    def _search(self) -> None:
        held, self._held, self._held_bytes = self._held, [], 0
        if not self._names:
            return
        patterns = list(self._names)
        automaton = BytesAhoCorasick(patterns)
        for place, text in held:
            for read in (text, *_decoded(text)):
                if matches := automaton.find_matches_as_indexes(read):
                    for index, start, _ in matches:
                        name = self._names[patterns[index]]
                        where = place + _member(text, patterns[index])
                        if (name, where) not in self._found:
                            self._found[name, where] = f"{name} in {where}: {_masked(read, matches, start)}"


def _of_test() -> str:
    """Without its parameters, which may be the secret."""
    name = re.search(r"::(\w+)", os.environ.get("PYTEST_CURRENT_TEST", ""))
    return f" of {name[1]}" if name else ""


def forms(raw: bytes) -> set[bytes]:
    """A secret as it may stand in a text: by itself, in JSON, JSON in JSON, a URL, HTML, hex, and base64 at each of
    three places in what is encoded."""
    text = raw.decode("latin-1")
    found = {raw, raw.hex().encode(), quote(raw).encode(), quote(raw, safe="").encode(), quote_plus(raw).encode()}
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return found | _in_base64(raw)
    for ascii_only in (True, False):
        once = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        found |= {once.encode(), json.dumps(once, ensure_ascii=ascii_only)[1:-1].encode()}
    found.add(html.escape(text).encode())
    found.add(repr(text)[1:-1].encode())
    return found | _in_base64(raw)


def _in_base64(raw: bytes) -> set[bytes]:
    found = set()
    for before in range(3):
        # Without the letters that have bits of other bytes.
        first, last = -(-8 * before // 6), 8 * (before + len(raw)) // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            found.add(encode(bytes(before) + raw)[first:last])
    return found


def _decoded(text: bytes) -> Iterator[bytes]:
    """Every bytea in a row's text, joined."""
    if b"\\x" in text and (runs := _BYTEA.findall(text)):
        yield b"\n".join(bytes.fromhex(run.decode()) for run in runs)


def _member(text: bytes, pattern: bytes) -> str:
    """`.name` of the member that has the pattern, where the text is an object of JSON."""
    try:
        read = json.loads(text) if text[:1] == b"{" else None
    except ValueError:
        return ""
    if not isinstance(read, dict):
        return ""
    for name, value in read.items():
        written = json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")
        if any(pattern in each for each in (written, *_decoded(written))):
            return f".{name}"
    return ""


def _masked(text: bytes, matches: list[tuple[int, int, int]], at: int) -> str:
    """The text around a place, in which each secret is hidden with the word that it is in."""
    shown, end = b"", max(0, at - AROUND)
    if end:
        # What is left of a secret that begins before.
        end = min(at, _word_end(text, end))
    for _, start, stop in matches:
        if stop > end and start < at + AROUND:
            word = re.search(rb"[A-Za-z0-9+/=_%.~-]*\Z", text[end:start])
            assert word is not None
            shown += text[end : end + word.start()] + b"***"
            end = _word_end(text, stop)
    shown += text[end : at + AROUND]
    return shown.decode(errors="replace").replace("\n", " ")


def _word_end(text: bytes, at: int) -> int:
    match = _WORD.match(text, at)
    assert match is not None
    return match.end()


_current = [Search()]


def current() -> Search:
    """The search that notes and takes at present."""
    return _current[-1]


@contextmanager
def searching() -> Iterator[Search]:
    """A search of its own for the block, in place of the one before."""
    search = Search()
    _current.append(search)
    try:
        yield search
    finally:
        _current.remove(search)
