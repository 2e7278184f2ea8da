"""/v1/spaces/{id}/tools, toolsets and tool-calls."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Awaitable
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from gateway.app import Gateway
from gateway.settings import Settings
from gateway.store.database import Database
from tests.support.api import Json, checked, make_space, ok, refused
from tests.support.tools import TOOL, ToolServer, response, serving_tool

SECRET = "s3cr3t-of-the-tool"
ORDER = {"type": "object", "properties": {"number": {"type": "string"}}, "required": ["number"]}
TOTAL = {"type": "object", "properties": {"total": {"type": "integer"}}, "required": ["total"]}
# Each reference doubles what is to be looked at.
SLOW = {
    "$defs": {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(40)} | {"d40": {"type": "string"}},
    "$ref": "#/$defs/d0",
}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    limits = {"tool_max_bytes": 2048, "tool_record_bytes": 200, "space_max_tools": 3, "tool_max_timeout_seconds": 20.0}
    return settings.model_copy(update={"egress_allow": ("127.0.0.1",)} | limits)


@pytest.fixture
def client(client: httpx.AsyncClient) -> httpx.AsyncClient:
    return checked(client)


@pytest.fixture
async def server() -> AsyncIterator[ToolServer]:
    async with serving_tool() as server:
        yield server


@pytest.fixture
async def space(client: httpx.AsyncClient) -> str:
    """Its mounts allow the keys of the vault that begin with `tools`."""
    made = await ok(client.post("/v1/spaces", json={"mounts": {"vault": {"allow": ["tools"]}}}))
    space_id: str = made["id"]
    return space_id


async def make(client: httpx.AsyncClient, space: str, server: ToolServer | None = None, **changes: Any) -> Json:
    execution = {"type": "webhook", "url": TOOL["execution"]["url"] if server is None else server.url}
    body = TOOL | {"execution": execution | changes.pop("execution", {})} | changes
    made: Json = await ok(client.post(f"/v1/spaces/{space}/tools", json=body))
    return made


async def called(client: httpx.AsyncClient, tool: Json, given: Any = None) -> Json:
    path = f"/v1/spaces/{tool['spaceId']}/tools/{tool['id']}/test"
    tested: Json = await ok(client.post(path, json={"input": {} if given is None else given}))
    return tested


async def codes(answer: Awaitable[httpx.Response]) -> dict[str, str]:
    """The codes of an answer's errors, by field."""
    refusal = await refused(answer, 400, "request.invalid")
    return {error["field"]: error["code"] for error in refusal["details"]["errors"]}


async def recorded(client: httpx.AsyncClient, tool: Json, tested: Json) -> Json:
    record: Json = await ok(client.get(f"/v1/spaces/{tool['spaceId']}/tool-calls/{tested['toolCallId']}"))
    return record


async def test_a_tool_is_made_listed_changed_and_deleted(client: httpx.AsyncClient, space: str) -> None:
    made = await make(client, space, inputSchema=ORDER, description="Finds it.", metadata={"a": 1})
    assert made == {
        "id": made["id"],
        "spaceId": space,
        "name": "find_order",
        "description": "Finds it.",
        "enabled": True,
        "execution": TOOL["execution"] | {"timeoutMs": 10_000, "auth": {"type": "none"}},
        "inputSchema": ORDER,
        "outputSchema": {},
        "metadata": {"a": 1},
        "createdAt": made["createdAt"],
        "updatedAt": made["createdAt"],
    }
    path = f"/v1/spaces/{space}/tools"
    assert await ok(client.get(path)) == {"tools": [made]}
    assert await ok(client.get(f"{path}/{made['id']}")) == made
    execution = {"type": "webhook", "url": "https://192.0.9.9/x", "timeoutMs": 500}
    execution |= {"auth": {"type": "header", "secretId": "tools/a", "header": "X-Key"}, "signingSecretId": "tools/b"}
    changes = {"name": "other", "description": None, "enabled": False, "execution": execution, "outputSchema": TOTAL}
    changed = await ok(client.patch(f"{path}/{made['id']}", json=changes))
    assert changed == made | changes | {"updatedAt": changed["updatedAt"]}
    assert await ok(client.delete(f"{path}/{made['id']}")) == {"id": made["id"], "deleted": True}
    await refused(client.get(f"{path}/{made['id']}"), 404, "tool.not_found")
    assert await ok(client.get(path)) == {"tools": []}


