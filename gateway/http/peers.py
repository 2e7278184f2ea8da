"""HTTP to what is behind this gateway: the browsers' own endpoints, and other gateways."""

from __future__ import annotations

import asyncio
import string
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

import httpx

_LONGEST_CHUNK = 64 * 1024
# What a path has as it stands on the wire.
_PATH = "/%:@!$&'()*+,;="


class NotAnswered(Exception):
    """Raised when there is no answer in time, or none that fits; the text says which, and names no address."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: httpx.Headers
    body: bytes


class Inside:
    """One client for all of it. Nothing is kept open: a browser's port may be another browser's the next time."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._client: httpx.AsyncClient | None = None

    async def ask(
        self,
        method: str,
        root: str,
        path: str,
        query: bytes = b"",
        *,
        headers: Mapping[str, str],
        seconds: float,
        body: bytes = b"",
    ) -> Answer:
        """The answer of `root` (http(s)://host[:port][/prefix]) to `path`; raises NotAnswered."""
        address = root + quote(path, safe=_PATH) + ("?" + quote(query, safe=string.punctuation) if query else "")
        try:
            async with (
                asyncio.timeout(seconds),
                self._http().stream(method, address, headers=headers, content=body or None) as response,
            ):
                return Answer(response.status_code, response.headers, await self._body(response))
        except TimeoutError:
            raise NotAnswered(f"no answer within {seconds:g} seconds") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise NotAnswered(type(error).__name__) from error

    async def _body(self, response: httpx.Response) -> bytes:
        """As it was sent: nothing asks for compression."""
        body = bytearray()
        async for chunk in response.aiter_raw(_LONGEST_CHUNK):
            body += chunk
            if len(body) > self._most_bytes:
                raise NotAnswered(f"an answer of more than {self._most_bytes} bytes")
        return bytes(body)

    def _http(self) -> httpx.AsyncClient:
        # Made when it is wanted: it reads certificates from the disk.
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
