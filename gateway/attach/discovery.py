"""Discovery below a lease's root: `/json/version`, `/json/list` and the like.

The browser's own HTTP endpoints answer (https://chromedevtools.github.io/devtools-protocol/#endpoints). Each websocket
address in an answer is replaced with the one by which the client reaches it: at this gateway, with the same lease.
"""

from __future__ import annotations

import asyncio
import re
import string
from urllib.parse import quote, unquote_to_bytes, urlsplit

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.attach.readdressing import moved, readdressed
from gateway.core.allowed_urls import ALLOWED_IN_WORDS, refused_address
from gateway.core.errors import Forbidden, NotFound, Unavailable, host_unavailable
from gateway.domain.leases.service import Grant
from gateway.http.forwarding import forward, is_forwarded, is_from_gateway
from gateway.http.origin import check_origin
from gateway.http.peers import NoResponse
from gateway.http.public_url import client_address, websocket_root
from gateway.http.services import Services
from gateway.settings import Settings
from gateway.websocket.browser_http import BadAnswer, BrowserAnswer, ask_browser

_log = structlog.get_logger("gateway.discovery")

ROOT = "/v1/connect/{token}"

_HEADERS = {"Content-Type": "application/json; charset=UTF-8"}
_HOP_ROOT = "ws://gateway.invalid"
_TARGET_ID = re.compile(r"[A-Za-z0-9-]{1,64}")


async def discover(request: Request) -> Response:
    """The browser's answer, for the path below the lease's root.

    A gateway that gets a forwarded request does not know the root that the client uses, and could not trust a header
    that names it. So it answers with `_HOP_ROOT`, which the forwarding gateway replaces with its own root.
    """
    services: Services = request.app.state.services
    check_origin(request, services.settings)
    # First, so that an untrusted host is refused before anything happens in the browser.
    root = _HOP_ROOT if is_from_gateway(request) else websocket_root(request, services.settings)
    token = request.path_params["token"]
    path = _path(request)
    with services.rate_limits.checking(client_address(request)):
        async with (
            services.leases.visit(token, forwarded=is_forwarded(request)) as grant,
            # Its pages decide how large an answer is.
            services.discoveries.of(grant.lease_id),
        ):
            if grant.devtools_url is None:
                return await _elsewhere(request, services, grant, root)
            authority = urlsplit(grant.devtools_url).netloc
            answer = await _ask(services.settings, request, grant, path)
            async with services.rewriting.turn(grant.taker):
                body = await readdressed(answer.body, authority, f"{root}/v1/connect/{token}")
    return Response(body, headers=_HEADERS)


async def _elsewhere(request: Request, services: Services, grant: Grant, root: str) -> Response:
    """The answer of the gateway that has the browser."""
    assert grant.host_url is not None
    try:
        response = await forward(request, services, grant.host_url, seconds=services.settings.attach_timeout_seconds)
    except NoResponse as error:
        raise host_unavailable("lease", error) from error
    if response.status_code != 200:
        return response
    async with services.rewriting.turn(grant.taker):
        return Response(await moved(bytes(response.body), urlsplit(_HOP_ROOT).netloc.encode(), root), headers=_HEADERS)


async def _ask(settings: Settings, request: Request, grant: Grant, path: str) -> BrowserAnswer:
    """The browser's answer, 200; raises NotFound (no such target) and Unavailable."""
    seconds = settings.attach_timeout_seconds
    assert grant.devtools_url is not None
    assert grant.connect is not None
    authority = urlsplit(grant.devtools_url).netloc
    method = "GET" if request.method == "HEAD" else request.method
    query = new_target(request.scope["query_string"]) if path == "/json/new" else request.scope["query_string"]
    target = path + ("?" + quote(query, safe=string.punctuation) if query else "")
    try:
        async with asyncio.timeout(seconds):
            answer = await ask_browser(method, authority, target, settings.max_discovery_bytes, grant.connect)
    except TimeoutError:
        raise _unreachable(f"no answer within {seconds:g} seconds") from None
    except (OSError, BadAnswer) as error:
        raise _unreachable(type(error).__name__ if isinstance(error, OSError) else str(error)) from error
    if answer.status == 404:
        raise NotFound("The browser has no such target; /json/list has those that it has.", "target.not_found")
    if answer.status != 200:
        raise Unavailable(
            f"The browser of this lease refused with status {answer.status}.", "browser.unreachable", retry_after=1
        )
    return answer


def _unreachable(cause: str) -> Unavailable:
    _log.warning("a browser's HTTP endpoint did not answer", cause=cause)
    return Unavailable(f"The browser of this lease can't be reached: {cause}.", "browser.unreachable", retry_after=1)


def new_target(query: bytes) -> bytes:
    """The query of `/json/new`, re-encoded as the browser parses it; raises Forbidden for a URL not allowed.

    The browser takes the first part that is not empty, unquoted, as the URL, and would open files, too. Of the other
    parts only `for_tab` has a meaning.
    """
    address, *options = [part for part in query.split(b"&") if part] or [b""]
    plain = unquote_to_bytes(address)
    refused = refused_address(plain.decode("utf-8", "replace"))
    if refused is not None:
        raise Forbidden(
            f"The query is {refused}, which a lease may not open; it may open {ALLOWED_IN_WORDS}.",
            "target.address_refused",
        )
    return quote(plain, safe="").encode() + (b"&for_tab" if b"for_tab" in options else b"")


def _path(request: Request) -> str:
    """The browser's path: that of the route, without a slash at the end."""
    path: str = request.scope["route"].path.removeprefix(ROOT).rstrip("/")
    target = request.path_params.get("target")
    if target is None:
        return path
    if not _TARGET_ID.fullmatch(target):
        raise NotFound("This is not the id of a target; /json/list has them.", "target.not_found")
    return path.replace("{target}", target)


def _routes() -> list[Route]:
    methods = {
        "/json": "GET",
        "/json/version": "GET",
        "/json/list": "GET",
        "/json/protocol": "GET",
        "/json/new": "PUT",
        "/json/activate/{target}": "GET",
        "/json/close/{target}": "GET",
    }
    return [
        Route(ROOT + path + slash, discover, methods=[method])
        for path, method in methods.items()
        for slash in ("", "/")
    ]


ROUTES = _routes()
