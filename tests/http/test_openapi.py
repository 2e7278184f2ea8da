"""The served document: valid, complete, true of the real answers, and of the two seed operations what the seeds say."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from gateway.app import Gateway
from gateway.contracts.shared.runtime_config import RuntimeConfig
from gateway.contracts.spaces.live import LiveViewer
from gateway.contracts.spaces.recordings import RecordingViewer
from gateway.domain.files.names import PATH_PATTERN, path_problem
from gateway.http.contract import Contract
from gateway.http.idempotency import HEADER
from gateway.http.models import WHOLE, Answer, models_below
from gateway.http.openapi import document
from gateway.http.paths import documented
from gateway.http.schemas import components, docstrings
from tests.support.api import (
    ENDPOINTS,
    NEVER,
    SERVED,
    Json,
    Recorder,
    make_runtime,
    mismatches,
    ok,
    problems,
    refused,
    success,
)
from tests.support.artifacts import make_artifact
from tests.support.invocations import make_invocation
from tests.support.tools import TOOL

CONTRACT = Path(__file__).parent.parent / "contracts" / "spaces" / "samples"
JSON = "application/json"
BYTES = {name: {"schema": {"type": "string", "format": "binary"}} for name in ("application/octet-stream", "*/*")}
AI_CREDENTIAL = {"id": "own", "label": "x", "provider": "openai", "apiKey": "sk-x"}
SEEDS = ("ai-connections-create", "connections-create")


@pytest.fixture
def served() -> Json:
    return document(SERVED.unclaimed(), "http://localhost:8787")


def operations_of(specification: Json) -> dict[tuple[str, str], Json]:
    return {(method, path): it for path, methods in specification["paths"].items() for method, it in methods.items()}


def subschemas(schema: Any) -> Iterator[Json]:
    """Every object in it that may be a schema."""
    if isinstance(schema, dict):
        yield schema
        for part in schema.values():
            yield from subschemas(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from subschemas(part)


async def test_the_document_is_served_to_anybody_with_the_address_it_is_served_at(
    anonymous: httpx.AsyncClient, served: Json
) -> None:
    assert await ok(anonymous.get("/openapi.json")) == served
    specification = await ok(anonymous.get("/openapi.json", headers={"Host": "evil.example"}))
    assert specification == served | {"servers": [{"url": "/"}]}


def test_it_has_the_shape_of_openapi_3_1(served: Json) -> None:
    assert served["openapi"] == "3.1.0"
    assert set(served) == {"openapi", "info", "servers", "security", "tags", "paths", "components"}
    assert (served["info"]["title"], served["info"]["version"]) == ("bctrl API", "1.0.0")
    assert served["components"]["securitySchemes"]["bearerAuth"]["scheme"] == "bearer"
    assert served["security"] == [{"bearerAuth": []}]
    for schema in served["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for (_, path), operation in operations_of(served).items():
        assert operation["summary"]
        assert operation["tags"][0] in [tag["name"] for tag in served["tags"]]
        in_path = [parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"]
        assert in_path == re.findall(r"{(\w+)}", path)
        names = Counter((parameter["in"], parameter["name"]) for parameter in operation["parameters"])
        assert set(names.values()) <= {1}
        for parameter in operation["parameters"]:
            assert set(parameter) <= {"name", "in", "required", "schema", "description"}
            # A list of objects is of one storage, which it names.
            names_storage = path.startswith("/v1/storage/") and parameter["name"] == "workspace"
            assert parameter["required"] is (parameter["in"] == "path" or names_storage)
            # The security scheme says it; generators ask for what is a parameter too in each call.
            assert parameter["name"] != "Authorization"
            Draft202012Validator.check_schema(parameter["schema"])
        for status, response in operation["responses"].items():
            assert re.fullmatch(r"[1-5]\d\d", status)
            assert response["description"]
            if status in ("200", "206", "304") and "304" in operation["responses"]:
                # Bytes.
                assert response.get("content", BYTES) == BYTES
                continue
            streams = path.endswith(("/stream", "/updates"))
            if streams and status == "204":
                continue
            ((media_type, content),) = response["content"].items()
            assert media_type == ("text/event-stream" if streams and status == "200" else JSON)
            Draft202012Validator.check_schema(content["schema"])


def test_every_property_parameter_and_response_is_described(served: Json) -> None:
    properties = {
        f"{name}.{field}": shown
        for name, schema in served["components"]["schemas"].items()
        for field, shown in schema.get("properties", {}).items()
    }
    assert len(properties) > 350
    assert [name for name, shown in properties.items() if not shown.get("description")] == []
    assert [name for name, it in served["components"]["schemas"].items() if not it.get("description")] == []
    for place, operation in operations_of(served).items():
        assert [it["name"] for it in operation["parameters"] if not it["description"]] == [], place
        assert [status for status, it in operation["responses"].items() if not it["description"]] == [], place


def test_a_description_is_that_of_the_model_or_of_its_base() -> None:
    assert docstrings(LiveViewer)["expires_at"] == "When the address expires."
    assert docstrings(RecordingViewer)["expires_at"] == "When the address expires."


def test_two_models_of_one_name_are_refused() -> None:
    class Viewport(Answer):
        """Another one."""

    with pytest.raises(ValueError, match="both have a model Viewport"):
        components([Viewport, RuntimeConfig], "{model}")


def test_every_format_that_is_not_standard_is_explained(served: Json) -> None:
    standard = {"uuid", "date-time", "binary", "uri"}
    # An example may have a field of this name, and has no type.
    formats = {each["format"] for each in subschemas(served) if isinstance(each.get("format"), str) and "type" in each}
    assert {name for name in formats - standard if f"`{name}`" not in served["info"]["description"]} == set()


@pytest.mark.parametrize("path", ["a", "a/b", ".a", "..a", "...", "a/..", "./a", "a//b", "/a", "a/", "..", ".", "a\\b",
                                  "a\x01", "a\n", "a/.b/..c", "a/...", "é/日本", "a\x9f", ""])  # fmt: skip
def test_the_pattern_of_a_stored_path_says_what_the_check_says(path: str) -> None:
    # JavaScript's $ does not match before a line break at the end, as Python's does.
    pattern = PATH_PATTERN.removesuffix("$")
    assert (re.fullmatch(pattern.removeprefix("^"), path) is not None) == (path_problem(path) is None)


def test_every_time_has_its_format(served: Json) -> None:
    """Of all models: a property whose name ends in `At`, or a nullable one's other type."""
    times = {
        f"{name}.{field}": next(iter(shown.get("anyOf", [shown])))
        for name, schema in served["components"]["schemas"].items()
        for field, shown in schema.get("properties", {}).items()
        if field.endswith("At")
    }
    assert len(times) > 30
    assert {name for name, schema in times.items() if schema.get("format") != "date-time"} == set()


