"""/docs and /openapi.json. The page's assets come from a package, so that it works without the internet."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from gateway.core import extras
from gateway.core.errors import NotSupported, RequestInvalid
from gateway.http.endpoints import Endpoint
from gateway.http.openapi import document
from gateway.http.public_url import public_root

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Browser gateway API</title>
<link rel="stylesheet" href="docs/assets/swagger-ui.css">
<link rel="icon" href="docs/assets/favicon-32x32.png">
</head>
<body>
<div id="ui"></div>
<script src="docs/assets/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""

# The document has the Authorization header as a parameter too, as the contract does. The page would demand it beside
# what "Authorize" has taken, and then send only that.
_START = """function withoutHeader(response) {
  if (response.url.endsWith("/openapi.json")) {
    const told = JSON.parse(response.text);
    for (const path of Object.values(told.paths)) {
      for (const endpoint of Object.values(path)) {
        endpoint.parameters = endpoint.parameters.filter((parameter) => parameter.name !== "Authorization");
      }
    }
    response.text = JSON.stringify(told);
  }
  return response;
}

SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#ui",
  deepLinking: true,
  persistAuthorization: true,
  validatorUrl: null,
  responseInterceptor: withoutHeader,
});
"""

# The page asks nothing of other hosts; Swagger UI writes styles into the page.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'"
)


def routes(endpoints: list[Endpoint]) -> list[BaseRoute]:
    async def openapi(request: Request) -> Response:
        try:
            server = public_root(request, request.app.state.services.settings)
        except RequestInvalid:
            server = "/"
        return JSONResponse(document(endpoints, server))

    async def page(request: Request) -> Response:
        return HTMLResponse(_PAGE, headers={"Content-Security-Policy": _POLICY})

    async def start(request: Request) -> Response:
        return Response(_START, media_type="text/javascript")

    async def missing(request: Request) -> Response:
        raise NotSupported(
            f"{extras.DOCS.missing} {extras.DOCS.advice} /openapi.json works without.", "docs.not_installed"
        )

    if not extras.DOCS.installed:
        return [Route("/openapi.json", openapi), Route("/docs", missing)]
    from swagger_ui_bundle import swagger_ui_path

    return [
        Route("/openapi.json", openapi),
        Route("/docs", page),
        Route("/docs/start.js", start),
        Mount("/docs/assets", StaticFiles(directory=swagger_ui_path)),
    ]
