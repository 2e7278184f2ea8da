"""What tools ask for below a lease's root to find their way: `/json/version`, `/json/list` and their like.

The browser's own HTTP endpoint answers (https://chromedevtools.github.io/devtools-protocol/#endpoints); every address
in its answer becomes the one under which the client reaches it, through this gateway and with the same lease.
"""

from __future__ import annotations

import json
import re
from urllib.parse import quote, urlsplit

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.api.addresses import websocket_root
from gateway.api.inside import Answer, NotAnswered
from gateway.api.origin import check_origin
from gateway.api.services import Services
from gateway.errors import NotFound, Unavailable

_log = structlog.get_logger("gateway.discovery")

ROOT = "/v1/connect/{token}"

# An answer holds the lease's token, and what a page calls itself.
_HEADERS = {
    "Content-Type": "application/json; charset=UTF-8",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
_TARGET_ID = re.compile(r"[A-Za-z0-9-]{1,64}")


async def discover(request: Request) -> Response:
    """The browser's answer, for the path below the lease's root."""
    services: Services = request.app.state.services
    check_origin(request, services.settings)
    # First, so that a host that is not trusted is told before anything is done in the browser.
    root = websocket_root(request, services.settings)
    token = request.path_params["token"]
    path = _path(request)
    async with services.leases.visit(token) as grant:
        authority = urlsplit(grant.devtools_url).netloc
        answer = await _ask(services, request, authority, path)
    return Response(
        readdressed(answer.body, authority, f"{root}/v1/connect/{token}"), headers=_HEADERS, media_type=None
    )


async def _ask(services: Services, request: Request, authority: str, path: str) -> Answer:
    """The browser's answer, 200; raises NotFound (no such target) and Unavailable."""
    seconds = services.settings.attach_timeout_seconds
    method = "GET" if request.method == "HEAD" else request.method
    query: bytes = request.scope["query_string"]
    # A browser answers to its own address only, against pages that make another name lead to it.
    headers = {"Host": f"127.0.0.1:{authority.rpartition(':')[2]}"}
    try:
        answer = await services.inside.ask(method, f"http://{authority}", path, query, headers=headers, seconds=seconds)
    except NotAnswered as error:
        _log.warning("a browser's endpoint did not answer", cause=str(error))
        raise Unavailable(
            f"The browser of this lease can't be reached: {error}.", "browser.unreachable", retry_after=1
        ) from error
    if answer.status == 404:
        raise NotFound("The browser has no such target; /json/list has those that it has.", "target.not_found")
    if answer.status != 200:
        raise Unavailable(
            f"The browser of this lease refused with status {answer.status}.", "browser.unreachable", retry_after=1
        )
    return answer


def _path(request: Request) -> str:
    """The path as the browser has it: that of the route, without a slash at its end."""
    path: str = request.scope["route"].path.removeprefix(ROOT).rstrip("/")
    target = request.path_params.get("target")
    if target is None:
        return path
    if not _TARGET_ID.fullmatch(target):
        raise NotFound("This is no id of a target; /json/list has them.", "target.not_found")
    return path.replace("{target}", target)


def readdressed(body: bytes, authority: str, root: str) -> bytes:
    """A browser's answer with the websockets of `authority` under `root` (ws(s)://...), and that nowhere else.

    Addresses are found as text: an answer may be large, and what is no address can't look like one but for a page that
    has the browser's address in its own address or title.
    """
    scheme, _, place = root.partition("://")
    port = authority.rpartition(":")[2]
    own = rb"(?:" + b"|".join(re.escape(name) for name in _names(authority, port)) + rb")(?!\d)"
    told = {b"://": json.dumps(place)[1:-1].encode(), b"=": quote(place, safe="/:[]").encode()}
    websockets = re.compile(rb"\bws(=|://)" + own + rb"(?=/devtools/)")
    body = websockets.sub(lambda match: scheme.encode() + match[1] + told[match[1]], body)
    return re.sub(own, b"browser.invalid", body)


def _names(authority: str, port: str) -> set[bytes]:
    """The ways to write a browser's address."""
    return {authority.encode(), *(f"{host}:{port}".encode() for host in ("127.0.0.1", "localhost", "[::1]"))}


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