def test_headers_of_requests_are_declared_where_they_are_read(served: Json) -> None:
    """The answers to ranges and conditions are documented, so what asks for them is, too."""
    for place, operation in operations_of(served).items():
        declared = {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "header"}
        assert ({"Range", "If-None-Match", "If-Range"} <= declared) == ("206" in operation["responses"]), place
        content = success(operation).get("content", {})
        assert ("Last-Event-ID" in declared) == ("text/event-stream" in content), place


async def test_an_integer_may_be_written_with_a_fraction_of_zero(client: httpx.AsyncClient) -> None:
    """To JSON, and to the schemas, 60.0 is an integer; 60.5 and a text are none."""
    runtime = await make_runtime(client)
    path = f"/v1/spaces/{runtime['spaceId']}/runtimes/{runtime['id']}/connections"
    for given, problem in ((60.0, {}), (60.5, {"ttlSeconds": "int_type"}), ("60", {"ttlSeconds": "int_type"})):
        sent = {"protocol": "cdp", "ttlSeconds": given}
        assert await problems(client.post(path, json=sent)) == problem


def test_every_integer_of_a_body_takes_one_with_a_fraction_of_zero() -> None:
    bodies = [each for endpoint in ENDPOINTS for each in (endpoint.body, endpoint.form) if each is not None]
    missing = {
        f"{model.__name__}.{name}"
        for body in bodies
        for model in models_below(body)
        for name, field in model.model_fields.items()
        if field.annotation is int and WHOLE not in field.metadata
    }
    assert missing == set()


