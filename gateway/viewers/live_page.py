"""The page of a live view, whose address alone is the credential.

/v1/viewers/live/{token}               the page
/v1/viewers/live/{token}/socket        its websocket (live_socket.py)
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from gateway.core.errors import Gone
from gateway.domain.viewers import Kind
from gateway.http.services import Services
from gateway.viewers.live_socket import LiveSocket
from gateway.viewers.pages import asset_text, error_page, page_headers, read_viewer


async def page(request: Request) -> Response:
    viewer = read_viewer(request, Kind.LIVE)
    if isinstance(viewer, Response):
        return viewer
    services: Services = request.app.state.services
    try:
        await services.viewers.place(viewer)
    except Gone:
        return error_page(
            services.settings,
            410,
            "This run has ended",
            "There is nothing to watch any more. Its recording may be kept.",
        )
    return HTMLResponse(asset_text("live.html"), headers=page_headers(services.settings))


ROUTES: list[BaseRoute] = [
    Route("/v1/viewers/live/{token}", page),
    WebSocketRoute("/v1/viewers/live/{token}/socket", LiveSocket()),
]
