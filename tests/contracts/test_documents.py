"""Each served OpenAPI document, played: no valid request is answered with 5xx, and each answer is as described.

Schemathesis makes requests from the document, most of them with ids of what there is. GATEWAY_TEST_EXAMPLES makes it
thorough.
"""

from __future__ import annotations

import asyncio
import json
import os
import zoneinfo
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as generated
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    positive_data_acceptance,
    response_schema_conformance,
    status_code_conformance,
)

from gateway.app import CONTRACTS, Gateway
from gateway.settings import Settings as GatewaySettings
from tests.support.api import Json, make_runtime, make_space, make_subaccount, ok, success
from tests.support.artifacts import make_artifact
from tests.support.extension_packages import working
from tests.support.fake_providers import KEYS
from tests.support.invocations import make_invocation
from tests.support.serving import serving
from tests.support.tools import TOOL

EXAMPLES = int(os.environ.get("GATEWAY_TEST_EXAMPLES", "3"))
# schemathesis.APIOperation, whose parameters are types of its own.
Operation = Any
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    positive_data_acceptance,
]
SECONDS = 300.0
# Of what waits as long as it is asked to, by default for half a minute.
WAIT_MS = 20
PROXY = {"name": "proxy", "url": "http://192.0.9.9:3128"}
PROVIDER = {"provider": "openai", "label": "provider", "apiKey": KEYS["openai"]}
# Endless by nature; the tests of streams read them.
STREAM = "text/event-stream"
# Of browsers that are no fakes; the tests of pages' states read them.
NEED_A_BROWSER = {"workspaces-runtimes-state", "workspaces-runtimes-state-read"}
# No schema says what a package of an extension is.
NEED_A_PACKAGE = {"browser-extensions-create", "browser-extensions-upload", "browser-extensions-import"}
# Of agents and their models; the tests of invocations read their answers, each of which is checked by its model.
NEED_AN_AGENT = {"runtimes-invocations-create"}
NOT_PLAYED = NEED_A_BROWSER | NEED_A_PACKAGE | NEED_AN_AGENT


# In its form. It is of no list, since each takes its own cursors only, so that it is not sent.
CURSOR = "cursor"

# What a pattern can't say; the document explains each.
FORMATS = {
    "ai-connection": st.just(PROVIDER["label"]),
    "saved-proxy": st.just(PROXY["name"]),
    "base-url": st.just("https://models.example/v1"),
    "cursor": st.just(CURSOR),
    "iana-time-zone": st.sampled_from(sorted(zoneinfo.available_timezones())),
    "json-object": st.dictionaries(st.text("ab"), st.integers() | st.text("ab")).map(json.dumps),
    "proxy-credential": st.text("ab :%é", min_size=1, max_size=20),
    "proxy-host": st.sampled_from(["proxy.example", "192.0.2.1", "2001:db8::1"]),
    "proxy-url": st.sampled_from(["http://user:password@proxy.example:3128", "socks5://192.0.2.1"]),
    "vault-key": st.sampled_from(["prod/crm", "a", "a b", "\N{SNOWMAN}"]),
    "origin": st.sampled_from(["https://bank.example", "http://127.0.0.1:8080"]),
    "origin-pattern": st.sampled_from(["https://*.bank.example", "https://bank.example:*"]),
    "totp-seed": st.sampled_from(["JBSWY3DPEHPK3PXP", "otpauth://totp/x?secret=JBSWY3DP&digits=8"]),
    "url-pattern": st.sampled_from(["example.com", "*.example.com", "https://*:8443", "http://example.com/path*"]),
}
for _name, _strategy in FORMATS.items():
    schemathesis.openapi.format(_name, _strategy)


def operations(document: Json) -> Iterator[Operation]:
    """Every operation that ends its answer, and that a fake browser does, for any body of its schema."""
    for result in schemathesis.openapi.from_dict(document).get_all_operations():
        operation: Operation = result.ok()  # type: ignore[union-attr]  # the gateway's documents are valid
        answers = success(operation.definition.raw).get("content", {})
        if STREAM not in answers and operation.definition.raw["operationId"] not in NOT_PLAYED:
            yield operation


def collection_of(operation: Operation) -> str:
    """What its path begins with: `spaces` of `/v1/spaces/{id}/runtimes`."""
    return str(operation.path.split("/")[2])


def operation_fields(operation: Operation) -> set[str]:
    """Names of the fields of its JSON body."""
    return {name for body in operation.body for name in body.definition["schema"].get("properties", {})}


def fit(body: Json, fields: set[str]) -> None:
    """Changes what no schema can say: a time is in the future, and no text in free JSON has U+0000."""
    if "timeoutMs" in fields:
        body["timeoutMs"] = WAIT_MS
    if body.get("after") == CURSOR:
        del body["after"]
    if body.get("expiresAt") is not None:
        body["expiresAt"] = "2999-12-31T23:59:59Z"
    if {"password", "notes"} <= fields:
        # A text that a name has too, as generated ones may, is no secret.
        body |= {name: body[name][::-1] for name in {"value", "password", "notes"} & body.keys() if body[name]}
    # What is a JSON Schema, and which address and which ways to it go together.
    body |= {name: {"type": "object"} for name in {"inputSchema", "outputSchema"} & body.keys()}
    if "execution" in body:
        body["execution"] = TOOL["execution"]
    if "customToolIds" in body:
        body["customToolIds"] = []
    for name in ("metadata", "options"):
        if isinstance(body.get(name), dict):
            body[name] = json.loads(json.dumps(body[name]).replace("\\u0000", ""))