async def test_a_tool_of_another_space_is_not_found(client: httpx.AsyncClient, space: str) -> None:
    made, other = await make(client, space), await make_space(client)
    path = f"/v1/spaces/{other}/tools/{made['id']}"
    await refused(client.get(path), 404, "tool.not_found")
    await refused(client.patch(path, json={"enabled": False}), 404, "tool.not_found")
    await refused(client.post(f"{path}/test", json={}), 404, "tool.not_found")
    await refused(client.delete(path), 404, "tool.not_found")
    body = {"name": "x", "customToolIds": [made["id"]]}
    assert await codes(client.post(f"/v1/spaces/{other}/toolsets", json=body)) == {"customToolIds.0": "tool.not_found"}
    await refused(client.get(f"/v1/spaces/{uuid4()}/tools"), 404, "space.not_found")


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"name": "Find"}, {"name": "string_pattern_mismatch"}),
        ({"name": "a" * 65}, {"name": "string_too_long"}),
        ({"inputSchema": {"type": "strin"}}, {"inputSchema": "json_schema.invalid"}),
        ({"outputSchema": {"pattern": "(?=a)"}}, {"outputSchema": "json_schema.invalid"}),
        ({"inputSchema": {"$ref": "http://127.0.0.1:1/schema"}}, {"inputSchema": "json_schema.invalid"}),
        ({"inputSchema": {"$ref": "file:///etc/passwd"}}, {"inputSchema": "json_schema.invalid"}),
        ({"execution": {"type": "webhook", "url": "file:///etc/passwd"}}, {"execution.url": "field.invalid"}),
        ({"execution": {"type": "webhook", "url": "http://ada:x@192.0.9.9/"}}, {"execution.url": "field.invalid"}),
        ({"execution": {"type": "webhook", "url": "http://169.254.169.254/"}}, {"execution.url": "egress.metadata"}),
        ({"execution": {"type": "webhook", "url": "http://127.0.0.2/"}}, {"execution.url": "egress.loopback_address"}),
        (
            {"execution": TOOL["execution"] | {"timeoutMs": 20_001}},
            {"execution.timeoutMs": "less_than_equal"},
        ),
        ({"execution": TOOL["execution"] | {"auth": {"type": "bearer"}}}, {"execution.auth": "field.invalid"}),
        (
            {"execution": TOOL["execution"] | {"auth": {"type": "header", "secretId": "a", "header": "Host"}}},
            {"execution.auth": "field.invalid"},
        ),
    ],
)
async def test_what_can_not_be_a_tool_is_refused_by_field(
    client: httpx.AsyncClient, space: str, changes: Json, wrong: Json
) -> None:
    path = f"/v1/spaces/{space}/tools"
    made = await make(client, space, name="right")
    assert await codes(client.post(path, json=TOOL | changes)) == wrong
    assert await codes(client.patch(f"{path}/{made['id']}", json=changes)) == wrong
    assert await ok(client.get(path)) == {"tools": [made]}


async def test_the_longest_timeout_is_taken(client: httpx.AsyncClient, space: str) -> None:
    assert (await make(client, space, execution={"timeoutMs": 20_000}))["execution"]["timeoutMs"] == 20_000


async def test_names_are_unique_in_a_space_and_their_number_is_limited(client: httpx.AsyncClient, space: str) -> None:
    for kind, body in (("tool", TOOL), ("toolset", {"name": "one"})):
        path = f"/v1/spaces/{space}/{kind}s"
        first = await ok(client.post(path, json=body))
        await refused(client.post(path, json=body), 409, f"{kind}.name_conflict")
        await ok(client.post(path, json=body | {"name": "two"}))
        await refused(client.patch(f"{path}/{first['id']}", json={"name": "two"}), 409, f"{kind}.name_conflict")
        await ok(client.post(path, json=body | {"name": "three"}))
        await refused(client.post(path, json=body | {"name": "four"}), 409, f"{kind}.limit_reached")
        await ok(client.delete(f"{path}/{first['id']}"))
        await ok(client.post(path, json=body | {"name": "four"}))