def test_every_reference_resolves_and_every_component_is_referenced(served: Json) -> None:
    referred = {schema["$ref"] for schema in subschemas(served) if isinstance(schema.get("$ref"), str)}
    components = served["components"]
    there = {f"#/components/{kind}/{name}" for kind in ("schemas", "headers") for name in components[kind]}
    assert referred == there


def test_operation_ids_are_unique(served: Json) -> None:
    ids = Counter(operation["operationId"] for operation in operations_of(served).values())
    assert [name for name, count in ids.items() if count > 1] == []


def test_every_endpoint_of_every_contract_is_documented_and_no_other(served: Json) -> None:
    resources = [resource for contract in SERVED.served for resource in contract.resources]
    declared = {(method.lower(), documented(resource.path)) for resource in resources for method in resource.methods}
    assert declared == set(operations_of(served))


@pytest.mark.parametrize("contract", SERVED.served, ids=lambda contract: contract.name)
async def test_each_contract_has_a_document_of_its_own(anonymous: httpx.AsyncClient, contract: Contract) -> None:
    answer = await anonymous.get("/openapi.json", params={"contract": contract.name})
    assert answer.json() == document([(contract, contract.endpoints)], "http://localhost:8787")
    again = await anonymous.get(
        "/openapi.json", params={"contract": contract.name}, headers={"If-None-Match": answer.headers["etag"]}
    )
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", answer.headers["etag"])


async def test_a_contract_that_is_not_served_has_no_document(anonymous: httpx.AsyncClient) -> None:
    body = await refused(anonymous.get("/openapi.json?contract=none"), 400, "request.invalid")
    assert all(contract.name in body["error"] for contract in SERVED.served)


def test_bodies_are_required_without_a_default_and_every_error_has_the_one_shape(served: Json) -> None:
    optional = {endpoint.operation_id for endpoint in ENDPOINTS if endpoint.body_is_optional}
    error = {"$ref": "#/components/schemas/Error"}
    for (method, path), operation in operations_of(served).items():
        statuses = set(operation["responses"])
        assert statuses >= {"400", "401", "500", "503"}
        assert len(statuses & {"200", "202"}) == 1
        assert ("requestBody" in operation) == ({"413", "415"} <= statuses), (method, path)
        if "requestBody" in operation:
            assert operation["requestBody"]["required"] is (operation["operationId"] not in optional)
        assert ("404" in statuses) >= ("{" in path), (method, path)
        for status in statuses - {"200", "202", "204", "206", "304"}:
            assert operation["responses"][status]["content"]["application/json"]["schema"] == error


