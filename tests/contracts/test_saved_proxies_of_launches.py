"""A launch names a saved proxy, in both generations, from a profile too; mounts say which ones may be named."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import text

from gateway.core.upstream_proxy import UpstreamProxy
from gateway.store.database import Database
from tests.support.api import Json, checked, make_subaccount, ok, problems, refused
from tests.support.closing_browsers import ClosingLauncher

PASSWORD = "p4ssw0rd-of-a-saved-proxy"
BERLIN = {"name": "berlin", "protocol": "socks5", "host": "192.0.9.9", "port": 1080, "username": "ada"}
UPSTREAM = UpstreamProxy("socks5", "192.0.9.9", 1080, "ada", PASSWORD)


@pytest_asyncio.fixture
async def launcher(tmp_path: Path) -> AsyncIterator[ClosingLauncher]:
    async with ClosingLauncher(tmp_path / "runtimes").serving() as launcher:
        yield launcher


@pytest.fixture
def client(client: httpx.AsyncClient) -> httpx.AsyncClient:
    return checked(client)


@pytest.fixture
async def berlin(client: httpx.AsyncClient) -> str:
    """Id of a saved proxy."""
    made = await ok(client.post("/v1/proxies", json={**BERLIN, "password": PASSWORD}))
    return str(made["id"])


class Generation:
    """Launches through one generation of the API."""

    def __init__(self, name: str, client: httpx.AsyncClient) -> None:
        self.client = client
        self.collection = f"/v1/{name}"
        self.is_workspaces = name == "workspaces"
        # Where a request has the config.
        self.field = "launch.config.proxy" if self.is_workspaces else "config.proxy"
        self._number = 0

    async def place(self, **body: Any) -> str:
        """Id of a new space."""
        made = await ok(self.client.post(self.collection, json={"name": "first", **body}))
        return str(made["id"])

    def body(self, proxy: object, **more: Any) -> Json:
        self._number += 1
        config = {"proxy": proxy}
        if self.is_workspaces:
            launch = {"mode": "ephemeral", "config": config}
            return {"alias": f"alias-{self._number}", "launch": launch, **more}
        return {"config": config, **more}

    async def launch(self, place: str, proxy: object, **more: Any) -> httpx.Response:
        headers = more.pop("headers", None)
        path = f"{self.collection}/{place}/runtimes"
        return await self.client.post(path, json=self.body(proxy, **more), headers=headers)


@pytest.fixture(params=["spaces", "workspaces"])
def generation(client: httpx.AsyncClient, request: pytest.FixtureRequest) -> Generation:
    return Generation(request.param, client)


async def test_a_launch_names_one_by_its_id_or_name(
    generation: Generation, launcher: ClosingLauncher, berlin: str, database: Database
) -> None:
    place = await generation.place()
    answered = {key: value for key, value in BERLIN.items() if key != "name"}
    for named in ("berlin", berlin):
        runtime = await ok(generation.launch(place, named))
        assert launcher.specs[-1].upstream == UPSTREAM
        assert runtime["config"]["proxy"] == {
            **answered,
            "id": berlin,
            "name": "berlin",
            "hasPassword": True,
            "dnsResolution": "local",
        }
    async with database.connect() as connection:
        rows = "SELECT row_to_json(t)::text FROM secrets t UNION ALL SELECT row_to_json(t)::text FROM runtimes t"
        stored = (await connection.execute(text(rows))).scalars().all()
        purposes = await connection.execute(text("SELECT purpose FROM secrets WHERE id = :id"), {"id": runtime["id"]})
        assert purposes.scalars().all() == ["runtime.proxy_password"]
    assert [row for row in stored if PASSWORD in row] == []


async def test_what_is_changed_or_deleted_later_changes_no_runtime(
    generation: Generation, launcher: ClosingLauncher, berlin: str
) -> None:
    place = await generation.place()
    runtime = await ok(generation.launch(place, "berlin"))
    path = f"{generation.collection}/{place}/runtimes/{runtime['id']}"
    await ok(generation.client.patch(f"/v1/proxies/{berlin}", json={"name": "bern", "port": 1, "password": "new"}))
    assert (await ok(generation.client.get(path)))["config"] == runtime["config"]
    await ok(generation.launch(place, "bern"))
    assert launcher.specs[-1].upstream == UpstreamProxy("socks5", "192.0.9.9", 1, "ada", "new")
    await ok(generation.client.delete(f"/v1/proxies/{berlin}"))
    assert (await ok(generation.client.get(path)))["config"] == runtime["config"]
    assert await problems(generation.launch(place, "bern")) == {generation.field: "proxy.not_found"}


@pytest.mark.parametrize("given", ["nothing", "s3cret:w0rd@192.0.9.9:3128", "0198b7d4-2f6c-7d3e-9a51-1c6f2b8e4d70"])
async def test_an_unknown_one_is_refused_by_its_field(generation: Generation, given: str) -> None:
    answer = await generation.launch(await generation.place(), given)
    assert given not in answer.text

    async def answered() -> httpx.Response:
        return answer

    assert await problems(answered()) == {generation.field: "proxy.not_found"}
    assert f"not valid: {generation.field}: There is no saved proxy of" in answer.json()["error"]


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("", "string_too_short"),
        ("x" * 121, "string_too_long"),
        ("http://a:b@c", "field.invalid"),
        ("\0", "field.invalid"),
        (5, "model_type"),
        (["berlin"], "model_type"),
    ],
)
async def test_what_can_be_no_name_is_refused(generation: Generation, given: object, code: str) -> None:
    assert await problems(generation.launch(await generation.place(), given)) == {generation.field: code}


async def test_a_profile_names_one_that_each_launch_looks_up(
    generation: Generation, launcher: ClosingLauncher, berlin: str
) -> None:
    client, place = generation.client, await generation.place()
    profiles = "/v1/browser-profiles"
    body = {"name": "bot", "config": {"proxy": "berlin"}}
    profile = await ok(client.post(profiles, json=body))
    assert profile["config"] == {"proxy": "berlin"}
    wrong = {"name": "x", "config": {"proxy": "nothing"}}
    assert await problems(client.post(profiles, json=wrong)) == {"config.proxy": "proxy.not_found"}
    changed = client.patch(f"{profiles}/{profile['id']}", json={"config": {"proxy": "nothing"}})
    assert await problems(changed) == {"config.proxy": "proxy.not_found"}

    async def launch() -> httpx.Response:
        launched: Json = {"profile": "bot", "readOnly": True}
        if generation.is_workspaces:
            how = {"mode": "profile", "profileId": profile["id"], "readOnly": True}
            launched = {"alias": f"a{len(launcher.specs)}", "launch": how}
        return await client.post(f"{generation.collection}/{place}/runtimes", json=launched)

    assert (await ok(launch()))["config"]["proxy"]["id"] == berlin
    assert launcher.specs[-1].upstream == UPSTREAM
    await ok(client.patch(f"/v1/proxies/{berlin}", json={"username": "eve", "password": "other"}))
    await ok(launch())
    assert launcher.specs[-1].upstream == UpstreamProxy("socks5", "192.0.9.9", 1080, "eve", "other")
    await ok(client.delete(f"/v1/proxies/{berlin}"))
    assert await problems(launch()) == {generation.field: "proxy.not_found"}


async def test_a_proxy_in_full_takes_the_place_of_a_profiles_saved_one(
    client: httpx.AsyncClient, launcher: ClosingLauncher, berlin: str
) -> None:
    generation = Generation("spaces", client)
    await ok(client.post("/v1/browser-profiles", json={"name": "bot", "config": {"proxy": berlin}}))
    await ok(generation.launch(await generation.place(), {"url": "http://192.0.9.8:1"}, profile="bot"))
    assert launcher.specs[-1].upstream == UpstreamProxy("http", "192.0.9.8", 1)


# Mounts


async def test_the_mounts_of_a_space_say_which_ones_may_be_named(
    generation: Generation, launcher: ClosingLauncher, berlin: str
) -> None:
    client = generation.client
    await ok(client.post("/v1/proxies", json={"name": "bern", "url": "http://192.0.9.8:1"}))
    by_name = await generation.place(mounts={"proxies": {"allow": ["berlin"]}})
    by_id = await generation.place(mounts={"proxies": {"allow": [berlin]}})
    nothing = await generation.place(mounts={"proxies": {"allow": []}})
    for place in (by_name, by_id):
        for named in ("berlin", berlin):
            await ok(generation.launch(place, named))
        body = await refused(generation.launch(place, "bern"), 403, "proxy.not_allowed")
        (error,) = body["details"]["errors"]
        assert (error["field"], error["value"], error["code"]) == (generation.field, "bern", "proxy.not_allowed")
    await refused(generation.launch(nothing, "berlin"), 403, "proxy.not_allowed")
    # What is given in full is no saved one.
    await ok(generation.launch(nothing, {"url": "http://192.0.9.8:1"}))
    path = f"{generation.collection}/{nothing}"
    changed = await ok(client.patch(path, json={"mounts": {"proxies": None}}))
    assert "proxies" not in changed["mounts"]
    await ok(generation.launch(nothing, "bern"))
    assert (await ok(client.get(f"{generation.collection}/{by_id}")))["mounts"] == {"proxies": {"allow": [berlin]}}


async def test_mounts_name_only_what_there_is(generation: Generation, berlin: str) -> None:
    mounts = {"proxies": {"allow": ["berlin", "nothing"]}}
    body = {"name": "x", "mounts": mounts}
    wrong = {"mounts.proxies.allow.1": "proxy.not_found"}
    assert await problems(generation.client.post(generation.collection, json=body)) == wrong
    path = f"{generation.collection}/{await generation.place()}"
    assert await problems(generation.client.patch(path, json={"mounts": mounts})) == wrong


async def test_a_runtimes_mounts_narrow_which_ones_and_never_widen(client: httpx.AsyncClient, berlin: str) -> None:
    generation = Generation("workspaces", client)
    await ok(client.post("/v1/proxies", json={"name": "bern", "url": "http://192.0.9.8:1"}))
    place = await generation.place(mounts={"proxies": {"allow": ["berlin"]}})
    body = await refused(
        generation.launch(place, "berlin", mounts={"proxies": {"allow": ["berlin", "bern"]}}), 403, "mounts.widened"
    )
    assert [each["field"] for each in body["details"]["errors"]] == ["mounts.proxies.allow.1"]
    await refused(generation.launch(place, "berlin", mounts={"proxies": {"allow": []}}), 403, "proxy.not_allowed")
    free = await generation.place()
    narrowed = await ok(generation.launch(free, "bern", mounts={"proxies": {"allow": ["bern"]}}))
    assert narrowed["mounts"] == {"proxies": {"allow": ["bern"]}}
    await refused(generation.launch(free, "berlin", mounts={"proxies": {"allow": ["bern"]}}), 403, "proxy.not_allowed")


# Owners


async def test_a_subaccount_names_its_own_ones_and_those_that_it_is_lent(
    generation: Generation, launcher: ClosingLauncher, berlin: str
) -> None:
    client = generation.client
    subaccount, own = await make_subaccount(client)
    place = await generation.place(subaccountId=subaccount)
    path = f"{generation.collection}/{place}"
    missing = {generation.field: "proxy.not_found"}
    for named in ("berlin", berlin):
        assert await problems(generation.launch(place, named, headers=own)) == missing
    # Only the organization's key lends, and only by the id: a name could be that of another one tomorrow.
    lent = {"mounts": {"proxies": {"allow": [berlin]}}}
    not_there = {"mounts.proxies.allow.0": "proxy.not_found"}
    assert await problems(client.patch(path, json=lent, headers=own)) == not_there
    by_name = {"mounts": {"proxies": {"allow": ["berlin"]}}}
    assert await problems(client.patch(path, json=by_name)) == not_there
    await ok(client.patch(path, json=lent))
    for named in ("berlin", berlin):
        await ok(generation.launch(place, named, headers=own))
        assert launcher.specs[-1].upstream == UPSTREAM
    # It is not theirs to read, and its own one of the name comes first.
    assert await ok(client.get("/v1/proxies", headers=own)) == {"proxies": []}
    await ok(client.post("/v1/proxies", json={"name": "berlin", "url": "http://192.0.9.8:1"}, headers=own))
    await refused(generation.launch(place, "berlin", headers=own), 403, "proxy.not_allowed")
    await ok(client.patch(path, json={"mounts": {"proxies": None}}))
    await ok(generation.launch(place, "berlin", headers=own))
    assert launcher.specs[-1].upstream == UpstreamProxy("http", "192.0.9.8", 1)
    assert await problems(generation.launch(place, berlin, headers=own)) == missing


async def test_a_name_of_a_mount_lends_nothing_after_its_proxy_is_gone(generation: Generation, berlin: str) -> None:
    client = generation.client
    subaccount, own = await make_subaccount(client)
    place = await generation.place(subaccountId=subaccount)
    theirs = await ok(client.post("/v1/proxies", json={"name": "berlin", "url": "http://192.0.9.8:1"}, headers=own))
    by_name = {"mounts": {"proxies": {"allow": ["berlin"]}}}
    await ok(client.patch(f"{generation.collection}/{place}", json=by_name, headers=own))
    await ok(client.delete(f"/v1/proxies/{theirs['id']}", headers=own))
    missing = {generation.field: "proxy.not_found"}
    assert await problems(generation.launch(place, "berlin", headers=own)) == missing
