"""The served OpenAPI 3.1 documents, made from the endpoints and models that answer."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

import gateway
from gateway.domain.files.names import UNKNOWN_TYPE
from gateway.http.contract import Contract
from gateway.http.endpoints import Endpoint, resources
from gateway.http.error_codes import field_table, table
from gateway.http.idempotency import HEADER, METHODS
from gateway.http.models import Answer
from gateway.http.paths import documented, parameters
from gateway.http.schemas import components, schema_of

_ALWAYS = (400, 401, 403, 429, 500, 503)
_BODY_ERRORS = (413, 415)
_RAW_ERRORS = (416,)
_REFERENCE = "#/components/schemas/{model}"

_KEY = {
    "name": HEADER,
    "in": "header",
    "description": "The same key with the same request is answered as the first time, for a day, and runs once.",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"},
}

# Of requests for bytes (content.py) and for streams (sse.py).
_CONTENT_HEADERS = {
    "Range": "One range of the bytes, such as `bytes=0-1023`. Several ranges, and what is malformed, get all bytes.",
    "If-None-Match": "An `ETag`, or several separated by commas: 304 where the bytes still have it.",
    "If-Range": "An `ETag`: `Range` counts only where the bytes still have it; else all are sent.",
}
_STREAM_HEADERS = {"Last-Event-ID": "The `id:` of the last event received; the stream resumes after it."}

# Of answers, by the statuses that have them; None for all.
_HEADERS: dict[str, tuple[dict[str, Any], frozenset[int] | None]] = {
    "X-Request-Id": ({"description": "Id of the request.", "schema": {"type": "string", "format": "uuid"}}, None),
    "RateLimit-Policy": (
        {"description": 'Quota of the API key: `"key";q=REQUESTS;w=SECONDS`.', "schema": {"type": "string"}},
        None,
    ),
    "RateLimit": (
        {
            "description": 'What is left of it: `"key";r=REQUESTS;t=SECONDS` until all is back, or at 0 until one is.',
            "schema": {"type": "string"},
        },
        None,
    ),
    "Retry-After": (
        {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}},
        frozenset((429, 503)),
    ),
}

_LOCATION = {"Location": {"description": "Path of what was made.", "schema": {"type": "string"}}}

_MEANING = {
    400: "The request is not valid; `details.errors` lists every wrong field.",
    401: "The API key is missing, unknown, expired or revoked.",
    403: "The kind of key may not do this, or its organization is suspended.",
    404: "There is no such resource, or it is not the caller's.",
    408: "The request was not complete in time.",
    409: "The state of the resource does not allow this.",
    410: "The resource has ended for good.",
    413: "The body is too large.",
    415: "The body is not of the media type that is served.",
    416: "The range starts beyond the end of the file.",
    429: "A limit is reached; `Retry-After` has the seconds to wait.",
    500: "Something went wrong in the gateway.",
    501: "This gateway, or the machine that it runs on, lacks what this needs.",
    503: "The gateway can't do this now; `Retry-After` has the seconds to wait.",
}


_ABOUT = """
Requests and responses are JSON unless stated otherwise. Names are in camelCase, times are ISO 8601, ids are UUIDs.
Send the API key as `Authorization: Bearer <api-key>`.

## Lists

Every list takes `limit` (at least 1) and `cursor`, has a stable order, and returns `nextCursor` where more follows:
send it as `cursor` with the same filters. Spaces and runtimes are sent whole without `limit`. Unknown query parameters
are refused everywhere, and so are repeated ones that are not lists.

<details><summary>Formats of texts</summary>

| format | text |
|---|---|
| `cursor` | the `nextCursor` of a page of the same list |
| `ai-connection` | id or label of an AI connection that the space may use |
| `saved-proxy` | id or name of a saved proxy that the space may use |
| `iana-time-zone` | name of a time zone, such as `Europe/Berlin` |
| `url-pattern` | `[scheme://]host[:port][/path]`; the host may be `*` or `*.suffix`, a path needs `http://` |
| `proxy-url` | `http://` or `socks5://`, with `user:password@` where the proxy needs them |
| `proxy-host` | host name or address of a proxy |
| `proxy-credential` | printable characters, at most 255 bytes in UTF-8 |
| `base-url` | `https://host/path` or `http://host/path` that pages may reach, without a user, a query and a fragment |
| `json-object` | a JSON object |
| `vault-key` | segments between slashes, at most 512 characters; none is empty, `.` or `..` (docs/vault.md) |
| `origin` | `https://host` or `http://host`, with `:port` where it is not the usual one |
| `origin-pattern` | an origin with a `*` in the first label, before two labels or more, or as its port |
| `totp-seed` | base32, or an `otpauth://totp/` address |