class Dialect:
    """Reads one document's schemas into what they say, in one way of saying it.

    References are followed; null is a type beside others; a constant is an enum of one; what is only there for people
    is left out, and limits too: the seeds state none, while spaces.md does.
    """

    _FOR_PEOPLE = ("title", "description", "default", "discriminator")
    _LIMITS = ("minimum", "maximum", "minLength", "maxLength", "pattern")

    def __init__(self, specification: Json) -> None:
        self._specification = specification

    def operation(self, path: str, method: str) -> Json:
        operation = self._specification["paths"][path][method]
        parameters = {
            (parameter["in"], parameter["name"]): (parameter["required"], self.schema(parameter["schema"]))
            for parameter in operation["parameters"]
            # Writes of this gateway take the one, which the seeds lack; the seeds have the other beside the security
            # scheme that says the same.
            if parameter["name"] not in (HEADER, "Authorization")
        }
        return {
            "operationId": operation["operationId"],
            "parameters": parameters,
            "body": self._content(operation["requestBody"]),
            "answer": self._content(success(operation)),
        }

    def _content(self, given: Json) -> Json:
        assert set(given["content"]) == {"application/json"}
        return self.schema(given["content"]["application/json"]["schema"])

    def schema(self, schema: Json) -> Json:
        if "$ref" in schema:
            name = schema["$ref"].removeprefix("#/components/schemas/")
            return self.schema(self._specification["components"]["schemas"][name])
        said: Json = {key: value for key, value in schema.items() if key not in (*self._FOR_PEOPLE, *self._LIMITS)}
        if "anyOf" in said:
            said = self._with_null(said)
        if "const" in said:
            said["enum"] = [said.pop("const")]
        if isinstance(said.get("type"), str):
            said["type"] = [said["type"]]
        if "type" in said:
            said["type"] = sorted(said["type"])
        if "object" in said.get("type", []):
            # An object without names is open to all, whichever way that is put; so is one that names some of them.
            named = {} if said.get("additionalProperties") is True else said.get("properties", {})
            said["properties"] = {name: self.schema(part) for name, part in named.items()}
            for name, part in said["properties"].items():
                # The seeds have it of some times and not of others; all are ISO 8601.
                if name.endswith("At") and part.get("format") == "date-time":
                    del part["format"]
            said["required"] = sorted(said.get("required", []))
            said.pop("additionalProperties", None)
        if "oneOf" in said:
            said["oneOf"] = sorted(map(self.schema, said["oneOf"]), key=lambda part: json.dumps(part, sort_keys=True))
        return said

    def _with_null(self, said: Json) -> Json:
        parts = [self.schema(part) for part in said.pop("anyOf")]
        (real,) = (part for part in parts if part["type"] != ["null"])
        assert len(parts) == 2
        return said | real | {"type": [*real["type"], "null"]}


@pytest.mark.parametrize("seed", SEEDS)
def test_the_seeds_operation_is_documented_as_in_the_seed(seed: str, served: Json) -> None:
    specification = json.loads((CONTRACT / f"{seed}.json").read_text())
    ((path, methods),) = specification["paths"].items()
    assert list(methods) == ["post"]
    assert Dialect(served).operation(path, "post") == Dialect(specification).operation(path, "post")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda schemas: schemas["AiConnection"]["required"].remove("enabled"),
        lambda schemas: schemas["AiConnection"]["properties"].pop("defaultModel"),
        lambda schemas: schemas["AiConnection"]["properties"].update(defaultModel={"type": "string"}),
        lambda schemas: schemas["AiConnection"]["properties"].update(createdAt={"type": "string", "format": "date"}),
        lambda schemas: schemas["CreateAiConnection"]["properties"]["provider"]["enum"].append("other"),
        lambda schemas: schemas["CreateAiConnection"]["properties"].update(enabled={"type": "integer"}),
        lambda schemas: schemas["CreateAiConnection"]["required"].append("apiKey"),
    ],
)
def test_the_comparison_itself_finds_a_difference(wrong: Any, served: Json) -> None:
    specification = json.loads((CONTRACT / "ai-connections-create.json").read_text())
    wrong(served["components"]["schemas"])
    assert Dialect(served).operation("/v1/ai-connections", "post") != Dialect(specification).operation(
        "/v1/ai-connections", "post"
    )


# With a real one they have tests of their own (tests/automation).
NEED_A_BROWSER = {"workspaces-execute", "workspaces-runtimes-state", "workspaces-runtimes-state-read"}
FILES_IN_ORDER = {"storage-files-upload": -3, "runtimes-files-stage": -2, "runtimes-files-collect": -1}


def example_of(specification: Json, path: str, method: str) -> Json:
    """The example of an operation's body."""
    ((_, content),) = specification["paths"][path][method.lower()]["requestBody"]["content"].items()
    example: Json = content["example"]
    return example


