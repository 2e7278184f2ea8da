"""The header `Prefer` (RFC 7240), of which `wait` is served, for how many seconds a client is willing to wait, and
`respond-async`."""

from __future__ import annotations

from collections.abc import Iterable

APPLIED = "Preference-Applied"
# What of a request is not done as asked, in a sentence, though the request succeeded.
WARNING = "Gateway-Warning"

# More digits are more than any gateway waits.
_MAX_DIGITS = 9


def wait_seconds(headers: Iterable[str]) -> int | None:
    """The preference `wait` of a request's `Prefer` headers: the first one counts, and a malformed one is ignored."""
    for preference in ",".join(headers).split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "wait":
            digits = value.strip().removeprefix('"').removesuffix('"')
            return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) <= _MAX_DIGITS else None
    return None


def responds_async(headers: Iterable[str]) -> bool:
    """Whether `respond-async` is among the preferences."""
    return any(
        preference.partition(";")[0].strip().lower() == "respond-async" for preference in ",".join(headers).split(",")
    )
