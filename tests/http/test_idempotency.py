"""Idempotency-Key over HTTP: what is replayed, what conflicts, and what takes no key. The domain's rules have their own
tests (tests/domain/test_idempotency.py)."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from gateway.app import Gateway
from tests.support.api import make_space, make_subaccount, ok, refused


def key(value: str = "first") -> dict[str, str]:
    return {"Idempotency-Key": value}


async def test_a_repeated_write_is_answered_as_the_first_time_and_runs_once(client: httpx.AsyncClient) -> None:
    first = await client.post("/v1/spaces", json={"name": "once"}, headers=key())
    again = await client.post("/v1/spaces", json={"name": "once"}, headers=key())
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["content-type"] == "application/json"
    assert "idempotency-replayed" not in first.headers
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    own = ("x-request-id", "idempotency-replayed", "ratelimit")
    assert [item for item in again.headers.multi_items() if item[0] not in own] == [
        item for item in first.headers.multi_items() if item[0] not in own
    ]
    assert len((await ok(client.get("/v1/spaces")))["spaces"]) == 1


async def test_another_request_with_the_key_is_409(client: httpx.AsyncClient) -> None:
    await ok(client.post("/v1/spaces", json={"name": "a"}, headers=key()))
    for method, path, body in (
        ("POST", "/v1/spaces", {"name": "b"}),
        ("POST", "/v1/spaces?x=1", {"name": "a"}),
        ("POST", "/v1/subaccounts", {"name": "a"}),
    ):
        await refused(client.request(method, path, json=body, headers=key()), 409, "idempotency.mismatch")


async def test_a_request_that_still_runs_is_409(
    client: httpx.AsyncClient, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()
    create = gateway.services.spaces.create

    async def slow(*given: Any) -> Any:
        entered.set()
        await leave.wait()
        return await create(*given)

    monkeypatch.setattr(gateway.services.spaces, "create", slow)
    first = asyncio.create_task(client.post("/v1/spaces", json={}, headers=key()))
    await entered.wait()
    await refused(client.post("/v1/spaces", json={}, headers=key()), 409, "idempotency.in_progress")
    leave.set()
    answered = await first
    assert (await client.post("/v1/spaces", json={}, headers=key())).content == answered.content


async def test_a_refusal_is_replayed_and_a_failure_of_the_gateway_is_not(
    client: httpx.AsyncClient, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await client.post("/v1/spaces", json={"name": ""}, headers=key("bad"))
    again = await client.post("/v1/spaces", json={"name": ""}, headers=key("bad"))
    assert (first.status_code, again.status_code, again.content) == (400, 400, first.content)
    with monkeypatch.context() as patched:

        async def broken(*given: Any) -> Any:
            raise RuntimeError("broken")

        patched.setattr(gateway.services.spaces, "create", broken)
        await refused(client.post("/v1/spaces", json={}, headers=key("broken")), 500, "internal.error")
    await ok(client.post("/v1/spaces", json={}, headers=key("broken")))


async def test_each_api_key_has_keys_of_its_own(client: httpx.AsyncClient) -> None:
    _, headers = await make_subaccount(client)
    mine = await ok(client.post("/v1/spaces", json={}, headers=key()))
    theirs = await ok(client.post("/v1/spaces", json={}, headers=headers | key()))
    assert mine["id"] != theirs["id"]


@pytest.mark.parametrize("value", ["", "x" * 256, "a\tb"])
async def test_a_key_that_can_not_be_one_is_400(client: httpx.AsyncClient, value: str) -> None:
    await refused(client.post("/v1/spaces", json={}, headers=key(value)), 400, "idempotency.key_invalid")


async def test_several_keys_are_400_and_run_nothing(client: httpx.AsyncClient) -> None:
    for second in ("first", "second"):
        headers = [("Idempotency-Key", "first"), ("Idempotency-Key", second)]
        await refused(client.post("/v1/spaces", json={}, headers=headers), 400, "idempotency.key_invalid")
    assert (await ok(client.get("/v1/spaces")))["spaces"] == []


async def test_a_read_ignores_the_key_and_an_upload_refuses_it(client: httpx.AsyncClient) -> None:
    space = await make_space(client)
    for _ in range(2):
        assert "idempotency-replayed" not in (await client.get("/v1/spaces", headers=key())).headers
    upload = client.post(f"/v1/spaces/{space}/storage/files", files={"file": ("a", b"a")}, headers=key())
    await refused(upload, 400, "idempotency.not_supported")


async def test_an_answer_without_a_body_to_repeat_is_kept_too(client: httpx.AsyncClient) -> None:
    space = await make_space(client)
    first = await client.delete(f"/v1/spaces/{space}", headers=key())
    again = await client.delete(f"/v1/spaces/{space}", headers=key())
    assert (first.status_code, again.status_code, again.content) == (200, 200, first.content)
    await refused(client.delete(f"/v1/spaces/{space}"), 404, "space.not_found")