async def test_a_tool_is_called_once_with_its_input(client: httpx.AsyncClient, space: str, server: ToolServer) -> None:
    tool = await make(client, space, server, inputSchema=ORDER, outputSchema=TOTAL)
    server.answer = {"total": 42}
    tested = await called(client, tool, {"number": "A-17"})
    assert (tested["ok"], tested["output"], "error" in tested) == (True, {"total": 42}, False)
    ((head,), (given,)) = server.heads, server.given
    assert head[":"] == "POST /orders?v=1 HTTP/1.1"
    assert (head["content-type"], head["webhook-id"]) == ("application/json", tested["toolCallId"])
    assert {"authorization", "webhook-signature"}.isdisjoint(head)
    assert given == {
        "callId": tested["toolCallId"],
        "tool": {"id": tool["id"], "name": "find_order"},
        "spaceId": space,
        "actor": "test",
        "runId": None,
        "invocationId": None,
        "input": {"number": "A-17"},
    }
    record = await recorded(client, tool, tested)
    assert record["tool"] == {"id": tool["id"], "name": "find_order", "executionType": "webhook"}
    assert [record[name] for name in ("actor", "status", "input", "output", "error", "duration")] == [
        "test",
        "succeeded",
        {"number": "A-17"},
        {"total": 42},
        None,
        tested["latency"],
    ]


@pytest.mark.parametrize(
    ("auth", "header", "sent"),
    [
        ({"type": "bearer", "secretId": "tools/text"}, "authorization", f"Bearer {SECRET}"),
        ({"type": "header", "secretId": "tools/text", "header": "X-Key"}, "x-key", SECRET),
        (
            {"type": "basic", "secretId": "tools/login"},
            "authorization",
            f"Basic {base64.b64encode(f'ada:{SECRET}'.encode()).decode()}",
        ),
    ],
)
async def test_the_vault_has_what_a_server_knows_the_gateway_by(
    client: httpx.AsyncClient, space: str, server: ToolServer, database: Database, auth: Json, header: str, sent: str
) -> None:
    origins = {"origins": [f"http://127.0.0.1:{server.port}"]}
    await ok(client.put("/v1/vault/tools/text", json={"value": SECRET} | origins))
    await ok(client.put("/v1/vault/tools/login", json={"username": "ada", "password": SECRET} | origins))
    tool = await make(client, space, server, execution={"auth": auth})
    # It repeats what it was sent, which the record must not.
    server.answer = {"you sent": sent}
    tested = await called(client, tool)
    assert (tested["ok"], server.heads[0][header]) == (True, sent)
    assert SECRET not in json.dumps(tested)
    record = await recorded(client, tool, tested)
    assert SECRET not in json.dumps(record)
    async with database.connect() as connection:
        (row,) = (await connection.execute(text("SELECT tool_calls::text FROM tool_calls"))).scalars()
        (kept,) = (await connection.execute(text("SELECT tools::text FROM tools"))).scalars()
    assert SECRET not in row + kept


@pytest.mark.parametrize("secret", ["a plain text", "whsec_" + base64.b64encode(b"the key itself").decode()])
async def test_requests_are_signed_as_standard_webhooks_are(
    client: httpx.AsyncClient, space: str, server: ToolServer, secret: str
) -> None:
    await ok(client.put("/v1/vault/tools/sign", json={"value": secret}))
    tool = await make(client, space, server, execution={"signingSecretId": "tools/sign"})
    await called(client, tool)
    (head,), (body,) = server.heads, server.bodies
    key = b"the key itself" if secret.startswith("whsec_") else secret.encode()
    signed = f"{head['webhook-id']}.{head['webhook-timestamp']}.".encode() + body
    digest = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    assert head["webhook-signature"] == f"v1,{digest}"


@pytest.mark.parametrize(
    ("key", "code"),
    [
        ("other/text", "vault.key_forbidden"),
        ("tools/none", "vault.secrets.not_found"),
        ("tools/login", "vault.no_field"),
        ("tools/elsewhere", "vault.origin_refused"),
        ("tools/nowhere", "vault.origin_refused"),
    ],
)
async def test_a_secret_that_may_not_be_used_fails_the_call(
    client: httpx.AsyncClient, space: str, server: ToolServer, key: str, code: str
) -> None:
    await ok(client.put("/v1/vault/other/text", json={"value": SECRET}))
    origins = {"origins": [f"http://127.0.0.1:{server.port}"]}
    await ok(client.put("/v1/vault/tools/login", json={"value": f"{SECRET}\n"} | origins))
    await ok(client.put("/v1/vault/tools/elsewhere", json={"value": SECRET, "origins": ["http://127.0.0.1:1"]}))
    await ok(client.put("/v1/vault/tools/nowhere", json={"value": SECRET}))
    tool = await make(client, space, server, execution={"auth": {"type": "bearer", "secretId": key}})
    tested = await called(client, tool)
    assert (tested["ok"], tested["error"]["code"]) == (False, "tool.secret_unavailable")
    assert (tested["error"]["details"], server.heads) == ({"code": code}, [])


