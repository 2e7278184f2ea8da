"""Pages of live views and recordings of a workspace's runtimes."""

from __future__ import annotations

from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import text

from gateway.app import Gateway
from gateway.domain.viewers import Kind
from gateway.store.database import Database
from tests.support.api import Json, check, checked, moment, ok, refused, sender

DAY = 86400


@pytest.fixture
def client(client: httpx.AsyncClient) -> httpx.AsyncClient:
    return checked(client)


@pytest.fixture
async def runtime(client: httpx.AsyncClient) -> Json:
    workspace = await ok(client.post("/v1/workspaces", json={"name": "first"}))
    path = f"/v1/workspaces/{workspace['id']}/runtimes"
    made: Json = await ok(client.post(path, json={"alias": "main"}))
    return {**made, "path": f"{path}/main"}


@pytest.mark.parametrize("spelling", ["embed", "embeds"])
async def test_a_live_embed_is_a_page_for_a_day(
    spelling: str, client: httpx.AsyncClient, gateway: Gateway, runtime: Json
) -> None:
    answer = await ok(client.post(f"{runtime['path']}/{spelling}/live"))
    assert set(answer) == {"iframeUrl", "token", "expiresAt", "expiresInSeconds"}
    assert answer["expiresInSeconds"] == DAY
    url = urlsplit(answer["iframeUrl"])
    assert (url.path, url.query) == (f"/v1/viewers/live/{answer['token']}", "")
    viewer = gateway.services.viewers.read(answer["token"], Kind.LIVE)
    assert viewer.expires_at == moment(answer["expiresAt"])
    assert DAY - 60 < viewer.seconds_left() <= DAY + 1
    assert (str(viewer.run_id), viewer.input, viewer.follows_clients) == (runtime["activeRunId"], False, False)
    assert (await client.get(url.path)).status_code == 200


async def test_what_a_live_embed_may_be(client: httpx.AsyncClient, gateway: Gateway, runtime: Json) -> None:
    path = f"{runtime['path']}/embed/live"
    body = {"interactive": True, "showControls": False, "viewerMode": "automation"}
    answer = await ok(client.post(path, json=body))
    viewer = gateway.services.viewers.read(answer["token"], Kind.LIVE)
    assert (viewer.input, viewer.follows_clients) == (True, True)
    assert urlsplit(answer["iframeUrl"]).query == "controls=false"
    await check(
        sender(client, "POST", path),
        [
            ({"interactive": "yes"}, {"interactive": "bool_type"}),
            ({"viewerMode": "first"}, {"viewerMode": "literal_error"}),
            ({"control": "input"}, {"control": "field.unknown"}),
        ],
    )


async def test_there_is_nothing_live_to_see_of_a_runtime_that_has_ended(
    client: httpx.AsyncClient, runtime: Json
) -> None:
    await ok(client.post(f"{runtime['path']}/stop"))
    await refused(client.post(f"{runtime['path']}/embed/live"), 409, "run.live_not_active")
    await refused(client.post(f"{runtime['path'][:-4]}none/embed/live"), 404, "runtime.not_found")


@pytest.mark.parametrize("spelling", ["embed", "embeds"])
async def test_a_recording_is_a_page_and_what_is_known_of_it(
    spelling: str, client: httpx.AsyncClient, database: Database, runtime: Json
) -> None:
    path = f"{runtime['path']}/{spelling}/recording"
    await refused(client.post(path), 404, "recording.not_found")

    async def set_to(status: str, **more: object) -> None:
        columns = {"run_id": runtime["activeRunId"], "gateway_id": runtime["id"], "status": status, **more}
        async with database.begin() as connection:
            await connection.execute(text("DELETE FROM recordings"))
            named = ", ".join(columns)
            values = ", ".join(f":{name}" for name in columns)
            await connection.execute(text(f"INSERT INTO recordings ({named}) VALUES ({values})"), columns)

    tabs = '[{"tab": "A", "timeMs": 0}, {"tab": "B", "timeMs": 1}, {"tab": "A", "timeMs": 2}]'
    for status, shown in (
        ("recording", "encoding"),
        ("preparing", "encoding"),
        ("processing", "encoding"),
        # Its file was deleted.
        ("ready", "expired"),
        ("expired", "expired"),
    ):
        await set_to(status, duration_ms=1500, tabs=tabs)
        answer = await ok(client.post(path))
        assert (status, answer["status"], answer["tabIds"]) == (status, shown, ["A", "B"])
        assert "durationMs" not in answer
        assert urlsplit(answer["iframeUrl"]).path == f"/v1/viewers/recording/{answer['token']}"

    file = await ok(client.post(f"/v1/spaces/{runtime['workspaceId']}/storage/files", files={"file": ("a.webm", b"a")}))
    await set_to("ready", duration_ms=1500, tabs=tabs, file_id=file["id"])
    answer = await ok(client.post(path))
    assert (answer["status"], answer["durationMs"]) == ("ready", 1500)

    await set_to("failed", error_message="no frames")
    body = await refused(client.post(path), 409, "recording.failed")
    assert "no frames" in body["error"]
