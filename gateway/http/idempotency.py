"""`Idempotency-Key` on writes: a request that is repeated is answered as the first time, and does nothing again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from gateway.core.errors import GatewayError, RequestInvalid
from gateway.domain.idempotency import Idempotency, StoredAnswer, request_fingerprint
from gateway.http.bodies import read_body
from gateway.http.errors import ErrorShape

HEADER = "Idempotency-Key"
METHODS = frozenset(("POST", "PUT", "PATCH", "DELETE"))
REPLAYED = {"Idempotency-Replayed": "true"}


def idempotency_key(request: Request) -> str | None:
    """Raises RequestInvalid for several keys, since a repetition might be compared with either."""
    if request.method not in METHODS:
        return None
    given = request.headers.getlist(HEADER)
    if len(given) > 1:
        raise RequestInvalid(
            f"The header {HEADER} was sent {len(given)} times; send one.",
            "idempotency.key_invalid",
        )
    return given[0] if given else None


async def answered_once(
    request: Request,
    key: str,
    idempotency: Idempotency,
    run: Callable[[], Awaitable[Response]],
    *,
    principal: UUID,
    contract: str,
    errors: ErrorShape,
    max_body_bytes: int,
) -> Response:
    """The answer of `run`, kept under the key; or the one that was kept, with `Idempotency-Replayed`.

    Raises Conflict (idempotency.mismatch, idempotency.in_progress), RequestInvalid for a bad key, and what
    `run` raises, which is kept as the answer that `errors` makes of it.
    """
    fingerprint = request_fingerprint(
        contract,
        request.method,
        request.scope["path"],
        request.scope["query_string"].decode("latin-1"),
        request.headers.get("content-type", ""),
        await read_body(request, max_body_bytes),
    )
    begun = await idempotency.begin(principal, key, fingerprint)
    if isinstance(begun, StoredAnswer):
        return _replayed(begun)
    try:
        response = await run()
    except GatewayError as error:
        await idempotency.complete(begun, _stored(errors.response(error, request.scope["state"]["request_id"])))
        raise
    except BaseException:
        await idempotency.abandon(begun)
        raise
    await idempotency.complete(begun, _stored(response))
    return response


def refuse_key_of_form() -> RequestInvalid:
    """For an upload: its bytes are not kept, so a repetition could not be distinguished from another file."""
    return RequestInvalid(
        "An upload takes no Idempotency-Key; leave the header out, and look for the file before you repeat it.",
        "idempotency.not_supported",
    )


def _replayed(answer: StoredAnswer) -> Response:
    response = Response(answer.body, answer.status)
    for name, value in (*answer.headers, *REPLAYED.items()):
        response.headers.append(name, value)  # a dict would collapse a header that is there twice
    return response


def _stored(response: Response) -> StoredAnswer:
    headers = tuple((name, value) for name, value in response.headers.items() if name != "content-length")
    return StoredAnswer(response.status_code, headers, bytes(response.body))
