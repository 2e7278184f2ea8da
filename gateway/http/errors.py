"""The one shape of every error: `{"error", "code", "requestId", "details"}` (contract: spaces.md, 4.9)."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from gateway.core.errors import GatewayError


def error_response(error: GatewayError, request_id: str) -> Response:
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after is not None else {}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if error.status == 426:
        headers |= {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    if error.status == 416:
        headers["Content-Range"] = f"bytes */{error.details['sizeBytes']}"
    if "allow" in error.details:
        headers["Allow"] = ", ".join(error.details["allow"])
    return JSONResponse(
        {"error": error.message, "code": error.code, "requestId": request_id, "details": error.details},
        status_code=error.status,
        headers=headers,
    )
