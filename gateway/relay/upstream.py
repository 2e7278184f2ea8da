"""Requests to a provider, with further attempts where it is busy or does not answer."""

from __future__ import annotations

import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.request import getproxies, proxy_bypass

import httpcore
import httpx

from gateway.core.ai_providers import PROTOCOLS, ProviderName
from gateway.core.hosts import Refusal
from gateway.egress.dialer import Unreachable
from gateway.egress.outbound import Outbound
from gateway.egress.resolver import NameNotFound
from gateway.relay.refusals import Refused

Pause = Callable[[float], Awaitable[None]]

_RETRIED = frozenset((429, 500, 502, 503, 504, 529))
# Without a word of the provider: doubled with each further attempt.
_FIRST_WAIT_SECONDS = 0.5
# So that agents that were refused together do not come back together.
_JITTER = 0.25
NO_ANSWER = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.TimeoutException,
    Unreachable,
)
_CONNECTIONS_KEPT_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Target:
    """The model that an agent may call, and where. `guarded`: the base URL is a caller's, under the egress rules."""

    provider: ProviderName
    model: str
    base_url: str
    guarded: bool = False

    @property
    def title(self) -> str:
        return PROTOCOLS[self.provider].title


class ProviderAnswer:
    """An answer whose body is still to be read. Names of `headers` are in lower case; `raw_headers` are as they came,
    but for that."""

    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer
        self.status = answer.status
        self.raw_headers = [(name.lower(), value) for name, value in answer.headers]
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in self.raw_headers}

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises NO_ANSWER."""
        return self._answer.aiter_stream()

    async def aclose(self) -> None:
        await self._answer.aclose()


class Upstream:
    """The provider of one agent. Its connections are no other's."""

    def __init__(
        self,
        target: Target,
        outbound: Outbound,
        tls: ssl.SSLContext,
        connections: int,
        retries: int,
        longest_wait: float,
        pause: Pause,
    ) -> None:
        self._target = target
        self._retries = retries
        self._longest_wait = longest_wait
        self._pause = pause
        self._base_url = httpx.URL(target.base_url)
        # Of a whole call the caller has the bound.
        self._pool = (
            outbound.pool(connections, tls, _CONNECTIONS_KEPT_SECONDS)
            if target.guarded
            else httpcore.AsyncConnectionPool(
                ssl_context=tls,
                proxy=_operators_proxy(self._base_url),
                max_connections=connections,
                keepalive_expiry=_CONNECTIONS_KEPT_SECONDS,
            )
        )

    async def aclose(self) -> None:
        await self._pool.aclose()

    async def send(self, path: str, headers: Mapping[str, str], body: bytes) -> ProviderAnswer:
        """The head of the answer; the caller reads and closes it. Raises Refused where there is none."""
        attempt = 0
        while True:
            answer, why = await self._attempt(path, headers, body)
            wait = self._wait_before(attempt + 1, answer)
            if wait is None:
                if answer is None:
                    raise Refused(502, "relay.provider_unreachable", f"{self._target.title} can't be reached{why}.")
                return answer
            if answer is not None:
                await answer.aclose()
            await self._pause(wait)
            attempt += 1

    async def _attempt(self, path: str, headers: Mapping[str, str], body: bytes) -> tuple[ProviderAnswer | None, str]:
        """The answer, or None and why there is none. Raises Refused where another attempt would not help."""
        title = self._target.title
        try:
            return ProviderAnswer(await self._pool.handle_async_request(self._request(path, headers, body))), ""
        except Refusal as error:
            raise Refused(403, error.rule, f"{title} may not be reached. {error.message}") from None
        except NameNotFound:
            return None, ": its name can't be resolved"
        except NO_ANSWER as error:
            # Without its text, which may quote what the server sent.
            return None, f" ({type(error).__name__})"

    def _request(self, path: str, headers: Mapping[str, str], body: bytes) -> httpcore.Request:
        base = self._base_url
        url = httpcore.URL(
            scheme=base.raw_scheme,
            host=base.raw_host,
            port=base.port,
            target=base.raw_path.rstrip(b"/") + path.encode("ascii"),
        )
        own = {"Host": base.netloc.decode(), "Connection": "keep-alive", "Content-Length": str(len(body))}
        return httpcore.Request("POST", url, headers=[*(own | dict(headers)).items()], content=body)

    def _wait_before(self, attempt: int, answer: ProviderAnswer | None) -> float | None:
        """Seconds before a further attempt, the first of which is 1; None if there is none."""
        if attempt > self._retries:
            return None
        asked: float | None = None
        if answer is not None:
            if answer.status not in _RETRIED or answer.headers.get("x-should-retry") == "false":
                return None
            asked = retry_after(answer.headers)
        if asked is None:
            asked = min(_FIRST_WAIT_SECONDS * 2 ** (attempt - 1), self._longest_wait)
        return asked * (1 + random.random() * _JITTER) if asked <= self._longest_wait else None  # noqa: S311


def _operators_proxy(url: httpx.URL) -> httpcore.Proxy | None:
    """The proxy for an address of the operator's, from HTTPS_PROXY and the like; NO_PROXY lists exceptions."""
    proxies = getproxies()
    address = proxies.get(url.scheme) or proxies.get("all")
    if address is None or proxy_bypass(url.host):
        return None
    proxy = httpx.Proxy(address if "://" in address else f"http://{address}")
    return httpcore.Proxy(str(proxy.url), proxy.raw_auth)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a provider asks to wait, as a number, a date, or OpenAI's milliseconds; None for none of these."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name, "")
        if text.isascii() and text.replace(".", "", 1).isdigit() and len(text) < 20:
            return float(text) * unit
    try:
        until = parsedate_to_datetime(headers.get("retry-after", ""))
    except ValueError:
        return None
    if until.tzinfo is None:
        return None
    return max(0.0, (until - datetime.now(UTC)).total_seconds())