def test_every_answer_has_an_example_that_is_one(served: Json) -> None:
    """Closed, as `Recorder` holds real answers against the document; errors have codes, which are listed instead."""
    there = 0
    for endpoint in ENDPOINTS:
        if endpoint.answer is None:
            continue
        operation = operations_of(served)[endpoint.method.lower(), documented(endpoint.path)]
        ((media_type, described),) = success(operation)["content"].items()
        example = described["example"]
        if media_type != JSON:
            # The text itself is a string to generators, and what its events are stands beside it.
            assert described["schema"]["type"] == "string"
            assert isinstance(example, str)
            (data,) = re.findall(r"^data: (.*)$", example, re.MULTILINE)
            example = json.loads(data)
        assert mismatches(endpoint.operation_id, endpoint.status, example) == [], endpoint.operation_id
        # As it would be sent, without a change.
        assert json.loads(endpoint.answer.model_validate(example).json_bytes()) == example
        there += 1
    assert there > 30


def test_every_example_of_a_body_fits_its_schema(served: Json) -> None:
    there = 0
    for place, operation in operations_of(served).items():
        for content in operation.get("requestBody", {"content": {}})["content"].values():
            schema = content["schema"] | {"components": served["components"]}
            validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
            assert [error.message for error in validator.iter_errors(content["example"])] == [], place
            there += 1
    assert there > 15


async def test_every_example_is_accepted_and_the_answers_are_as_the_document_says(
    client: httpx.AsyncClient, served: Json, gateway: Gateway
) -> None:
    """Each one in order, right and wrong; `Recorder` judges. The other tests of the API have it watch them, too."""
    recorder = Recorder()
    client.event_hooks = {"response": [recorder.check]}

    async def make(path: str, body: Json) -> str:
        made: str = (await ok(client.post(path, json=body)))["id"]
        return made

    space = await make("/v1/spaces", {"mounts": {"storage": {"space": "x"}}, "metadata": {"a": [1]}})
    runtime = await make(f"/v1/spaces/{space}/runtimes", {"config": {"locale": "de"}})
    connections = f"/v1/spaces/{space}/runtimes/{runtime}/connections"
    lease = await make(connections, {"protocol": "cdp"})
    (run,) = (await ok(client.get("/v1/runs")))["runs"]
    ai = await make("/v1/ai-connections", {"label": "a", "provider": "openai"})
    subaccount = await make("/v1/subaccounts", {"name": "a", "limits": {"maxSpaces": 1}})
    key = (await ok(client.post(f"/v1/subaccounts/{subaccount}/keys", json={"name": "k"})))["apiKey"]["id"]
    file = await ok(client.post(f"/v1/spaces/{space}/storage/files", files={"file": ("a", b"a")}))
    at = {"spaceId": space, "id": runtime, "activeRunId": run["id"]}
    invocation = await make_invocation(gateway, client, at)
    artifact = await make_artifact(gateway, at)
    tool = await make(f"/v1/spaces/{space}/tools", TOOL | {"name": "own"})
    toolset = await make(f"/v1/spaces/{space}/toolsets", {"name": "x"})
    tested = await ok(client.post(f"/v1/spaces/{space}/tools/{tool}/test", json={"input": []}))
    workspace = await make("/v1/workspaces", {"name": "a", "mounts": {"storage": {"workspace": "shared"}}})
    recorded = {"alias": "first", "launch": {"mode": "ephemeral", "config": {"recording": True}}}
    alias = (await ok(client.post(f"/v1/workspaces/{workspace}/runtimes", json=recorded)))["alias"]
    ids = {
        "/v1/spaces": {"id": space, "runtimeId": runtime, "connectionId": lease, "fileId": file["id"]}
        | {"toolId": tool, "toolsetId": toolset, "callId": tested["toolCallId"]},
        "/v1/browser-profiles": {"id": await make("/v1/browser-profiles", {"name": "a"})},
        "/v1/workspaces": {"id": workspace, "alias": alias},
        "/v1/runs": {"id": run["id"]},
        "/v1/ai-connections": {"id": ai},
        "/v1/proxies": {"id": await make("/v1/proxies", {"name": "own", "url": "http://192.0.9.9:3128"})},
        "/v1/ai-credentials": {"id": await make("/v1/ai-credentials", AI_CREDENTIAL)},
        "/v1/subaccounts": {"id": subaccount, "keyId": key},
        "/v1/invocations": {"id": invocation},
        "/v1/operations": {"id": invocation},
        "/v1/artifacts": {"id": str(artifact.id)},
    }

    # What ends a thing comes last, and what a thing is in after it. A file is stored, copied in, and out again.
    def order(endpoint: Any) -> tuple[bool, int, int]:
        ends = endpoint.method == "DELETE" or endpoint.operation_id.endswith(("stop", "close", "archive"))
        return ends, FILES_IN_ORDER.get(endpoint.operation_id, 0), -len(endpoint.path)

    # The vault's, which need a secret and mounts, are played in tests/contracts/test_vault.py, and those of a storage,
    # which need its name, in tests/contracts/workspaces/test_storage.py. Those of extensions need a package. Agents,
    # which need a model and a runtime without connections, are in tests/agents/test_invocations.py.
    elsewhere = ("/v1/vault", "/v1/storage", "/v1/browser-extensions")
    agents = "runtimes-invocations-create"
    played = [it for it in ENDPOINTS if not it.path.startswith(elsewhere) and it.operation_id != agents]
    for endpoint in sorted(played, key=order):
        fields = dict(example_of(served, endpoint.path, endpoint.method)) if endpoint.form is not None else None
        form = {"file": ("b", fields.pop("file").encode())} if fields is not None else None
        body = example_of(served, endpoint.path, endpoint.method) if endpoint.body is not None else None
        right = next((given for prefix, given in ids.items() if endpoint.path.startswith(prefix)), {})
        if right and "{" in endpoint.path:
            never = re.sub(r"{\w+}", NEVER, endpoint.path)
            assert (await client.request(endpoint.method, never, json=body, files=form)).status_code == 404
        if body is not None:
            path = endpoint.path.format(**right)
            assert (await client.request(endpoint.method, path, json={"x": 1})).status_code == 400
            assert (await client.request(endpoint.method, path, content=b"{}")).status_code == 415
        params = {"limit": "1", "cursor": "0"} if endpoint.streams else None
        answer = await client.request(
            endpoint.method, endpoint.path.format(**right), json=body, data=fields, files=form, params=params
        )
        assert answer.status_code == (503 if endpoint.operation_id in NEED_A_BROWSER else 200), answer.text

    accepted = {name for name, status in recorder.seen if status == 200}
    assert accepted == {it.operation_id for it in played} - NEED_A_BROWSER


