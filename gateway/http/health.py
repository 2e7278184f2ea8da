"""/healthz, /readyz and /metrics: for probes and scrapers, without a key."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.http.security_headers import completed
from gateway.http.services import Services
from gateway.telemetry.exposition import MetricsPage, own_metrics


async def healthz(request: Request) -> Response:
    """The process answers, whatever it depends on: a lost database must not make a probe restart the gateway."""
    return PlainTextResponse("ok\n")


async def readyz(request: Request) -> Response:
    """Whether new work should come here: 200, or 503 with what is missing."""
    services: Services = request.app.state.services
    checks = await services.readiness.checks()
    ready = all(check["ok"] for check in checks.values())
    return JSONResponse({"ready": ready, "checks": checks}, status_code=200 if ready else 503)


async def metrics_page(request: Request) -> Response:
    services: Services = request.app.state.services
    return Response(await services.metrics_page(), media_type=CONTENT_TYPE_LATEST)


def routes(*, with_metrics: bool) -> list[Route]:
    probes = [Route("/healthz", healthz), Route("/readyz", readyz)]
    return [*probes, Route("/metrics", metrics_page)] if with_metrics else probes


class MetricsApp:
    """Serves /metrics and nothing else, for an address of its own."""

    def __init__(self, page: MetricsPage = own_metrics) -> None:
        async def answer(request: Request) -> Response:
            return Response(await page(), media_type=CONTENT_TYPE_LATEST)

        self._app: ASGIApp = Starlette(routes=[Route("/metrics", answer)])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def framed_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = completed(message["headers"])
            await send(message)

        await self._app(scope, receive, framed_send)
