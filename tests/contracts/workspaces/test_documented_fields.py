"""Fields, enums and statuses that the documentation of the workspaces generation has, compared with what is served.

That is the OpenAPI document, which is true of real answers (tests/support/api.py, `Recorder`). Only what the
documentation was seen to fix is here; what it leaves open is each resource's own business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from gateway.app import CONTRACTS
from gateway.http.dispatch import Contracts
from gateway.http.openapi import document
from tests.support.api import Json

# Notation: {"name": type, "name?": type} is an object and its optional fields, [type] a list, {...} of texts an enum,
# `Null(type)` what may be null too, "uuid", "string", "integer", "number", "boolean" and "any" themselves.


@dataclass(frozen=True)
class Null:
    type: Any


DRIVER = {"puppeteer", "playwright", "selenium", "stagehand"}
PROVIDER = {"openai", "anthropic", "google", "openai-compatible"}
KIND = {"browser", "desktop", "spreadsheet"}
OK = {"ok": "boolean"}

MOUNTS = {
    "ai?": Null({"allow?": ["string"], "defaults?": {f"{provider}?": "string" for provider in sorted(PROVIDER)}}),
    "vault?": Null({"allow?": ["string"], "deny?": ["string"], "allowRawReads?": "boolean"}),
    "storage?": Null({"workspace": "string"}),
}
WORKSPACE = {
    "id": "uuid",
    "name": "string",
    "mounts": MOUNTS,
    "status": {"active", "closed"},
    "createdAt": "string",
    "updatedAt": "string",
}
RUNTIME = {
    "id": "uuid",
    "workspaceId": "uuid",
    "alias": "string",
    "kind": KIND,
    "status": {"active", "stopped", "failed"},
    "summary": {
        "browserRunning": "boolean",
        "currentDriver": Null(DRIVER),
        "defaultContextId": Null("string"),
        "defaultPageId": Null("string"),
        "launchMode": {"profile", "ephemeral"},
        "profileId": Null("uuid"),
        "storageWorkspace": Null("string"),
    },
    "createdAt": "string",
    "updatedAt": "string",
    "stoppedAt": Null("string"),
    "error": Null({"message": "string", "code": "string"}),
}
STEP = {
    "call": "string",
    "args?": "any",
    "ref?": "string",
    "as?": "string",
    "options?": {
        "timeoutMs?": "integer",
        "dryRun?": "boolean",
        "logs?": {"off", "capture"},
        "scriptId?": "string",
        "scriptName?": "string",
    },
}
STEP_RESULT = {
    "ok": "boolean",
    "call": "string",
    "value?": "any",
    "binding?": {"alias": "string", "id": "string", "type": {"page", "context", "handle", "subscription"}},
    "logs?": ["any"],
    "durationMs": "number",
    "error?": {"message": "string", "code": "string", "details": "any"},
}
OPERATION = {
    "id": "uuid",
    "workspaceId": "uuid",
    "runtime": "string",
    "status": {"pending", "running", "completed", "failed", "cancelled"},
    "error": Null({"message": "string", "code": "string", "details?": "any"}),
    "progress": Null(
        {
            "currentCall?": "string",
            "lastEventType?": "string",
            "message?": "string",
            "step?": "integer",
            "totalSteps?": "integer",
        }
    ),
    "result": Null("any"),
    "createdAt": "string",
    "startedAt": Null("string"),
    "completedAt": Null("string"),
}
EXECUTED = {"mode?": {"fail-fast"}, "steps?": [STEP_RESULT], "operation?": OPERATION}
EVENT = {
    "id": "uuid",
    "workspaceId": "uuid",
    "runtime": "string",
    "runtimeKind": KIND,
    "eventType": "string",
    "eventData": Null("any"),
    "operationId": Null("uuid"),
    "createdAt": "string",
}
EMBED = {"iframeUrl": "string", "token": "string", "expiresAt": "string", "expiresInSeconds": "integer"}
UPLOADED = {
    "id": "uuid",
    "workspace": "string",
    "logicalPath": "string",
    "objectKey": "string",
    "filename": "string",
    "sizeBytes": "integer",
    "contentType": "string",
    "expiresAt": Null("string"),
}
OBJECT = UPLOADED | {
    "createdAt": Null("string"),
    "driver": Null("string"),
    "runtimeId": Null("uuid"),
    "metadata": Null("any"),
    "source": Null("string"),
    "target": Null("string"),
}
SECRET = {
    "username?": "string",
    "password?": "string",
    "totp?": "string",
    "origins?": ["string"],
    "originPatterns?": ["string"],
    "matchOrigins?": ["string"],
    "label?": "string",
    "notes?": "string",
}
SECRET_VALUE = {
    name: of for name, of in SECRET.items() if name not in ("matchOrigins?", "origins?", "originPatterns?")
} | {"origins": ["string"], "originPatterns": ["string"]}
SECRET_METADATA = {
    "key": "string",
    "label": Null("string"),
    "origins": ["string"],
    "originPatterns": ["string"],
    "hasTotp": "boolean",
    "createdAt": "string",
    "updatedAt": "string",
}
SECRETS = {"keys?": ["string"], "credentials?": [SECRET_METADATA]}
AI_CREDENTIAL = {
    "id": "string",
    "label": "string",
    "provider": PROVIDER,
    "enabled": "boolean",
    "createdAt": "string",
    "updatedAt": "string",
    "baseUrl?": Null("string"),
    "defaultModel?": Null("string"),
}
AI_FIELDS = {"label?": "string", "provider?": PROVIDER, "apiKey?": "string", "enabled?": "boolean"}
EVENTS_WAIT = {
    "eventTypes?": ["string"],
    "after?": Null("string"),
    "timeoutMs?": "integer",
    "pageId?": "string",
    "contextId?": "string",
}
STATE = {
    "capturedAt": "string",
    "driver": Null(DRIVER),
    "refResolved": Null("string"),
    "meta": Null({"url": Null("string"), "title": Null("string"), "readyState": Null("string")}),
    "dom": Null({"html": "string", "length": "integer"}),
    "screenshot": Null({"mimeType": "string", "base64": "string", "bytes": "integer", "truncated": "boolean"}),
    "warnings": ["string"],
}
READ_STATE = {
    "ref?": "string",
    "include?": [{"meta", "dom", "screenshot"}],
    "screenshot?": {"fullPage?": "boolean", "type?": {"jpeg", "png"}, "quality?": "integer", "maxBytes?": "integer"},
    "dom?": {"includeHtml?": "boolean", "maxChars?": "integer"},
}
LIVE = {"interactive?": "boolean", "showControls?": "boolean", "viewerMode?": {"last_used", "automation"}}
RECORDING = EMBED | {
    "status": {"encoding", "ready", "expired"},
    "durationMs?": "number",
    "tabIds": ["string"],
}
UPDATE = {"type": "string", "data": "any", "createdAt": "string"}

_RUNTIME = "/v1/workspaces/{id}/runtimes/{alias}"
# Of each operation what a request may have (None: no body) and what 200 answers.
JSON: dict[str, tuple[Any, Any]] = {
    "POST /v1/workspaces": ({"name": "string", "mounts?": MOUNTS}, WORKSPACE),
    "GET /v1/workspaces": (None, {"workspaces": [WORKSPACE]}),
    "GET /v1/workspaces/{id}": (None, WORKSPACE),
    "DELETE /v1/workspaces/{id}": (None, OK),
    "GET /v1/workspaces/{id}/state": (None, {"workspace": WORKSPACE, "runtimes": [RUNTIME]}),
    "POST /v1/workspaces/{id}/execute": (
        {"runtime": "string", "steps": [STEP], "mode?": {"fail-fast"}, "idempotencyKey?": "string"},
        EXECUTED,
    ),
    "POST /v1/workspaces/{id}/runtimes": (
        {"kind?": {"browser"}, "alias": "string", "driver?": DRIVER, "launch?": "any", "mounts?": MOUNTS},
        RUNTIME,
    ),
    "GET /v1/workspaces/{id}/runtimes": (None, {"runtimes": [RUNTIME]}),
    f"GET {_RUNTIME}": (None, RUNTIME),
    f"POST {_RUNTIME}/stop": (None, RUNTIME),
    f"POST {_RUNTIME}/state": (READ_STATE, STATE),
    f"GET {_RUNTIME}/events": (None, {"events": [EVENT], "cursor": Null("string")}),
    f"POST {_RUNTIME}/events/wait": (
        EVENTS_WAIT,
        {"event": Null(EVENT), "cursor": Null("string"), "timedOut": "boolean"},
    ),
    f"POST {_RUNTIME}/embed/live": (LIVE, EMBED),
    f"POST {_RUNTIME}/embeds/live": (LIVE, EMBED),
    f"POST {_RUNTIME}/embed/recording": (None, RECORDING),
    f"POST {_RUNTIME}/embeds/recording": (None, RECORDING),
    "GET /v1/operations/{id}": (None, OPERATION),
    "POST /v1/operations/{id}/wait": ({"timeoutMs?": "integer"}, {"operation": OPERATION, "timedOut": "boolean"}),
    "POST /v1/operations/{id}/cancel": (None, OPERATION),
    "GET /v1/storage/objects": (None, {"objects": [OBJECT]}),
    "GET /v1/vault": (None, SECRETS),
    "GET /v1/vault/{key}": (None, SECRET_VALUE),
    "PUT /v1/vault/{key}": (SECRET, SECRET_METADATA),
    "POST /v1/vault/{key}": (SECRET, SECRET_METADATA),
    "DELETE /v1/vault/{key}": (None, OK),
    "GET /v1/vault/{key}/totp": (None, {"code": "string"}),
    "POST /v1/ai-credentials": (
        {"id": "string", "label": "string", "provider": PROVIDER, "apiKey": "string"}
        | {"baseUrl?": "string", "defaultModel?": "string", "enabled?": "boolean"},
        AI_CREDENTIAL,
    ),
    "GET /v1/ai-credentials": (None, {"credentials": [AI_CREDENTIAL]}),
    "GET /v1/ai-credentials/{id}": (None, AI_CREDENTIAL),
    "PATCH /v1/ai-credentials/{id}": (
        AI_FIELDS | {"baseUrl?": Null("string"), "defaultModel?": Null("string")},
        AI_CREDENTIAL,
    ),
    "DELETE /v1/ai-credentials/{id}": (None, OK),
    "POST /v1/ai-credentials/{id}/test": (None, {"ok": "boolean", "provider": PROVIDER, "message": "string"}),
}
FORMS: dict[str, tuple[Any, Any]] = {
    "POST /v1/storage/objects": (
        {"file": "string"}
        | dict.fromkeys(("workspace?", "path?", "source?", "driver?", "target?", "filename?"), "string")
        | dict.fromkeys(("runtimeId?", "sessionId?"), "string"),
        UPLOADED,
    )
}
STREAMS: dict[str, tuple[Any, Any]] = {
    "GET /v1/updates/stream": (None, UPDATE),
    "GET /v1/updates": (None, UPDATE),
}
# All fields of these are optional, and so is the body.
WITHOUT_BODY = {f"POST {_RUNTIME}/{name}" for name in ("state", "events/wait", "embed/live", "embeds/live")} | {
    "POST /v1/operations/{id}/wait"
}
QUERIES = {
    f"GET {_RUNTIME}/events": {"eventTypes?", "after?", "limit?", "pageId?", "contextId?"},
    f"GET {_RUNTIME}/state": {"ref?", "include?"},
    "GET /v1/storage/objects": {"workspace", "limit?", "offset?"}
    | {"runtimeId?", "source?", "driver?", "target?", "pathPrefix?"},
    "GET /v1/vault": {"prefix?", "meta?", "hasTotp?", "limit?"},
}
# What the resources that no page was seen of are expected to have.
PATHS = {
    "GET /v1/browser-profiles",
    "POST /v1/browser-profiles",
    "GET /v1/browser-profiles/{id}",
    "PATCH /v1/browser-profiles/{id}",
    "DELETE /v1/browser-profiles/{id}",
    "GET /v1/browser-extensions",
    "POST /v1/browser-extensions",
    "GET /v1/browser-extensions/{extensionId}",
    "PATCH /v1/browser-extensions/{extensionId}",
    "DELETE /v1/browser-extensions/{extensionId}",
    "GET /v1/artifacts",
    "GET /v1/artifacts/{id}",
    "GET /v1/artifacts/{id}/content",
    f"GET {_RUNTIME}/help",
}


@pytest.fixture(scope="module")
def served() -> Json:
    return document(Contracts(CONTRACTS, "workspaces").unclaimed(), "http://localhost:8787")


@pytest.fixture(scope="module")
def operations(served: Json) -> dict[str, Json]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in served["paths"].items()
        for method, operation in methods.items()
    }


class Comparison:
    """`differences` of a served schema: in an answer nothing documented may be missing, in a request all of it must be
    accepted, and no field more be required."""

    def __init__(self, served: Json, *, is_request: bool) -> None:
        self._schemas = served["components"]["schemas"]
        self._is_request = is_request

    def differences(self, documented: Any, schema: Json, place: str) -> list[str]:
        variants = self._variants(schema)
        is_null = any(variant.get("type") == "null" for variant in variants)
        found = []
        if isinstance(documented, Null):
            documented = documented.type
            if self._is_request and not is_null:
                found.append(f"{place}: null is not accepted")
        elif is_null and not self._is_request:
            found.append(f"{place}: may be null")
        variants = [variant for variant in variants if variant.get("type") != "null"]
        if documented == "any":
            return found
        tried = [self._of_one(documented, variant, place) for variant in variants]
        return found + min(tried, key=len, default=[f"{place}: only null"])

    def _variants(self, schema: Json) -> list[Json]:
        while "$ref" in schema:
            schema = self._schemas[schema["$ref"].rsplit("/", 1)[1]]
        several = schema.get("anyOf", schema.get("oneOf")) if "properties" not in schema else None
        return [schema] if several is None else [each for part in several for each in self._variants(part)]

    def _of_one(self, documented: Any, schema: Json, place: str) -> list[str]:
        if isinstance(documented, dict):
            return self._of_object(documented, schema, place)
        if isinstance(documented, list):
            if schema.get("type") != "array":
                return [f"{place}: is no list"]
            return self.differences(documented[0], schema["items"], f"{place}[]")
        if isinstance(documented, set):
            values = set(schema.get("enum", [schema["const"]] if "const" in schema else []))
            return [] if values == documented else [f"{place}: {values} instead of {documented}"]
        name = {"uuid": "string"}.get(documented, documented)
        types = {"number", "integer"} if name == "number" and not self._is_request else {name}
        found = [] if schema.get("type") in types else [f"{place}: {schema.get('type')} instead of {documented}"]
        if documented == "uuid" and schema.get("format") != "uuid":
            found.append(f"{place}: no uuid")
        return found

    def _of_object(self, documented: Json, schema: Json, place: str) -> list[str]:
        if schema.get("type") != "object":
            return [f"{place}: is no object"]
        fields, required, found = schema.get("properties", {}), set(schema.get("required", [])), []
        for given, type_ in documented.items():
            name = given.removesuffix("?")
            if name not in fields:
                found.append(f"{place}.{name}: missing")
                continue
            if given == name and name not in required:
                found.append(f"{place}.{name}: optional")
            if given != name and self._is_request and name in required:
                found.append(f"{place}.{name}: required")
            found += self.differences(type_, fields[name], f"{place}.{name}")
        if self._is_request:
            known = {given.removesuffix("?") for given in documented}
            found += [f"{place}.{name}: required, and not documented" for name in sorted(required - known)]
        return found


def test_what_is_documented_is_served_field_by_field(served: Json, operations: dict[str, Json]) -> None:
    of_requests, of_answers = Comparison(served, is_request=True), Comparison(served, is_request=False)
    found = []
    for listed, sent, answered in (
        (JSON, "application/json", "application/json"),
        (FORMS, "multipart/form-data", "application/json"),
        (STREAMS, "", "text/event-stream"),
    ):
        for name, (request, answer) in listed.items():
            operation = operations[name]
            body = operation.get("requestBody")
            if (body is None) != (request is None):
                found.append(f"{name}: {'no body' if body is None else 'a body'}")
            elif body is not None:
                if body["required"] is (name in WITHOUT_BODY):
                    found.append(f"{name}: a body is {'' if body['required'] else 'not '}required")
                found += of_requests.differences(request, body["content"][sent]["schema"], f"{name} request")
            assert [status for status in operation["responses"] if status < "300"] == ["200"], name
            content = operation["responses"]["200"]["content"][answered]
            found += of_answers.differences(answer, content.get("x-event-schema", content["schema"]), name)
    assert found == []


def test_what_is_documented_of_queries_and_paths_is_served(operations: dict[str, Json]) -> None:
    assert PATHS - set(operations) == set()
    for name, parameters in QUERIES.items():
        served = {
            each["name"] + ("" if each["required"] else "?")
            for each in operations[name]["parameters"]
            if each["in"] == "query"
        }
        assert parameters <= served, name
        assert {each for each in served - parameters if not each.endswith("?")} == set(), name


def test_errors_have_the_documented_shape(served: Json, operations: dict[str, Json]) -> None:
    error = {"error": "string", "code": "string", "requestId": "string", "details?": "any"}
    comparison = Comparison(served, is_request=False)
    for name in (*JSON, *FORMS, *STREAMS, *PATHS):
        for status, response in operations[name]["responses"].items():
            if status >= "400":
                schema = response["content"]["application/json"]["schema"]
                assert comparison.differences(error, schema, f"{name} {status}") == []
    assert {"400", "404"} <= set(operations["GET /v1/vault/{key}/totp"]["responses"])


def test_credentials_have_the_documented_limits(served: Json) -> None:
    fields = served["components"]["schemas"]["AiCredential"]["properties"]
    assert fields["id"]["pattern"] == "^[A-Za-z][A-Za-z0-9_-]{0,63}$"
    assert (fields["label"]["minLength"], fields["label"]["maxLength"]) == (1, 200)
    (base_url, _), (model, _) = fields["baseUrl"]["anyOf"], fields["defaultModel"]["anyOf"]
    assert (base_url["format"], model["minLength"]) == ("uri", 1)
    assert served["components"]["schemas"]["AiCredentialTest"]["properties"]["message"]["minLength"] == 1
