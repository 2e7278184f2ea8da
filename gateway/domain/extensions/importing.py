"""Getting the package of an extension from an address that a caller gave, under the rules that hold for pages."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import httpcore
import httpx

from gateway.core.errors import RequestInvalid, invalid_field
from gateway.core.hosts import Refusal
from gateway.egress.dialer import Unreachable
from gateway.egress.outbound import Outbound, Streaming
from gateway.egress.resolver import NameNotFound

_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_HEADERS = {"Accept": "*/*"}
_SCHEMES = ("http", "https")


def checked_address(url: str) -> httpx.URL:
    """Raises RequestInvalid for what is no address of a package."""
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        raise invalid_field("url", "must be an address such as https://example.com/extension.crx") from None
    if parsed.scheme not in _SCHEMES or not parsed.host:
        raise invalid_field("url", "must be an http or https address")
    if parsed.userinfo:
        raise invalid_field("url", "must have no user and no password; give an address that needs none")
    return parsed.copy_with(fragment=None)


def shown_address(url: httpx.URL) -> str:
    """The address as it is stored and shown. A query may be a signature, which opens what it is for."""
    return str(url.copy_with(query=None, fragment=None))


def import_failed(message: str) -> RequestInvalid:
    return RequestInvalid(f"The extension can't be imported: {message}.", "browser_extension.import_failed")


class Imports:
    """Each address, also one of a redirect, is checked by the rules of `outbound`; `redirects` is how many are
    followed, `seconds` how long all of it may take."""

    def __init__(self, outbound: Outbound, redirects: int, seconds: float) -> None:
        self._outbound = outbound
        self._redirects = redirects
        self._seconds = seconds

    @contextlib.asynccontextmanager
    async def opened(self, url: httpx.URL) -> AsyncIterator[AsyncIterator[bytes]]:
        """The bytes of what is at an address. Raises RequestInvalid (import_failed, or a rule of egress), also for
        errors of the connection in the block."""
        try:
            async with asyncio.timeout(self._seconds) as within, contextlib.AsyncExitStack() as stack:
                response = await self._final(stack, url)
                yield response.chunks
        except TimeoutError:
            if not within.expired():
                raise
            raise import_failed(f"it took more than {self._seconds:g} seconds") from None
        except Refusal as error:
            reason = error.message.removesuffix(".")
            message = f"The egress rules of this gateway do not allow it ({reason}); its operator may"
            raise invalid_field("url", message, code=error.rule) from error
        except NameNotFound:
            raise import_failed("the name of its server can't be resolved") from None
        except Unreachable as error:
            raise import_failed(str(error).removesuffix(".")) from None
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol):
            raise import_failed("its server ended the connection, or did not answer as a web server") from None

    async def _final(self, stack: contextlib.AsyncExitStack, url: httpx.URL) -> Streaming:
        """The response after all redirects."""
        for _ in range(self._redirects + 1):
            hop = contextlib.AsyncExitStack()
            response = await hop.enter_async_context(self._outbound.stream(str(url), _HEADERS))
            if response.status not in _REDIRECTS:
                stack.push_async_exit(hop)
                if response.status != 200:
                    raise import_failed(f"its server answered with the status {response.status}")
                return response
            await hop.aclose()
            url = _redirected(url, response.headers.get("location", ""))
        raise import_failed(f"its server redirected more than {self._redirects} times")


def _redirected(url: httpx.URL, location: str) -> httpx.URL:
    try:
        target = url.join(location)
    except (httpx.InvalidURL, ValueError):
        raise import_failed("its server redirected to what is no address") from None
    if target.scheme not in _SCHEMES or not target.host or target.userinfo:
        raise import_failed("its server redirected to an address that is not one of http or https without a user")
    if url.scheme == "https" and target.scheme == "http":
        raise import_failed("its server redirected from https to http")
    return target.copy_with(fragment=None)