async def test_a_call_that_fails_says_why_and_is_recorded(
    client: httpx.AsyncClient, space: str, server: ToolServer
) -> None:
    tool = await make(client, space, server, inputSchema=ORDER, outputSchema=TOTAL)
    path = f"/v1/spaces/{space}/tools/{tool['id']}"
    right = {"number": "A-17"}

    async def failed(given: Any = right) -> Json:
        tested = await called(client, tool, given)
        record = await recorded(client, tool, tested)
        assert (tested["ok"], record["status"], record["error"]) == (False, "failed", tested["error"])
        error: Json = tested["error"]
        return error

    wrong = await failed({"number": 17})
    assert (wrong["code"], wrong["details"]["errors"][0]["field"]) == ("tool.input_invalid", "number")
    assert not server.bodies
    server.answer = {"total": "much"}
    wrong = await failed()
    assert (wrong["code"], wrong["details"]["errors"][0]["field"]) == ("tool.output_invalid", "total")
    server.status = 500
    assert (await failed()) == {
        "code": "tool.status",
        "message": "The server answered 500.",
        "details": {"httpStatus": 500},
    }
    # Nothing is sent to where a redirect leads.
    sent = len(server.bodies)
    server.replies = lambda body: _later(response(b"", 307, f"Location: {server.url}"))
    assert (await failed())["details"] == {"httpStatus": 307}
    assert len(server.bodies) == sent + 1
    server.replies = lambda body: _later(response(b"no JSON"))
    assert (await failed())["code"] == "tool.output_invalid"
    server.replies = lambda body: _later(b"")
    assert (await failed())["code"] == "tool.unreachable"
    await ok(client.patch(path, json={"execution": tool["execution"] | {"timeoutMs": 1}}))
    never = asyncio.Event()
    server.replies = lambda body: _later(b"", never)
    assert (await failed())["code"] == "tool.timeout"
    never.set()
    await ok(client.patch(path, json={"enabled": False}))
    assert (await failed())["code"] == "tool.disabled"


async def _later(answer: bytes, event: asyncio.Event | None = None) -> bytes:
    if event is not None:
        await event.wait()
    return answer


async def test_what_is_sent_received_and_recorded_is_limited(
    client: httpx.AsyncClient, space: str, server: ToolServer
) -> None:
    tool = await make(client, space, server)
    await called(client, tool, {"a": ""})
    spare = 2048 - len(server.bodies[0])
    at, over = await called(client, tool, {"a": "x" * spare}), await called(client, tool, {"a": "x" * (spare + 1)})
    assert (at["ok"], over["error"]["code"]) == (True, "tool.input_too_large")
    assert [len(body) for body in server.bodies] == [2048 - spare, 2048]
    # A text and its quotation marks
    server.answer = "x" * 2046
    assert (await called(client, tool))["ok"]
    server.answer = "x" * 2047
    assert (await called(client, tool))["error"]["code"] == "tool.output_too_large"
    server.answer = "x" * 198
    assert (await recorded(client, tool, await called(client, tool)))["output"] == server.answer
    server.answer = "x" * 199
    tested = await called(client, tool)
    assert tested["output"] == server.answer
    assert (await recorded(client, tool, tested))["output"] is None


async def test_a_schema_that_takes_for_ever_ends_its_own_call_alone(
    gateway: Gateway, client: httpx.AsyncClient, space: str, server: ToolServer
) -> None:
    slow = await make(client, space, server, name="slow", inputSchema=SLOW)
    other = await make(client, space, server)
    ended = await called(client, slow, 1)
    assert (ended["ok"], ended["error"]["code"]) == (False, "tool.input_invalid")
    assert (await called(client, other))["ok"]


