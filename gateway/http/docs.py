"""/docs and /openapi.json, of each contract. The page's assets come from a package: it works without the internet."""

from __future__ import annotations

import asyncio
import json

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from gateway.core import extras
from gateway.core.errors import NotSupported, RequestInvalid, invalid_field
from gateway.http.content import tagged
from gateway.http.dispatch import Contracts
from gateway.http.openapi import Parts, document
from gateway.http.public_url import public_root

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Browser gateway API</title>
<link rel="stylesheet" href="docs/assets/swagger-ui.css">
<style>[aria-current] { font-weight: bold; text-decoration: none; color: inherit }</style>
<link rel="icon" href="docs/assets/favicon-32x32.png">
</head>
<body>
<nav aria-label="Generations of the API">Generation: {links}</nav>
<div id="ui"></div>
<script src="docs/assets/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""

# "Authorize" puts "Bearer" before what it is given, and people paste it with the key as every sample has it.
_START = """const contract = new URLSearchParams(location.search).get("contract");

function prepared(request) {
  if (contract !== null) request.headers["Gateway-Contract"] = contract;
  const given = request.headers.Authorization;
  if (given !== undefined) request.headers.Authorization = given.trim().replace(/^(Bearer\\s+)+/i, "Bearer ");
  return request;
}

// Swagger UI has dark colors for this class, and sets it only where its top bar is shown.
const dark = matchMedia("(prefers-color-scheme: dark)");
const recolor = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", recolor);
recolor();

for (const link of document.querySelectorAll("nav a")) {
  if (new URL(link.href).searchParams.get("contract") === contract) link.setAttribute("aria-current", "page");
}

SwaggerUIBundle({
  url: "openapi.json" + (contract === null ? "" : "?contract=" + encodeURIComponent(contract)),
  dom_id: "#ui",
  deepLinking: true,
  // To draw all operations and schemas at once takes a browser seconds.
  docExpansion: "none",
  defaultModelsExpandDepth: 0,
  persistAuthorization: true,
  validatorUrl: null,
  requestInterceptor: prepared,
});
"""

# The page asks nothing of other hosts; Swagger UI writes styles into the page.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


# In the place of the server's address while the document is one text.
_SERVER = "\0server\0"


class Document:
    """An OpenAPI document, written at its first request; only the server's address differs between requests."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._around_server: tuple[str, str] | None = None

    async def response(self, request: Request, server: str) -> Response:
        if self._around_server is None:
            # Most gateways are never asked for it, and writing all of them is a tenth of a start.
            self._around_server = await asyncio.to_thread(self._write)
        before, after = self._around_server
        return tagged(request, f"{before}{json.dumps(server)}{after}".encode(), "application/json")

    def _write(self) -> tuple[str, str]:
        text = json.dumps(document(self._parts, _SERVER), ensure_ascii=False, separators=(",", ":"))
        before, after = text.split(json.dumps(_SERVER))
        return before, after


def routes(contracts: Contracts) -> list[BaseRoute]:
    """`/openapi.json` has what is served to a client that claims no contract; `?contract=` has a contract's own."""
    unclaimed = Document(contracts.unclaimed())
    documents = {contract.name: Document([(contract, contract.endpoints)]) for contract in contracts.served}
    places = {"all": "docs", **{name: f"docs?contract={name}" for name in documents}}
    links = " ".join(f'<a href="{place}">{name}</a>' for name, place in places.items())
    page = _PAGE.replace("{links}", links)

    async def openapi(request: Request) -> Response:
        name = request.query_params.get("contract")
        if name is not None and name not in documents:
            raise invalid_field("contract", f"There is no such contract; there are {', '.join(documents)}", name)
        try:
            server = public_root(request, request.app.state.services.settings)
        except RequestInvalid:
            server = "/"
        chosen = unclaimed if name is None else documents[name]
        return await chosen.response(request, server)

    async def docs(request: Request) -> Response:
        return tagged(request, page.encode(), "text/html", {"Content-Security-Policy": _POLICY})

    async def start(request: Request) -> Response:
        return tagged(request, _START.encode(), "text/javascript")

    async def missing(request: Request) -> Response:
        raise NotSupported(
            f"{extras.DOCS.missing} {extras.DOCS.advice} /openapi.json works without.", "docs.not_installed"
        )

    if not extras.DOCS.installed:
        return [Route("/openapi.json", openapi), Route("/docs", missing)]
    from swagger_ui_bundle import swagger_ui_path

    return [
        Route("/openapi.json", openapi),
        Route("/docs", docs),
        Route("/docs/start.js", start),
        Mount("/docs/assets", StaticFiles(directory=swagger_ui_path)),
    ]
