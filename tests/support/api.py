"""What the tests of the API share: sending, reading errors, and a check of every answer against the served document."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from functools import cache
from typing import Any
from uuid import UUID

import httpx
from jsonschema import Draft202012Validator

from gateway.app import CONTRACTS
from gateway.http.dispatch import Contracts
from gateway.http.error_codes import FIELD_CODES
from gateway.http.openapi import document
from gateway.http.paths import documented

Json = dict[str, Any]
Send = Callable[[Any], Awaitable[httpx.Response]]

SERVED = Contracts(CONTRACTS, "spaces")
# What is served to a client that claims no contract.
ENDPOINTS = [
    replace(endpoint, path=documented(endpoint.path)) for _, endpoints in SERVED.unclaimed() for endpoint in endpoints
]
JSON = {"Content-Type": "application/json"}
NEVER = "0198b7d4-2f6c-7d3e-9a51-1c6f2b8e4d70"
# Operations that answer bytes instead of JSON.
RAW_STATUSES = (200, 206, 304)


async def ok(answer: Awaitable[httpx.Response]) -> Any:
    """The body of an answer that must be 200."""
    response = await answer
    assert response.status_code == 200, response.text
    return response.json()


def success(operation: Json) -> Json:
    """The successful answer of a documented operation."""
    answers: Json = operation["responses"]
    return next(answers[status] for status in ("200", "202") if status in answers)


def refusal(response: httpx.Response, status: int, code: str) -> Json:
    """The body of an answer that must be this error."""
    body: Json = response.json()
    assert (response.status_code, body.get("code")) == (status, code), response.text
    return body


async def refused(answer: Awaitable[httpx.Response], status: int, code: str) -> Json:
    return refusal(await answer, status, code)


async def problems(answer: Awaitable[httpx.Response]) -> dict[str, str]:
    """Code by field of what an answer finds wrong; empty when it is 200."""
    response = await answer
    if response.status_code == 200:
        return {}
    body: Json = response.json()
    assert (response.status_code, body["code"]) == (400, "request.invalid"), response.text
    return {error["field"]: error["code"] for error in body["details"]["errors"]}


async def check(send: Send, cases: list[tuple[Any, dict[str, str]]]) -> None:
    """Each case is a body and what must be found wrong in it; all are tried before any is judged."""
    assert [(body, await problems(send(body))) for body, _ in cases] == cases


def sender(client: httpx.AsyncClient, method: str, path: str, **always: Any) -> Send:
    """Sends a body, over `always`. Unlike httpx, Python itself writes NaN and half surrogate pairs into JSON."""

    async def send(body: Any) -> httpx.Response:
        merged = {**always, **body} if isinstance(body, dict) else body
        return await client.request(method, path, content=json.dumps(merged), headers=JSON)

    return send


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


async def make_space(client: httpx.AsyncClient, **body: Any) -> str:
    """A new space's id."""
    space: str = (await ok(client.post("/v1/spaces", json=body)))["id"]
    return space


async def make_runtime(client: httpx.AsyncClient, space: str | None = None, **body: Any) -> Json:
    """A new runtime, in a new space when none is given."""
    space = space or await make_space(client)
    runtime: Json = await ok(client.post(f"/v1/spaces/{space}/runtimes", json=body))
    return runtime


async def make_subaccount(client: httpx.AsyncClient, **body: Any) -> tuple[str, dict[str, str]]:
    """A new subaccount's id, and headers with a key of it."""
    made = await ok(client.post("/v1/subaccounts", json={"name": "tenant", **body}))
    key = await ok(client.post(f"/v1/subaccounts/{made['id']}/keys", json={"name": "key"}))
    return made["id"], bearer(key["secret"])


def checked(client: httpx.AsyncClient) -> httpx.AsyncClient:
    """The client, with each answer of an operation checked against the document by `Recorder`."""
    client.event_hooks = {"response": [Recorder().check]}
    return client


class Recorder:
    """Holds answers against the document as they come, and keeps what was seen: (operation id, status).

    An answer must be documented with its status and fit its schema, formats too, and may have no field besides.
    """

    def __init__(self) -> None:
        self.seen: set[tuple[str, int]] = set()

    async def check(self, response: httpx.Response) -> None:
        await response.aread()
        operation = _operation(response.request.method, response.request.url.path)
        if operation is None:
            return
        self.seen.add((operation, response.status_code))
        if response.status_code in RAW_STATUSES and _is_raw(operation):
            return
        UUID(response.headers["x-request-id"])
        if response.status_code == 200 and operation.endswith("-stream"):
            # Each of its events is held against the document.
            assert response.headers["content-type"].startswith("text/event-stream")
            for data in re.findall(r"^data: (.*)$", response.text, re.MULTILINE):
                assert mismatches(operation, 200, json.loads(data)) == []
            return
        assert response.headers["content-type"] == "application/json"
        body = response.json()
        errors = mismatches(operation, response.status_code, body)
        assert errors == [], f"{operation} answered {response.status_code} {response.text}"
        if response.status_code >= 400:
            assert body["requestId"] == response.headers["x-request-id"]
            if body["code"] == "request.invalid":
                codes = {error["code"] for error in body["details"].get("errors", [])}
                unlisted = codes - set(FIELD_CODES)
                # Of a proxy: the rule of egress.
                assert all(code.startswith("egress.") for code in unlisted), unlisted


@cache
def strict_document() -> Json:
    """The document, with every answer closed: what it does not name must not be there."""
    served = copy.deepcopy(document(SERVED.unclaimed(), "http://localhost:8787"))
    for schema in served["components"]["schemas"].values():
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
    return served


@cache
def _patterns() -> list[tuple[re.Pattern[str], dict[str, str]]]:
    """Of each path, its operations by their methods. What is spelled out beats a parameter."""
    paths = sorted(strict_document()["paths"].items(), key=lambda path: path[0].count("{"))
    return [
        (
            re.compile(re.sub(r"{\w+}", "[^/]+", path)),
            {method.upper(): operation["operationId"] for method, operation in methods.items()},
        )
        for path, methods in paths
    ]


def _operation(method: str, path: str) -> str | None:
    methods = next((methods for pattern, methods in _patterns() if pattern.fullmatch(path)), {})
    return methods.get(method)


@cache
def _is_raw(operation_id: str) -> bool:
    """Whether it answers bytes."""
    return any(endpoint.operation_id == operation_id and endpoint.answer is None for endpoint in ENDPOINTS)


def mismatches(operation_id: str, status: int, body: Any) -> list[str]:
    """Where a body is not as the document says of this answer."""
    return [f"{error.json_path}: {error.message}" for error in _schema(operation_id, status)(body)]


@cache
def _schema(operation_id: str, status: int) -> Callable[[Any], Any]:
    served = strict_document()
    responses = next(
        operation["responses"]
        for methods in served["paths"].values()
        for operation in methods.values()
        if operation["operationId"] == operation_id
    )
    assert str(status) in responses, f"{operation_id} does not document {status}"
    (content,) = responses[str(status)]["content"].values()
    # Of a stream: each of its events.
    schema = content.get("x-event-schema", content["schema"]) | {"components": served["components"]}
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).iter_errors