async def test_the_recorder_itself_finds_what_does_not_fit() -> None:
    """Guards the check that all the other tests of the API lean on."""
    right = {"id": NEVER, "deleted": True}
    url = httpx.URL(f"http://localhost:8787/v1/spaces/{NEVER}")

    def answer(status: int, body: Any, **headers: str) -> httpx.Response:
        all_headers = {"content-type": "application/json", "x-request-id": NEVER, **headers}
        return httpx.Response(status, json=body, headers=all_headers, request=httpx.Request("DELETE", url))

    async def judged(response: httpx.Response) -> str:
        try:
            await Recorder().check(response)
        except (AssertionError, KeyError, ValueError):
            return "wrong"
        return "right"

    error = {"error": "x", "code": "space.not_found", "requestId": NEVER, "details": {}}
    cases = [
        ("right", answer(200, right)),
        ("right", answer(404, error)),
        ("wrong", answer(200, {"id": NEVER})),
        ("wrong", answer(200, right | {"id": "no uuid"})),
        ("wrong", answer(200, right | {"more": 1})),
        ("wrong", answer(201, right)),
        ("wrong", answer(404, error | {"requestId": "another"})),
        ("wrong", answer(404, {"detail": "x"})),
        ("wrong", answer(200, right, **{"content-type": "text/plain"})),
    ]
    for expected, response in cases:
        assert await judged(response) == expected, response.text
