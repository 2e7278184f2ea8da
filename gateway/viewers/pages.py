"""Common parts of the viewers' pages: headers, the check of the token, error pages and assets.

/v1/viewers/assets/{name}              styles and scripts of the pages

A page reveals its address to no other site (no referrer), is not stored, and loads nothing from elsewhere.
"""

from __future__ import annotations

import html
from functools import cache
from importlib import resources

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from gateway.core.errors import Gone, LimitReached, NotFound, Unauthorized
from gateway.domain.viewers import Kind, Viewer
from gateway.http.content import tagged
from gateway.http.public_url import client_address
from gateway.http.services import Services
from gateway.settings import Settings

_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


def page_headers(settings: Settings) -> dict[str, str]:
    """The headers of every page of a viewer, besides those of every answer (http/security_headers.py)."""
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; media-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; "
        f"frame-ancestors {' '.join(settings.viewer_frame_ancestors)}"
    )
    return {
        "Content-Security-Policy": policy,
        "Cross-Origin-Resource-Policy": "cross-origin",
    }


def read_viewer(request: Request, kind: Kind) -> Viewer | Response:
    """The viewer of a page's token, or an error page."""
    services: Services = request.app.state.services
    try:
        with services.rate_limits.checking(client_address(request)):
            return services.viewers.read(request.path_params["token"], kind)
    except Gone:
        return error_page(services.settings, 410, "This link has expired", "Ask the person who sent it for a new one.")
    except Unauthorized:
        return error_page(
            services.settings, 404, "Nothing is shown here", "The link is not whole, or not of this gateway."
        )
    except LimitReached as error:
        answer = error_page(services.settings, 429, "Too many attempts", "Try again in a moment.")
        answer.headers["Retry-After"] = str(error.retry_after)
        return answer


def error_page(settings: Settings, status: int, title: str, text: str) -> Response:
    """An error page, for people."""
    filled = asset_text("error.html").replace("{{title}}", html.escape(title)).replace("{{text}}", html.escape(text))
    return HTMLResponse(filled, status, page_headers(settings))


async def asset(request: Request) -> Response:
    """A style or a script. Browsers ask again each time, since a new version of the gateway may bring another one."""
    name = request.path_params["name"]
    if name not in _assets() or name.endswith(".html"):
        raise NotFound("There is nothing of this name.", "route.not_found")
    return tagged(request, asset_text(name).encode(), _TYPES[name.rpartition(".")[2]])


@cache
def asset_text(name: str) -> str:
    return resources.files("gateway.viewers").joinpath("static", name).read_text("utf-8")


@cache
def _assets() -> frozenset[str]:
    return frozenset(file.name for file in resources.files("gateway.viewers").joinpath("static").iterdir())


ROUTES: list[BaseRoute] = [Route("/v1/viewers/assets/{name}", asset)]
