"""Masks addresses and texts before they are recorded: secrets, the content of data: URLs, and excessive length.

Masked are user names and passwords before a host, and the values of parameters whose names are known to carry secrets:
in the query, in the fragment, in parameters of the path (`;jsessionid=`), and in addresses that are themselves the
value of a parameter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import quote, unquote

from gateway.core.secret import MASK

# Names whose values are secrets, in lower case and reduced to letters and digits; and parts of such names.
_NAMES = frozenset(
    re.findall(
        r"\w+",
        "assertion auth authorization code cred creds csrf jwt key nonce otp pass passphrase passwd pin pwd "
        "samlrequest samlresponse session sess sid sig state ticket tgt xsrf",
    )
)
_PARTS = re.compile(
    "token|secret|passw|signature|credential|apikey|accesskey|privatekey|sessionid|sessid|sessionkey|authcode|authkey"
)

# Whether an address can contain anything to mask; most can't.
_SUSPICIOUS = re.compile(r"[?#@;=]|^\s*data:", re.IGNORECASE)
_DATA = re.compile(r"(?<![\w/])data:([^,;\s\"'<>]*)[^\s\"'<>)]*", re.IGNORECASE)
_USER = re.compile(r"//[^/?#\\\s\"'<>]*@")
_PARAMETER = re.compile(r"([?&#;])([^?&#;=\s\"'<>]*)=([^&#\s\"'<>]*)")
# Where the names of parameters are not enough, and the address must be parsed.
_TO_TAKE_APART = re.compile(r"[@%]|data:", re.IGNORECASE)
_EACH_NAME = re.compile(r"[?&#;=]([^?&#;=/\s\"'<>]*)(?==)")
_PATH_PARAMETER = re.compile(r";([^?&#;=/]*)=([^?#;/]*)")
# Characters that end an address in a text.
_ENDS = re.compile(r"[\s\"'<>]")
_NOT_OF_A_NAME = re.compile(r"[^a-z0-9]")
_MARK = re.compile("[?#]")
_NESTED = 4
_CACHED_NAMES = 1024


class Masking:
    """`parameters`: additional names. No result is longer than `longest` characters."""

    def __init__(self, parameters: Iterable[str], longest: int) -> None:
        self._names = _NAMES | {_plain(name) for name in parameters}
        self._longest = longest
        # The same names recur.
        self._is_secret = lru_cache(_CACHED_NAMES)(self._has_secret)

    def url(self, address: str) -> str:
        if len(address) > 2 * self._longest:
            address = address[: 2 * self._longest]
        if _SUSPICIOUS.search(address) is not None:
            address = self._masked(_ENDS.sub(lambda found: quote(found[0]), address), 0)
        return self._cut(address)

    def text(self, text: str) -> str:
        """A text that people read, with the addresses in it masked."""
        if len(text) > 2 * self._longest:
            text = text[: 2 * self._longest]
        if _SUSPICIOUS.search(text) is not None and self._may_have_secrets(text):
            text = self._masked(text, 0)
        return self._cut(text)

    def _may_have_secrets(self, text: str) -> bool:
        """Whether it is worth to take it apart."""
        return _TO_TAKE_APART.search(text) is not None or any(map(self._is_secret, _EACH_NAME.findall(text)))

    def _cut(self, text: str) -> str:
        return text if len(text) <= self._longest else f"{text[: self._longest - 1]}…"

    def _masked(self, text: str, depth: int) -> str:
        text = _DATA.sub(r"data:\1", text)
        text = _USER.sub(f"//{MASK}@", text)

        def parameter(found: re.Match[str]) -> str:
            before, name, value = found.groups()
            return f"{before}{name}={self._value(name, value, depth)}"

        def path_parameter(found: re.Match[str]) -> str:
            name, value = found.groups()
            return f";{name}={MASK if self._is_secret(name) else value}"

        head, mark, tail = _partition(text)
        if ";" in head:
            head = _PATH_PARAMETER.sub(path_parameter, head)
        return head + _PARAMETER.sub(parameter, mark + tail) if mark else head

    def _value(self, name: str, value: str, depth: int) -> str:
        if self._is_secret(name):
            return MASK
        if depth == _NESTED:
            # Deeper than any real value is nested.
            return MASK if "=" in value or "%" in value else value
        if "=" in value or "@" in value or "data:" in value:
            value = self._masked(f"?{value}", depth + 1)[1:]
        if "%" in value:
            plain = unquote(value)
            masked = self._masked(f"?{plain}", depth + 1)[1:]
            if masked != plain:
                return quote(masked, safe="*")
        return value

    def _has_secret(self, name: str) -> bool:
        plain = _plain(unquote(name) if "%" in name else name)
        return plain in self._names or _PARTS.search(plain) is not None


def _partition(text: str) -> tuple[str, str, str]:
    """The part before the first `?` or `#`, that character, and the rest."""
    found = _MARK.search(text)
    return (text[: found.start()], found[0], text[found.end() :]) if found is not None else (text, "", "")


def _plain(name: str) -> str:
    return _NOT_OF_A_NAME.sub("", name.lower())