No text in `metadata` and `options` may have the character U+0000. An `expiresAt` in a request is in the future.

</details>
"""

_ABOUT_FIELDS = """
<details><summary>Codes of wrong fields</summary>

With `request.invalid`, `details.errors` has an entry for each wrong field, with one of these codes. More may be added.
A proxy that the egress rules do not allow has the rule as its code, such as `egress.private_address`.
"""

Parts = Sequence[tuple[Contract, Sequence[Endpoint]]]


def document(parts: Parts, server: str) -> dict[str, Any]:
    """The document of a contract's endpoints, or of several contracts' that share no path; the first names it.

    Raises DuplicateEndpoint.
    """
    resources(endpoint for _, endpoints in parts for endpoint in endpoints)
    models = {model for contract, endpoints in parts for model in _models(contract, endpoints)}
    paths: dict[str, dict[str, Any]] = {}
    for contract, endpoints in parts:
        for endpoint in endpoints:
            described = _described(contract, endpoint)
            paths.setdefault(documented(endpoint.path), {})[endpoint.method.lower()] = described
    first = parts[0][0]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": first.title,
            "version": first.version,
            "description": f"{_ABOUT}\n<details><summary>Error codes</summary>\n\n{table()}\n</details>\n"
            f"{_ABOUT_FIELDS}\n{field_table()}\n</details>",
            "x-gateway-version": gateway.__version__,
        },
        "servers": [{"url": server}],
        "security": [{"bearerAuth": []}],
        "tags": [{"name": tag} for tag in dict.fromkeys(each.tag for _, endpoints in parts for each in endpoints)],
        "paths": paths,
        "components": {
            "schemas": components(models, _REFERENCE),
            "headers": {name: about for name, (about, _) in _HEADERS.items()},
            "securitySchemes": {
                "bearerAuth": {"type": "http", "scheme": "bearer", "description": "The API key, without `Bearer`."}
            },
        },
    }


def _models(contract: Contract, endpoints: Sequence[Endpoint]) -> set[type[BaseModel]]:
    named = [model for endpoint in endpoints for model in (endpoint.body, endpoint.form, endpoint.answer)]
    return {model for model in named if model is not None} | ({contract.errors.model} if endpoints else set())


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(model=model.__name__)}


def _described(contract: Contract, endpoint: Endpoint) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": endpoint.operation_id,
        "summary": endpoint.summary,
        "tags": [endpoint.tag],
        "parameters": _parameters(contract, endpoint),
        "responses": _successes(endpoint),
    }
    if endpoint.description:
        described["description"] = endpoint.description
    if endpoint.body is not None:
        content = {"schema": _reference(endpoint.body), "example": dict(endpoint.body.example)}
        described["requestBody"] = {
            "required": not (contract.bodies.absent_is_empty or endpoint.body_is_optional),
            "content": dict.fromkeys(contract.bodies.media_types(endpoint.method), content),
        }
    if endpoint.form is not None:
        described["requestBody"] = {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": _reference(endpoint.form), "example": dict(endpoint.form.example)}
            },
        }
    statuses = {*_ALWAYS, *endpoint.errors, *(_BODY_ERRORS if endpoint.body or endpoint.form else ())}
    if _takes_key(contract, endpoint):
        statuses.add(409)
    if endpoint.is_raw:
        statuses.update(_RAW_ERRORS)
    for status in sorted(statuses):
        described["responses"][str(status)] = _response(_MEANING[status], contract.errors.model)
    for status_text, response in described["responses"].items():
        response["headers"] = response.get("headers", {}) | _headers(int(status_text))
    return described


def _headers(status: int) -> dict[str, Any]:
    return {
        name: {"$ref": f"#/components/headers/{name}"}
        for name, (_, statuses) in _HEADERS.items()
        if statuses is None or status in statuses
    }


def _successes(endpoint: Endpoint) -> dict[str, Any]:
    if endpoint.answer is not None:
        if endpoint.streams:
            content = {"text/event-stream": _events(endpoint.answer)}
            ended = {"description": "The run has ended, and the caller has all of its events."}
            nothing_more = {"204": ended} if "{" in endpoint.path else {}
            return {"200": {"description": "Server-sent events.", "content": content}, **nothing_more}
        response = _response(_sentences(endpoint.answer), endpoint.answer)
        return {str(endpoint.status): response | ({"headers": _LOCATION} if endpoint.creates else {})}
    if not endpoint.is_raw:
        return {str(endpoint.status): {"description": "Done."}}
    # Bytes, whole or a range of them.
    # Generators know what to do with the first media type; the second is what the file's own may be.
    content = {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in (UNKNOWN_TYPE, "*/*")}
    headers = {
        "Content-Disposition": {"description": "Attachment file name.", "schema": {"type": "string"}},
        "Content-Length": {"description": "Size in bytes.", "schema": {"type": "integer"}},
        "ETag": {"description": "Tag of these bytes, for `If-None-Match`, `If-Range`.", "schema": {"type": "string"}},
    }
    part = headers | {"Content-Range": {"description": "Which bytes these are.", "schema": {"type": "string"}}}
    return {
        "200": {"description": "All bytes.", "headers": headers, "content": content},
        "304": {"description": "The caller already has these bytes (`If-None-Match`)."},
        "206": {"description": "The requested range of bytes.", "headers": part, "content": content},
    }


def _response(description: str, model: type[Answer]) -> dict[str, Any]:
    example = {"example": dict(model.example)} if model.example else {}
    return {"description": description, "content": {"application/json": {"schema": _reference(model), **example}}}


def _events(model: type[Answer]) -> dict[str, Any]:
    """A stream's content. The schema is that of its text: generators read it whole, and none knows its events."""
    about = f"A stream of server-sent events; the `data` of each is JSON, a `{model.__name__}`."
    schema = {"type": "string", "description": about}
    return {"schema": schema, "x-event-schema": _reference(model), "example": _frame(model)}


