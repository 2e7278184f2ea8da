"""Whether a provider takes a key: found out by asking it for its list of models, which costs nothing."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final

import httpx

from gateway.core.ai_providers import COMPATIBLE, PROTOCOLS, ProviderName, error_message, unsendable, without_key
from gateway.core.hosts import Refusal
from gateway.egress.outbound import Outbound
from gateway.egress.resolver import NameNotFound

MAX_BODY_BYTES = 1024 * 1024
MAX_QUOTE_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a test. `message` is a sentence for people, which never contains the key."""

    ok: bool
    message: str


# Where a provider's answer lists the models.
_MODELS: Final[Mapping[ProviderName, str]] = {
    "openai": "data",
    "anthropic": "data",
    "google": "models",
    COMPATIBLE: "data",
}


class ProviderClient:
    """Tests keys, over one HTTP client for all of them. Base addresses have no slash at the end.

    Those are the operator's. An address that a caller gave is requested through `outbound`, under the egress rules.
    """

    def __init__(
        self,
        openai_base_url: str,
        anthropic_base_url: str,
        google_base_url: str,
        timeout_seconds: float,
        outbound: Outbound,
    ) -> None:
        self._base_urls: dict[ProviderName, str] = {
            "openai": openai_base_url,
            "anthropic": anthropic_base_url,
            "google": google_base_url,
        }
        self._timeout_seconds = timeout_seconds
        self._outbound = outbound
        self._client: httpx.AsyncClient | None = None

    async def aclose(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def check(self, provider: ProviderName, api_key: str, base_url: str | None = None) -> Verdict:
        """Ask the provider. Whatever it does is a verdict, not an exception, and comes within the timeout.

        `base_url`: a caller's, of an `openai-compatible` one.
        """
        protocol = PROTOCOLS[provider]
        if (reason := unsendable(api_key)) is not None:
            return Verdict(False, reason)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                status, body = await self._list_models(provider, api_key, base_url)
        except TimeoutError:
            return Verdict(False, f"{protocol.title} did not answer within {self._timeout_seconds:g} seconds.")
        except Refusal as error:
            return Verdict(False, f"{protocol.title} may not be reached. {error.message}")
        except NameNotFound:
            return Verdict(False, f"{protocol.title} could not be reached: its name can't be resolved.")
        except Exception as error:
            # Not httpx's own errors alone: a wrong address or proxy raises others, and so does its network library.
            return Verdict(False, f"{protocol.title} could not be reached{quote(_words(error), api_key)}")
        if body is None:
            return Verdict(
                False,
                f"{protocol.title} answered {status} with more than {MAX_BODY_BYTES} bytes, which is not a model list.",
            )
        return _judge(provider, status, body, api_key)

    async def _list_models(
        self, provider: ProviderName, api_key: str, base_url: str | None
    ) -> tuple[int, bytes | None]:
        """Status and body; None for a body that is too large."""
        headers = PROTOCOLS[provider].headers_with(api_key)
        if base_url is not None:
            found = await self._outbound.get(f"{base_url.rstrip('/')}/models", headers, MAX_BODY_BYTES)
            return found.status, found.body
        body = bytearray()
        async with self._http().stream("GET", f"{self._base_urls[provider]}/models", headers=headers) as response:
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    return response.status_code, None
            return response.status_code, bytes(body)

    def _http(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = httpx.AsyncClient(
                # A compressed body could grow past every bound, so none is asked for and none is unpacked.
                headers={"Accept": "application/json", "Accept-Encoding": "identity"},
                # Cookies that a provider sets in one tenant's call must not be sent with another's.
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
                follow_redirects=False,
                timeout=None,  # noqa: S113 - the bound is on the whole call, in `check`
            )
        return self._client


def _judge(provider: ProviderName, status: int, body: bytes, api_key: str) -> Verdict:
    protocol = PROTOCOLS[provider]
    answer = _json(body)
    if status != 200:
        reason = f"{protocol.title} {_refusal(status, answer)}"
        return Verdict(False, reason + quote(error_message(answer), api_key))
    models = _field(answer, _MODELS[provider])
    if not isinstance(models, list):
        return Verdict(False, f"{protocol.title} answered 200, but not with a list of models; is its address right?")
    listed = "1 model" if len(models) == 1 else f"{len(models)} models"
    return Verdict(True, f"{protocol.title} accepted the key and listed {listed}.")


def _refusal(status: int, answer: Any) -> str:
    if status in (401, 403) or _is_google_refusal(answer):
        return f"refused the key ({status})"
    if status == 429:
        return "has no room for this key right now (429), for too many requests or no quota left"
    if 300 <= status < 400:
        return f"sent a redirect ({status}), which is not followed; its address may be wrong"
    if status >= 500:
        return f"failed by itself ({status}) and did not judge the key"
    return f"did not answer as it should ({status}); its address may be wrong"


def _is_google_refusal(answer: Any) -> bool:
    """Google answers 400 to a wrong key, with the reason in the details."""
    details = _field(_field(answer, "error"), "details")
    return isinstance(details, list) and any(_field(detail, "reason") == "API_KEY_INVALID" for detail in details)


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _json(body: bytes) -> Any:
    """The parsed body, or None for what is not JSON or too deep to be read."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _words(error: Exception) -> str:
    """An exception's text, or that of the cause, where httpx has only a general one. Without the address."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConnectionError) and cause.errno is not None:
            return os.strerror(cause.errno)
        if isinstance(cause, ssl.SSLError | socket.gaierror):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    return str(error) or type(error).__name__


def quote(text: str, api_key: str) -> str:
    """The end of a sentence: `: <text>` when there is one, on one line, short, and without the key."""
    printable = "".join(letter if letter.isprintable() else " " for letter in text[: 10 * MAX_QUOTE_LENGTH])
    clean = without_key(" ".join(printable.split()), api_key)
    if len(clean) > MAX_QUOTE_LENGTH:
        clean = clean[: MAX_QUOTE_LENGTH - 1].rstrip() + "…"
    return f": {clean}" if clean else "."
