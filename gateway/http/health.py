"""/healthz, /readyz and /metrics: for probes and scrapers, without a key."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from gateway.http.services import Services
from gateway.telemetry import metrics


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
    return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)


ROUTES = [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics_page)]