def _frame(model: type[Answer]) -> str:
    """An example of a model as a server-sent event."""
    data = json.dumps(model.example, ensure_ascii=False, separators=(",", ":"))
    return f"id: 42\nevent: {model.example.get('type', 'message')}\ndata: {data}\n\n"


def _sentences(model: type[BaseModel]) -> str:
    """The model's docstring as one paragraph."""
    return " ".join(inspect.cleandoc(model.__doc__ or "").split())


_KEY_OF_VAULT = "Key of the secret; its slashes may be percent-encoded."


def _parameters(contract: Contract, endpoint: Endpoint) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name in parameters(endpoint.path):
        # One of several segments is not an id.
        has_segments = f"{{{name}:path}}" in endpoint.path
        found.append(
            {
                "name": name,
                "in": "path",
                "description": _KEY_OF_VAULT if has_segments else f"Id of the {_noun(endpoint.path, name)}.",
                "required": True,
                "schema": {"type": "string", **({"format": "vault-key"} if has_segments else {})},
            }
        )
    for place, model in (("query", endpoint.query), ("header", endpoint.headers)):
        schema = schema_of(model) if model is not None else {"properties": {}}
        for name, field in schema["properties"].items():
            required = name in schema.get("required", [])
            description = field.pop("description", "")
            found.append({"name": name, "in": place, "description": description, "required": required, "schema": field})
    headers = _CONTENT_HEADERS if endpoint.is_raw else _STREAM_HEADERS if endpoint.streams else {}
    for name, description in headers.items():
        schema = {"type": "string"}
        found.append({"name": name, "in": "header", "description": description, "required": False, "schema": schema})
    if _takes_key(contract, endpoint):
        found.append(_KEY)
    return found


def _noun(path: str, parameter: str) -> str:
    """The kind of object that a parameter identifies, by the segment before it: `/v1/spaces/{id}` has a space's."""
    collection = path.partition(f"/{{{parameter}")[0].rpartition("/")[2]
    return collection.removesuffix("s").replace("-", " ").replace("ai ", "AI ")


def _takes_key(contract: Contract, endpoint: Endpoint) -> bool:
    return contract.idempotent and endpoint.method in METHODS and endpoint.form is None
