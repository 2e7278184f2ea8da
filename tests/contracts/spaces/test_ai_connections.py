"""/v1/ai-connections: what is taken, what is answered, and that a key goes in and never comes out."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from gateway.settings import Settings
from tests.support.api import NEVER, Json, check, checked, make_subaccount, moment, ok, problems, refused, sender
from tests.support.fake_providers import KEYS, FakeProviders, Misbehaviour, Status

PATH = "/v1/ai-connections"
MINIMAL: Json = {"label": "Customer Support AI", "provider": "openai"}
KEY = "sk-proj-1234567890abcdefghijklmnop"


@pytest.fixture(scope="module")
def running() -> Iterator[FakeProviders]:
    with FakeProviders() as fake:
        yield fake


@pytest.fixture
def providers(running: FakeProviders) -> FakeProviders:
    running.forget()
    return running


@pytest.fixture
def settings(settings: Settings, providers: FakeProviders) -> Settings:
    return settings.model_copy(update={f"{name}_base_url": providers.base_url(name) for name in KEYS})


@pytest.fixture
def client(client: httpx.AsyncClient) -> httpx.AsyncClient:
    return checked(client)


async def make(client: httpx.AsyncClient, **body: object) -> Json:
    made: Json = await ok(client.post(PATH, json=MINIMAL | body))
    return made


async def test_the_smallest_body_makes_one_with_the_defaults(client: httpx.AsyncClient) -> None:
    made = await make(client)
    assert moment(made["createdAt"]) == moment(made["updatedAt"])
    assert made == MINIMAL | {
        "id": made["id"],
        "enabled": True,
        "hasStoredKey": False,
        "createdAt": made["createdAt"],
        "updatedAt": made["updatedAt"],
        "defaultModel": None,
        "subaccountId": None,
    }


async def test_every_field_is_kept(client: httpx.AsyncClient) -> None:
    subaccount, _ = await make_subaccount(client)
    body = {"label": "Büro ✓", "provider": "google", "defaultModel": "gemini", "enabled": False}
    made = await make(client, **body, subaccountId=subaccount, apiKey=KEY)
    assert made == made | body | {"subaccountId": subaccount, "hasStoredKey": True}
    assert await ok(client.get(f"{PATH}/{made['id']}")) == made


async def test_what_a_body_may_hold(client: httpx.AsyncClient) -> None:
    await check(
        sender(client, "POST", PATH, **MINIMAL),
        [
            ({"label": "x"}, {}),
            ({"label": "x" * 200}, {}),
            ({"label": ""}, {"label": "string_too_short"}),
            ({"label": "x" * 201}, {"label": "string_too_long"}),
            ({"label": None}, {"label": "string_type"}),
            ({"label": 5}, {"label": "string_type"}),
            ({"label": "a\0b"}, {"label": "field.invalid"}),
            ({"provider": "anthropic"}, {}),
            ({"provider": "google"}, {}),
            ({"provider": "OpenAI"}, {"provider": "literal_error"}),
            ({"provider": None}, {"provider": "literal_error"}),
            ({"apiKey": "x"}, {}),
            ({"apiKey": "x" * 4096}, {}),
            ({"apiKey": ""}, {"apiKey": "string_too_short"}),
            ({"apiKey": "x" * 4097}, {"apiKey": "string_too_long"}),
            ({"apiKey": None}, {"apiKey": "string_type"}),
            ({"apiKey": "a\0b"}, {"apiKey": "field.invalid"}),
            ({"defaultModel": "x"}, {}),
            ({"defaultModel": "x" * 200}, {}),
            ({"defaultModel": ""}, {"defaultModel": "string_too_short"}),
            ({"defaultModel": "x" * 201}, {"defaultModel": "string_too_long"}),
            ({"defaultModel": None}, {"defaultModel": "string_type"}),
            ({"enabled": False}, {}),
            ({"enabled": "true"}, {"enabled": "bool_type"}),
            ({"enabled": 1}, {"enabled": "bool_type"}),
            ({"enabled": None}, {"enabled": "bool_type"}),
            ({"subaccountId": 1}, {"subaccountId": "string_type"}),
            ({"subaccountId": None}, {"subaccountId": "string_type"}),
            ({"hasStoredKey": True}, {"hasStoredKey": "field.unknown"}),
        ],
    )


async def test_what_is_required_is_missed_by_name(client: httpx.AsyncClient) -> None:
    missing = {"label": "field.missing", "provider": "field.missing"}
    await check(sender(client, "POST", PATH), [({}, missing), ({"apiKey": KEY}, missing)])


async def test_a_misspelt_field_is_refused_with_the_nearest_name_and_without_its_value(
    client: httpx.AsyncClient,
) -> None:
    answer = await client.post(PATH, json=MINIMAL | {"api_key": KEY, "Label": "x", "zzz": 1})
    assert answer.json()["details"]["errors"] == [
        {"field": "api_key", "code": "field.unknown", "message": "There is no such field; did you mean apiKey?"},
        {"field": "Label", "code": "field.unknown", "message": "There is no such field; did you mean label?"},
        {"field": "zzz", "code": "field.unknown", "message": "There is no such field"},
    ]
    assert KEY not in answer.text


async def test_a_subaccount_that_is_not_there_is_not_found(client: httpx.AsyncClient) -> None:
    for subaccount in ("nobody", NEVER):
        await refused(client.post(PATH, json=MINIMAL | {"subaccountId": subaccount}), 404, "subaccount.not_found")


async def test_an_archived_subaccount_takes_nothing_new(client: httpx.AsyncClient) -> None:
    subaccount, _ = await make_subaccount(client)
    await ok(client.post(f"/v1/subaccounts/{subaccount}/archive"))
    await refused(client.post(PATH, json=MINIMAL | {"subaccountId": subaccount}), 409, "subaccount.archived")


async def test_they_are_listed_in_the_order_of_their_making(client: httpx.AsyncClient) -> None:
    assert await ok(client.get(PATH)) == {"aiConnections": [], "nextCursor": None}
    made = [await make(client, label=label) for label in "abc"]
    assert await ok(client.get(PATH)) == {"aiConnections": made, "nextCursor": None}


async def test_a_change_touches_what_it_names(client: httpx.AsyncClient) -> None:
    made = await make(client, defaultModel="gpt", apiKey=KEY)
    path = f"{PATH}/{made['id']}"
    for body in ({}, {"label": "new"}, {"enabled": False}, {"defaultModel": "other"}, {"defaultModel": None}):
        before = await ok(client.get(path))
        changed = await ok(client.patch(path, json=body))
        assert moment(changed["updatedAt"]) >= moment(before["updatedAt"])
        assert changed == before | body | {"updatedAt": changed["updatedAt"]}
        assert await ok(client.get(path)) == changed


async def test_what_a_change_may_hold(client: httpx.AsyncClient) -> None:
    made = await make(client)
    await check(
        sender(client, "PATCH", f"{PATH}/{made['id']}"),
        [
            ({"label": "x" * 200}, {}),
            ({"label": "x" * 201}, {"label": "string_too_long"}),
            ({"label": None}, {"label": "string_type"}),
            ({"enabled": None}, {"enabled": "bool_type"}),
            ({"enabled": 0}, {"enabled": "bool_type"}),
            ({"apiKey": ""}, {"apiKey": "string_too_short"}),
            ({"apiKey": "x" * 4097}, {"apiKey": "string_too_long"}),
            ({"defaultModel": ""}, {"defaultModel": "string_too_short"}),
            ({"provider": "google"}, {"provider": "field.unknown"}),
            ({"subaccountId": NEVER}, {"subaccountId": "field.unknown"}),
            ({"label": "", "enabled": 1}, {"label": "string_too_short", "enabled": "bool_type"}),
        ],
    )


async def test_a_deleted_one_is_gone(client: httpx.AsyncClient) -> None:
    made = await make(client, apiKey=KEY)
    path = f"{PATH}/{made['id']}"
    assert await ok(client.delete(path)) == {"id": made["id"], "deleted": True}
    assert await ok(client.get(PATH)) == {"aiConnections": [], "nextCursor": None}
    for answer in (
        client.delete(path),
        client.get(path),
        client.patch(path, json={}),
        client.post(f"{path}/test"),
    ):
        await refused(answer, 404, "ai_connection.not_found")


async def test_the_key_is_in_no_answer(client: httpx.AsyncClient) -> None:
    created = await client.post(PATH, json=MINIMAL | {"apiKey": KEY})
    path = f"{PATH}/{created.json()['id']}"
    answers = [
        created,
        await client.get(PATH),
        await client.get(path),
        await client.patch(path, json={"apiKey": KEY}),
        await client.post(f"{path}/test"),
        await client.post(PATH, json={"apiKey": KEY * 200}),
        await client.post(PATH, json=MINIMAL | {"apiKey": [KEY]}),
        await client.post(PATH, json=MINIMAL | {"apiKey": {"value": KEY}}),
        await client.post(PATH, json=MINIMAL | {"apiKey": f"{KEY}\0"}),
        await client.patch(path, json={"apiKey": {KEY: KEY}}),
        await client.post(
            PATH, content=f'{{"apiKey": "{KEY}", "label": ', headers={"Content-Type": "application/json"}
        ),
        await client.post(PATH, content=f'"{KEY}"', headers={"Content-Type": "application/json"}),
        await client.delete(path),
    ]
    assert [answer.status_code for answer in answers] == [200] * 5 + [400] * 7 + [200]
    assert [answer.text for answer in answers if KEY in answer.text] == []


async def test_a_stored_key_is_tested_at_its_provider(client: httpx.AsyncClient, providers: FakeProviders) -> None:
    for provider, key in KEYS.items():
        made = await make(client, provider=provider, apiKey=key)
        tested = await ok(client.post(f"{PATH}/{made['id']}/test"))
        assert (tested["ok"], tested["provider"]) == (True, provider)
    assert [seen.provider for seen in providers.seen] == list(KEYS)


async def test_the_key_that_is_tested_is_the_one_that_is_stored_now(
    client: httpx.AsyncClient, providers: FakeProviders
) -> None:
    made = await make(client, apiKey="sk-wrong-key-000000000000")
    path = f"{PATH}/{made['id']}"

    async def test() -> Json:
        result: Json = await ok(client.post(f"{path}/test"))
        return result

    assert (await test())["ok"] is False
    assert (await ok(client.patch(path, json={"apiKey": KEYS["openai"]})))["hasStoredKey"] is True
    assert (await test())["ok"] is True
    assert (await ok(client.patch(path, json={"label": "other"})))["hasStoredKey"] is True
    assert (await test())["ok"] is True
    assert len(providers.seen) == 3
    assert (await ok(client.patch(path, json={"apiKey": None})))["hasStoredKey"] is False
    assert (await ok(client.get(path)))["hasStoredKey"] is False
    without = await test()
    assert (without["ok"], len(providers.seen)) == (False, 3)
    assert "no stored key" in without["message"]


async def test_a_provider_that_refuses_is_an_answer(client: httpx.AsyncClient, providers: FakeProviders) -> None:
    made = await make(client, apiKey=KEYS["openai"])
    behaviours: list[Status | Misbehaviour] = [401, 403, 429, 500, "garbage", "redirect", "echo", "empty"]
    for behaviour in behaviours:
        providers.behaviour["openai"] = behaviour
        tested = await ok(client.post(f"{PATH}/{made['id']}/test"))
        assert (behaviour, tested["ok"]) == (behaviour, False)
        assert KEYS["openai"] not in tested["message"]


async def test_a_change_of_the_key_is_kept_in_one_piece_with_the_rest(client: httpx.AsyncClient) -> None:
    """A body with one wrong field changes nothing, the key least of all."""
    made = await make(client, apiKey=KEYS["openai"])
    path = f"{PATH}/{made['id']}"
    assert await problems(client.patch(path, json={"apiKey": None, "label": ""})) == {"label": "string_too_short"}
    assert await ok(client.get(path)) == made
    assert (await ok(client.post(f"{path}/test")))["ok"] is True
