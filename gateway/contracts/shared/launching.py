"""Launching and stopping a runtime: here, or by the gateway that is to have, or has, its browser."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any
from uuid import UUID

import structlog
from starlette.responses import Response

from gateway.core.errors import HostedElsewhere, host_unavailable
from gateway.core.runtime_ref import RuntimeRef
from gateway.domain.runtimes.service import Runtime, RuntimeRequest
from gateway.http.endpoints import Call
from gateway.http.forwarding import forward, is_forwarded
from gateway.http.idempotency import idempotency_key
from gateway.http.models import Headers, optional
from gateway.http.peers import NoResponse
from gateway.http.preferences import APPLIED, WARNING, wait_seconds
from gateway.http.sse import until_disconnect

_log = structlog.get_logger("gateway.api")

# As long as a stop may take on the gateway that has the browser.
_HOST_SECONDS = 15.0


class Preferences(Headers):
    """Preferences of RFC 7240."""

    prefer: str = optional()
    """`wait=N`: wait up to N seconds for a turn where too many runtimes are starting. Others are ignored."""


async def launched(call: Call, space_id: UUID, request: RuntimeRequest) -> Runtime | Response:
    """A new runtime, or the answer of another worker of this gateway that launched it. Raises as `Runtimes.create`."""
    runtimes, wanted = call.services.runtimes, wait_seconds(call.request.headers.getlist("prefer"))
    patience = runtimes.patience(wanted, partial(until_disconnect, call.request.receive))
    forwards = not is_forwarded(call.request)
    try:
        runtime = await runtimes.create(
            call.scope, space_id, request, call.principal.key_id, patience, forward=forwards
        )
    except HostedElsewhere as elsewhere:
        return await _launched_elsewhere(call, elsewhere.url, patience.seconds)
    if wanted is not None:
        call.headers[APPLIED] = f"wait={patience.seconds}"
    if (observed := runtimes.observed(runtime.id)) is not None and observed.browser.warning is not None:
        call.headers[WARNING] = observed.browser.warning
    return runtime


async def _launched_elsewhere(call: Call, url: str, seconds: float) -> Response:
    """The answer of another worker, which gives the launch up when the client disconnects.

    With an Idempotency-Key it is waited for anyway: if it were not kept, the repeated request would launch another one.
    """
    most = seconds + call.services.settings.launch_timeout_seconds + _HOST_SECONDS
    forwarding = asyncio.create_task(forward(call.request, call.services, url, seconds=most))
    gone = asyncio.create_task(until_disconnect(call.request.receive))
    try:
        waited_for: set[asyncio.Task[Any]] = (
            {forwarding, gone} if idempotency_key(call.request) is None else {forwarding}
        )
        await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
        if forwarding.done():
            return forwarding.result()
    except NoResponse as error:
        raise host_unavailable("runtime", error) from error
    finally:
        forwarding.cancel()
        gone.cancel()
    raise host_unavailable("runtime", "the client disconnected")


async def stopped(call: Call, ref: RuntimeRef) -> Runtime | Response:
    """A runtime that has ended, or the answer of the gateway that ended it. Raises NotFound, Unavailable."""
    runtimes = call.services.runtimes
    try:
        return await runtimes.stop(call.scope, ref, forward=not is_forwarded(call.request))
    except HostedElsewhere as elsewhere:
        try:
            return await forward(call.request, call.services, elsewhere.url, seconds=_HOST_SECONDS)
        except NoResponse as error:
            # Its host is notified by the database as well, only later.
            _log.warning("a stop can't be forwarded", runtime=str(ref), cause=str(error))
    return await runtimes.stop(call.scope, ref, forward=False)
