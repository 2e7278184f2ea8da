"""The served OpenAPI 3.1 document, made from the endpoints and models that answer."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

import gateway
from gateway.http.endpoints import Endpoint
from gateway.http.models import Answer

_DEFAULT = "Default Response"
_ALWAYS = (400, 401, 429, 500, 503)
_BODY_ERRORS = (413, 415)
_RAW_ERRORS = (416,)
_REFERENCE = "#/components/schemas/{model}"

_MEANING = {
    400: "The request is not valid; `details.errors` lists every wrong field.",
    401: "The API key is missing, unknown, expired or revoked.",
    403: "The kind of key may not do this.",
    404: "There is no such resource, or it is not the caller's.",
    408: "The request was not whole in time.",
    409: "The state of the resource does not allow this.",
    413: "The body is too large.",
    415: "The body is not of the media type that is served.",
    416: "The range of bytes lies behind the end.",
    429: "A limit is reached; `Retry-After` says when to ask again.",
    500: "Something went wrong in the gateway.",
    503: "The gateway can't do this now; `Retry-After` says when to ask again.",
}


class Error(Answer):
    """The shape of every error. `code` is stable; `error` is for people."""

    error: str
    code: str
    request_id: str
    details: dict[str, Any]


def document(endpoints: list[Endpoint], server: str) -> dict[str, Any]:
    models = {model for endpoint in endpoints for model in _models(endpoint)} | {Error}
    ordered = sorted(models, key=lambda model: (model.__name__, model.__module__))
    references, definitions = models_json_schema([(model, "validation") for model in ordered], ref_template=_REFERENCE)
    schemas = {model: references[model, "validation"] for model in ordered}
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _described(endpoint, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "bctrl API", "version": "1.0.0", "x-gateway-version": gateway.__version__},
        "servers": [{"url": server}],
        "security": [{"bearerAuth": []}],
        "tags": [{"name": tag} for tag in dict.fromkeys(endpoint.tag for endpoint in endpoints)],
        "paths": paths,
        "components": {
            "schemas": definitions.get("$defs", {}),
            "securitySchemes": {
                "bearerAuth": {"type": "http", "scheme": "bearer", "description": "Use Bearer <api-key>."}
            },
        },
    }


def _models(endpoint: Endpoint) -> set[type[BaseModel]]:
    return {model for model in (endpoint.body, endpoint.form, endpoint.answer) if model is not None}


def _described(endpoint: Endpoint, schemas: dict[type[BaseModel], Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": endpoint.operation_id,
        "summary": endpoint.summary,
        "tags": [endpoint.tag],
        "parameters": _parameters(endpoint),
        "responses": _successes(endpoint, schemas),
    }
    if endpoint.description:
        described["description"] = endpoint.description
    if endpoint.body is not None:
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schemas[endpoint.body]}},
        }
    if endpoint.form is not None:
        described["requestBody"] = {
            "required": True,
            "content": {"multipart/form-data": {"schema": schemas[endpoint.form]}},
        }
    statuses = {*_ALWAYS, *endpoint.errors, *(_BODY_ERRORS if endpoint.body or endpoint.form else ())}
    if endpoint.answer is None:
        statuses.update(_RAW_ERRORS)
    for status in sorted(statuses):
        described["responses"][str(status)] = _response(_MEANING[status], schemas[Error])
    return described


def _successes(endpoint: Endpoint, schemas: dict[type[BaseModel], Any]) -> dict[str, Any]:
    if endpoint.answer is not None:
        schema = schemas[endpoint.answer]
        if endpoint.streams:
            content = {"text/event-stream": {"schema": schema}}
            ended = {"description": "The run has ended, and the caller has all of it."}
            nothing_more = {"204": ended} if "{" in endpoint.path else {}
            return {"200": {"description": "Server-sent events.", "content": content}, **nothing_more}
        return {"200": _response(_DEFAULT, schema)}
    # Bytes, whole or a range of them.
    content = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
    headers = {
        "Content-Disposition": {"description": "Attachment file name.", "schema": {"type": "string"}},
        "Content-Length": {"description": "Size in bytes.", "schema": {"type": "integer"}},
    }
    part = headers | {"Content-Range": {"description": "Which bytes these are.", "schema": {"type": "string"}}}
    return {
        "200": {"description": _DEFAULT, "headers": headers, "content": content},
        "304": {"description": "The bytes are those that the caller has (`If-None-Match`)."},
        "206": {"description": "The range of bytes that was asked for.", "headers": part, "content": content},
    }


def _response(description: str, schema: Any) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", endpoint.path)
    ]
    found.append(
        {
            "name": "Authorization",
            "in": "header",
            "description": "Use Bearer <api-key>.",
            "required": True,
            "schema": {"type": "string"},
        }
    )
    if endpoint.query is not None:
        schema = endpoint.query.model_json_schema()
        for name, field in schema["properties"].items():
            required = name in schema.get("required", [])
            found.append({"name": name, "in": "query", "required": required, "schema": field})
    return found