def play(operation: Operation, base_url: str, headers: dict[str, str], known: dict[str, str]) -> None:
    """Send valid requests; raises what a check finds, for the smallest request that has it."""

    # `/v1/spaces/{id}/...`: the first id is one of what the path begins with.
    collection = collection_of(operation)
    actual = {"id": known[collection], **known} if collection in known else known
    actual = {each.name: actual[each.name] for each in operation.path_parameters if each.name in actual}

    @generated(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE),
        real=st.sampled_from([True, True, True, False]),
    )
    def send(case: Case[Any], real: bool) -> None:
        if real:
            case.path_parameters.update(actual)
        if isinstance(case.body, dict):
            fit(case.body, operation_fields(operation))
        for name in ("cursor", "after"):
            if case.query.get(name) == CURSOR:
                del case.query[name]
        # Any other may begin behind the end of the file, which no schema knows.
        if "Range" in (case.headers or {}):
            case.headers["Range"] = "bytes=0-0"
        response = case.call(base_url=base_url, headers=headers, timeout=SECONDS)
        case.validate_response(response, checks=CHECKS)

    send()


async def made_of_the_organization(client: httpx.AsyncClient) -> dict[str, str]:
    """Ids of things that there are, by the names that paths have for them, or for their collections."""
    subaccount, _ = await make_subaccount(client)
    key = await ok(client.post(f"/v1/subaccounts/{subaccount}/keys", json={"name": "key"}))
    provider = await ok(client.post("/v1/ai-connections", json=PROVIDER))
    profile = await ok(client.post("/v1/browser-profiles", json={"name": f"profile {uuid4()}"}))
    extension = await ok(client.post("/v1/browser-extensions/upload", files={"file": ("a.zip", working())}))
    proxy = await ok(client.post("/v1/proxies", json={"name": f"proxy {uuid4()}", "url": "http://192.0.9.9:3128"}))
    return {
        "proxies": proxy["id"],
        "extensionId": extension["id"],
        "browser-extensions": extension["id"],
        "browser-profiles": profile["id"],
        "subaccounts": subaccount,
        "ai-connections": provider["id"],
        "ai-credentials": provider["id"],
        "keyId": key["apiKey"]["id"],
    }


async def made_in_a_space(gateway: Gateway, client: httpx.AsyncClient) -> dict[str, str]:
    """The same of what is in a space, and of the space."""
    space = await make_space(client)
    runtime = await make_runtime(client, space)
    lease = await ok(client.post(f"/v1/spaces/{space}/runtimes/{runtime['id']}/connections", json={"protocol": "cdp"}))
    file = await ok(client.post(f"/v1/spaces/{space}/storage/files", files={"file": ("a.txt", b"a")}))
    invocation = await make_invocation(gateway, client, runtime)
    tool = await ok(client.post(f"/v1/spaces/{space}/tools", json=TOOL))
    toolset = await ok(client.post(f"/v1/spaces/{space}/toolsets", json={"name": "own"}))
    tested = await ok(client.post(f"/v1/spaces/{space}/tools/{tool['id']}/test", json={"input": []}))
    return {
        "toolId": tool["id"],
        "toolsetId": toolset["id"],
        "callId": tested["toolCallId"],
        "spaces": space,
        "workspaces": space,
        "runs": runtime["activeRunId"],
        "invocations": invocation,
        "operations": invocation,
        "storage": file["id"],
        "artifacts": str((await make_artifact(gateway, runtime)).id),
        "runtimeId": runtime["id"],
        "alias": runtime["id"],
        "connectionId": lease["id"],
        "fileId": file["id"],
    }


@pytest.fixture
def settings(settings: GatewaySettings) -> GatewaySettings:
    """The document has the contract's limits, which the operator's may be below, and addresses of documentation."""
    allowed = ("192.0.2.0/24", "2001:db8::/32")
    return settings.model_copy(update={"max_lifetime_seconds": 2592000, "egress_allow": allowed})


@pytest.mark.thorough
@pytest.mark.timeout(900)
@pytest.mark.parametrize("contract", [contract.name for contract in CONTRACTS])
async def test_every_answer_to_a_valid_request_is_as_documented(
    contract: str, client: httpx.AsyncClient, gateway: Gateway, settings: GatewaySettings, api_key: str
) -> None:
    document = await ok(client.get("/openapi.json", params={"contract": contract}))
    headers = {"Authorization": f"Bearer {api_key}", "Gateway-Contract": contract}
    wrong: dict[str, str] = {}
    await ok(client.post("/v1/proxies", json=PROXY))
    async with serving(gateway, settings) as port:
        of_the_organization = await made_of_the_organization(client)
        in_a_space = await made_in_a_space(gateway, client)
        # Those that change nothing come first, since all of them may use the same things.
        for operation in sorted(operations(document), key=lambda operation: operation.method != "get"):
            known = of_the_organization | in_a_space
            try:
                await asyncio.to_thread(play, operation, f"http://127.0.0.1:{port}", headers, known)
            except Exception as error:
                wrong[operation.label] = str(error)[:2000]
            # Again, since the operation may have ended or deleted them.
            if operation.method != "get" and collection_of(operation) in of_the_organization:
                of_the_organization = await made_of_the_organization(client)
            elif operation.method != "get":
                # So that the places for runtimes last; it may be gone already.
                await client.delete(f"/v1/spaces/{in_a_space['spaces']}")
                in_a_space = await made_in_a_space(gateway, client)
    assert wrong == {}