async def test_calls_are_listed_newest_first_by_filters(
    client: httpx.AsyncClient, space: str, server: ToolServer
) -> None:
    one, two = await make(client, space, server), await make(client, space, server, name="two", inputSchema=ORDER)
    calls = [(await called(client, tool))["toolCallId"] for tool in (one, two, one)]
    path = f"/v1/spaces/{space}/tool-calls"

    async def listed(**query: str) -> list[str]:
        return [call["toolCallId"] for call in (await ok(client.get(path, params=query)))["toolCalls"]]

    assert await listed() == calls[::-1]
    assert await listed(toolId=two["id"]) == [calls[1]]
    assert await listed(status="failed") == [calls[1]]
    assert await listed(status="succeeded") == [calls[2], calls[0]]
    assert await listed(actor="invocation") == []
    assert await listed(runId=str(uuid4())) == await listed(invocationId=str(uuid4())) == []
    page = await ok(client.get(path, params={"limit": "2"}))
    rest = await ok(client.get(path, params={"limit": "2", "cursor": page["nextCursor"]}))
    assert [call["toolCallId"] for call in page["toolCalls"] + rest["toolCalls"]] == calls[::-1]
    assert rest["nextCursor"] is None
    # Records outlive their tool.
    await ok(client.delete(f"/v1/spaces/{space}/tools/{two['id']}"))
    assert await listed(toolId=two["id"]) == [calls[1]]


async def test_old_records_are_removed(
    gateway: Gateway, client: httpx.AsyncClient, space: str, server: ToolServer, database: Database
) -> None:
    tool = await make(client, space, server)
    old, new = await called(client, tool), await called(client, tool)
    async with database.begin() as connection:
        change = (
            f"UPDATE tool_calls SET created_at = now() - interval '1 day' * {gateway.services.settings.events_days}"
        )
        await connection.execute(text(f"{change} - interval '1 minute' WHERE id = '{old['toolCallId']}'"))
    assert (await gateway.services.tool_calls.remove_some(), await gateway.services.tool_calls.remove_some()) == (1, 0)
    await refused(client.get(f"/v1/spaces/{space}/tool-calls/{old['toolCallId']}"), 404, "tool_call.not_found")
    assert await recorded(client, tool, new)


async def test_a_toolset_is_made_listed_changed_and_deleted(client: httpx.AsyncClient, space: str) -> None:
    one, two = await make(client, space), await make(client, space, name="two")
    path = f"/v1/spaces/{space}/toolsets"
    made = await ok(client.post(path, json={"name": "set", "builtin": {"files": True}, "customToolIds": [one["id"]]}))
    assert made == {
        "id": made["id"],
        "spaceId": space,
        "name": "set",
        "builtin": {"files": True, "vault": False},
        "customToolIds": [one["id"]],
        "metadata": None,
        "createdAt": made["createdAt"],
        "updatedAt": made["createdAt"],
    }
    assert await ok(client.get(path)) == {"toolsets": [made]}
    ids = [two["id"], one["id"]]
    changed = await ok(client.patch(f"{path}/{made['id']}", json={"builtin": {"vault": True}, "customToolIds": ids}))
    assert changed == made | {
        "builtin": {"files": False, "vault": True},
        "customToolIds": ids,
        "updatedAt": changed["updatedAt"],
    }
    # A tool that is deleted is in no toolset any more.
    await ok(client.delete(f"/v1/spaces/{space}/tools/{two['id']}"))
    assert (await ok(client.get(f"{path}/{made['id']}")))["customToolIds"] == [one["id"]]
    assert await ok(client.delete(f"{path}/{made['id']}")) == {"id": made["id"], "deleted": True}
    await refused(client.get(f"{path}/{made['id']}"), 404, "toolset.not_found")


async def test_a_space_takes_its_tools_with_it(client: httpx.AsyncClient, space: str, database: Database) -> None:
    tool = await make(client, space)
    await called(client, tool, [])
    await ok(client.post(f"/v1/spaces/{space}/toolsets", json={"name": "set"}))
    await ok(client.delete(f"/v1/spaces/{space}"))
    async with database.connect() as connection:
        left = (
            "SELECT (SELECT count(*) FROM tools) + (SELECT count(*) FROM toolsets) + (SELECT count(*) FROM tool_calls)"
        )
        assert (await connection.execute(text(left))).scalar_one() == 0
