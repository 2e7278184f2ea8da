"""Base URLs that callers give: which providers have one, and whether the egress rules allow it."""

from __future__ import annotations

from urllib.parse import urlsplit

from gateway.core.ai_providers import COMPATIBLE
from gateway.core.errors import invalid_field
from gateway.core.hosts import Refusal
from gateway.egress.outbound import Outbound


def mismatch(provider: str, base_url: str | None) -> str | None:
    """What is wrong with a base URL, or its absence, for this provider."""
    if provider == COMPATIBLE:
        return f"{COMPATIBLE!r} needs a base URL" if base_url is None else None
    if base_url is None:
        return None
    return f"Only {COMPATIBLE!r} has a base URL; the address of {provider!r} is a setting of the gateway"


async def check_allowed(outbound: Outbound, base_url: str | None) -> None:
    """Raises RequestInvalid for what is not the base of an API, or is not allowed by the egress rules."""
    if base_url is None:
        return
    host, port = _host_and_port(base_url)
    try:
        await outbound.check(host, port)
    except Refusal as error:
        reason = error.message.removesuffix(".")
        message = f"The egress rules of this gateway do not allow it ({reason}); its operator may"
        raise invalid_field("base_url", message, base_url, code=error.rule) from error


def _host_and_port(base_url: str) -> tuple[str, int]:
    """Raises RequestInvalid for what is not the base of an API."""
    wrong = invalid_field("base_url", "This is not an address such as https://models.example/v1")
    try:
        parts = urlsplit(base_url)
        port = parts.port
    except ValueError:
        raise wrong from None
    is_plain = base_url.isascii() and base_url.isprintable() and " " not in base_url
    if not is_plain or parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise wrong
    # Also an empty query, which a path would be appended to.
    if "@" in parts.netloc or "?" in base_url or "#" in base_url or "\\" in base_url:
        raise invalid_field("base_url", "It may have a scheme, a host, a port and a path, and nothing else")
    return parts.hostname, port or (443 if parts.scheme == "https" else 80)
