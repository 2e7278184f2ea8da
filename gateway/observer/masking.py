"""Masks addresses and texts before they are recorded: secrets, the content of data: URLs, and excessive length.

Masked are user names and passwords before a host, and the values of parameters whose names are known to carry secrets:
in the query, in the fragment, in parameters of the path (`;jsessionid=`), and in the values of other parameters, which
may be addresses, JSON or lines of headers, encoded several times. In texts, the same is masked in the addresses, and
elsewhere what certainly is a secret: headers with credentials, `password: ...`, bearer tokens, JWTs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from urllib.parse import quote, unquote

from gateway.core.secret import MASK

# Names whose values are secrets, in lower case and reduced to letters and digits; and parts of such names.
_NAMES = frozenset(
    re.findall(
        r"\w+",
        "assertion auth code cookie cookies cred creds csrf jwt key nonce otp pass passphrase passwd pin pwd "
        "samlrequest samlresponse session sess setcookie sid sig state ticket tgt xsrf",
    )
)
_PARTS = re.compile(
    "token|secret|passw|signature|credential|apikey|accesskey|privatekey|sessionid|sessid|sessionkey|authcode|authkey|"
    "authorization|bearer"
)
# Of `_NAMES`, those that name a secret in any text; a text also says `state: open` and `key: value`.
_CERTAIN_NAMES = frozenset(("cookie", "cookies", "jwt", "passphrase", "passwd", "pwd", "setcookie"))
# Whose values go on after blanks and commas.
_HEADERS = re.compile("authorization|cookie")

# Whether an address can contain anything to mask; most can't.
_SUSPICIOUS = re.compile(r"[?#@;=%]|^\s*data:", re.IGNORECASE)
# One of these is in every text with a certain name or credentials, in lower case.
_HINTS = (
    *("token", "secret", "pass", "pwd", "signature", "credential", "key", "sess", "auth", "bearer", "basic", "cookie"),
    *("jwt", "eyj"),
)
_DATA = re.compile(r"(?<![\w/])data:([^,;\s\"'<>]*)[^\s\"'<>)]*", re.IGNORECASE)
_USER = re.compile(r"//[^/?#\\\s\"'<>]*@")
_PARAMETER = re.compile(r"([?&#;])([^?&#;=\s\"'<>]*)=([^&#\s\"'<>]*)")
# Where the names of parameters are not enough, and the address must be parsed.
_TO_TAKE_APART = re.compile(r"[@%]|data:", re.IGNORECASE)
_EACH_NAME = re.compile(r"[?&#;=]([^?&#;=/\s\"'<>]*)(?==)")
_PATH_PARAMETER = re.compile(r";([^?&#;=/]*)=([^?#;/]*)")
# A name and what stands between it and its value, as in JSON, in JSON within JSON, in a script and in a header. In a
# form, a plus sign is a blank.
_PAIR_NAME = re.compile(
    r"(?P<quote>\\{0,8}[\"'])?(?<![\w-])(?P<name>(?(quote)[^\"'\\\r\n]{1,80}|[A-Za-z][\w.$-]{0,80}))"
    r"(?(quote)(?P=quote))[\s+]{0,8}[:=][\s+]{0,8}"
)
_PAIR_VALUE = re.compile(
    r"(?P<open>\")(?:\\.|[^\"\\])*"
    r"|(?P<open1>')(?:\\.|[^'\\])*"
    r"|(?P<open2>\\{1,8}[\"'])(?:(?!(?<!\\)(?P=open2))[^\r\n])*"
    r"|(?P<open3>\[)[^\]\r\n]*"
    r"|[^\s,;&#\"'<>(){}\[\]\\|]+"
)
_HEADER_VALUE = re.compile(r"(?P<open>\\{0,8}[\"'])?[^\r\n\"'\\]+")
_NO_SECRETS = re.compile(r"null|true|false|undefined|None|True|False")
# Counts of tokens, durations of sessions and the like.
_A_NUMBER = re.compile(r"[0-9.]{1,9}")
_BEARER = re.compile(r"(?<![\w-])(bearer[\s+]+)[\w.~+/=-]{4,}", re.IGNORECASE)
_BASIC = re.compile(r"(?<![\w-])(basic[\s+]+)(?=[A-Za-z+/]{0,200}[0-9=])[A-Za-z0-9+/=]{8,}", re.IGNORECASE)
_JWT = re.compile(r"(?<![\w-])()eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*")
# By a part of them that is quick to find.
_CREDENTIALS = (("earer", _BEARER), ("EARER", _BEARER), ("asic", _BASIC), ("ASIC", _BASIC), ("eyJ", _JWT))
_WORD = re.compile(r"[^\s\"'<>]+")
# Characters that end an address in a text.
_ENDS = re.compile(r"[\s\"'<>]")
_NOT_OF_A_NAME = re.compile(r"[^a-z0-9]")
_MARK = re.compile("[?#]")
_NESTED = 4
_CACHED_NAMES = 1024


class Masking:
    """`parameters`: additional names. No result is longer than `longest` characters."""

    def __init__(self, parameters: Iterable[str], longest: int) -> None:
        added = {_plain(name) for name in parameters}
        self._names = _NAMES | added
        self._certain_names = _CERTAIN_NAMES | added
        self._has_added_names = bool(added)
        self._longest = longest
        # The same names recur.
        self._is_secret = lru_cache(_CACHED_NAMES)(self._has_secret)
        self._is_certain = lru_cache(_CACHED_NAMES)(self._certainly_has_secret)

    def url(self, address: str) -> str:
        if len(address) > 2 * self._longest:
            address = address[: 2 * self._longest]
        if _SUSPICIOUS.search(address) is not None:
            address = self._masked(_ENDS.sub(lambda found: quote(found[0]), address), 0)
            path, mark, rest = _partition(address)
            if "%" in path:
                address = "/".join(self._decoded(each, 0, self._certain) for each in path.split("/")) + mark + rest
        return self._cut(address)

    def text(self, text: str) -> str:
        """A text that people read, with the addresses and the certain secrets in it masked."""
        if len(text) > 2 * self._longest:
            text = text[: 2 * self._longest]
        if _SUSPICIOUS.search(text) is not None and self._may_have_secrets(text):
            text = self._masked(text, 0)
        lowered = text.lower()
        if self._has_added_names or any(hint in lowered for hint in _HINTS):
            text = self._certain(text)
        if "%" in text:
            text = _WORD.sub(lambda found: self._decoded(found[0], 0, self._certain), text)
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
        return self._decoded(self._pairs(value), depth, self._pairs)

    def _decoded(self, text: str, depth: int, mask: Callable[[str], str]) -> str:
        """The text, in which what is encoded, also several times, is masked. What is masked is encoded once."""
        if "%" not in text:
            return text
        plain = unquote(text)
        if plain == text:
            return text
        if depth == _NESTED:
            return MASK
        masked = mask(self._masked(f"?{plain}", depth + 1)[1:])
        masked = self._decoded(masked, depth + 1, mask)
        return text if masked == plain else quote(masked, safe="*")

    def _pairs(self, text: str) -> str:
        """The value of a parameter: JSON, lines of headers."""
        return self._without_pairs(text, certain=False)

    def _certain(self, text: str) -> str:
        return self._without_pairs(text, certain=True)

    def _without_pairs(self, text: str, *, certain: bool) -> str:
        """Without values whose names are those of secrets: certainly so, but for names in quotes as `certain` says."""
        parts: list[str] = []
        start = 0
        end = 0 if ":" in text or "=" in text else len(text)
        while (found := _PAIR_NAME.search(text, end)) is not None:
            end = found.end()
            name, only_certain = found["name"], certain or found["quote"] is None
            if not (self._is_certain if only_certain else self._is_secret)(name):
                continue
            value = (_HEADER_VALUE if _HEADERS.search(_plain(name)) else _PAIR_VALUE).match(text, end)
            if value is None or _NO_SECRETS.fullmatch(value[0]) or (only_certain and _A_NUMBER.fullmatch(value[0])):
                continue
            opening = next(filter(None, value.groups()), "")
            if value[0] == opening:
                continue
            parts += [text[start:end], opening, MASK]
            start = end = value.end()
        if parts:
            text = "".join((*parts, text[start:]))
        for mark, credentials in _CREDENTIALS:
            if mark in text:
                text = credentials.sub(rf"\1{MASK}", text)
        return text

    def _has_secret(self, name: str) -> bool:
        plain = _plain(_fully_unquoted(name))
        return plain in self._names or _PARTS.search(plain) is not None

    def _certainly_has_secret(self, name: str) -> bool:
        plain = _plain(name)
        return plain in self._certain_names or _PARTS.search(plain) is not None


def _fully_unquoted(name: str) -> str:
    for _ in range(_NESTED):
        if "%" not in name:
            break
        name = unquote(name)
    return name


def _partition(text: str) -> tuple[str, str, str]:
    """The part before the first `?` or `#`, that character, and the rest."""
    found = _MARK.search(text)
    return (text[: found.start()], found[0], text[found.end() :]) if found is not None else (text, "", "")


def _plain(name: str) -> str:
    return _NOT_OF_A_NAME.sub("", name.lower())
