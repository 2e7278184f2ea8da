"""Providers of models: their names, how each takes a key, and texts without a key in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from string import ascii_lowercase, ascii_uppercase
from typing import Any, Final, Literal, get_args

ProviderName = Literal["openai", "anthropic", "google", "openai-compatible"]
PROVIDERS: Final[tuple[ProviderName, ...]] = get_args(ProviderName)
# A server of the caller's choice, which speaks OpenAI's protocol.
COMPATIBLE: Final = "openai-compatible"

ANTHROPIC_VERSION = "2023-06-01"
# What stands in the place of a key.
MASK = "[key]"
# This many consecutive characters of a key are masked as the key, since a provider may quote only a part of it.
_MASKED_LENGTH = 8

_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)  # unlike lower(), it never changes the length
_SENDABLE = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Provider:
    """How a provider is called: its name for people, the header of the key, and what else goes with it."""

    title: str
    key_header: str
    key_format: str
    headers: tuple[tuple[str, str], ...] = ()

    def headers_with(self, api_key: str) -> dict[str, str]:
        return {self.key_header: self.key_format.format(api_key), **dict(self.headers)}


PROTOCOLS: Final[Mapping[ProviderName, Provider]] = {
    "openai": Provider("OpenAI", "Authorization", "Bearer {}"),
    "anthropic": Provider("Anthropic", "x-api-key", "{}", (("anthropic-version", ANTHROPIC_VERSION),)),
    # The key could go into the URL as well, but URLs get logged.
    "google": Provider("Google", "x-goog-api-key", "{}"),
    COMPATIBLE: Provider("The server", "Authorization", "Bearer {}"),
}


def unsendable(api_key: str) -> str | None:
    """Why no header can carry this key; None for one that can be sent."""
    if _SENDABLE.fullmatch(api_key):
        return None
    if not api_key:
        return "The key is empty."
    return (
        "The key has spaces, line breaks or letters outside ASCII, which no header can carry and no provider gives out."
    )


def without_key(text: str, api_key: str) -> str:
    """The text with every piece of the key of 8 characters or more, in either case, taken out."""
    haystack, key = text.translate(_LOWER), api_key.translate(_LOWER)
    length = min(_MASKED_LENGTH, len(key))
    pieces = {key[start : start + length] for start in range(len(key) - length + 1)}
    clean: list[str] = []
    position = 0
    while position < len(text):
        end = position
        while haystack[end : end + length] in pieces and end + length <= len(haystack):
            end += 1
        if end == position:
            clean.append(text[position])
            position += 1
        else:
            clean.append(MASK)
            position = end + length - 1
    return "".join(clean)


def error_message(answer: Any) -> str:
    """A provider's own words: all have them in `error.message`; some gateways in front of them, in `error`."""
    error = answer.get("error") if isinstance(answer, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return message if isinstance(message, str) else ""
