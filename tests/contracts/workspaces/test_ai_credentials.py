"""/v1/ai-credentials: ids that callers choose, the rows they share with AI connections, and addresses of their own."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

from gateway.settings import Settings
from gateway.store import ai_connections
from gateway.store.database import Database
from tests.support.api import Json, check, checked, make_subaccount, ok, problems, refused, sender
from tests.support.fake_providers import KEYS, FakeProviders

PATH = "/v1/ai-credentials"
CONNECTIONS = "/v1/ai-connections"
KEY = KEYS["openai"]
MINIMAL: Json = {"id": "main", "label": "Ours", "provider": "openai", "apiKey": KEY}


@pytest.fixture(scope="module")
def running() -> Iterator[FakeProviders]:
    with FakeProviders() as fake:
        yield fake


@pytest.fixture
def providers(running: FakeProviders) -> FakeProviders:
    running.forget()
    return running


@pytest.fixture
def allowed() -> tuple[str, ...]:
    """What the operator allows besides public addresses."""
    return ("127.0.0.1",)


@pytest.fixture
def settings(settings: Settings, providers: FakeProviders, allowed: tuple[str, ...]) -> Settings:
    urls = {f"{name}_base_url": providers.base_url(name) for name in KEYS}
    return settings.model_copy(update={**urls, "egress_allow": allowed})


@pytest.fixture
def client(client: httpx.AsyncClient) -> httpx.AsyncClient:
    return checked(client)


async def make(client: httpx.AsyncClient, **body: object) -> Json:
    made: Json = await ok(client.post(PATH, json=MINIMAL | body))
    return made


def compatible(providers: FakeProviders, **body: object) -> Json:
    return {"provider": "openai-compatible", "baseUrl": providers.base_url("openai") + "/", **body}


async def test_one_is_made_listed_read_changed_and_deleted(client: httpx.AsyncClient) -> None:
    made = await make(client)
    assert made == {
        "id": "main",
        "label": "Ours",
        "provider": "openai",
        "enabled": True,
        "createdAt": made["createdAt"],
        "updatedAt": made["createdAt"],
        "baseUrl": None,
        "defaultModel": None,
        "connectionId": made["connectionId"],
        "subaccountId": None,
    }
    assert await ok(client.get(PATH)) == {"credentials": [made]}
    assert await ok(client.get(f"{PATH}/main")) == made
    assert await ok(client.get(f"{PATH}/{made['connectionId']}")) == made
    changed = await ok(client.patch(f"{PATH}/main", json={"defaultModel": "gpt-5", "enabled": False, "label": "x"}))
    assert changed == made | {
        "defaultModel": "gpt-5",
        "enabled": False,
        "label": "x",
        "updatedAt": changed["updatedAt"],
    }
    assert await ok(client.delete(f"{PATH}/main")) == {"ok": True}
    await refused(client.get(f"{PATH}/main"), 404, "ai_credential.not_found")
    assert await ok(client.get(PATH)) == {"credentials": []}


async def test_what_a_body_may_hold(client: httpx.AsyncClient) -> None:
    numbers = iter(range(100))
    good = {"label": "x", "provider": "google", "apiKey": "k"}
    path = sender(client, "POST", PATH, **good)
    await check(
        path,
        [
            ({"id": "a"}, {}),
            ({"id": "A" + "b_-0" * 15 + "xyz"}, {}),
            ({"id": "A" + "b" * 64}, {"id": "string_pattern_mismatch"}),
            ({"id": "1a"}, {"id": "string_pattern_mismatch"}),
            ({"id": ""}, {"id": "string_pattern_mismatch"}),
            ({"id": "a\n"}, {"id": "string_pattern_mismatch"}),
            ({"id": "ä"}, {"id": "string_pattern_mismatch"}),
            ({}, {"id": "field.missing"}),
            *(
                ({"id": f"n{next(numbers)}", **wrong}, {field: code})
                for wrong, field, code in (
                    ({"label": ""}, "label", "string_too_short"),
                    ({"label": "x" * 201}, "label", "string_too_long"),
                    ({"provider": "mistral"}, "provider", "literal_error"),
                    ({"apiKey": None}, "apiKey", "string_type"),
                    ({"apiKey": ""}, "apiKey", "string_too_short"),
                    ({"defaultModel": ""}, "defaultModel", "string_too_short"),
                    ({"baseUrl": "ftp://a"}, "baseUrl", "string_pattern_mismatch"),
                    ({"other": 1}, "other", "field.unknown"),
                )
            ),
        ],
    )


async def test_a_uuid_is_no_id_of_ones_own(client: httpx.AsyncClient) -> None:
    uuid = "a1b2c3d4-e5f6-4a7b-8c9d-0e1f2a3b4c5d"
    for given in (uuid, uuid.replace("-", ""), f"ai-{uuid}"):
        assert await problems(client.post(PATH, json=MINIMAL | {"id": given})) == {"id": "field.invalid"}


async def test_an_id_is_unique_within_its_owner(client: httpx.AsyncClient) -> None:
    await make(client)
    error = await refused(client.post(PATH, json=MINIMAL | {"label": "other"}), 409, "ai_credential.id_taken")
    assert error["details"] == {"id": "main"}
    subaccount, key = await make_subaccount(client)
    own = await make(client, subaccountId=subaccount)
    assert await ok(client.get(f"{PATH}/main", headers=key)) == own
    # The organization's own comes first; without one, that of its only subaccount that has one.
    assert (await ok(client.get(f"{PATH}/main")))["subaccountId"] is None
    await ok(client.delete(f"{PATH}/main"))
    assert await ok(client.get(f"{PATH}/main")) == own
    other, _ = await make_subaccount(client)
    theirs = await make(client, subaccountId=other)
    await refused(client.get(f"{PATH}/main"), 409, "ai_credential.ambiguous")
    assert await ok(client.get(f"{PATH}/{theirs['connectionId']}")) == theirs
    await refused(client.get(f"{PATH}/{theirs['connectionId']}", headers=key), 404, "ai_credential.not_found")


async def test_it_is_one_row_with_an_ai_connection(client: httpx.AsyncClient) -> None:
    credential = await make(client)
    connection = await ok(client.get(f"{CONNECTIONS}/{credential['connectionId']}"))
    assert connection == connection | {"label": "Ours", "provider": "openai", "hasStoredKey": True}
    await ok(client.patch(f"{CONNECTIONS}/{connection['id']}", json={"label": "renamed"}))
    assert (await ok(client.get(f"{PATH}/main")))["label"] == "renamed"

    made = await ok(client.post(CONNECTIONS, json={"label": "there", "provider": "google"}))
    here = await ok(client.get(f"{PATH}/{made['id']}"))
    # A UUID is no id of a credential, which begins with a letter.
    assert (here["id"], here["connectionId"]) == (f"ai-{made['id']}", made["id"])
    assert [each["id"] for each in (await ok(client.get(PATH)))["credentials"]] == ["main", here["id"]]
    assert await ok(client.get(f"{PATH}/{here['id']}")) == here
    body = {"name": "x", "mounts": {"ai": {"allow": [here["id"]], "defaults": {"google": here["id"]}}}}
    assert (await ok(client.post("/v1/workspaces", json=body)))["mounts"] == body["mounts"]
    assert await ok(client.delete(f"{PATH}/{here['id']}")) == {"ok": True}
    await refused(client.get(f"{CONNECTIONS}/{made['id']}"), 404, "ai_connection.not_found")


async def test_what_the_other_generation_has_no_word_for_is_not_there(
    client: httpx.AsyncClient, providers: FakeProviders
) -> None:
    made = await make(client, **compatible(providers))
    before = await ok(client.get(f"{PATH}/main"))
    path = f"{CONNECTIONS}/{made['connectionId']}"
    assert await ok(client.get(CONNECTIONS)) == {"aiConnections": [], "nextCursor": None}
    for sent in (
        client.get(path),
        client.patch(path, json={"label": "x"}),
        client.delete(path),
        client.post(f"{path}/test"),
    ):
        await refused(sent, 404, "ai_connection.not_found")
    assert await ok(client.get(f"{PATH}/main")) == before


@pytest.mark.parametrize("name", list(KEYS))
async def test_a_right_key_and_a_wrong_one(client: httpx.AsyncClient, name: str) -> None:
    await make(client, provider=name, apiKey=KEYS[name])  # type: ignore[index]
    assert (await ok(client.post(f"{PATH}/main/test")))["ok"]
    await ok(client.patch(f"{PATH}/main", json={"apiKey": "sk-wrong-one-of-a-test"}))
    tested = await ok(client.post(f"{PATH}/main/test"))
    assert (tested["ok"], tested["provider"]) == (False, name)
    assert "sk-wrong" not in tested["message"]


async def test_a_compatible_server_is_asked_at_its_address(client: httpx.AsyncClient, providers: FakeProviders) -> None:
    made = await make(client, **compatible(providers))
    assert (made["baseUrl"], made["provider"]) == (providers.base_url("openai") + "/", "openai-compatible")
    tested = await ok(client.post(f"{PATH}/main/test"))
    assert tested == {
        "ok": True,
        "provider": "openai-compatible",
        "message": "The server accepted the key and listed 2 models.",
    }
    [seen] = providers.seen
    assert (seen.url, seen.headers["authorization"]) == (f"{providers.base_url('openai')}/models", f"Bearer {KEY}")
    for behaviour, words in (("huge", "which is not a model list"), ("redirect", "is not followed")):
        providers.behaviour = {"openai": behaviour}  # type: ignore[dict-item]
        tested = await ok(client.post(f"{PATH}/main/test"))
        assert not tested["ok"]
        assert words in tested["message"]


async def test_a_base_url_is_for_compatible_providers_alone(client: httpx.AsyncClient) -> None:
    assert await problems(client.post(PATH, json=MINIMAL | {"baseUrl": "https://a.example"})) == {
        "baseUrl": "field.invalid"
    }
    body = MINIMAL | {"provider": "openai-compatible"}
    assert await problems(client.post(PATH, json=body)) == {"baseUrl": "field.invalid"}


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http://user:password@a.example/v1",
        "https://a.example/v1?x=1",
        "https://a.example/v1?",
        "https://a.example/v1#x",
        "https://a.example:0/v1",
        "https://a.example:99999/v1",
        "https://[::1/v1",
        "https://a.example\\@b.example/v1",
    ],
)
async def test_what_is_no_base_of_an_api_is_refused(client: httpx.AsyncClient, url: str) -> None:
    body = MINIMAL | {"provider": "openai-compatible", "baseUrl": url}
    assert set(await problems(client.post(PATH, json=body))) == {"baseUrl"}


@pytest.mark.parametrize("allowed", [()])
async def test_what_pages_may_not_reach_is_no_base_url(
    client: httpx.AsyncClient, providers: FakeProviders, allowed: tuple[str, ...]
) -> None:
    for url, code in (
        (providers.base_url("openai"), "egress.loopback_address"),
        ("http://10.0.0.1/v1", "egress.private_address"),
        ("http://[::ffff:10.0.0.1]/v1", "egress.private_address"),
        ("http://0x7f.1/v1", "egress.loopback_address"),
        ("http://169.254.169.254/v1", "egress.metadata"),
        ("http://localhost/v1", "egress.loopback_address"),
    ):
        assert await problems(client.post(PATH, json=MINIMAL | compatible(providers, baseUrl=url))) == {"baseUrl": code}
    assert providers.seen == []


async def test_a_name_is_checked_again_at_each_test(
    client: httpx.AsyncClient, providers: FakeProviders, database: Database
) -> None:
    """A row whose address was allowed when it was made."""
    made = await make(client, **compatible(providers))
    for url, words in (
        ("http://10.0.0.1/v1", "may not be reached. This is an address of a private network"),
        ("http://gone.invalid/v1", "could not be reached: its name can't be resolved."),
        ("http://127.0.0.1:1/v1", "could not be reached"),
    ):
        await changed_row(database, made["connectionId"], url)
        tested = await ok(client.post(f"{PATH}/main/test"))
        assert not tested["ok"]
        assert words in tested["message"]


async def changed_row(database: Database, connection_id: str, url: str) -> None:
    async with database.begin() as connection:
        await ai_connections.change(connection, UUID(connection_id), base_url=url)


async def test_a_stored_key_goes_to_no_other_server(client: httpx.AsyncClient, providers: FakeProviders) -> None:
    await make(client)
    elsewhere = {"baseUrl": "http://127.0.0.1:9/v1"}
    mismatch, key_required = "ai_credential.base_url_mismatch", "ai_credential.key_required"

    async def conflict(body: Json, code: str) -> None:
        await refused(client.patch(f"{PATH}/main", json=body), 409, code)

    for body in ({"provider": "openai-compatible", **elsewhere}, {"provider": "google"}):
        await conflict(body, key_required)
    await conflict({"provider": "openai-compatible", "apiKey": KEY}, mismatch)
    url = providers.base_url("openai")
    await ok(client.patch(f"{PATH}/main", json={"provider": "openai-compatible", "baseUrl": url, "apiKey": KEY}))
    await conflict(elsewhere, key_required)
    # Nothing is changed by what is the same.
    await ok(client.patch(f"{PATH}/main", json={"provider": "openai-compatible", "baseUrl": url}))
    back = {"provider": "google", "apiKey": "x"}
    await conflict(back, mismatch)
    assert (await ok(client.patch(f"{PATH}/main", json=back | {"baseUrl": None})))["baseUrl"] is None


async def test_mounts_name_one_by_its_id(client: httpx.AsyncClient) -> None:
    await make(client)
    mounts = {"ai": {"allow": ["main"], "defaults": {"openai": "main"}}}
    workspace = await ok(client.post("/v1/workspaces", json={"name": "x", "mounts": mounts}))
    assert workspace["mounts"] == mounts
    body = {"name": "y", "mounts": {"ai": {"allow": ["other"]}}}
    assert await problems(client.post("/v1/workspaces", json=body)) == {"mounts.ai.allow.0": "ai_connection.not_found"}


async def test_no_key_is_stored_as_text(client: httpx.AsyncClient, database: Database) -> None:
    await make(client, apiKey="sk-that-no-row-has")
    async with database.connect() as connection:
        rows = await connection.execute(text("SELECT row_to_json(r)::text FROM secrets r"))
        stored = [*rows.scalars(), *(await connection.execute(text("SELECT a::text FROM ai_connections a"))).scalars()]
    assert len(stored) > 1
    assert [row for row in stored if "sk-that-no-row-has" in row] == []
