"""/healthz, /readyz and /metrics: for probes and scrapers, without a key."""

from __future__ import annotations

import asyncio
import contextlib

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from gateway.core.errors import Unavailable
from gateway.http.services import Services
from gateway.store import schema
from gateway.telemetry import metrics

_CHECK_SECONDS = 3.0


async def healthz(request: Request) -> Response:
    """The process answers. Says nothing of what it depends on, so that a lost database restarts no gateway."""
    return PlainTextResponse("ok\n")


async def readyz(request: Request) -> Response:
    """Whether new work should come here: 200, or 503 with what is missing."""
    services: Services = request.app.state.services
    checks: dict[str, dict[str, object]] = {
        "database": {"ok": False},
        "migrations": {"ok": False},
    }
    with contextlib.suppress(Unavailable, TimeoutError):
        async with asyncio.timeout(_CHECK_SECONDS):
            state = await schema.state(services.database)
            checks["database"]["ok"] = True
            checks["migrations"] = {"ok": not state.behind, "current": state.current, "needed": state.head}
    capacity = services.runtimes.capacity
    checks["capacity"] = {
        "ok": capacity.free > 0,
        "live": capacity.live,
        "starting": capacity.starting,
        "limit": capacity.max_live,
    }
    checks["draining"] = {"ok": not services.runtimes.draining}
    checks["sandbox"] = {"ok": True, "on": not services.settings.unsafe_no_sandbox}
    ready = all(check["ok"] for check in checks.values())
    return JSONResponse({"ready": ready, "checks": checks}, status_code=200 if ready else 503)


async def metrics_page(request: Request) -> Response:
    return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)


ROUTES = [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics_page)]
