"""HTTP requests to other gateways."""

from __future__ import annotations

import asyncio
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

import httpx

_MAX_CHUNK = 64 * 1024
# Characters that a path has unencoded.
_PATH = "/%:@!$&'()*+,;="


class NoResponse(Exception):
    """Raised for no answer in time, or one that can't be used; the text says which, and names no address."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: httpx.Headers = field(repr=False)
    body: bytes = field(repr=False)


class PeerClient:
    """No connection is kept open."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._client: httpx.AsyncClient | None = None

    async def ask(
        self,
        method: str,
        root: str,
        path: str,
        query: bytes = b"",
        *,
        headers: Mapping[str, str] | Sequence[tuple[str, str]],
        seconds: float,
        body: bytes = b"",
    ) -> Answer:
        """The answer of `root` (http(s)://host[:port][/prefix]) to `path`; raises NoResponse."""
        address = root + quote(path, safe=_PATH) + ("?" + quote(query, safe=string.punctuation) if query else "")
        try:
            async with (
                asyncio.timeout(seconds),
                self._http().stream(method, address, headers=headers, content=body or None) as response,
            ):
                return Answer(response.status_code, response.headers, await self._body(response))
        except TimeoutError:
            raise NoResponse(f"no answer within {seconds:g} seconds") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise NoResponse(type(error).__name__) from error

    async def _body(self, response: httpx.Response) -> bytes:
        """As it was sent: nothing asks for compression."""
        body = bytearray()
        async for chunk in response.aiter_raw(_MAX_CHUNK):
            body += chunk
            if len(body) > self._max_bytes:
                raise NoResponse(f"an answer of more than {self._max_bytes} bytes")
        return bytes(body)

    def _http(self) -> httpx.AsyncClient:
        # Created by the first request, since it reads certificates from the disk.
        if self._client is None:
            self._client = httpx.AsyncClient(
                trust_env=False,
                timeout=None,  # noqa: S113 - the bound is on the whole call
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
                headers={"Accept-Encoding": "identity"},
            )
        return self._client

    async def aclose(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()
