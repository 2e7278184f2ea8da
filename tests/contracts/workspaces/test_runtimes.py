"""/v1/workspaces/{id}/runtimes: what is taken and answered, aliases, mounts that narrow, and the other generation."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.support.api import NEVER, Json, check, checked, make_runtime, ok, refused, sender
from tests.support.launchers import FailingLauncher, SlowLauncher, WorkingLauncher
from tests.support.waiting import until


@pytest.fixture
def launcher(request: pytest.FixtureRequest) -> WorkingLauncher:
    made: WorkingLauncher = getattr(request, "param", WorkingLauncher)()
    return made


@pytest.fixture
def client(client: httpx.AsyncClient) -> httpx.AsyncClient:
    return checked(client)


async def make_workspace(client: httpx.AsyncClient, **body: object) -> str:
    """Path of a new workspace's runtimes."""
    made = await ok(client.post("/v1/workspaces", json={"name": "first", **body}))
    return f"/v1/workspaces/{made['id']}/runtimes"


async def test_an_alias_is_enough(client: httpx.AsyncClient, launcher: WorkingLauncher) -> None:
    path = await make_workspace(client, mounts={"storage": {"workspace": "shared"}})
    made = await ok(client.post(path, json={"alias": "main"}))
    assert made == {
        "id": made["id"],
        "workspaceId": path.split("/")[3],
        "alias": "main",
        "kind": "browser",
        "status": "active",
        "summary": {
            "browserRunning": True,
            "currentDriver": "playwright",
            "defaultContextId": None,
            "defaultPageId": None,
            "launchMode": "ephemeral",
            "profileId": None,
            "storageWorkspace": "shared",
            "endReason": None,
        },
        "activeRunId": made["activeRunId"],
        "config": {},
        "mounts": None,
        "createdAt": made["createdAt"],
        "updatedAt": made["updatedAt"],
        "stoppedAt": None,
        "error": None,
    }
    assert len(launcher.browsers) == 1
    for reference in ("main", made["id"]):
        assert await ok(client.get(f"{path}/{reference}")) == made
    assert await ok(client.get(path)) == {"runtimes": [made]}


async def test_a_runtime_is_launched_as_it_is_asked_for(client: httpx.AsyncClient, launcher: WorkingLauncher) -> None:
    path = await make_workspace(client)
    config = {"locale": "de-DE", "viewport": {"width": 800, "height": 600}, "idleTimeoutSeconds": 60}
    body = {
        "kind": "browser",
        "alias": "main",
        "driver": "selenium",
        "launch": {"mode": "ephemeral", "config": config, "later": 1},
        "unknown": {"is": "ignored"},
    }
    made = await ok(client.post(path, json=body))
    assert (made["config"], made["summary"]["currentDriver"]) == (config, "selenium")
    (spec,) = launcher.specs
    assert (spec.locale, spec.viewport) == ("de-DE", (800, 600))


async def test_what_a_body_may_hold(client: httpx.AsyncClient) -> None:
    path = await make_workspace(client)
    ephemeral = {"alias": "a", "launch": {"mode": "ephemeral"}}
    config = "launch.config"
    await check(
        sender(client, "POST", path),
        [
            ({}, {"alias": "field.missing"}),
            ({"alias": ""}, {"alias": "string_too_short"}),
            ({"alias": "x" * 64}, {}),
            ({"alias": "x" * 65}, {"alias": "string_too_long"}),
            ({"alias": "a/b"}, {"alias": "string_pattern_mismatch"}),
            ({"alias": NEVER}, {"alias": "field.invalid"}),
            ({"alias": "a", "kind": "desktop"}, {"kind": "literal_error"}),
            ({"alias": "a", "driver": "cypress"}, {"driver": "literal_error"}),
            ({"alias": "a", "launch": {}}, {"launch": "union_tag_not_found"}),
            ({"alias": "a", "launch": {"mode": "x"}}, {"launch": "union_tag_invalid"}),
            ({"alias": "a", "launch": {"mode": "profile"}}, {"launch.profileId": "field.missing"}),
            ({"alias": "a", "launch": {"mode": "profile", "profileId": "x"}},
             {"launch.profileId": "field.invalid"}),
            ({**ephemeral, "launch": {"mode": "ephemeral", "config": {"locale": "?", "x": 1}}},
             {f"{config}.locale": "string_pattern_mismatch", f"{config}.x": "field.unknown"}),
            ({**ephemeral, "launch": {"mode": "ephemeral", "config": {"maxLifetimeSeconds": 2592000}}},
             {"launch.config.maxLifetimeSeconds": "less_than_equal"}),
            ({"alias": "a", "mounts": {"disk": {}}}, {"mounts.disk": "field.unknown"}),
        ],
    )  # fmt: skip


async def test_a_profile_that_is_not_there_is_not_found(client: httpx.AsyncClient) -> None:
    path = await make_workspace(client)
    body = {"alias": "a", "launch": {"mode": "profile", "profileId": NEVER}}
    await refused(client.post(path, json=body), 404, "browser_profile.not_found")


async def test_an_alias_is_free_again_once_its_runtime_has_ended(client: httpx.AsyncClient) -> None:
    path = await make_workspace(client)
    first = await ok(client.post(path, json={"alias": "main"}))
    body = await refused(client.post(path, json={"alias": "main"}), 409, "runtime.alias_active")
    assert body["details"] == {"spaceId": first["workspaceId"], "alias": "main"}
    await ok(client.post(path, json={"alias": "other"}))
    # In another workspace it is another one's.
    await ok(client.post(await make_workspace(client), json={"alias": "main"}))

    stopped = await ok(client.post(f"{path}/main/stop"))
    assert (stopped["id"], stopped["status"], stopped["error"]) == (first["id"], "stopped", None)
    assert stopped["stoppedAt"] is not None
    assert stopped["summary"]["endReason"]["code"] == "runtime.stopped"
    assert await ok(client.post(f"{path}/main/stop")) == stopped

    second = await ok(client.post(path, json={"alias": "main"}))
    assert second["id"] != first["id"]
    assert second["activeRunId"] != first["activeRunId"]
    assert (await ok(client.get(f"{path}/main")))["id"] == second["id"]
    assert await ok(client.get(f"{path}/{first['id']}")) == stopped


async def test_two_launches_at_once_do_not_share_an_alias(client: httpx.AsyncClient, launcher: WorkingLauncher) -> None:
    path = await make_workspace(client)
    answers = await asyncio.gather(*(client.post(path, json={"alias": "main"}) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409]
    assert len(launcher.browsers) == 1


@pytest.mark.parametrize("launcher", [SlowLauncher], indirect=True)
async def test_an_alias_is_taken_from_the_start_of_a_launch(client: httpx.AsyncClient, launcher: SlowLauncher) -> None:
    path = await make_workspace(client)
    starting = asyncio.create_task(client.post(path, json={"alias": "main"}))
    await until(lambda: launcher.waiting == 1)
    await refused(client.post(path, json={"alias": "main"}), 409, "runtime.alias_active")
    await refused(client.get(f"{path}/main"), 404, "runtime.not_found")
    launcher.go.set()
    await ok(starting)


@pytest.mark.parametrize("launcher", [FailingLauncher], indirect=True)
async def test_a_failed_launch_leaves_its_alias_free(client: httpx.AsyncClient) -> None:
    path = await make_workspace(client)
    for _ in range(2):
        await refused(client.post(path, json={"alias": "main"}), 503, "runtime.launch_failed")
    failed = await ok(client.get(f"{path}/main"))
    assert (failed["status"], failed["error"]["code"]) == ("failed", "runtime.launch_failed")


async def test_mounts_narrow_those_of_the_workspace(client: httpx.AsyncClient) -> None:
    await ok(client.post("/v1/ai-connections", json={"label": "a", "provider": "openai"}))
    vault = {"allow": ["crm/"], "allowRawReads": False}
    path = await make_workspace(client, mounts={"vault": vault, "ai": {"allow": ["a"]}})
    mounts: Json = {"vault": {"allow": ["crm/a"], "deny": ["crm/a/b"]}}
    made = await ok(client.post(path, json={"alias": "main", "mounts": mounts}))
    assert made["mounts"] == mounts

    wider = {
        "vault": {"allow": ["crm/", "hr/"], "allowRawReads": True},
        "ai": {"allow": ["b"], "defaults": {"openai-compatible": "b"}},
        "storage": {"workspace": "shared"},
    }
    body = await refused(client.post(path, json={"alias": "other", "mounts": wider}), 403, "mounts.widened")
    fields = [each["field"] for each in body["details"]["errors"]]
    assert fields == [
        "mounts.vault.allow.1",
        "mounts.vault.allowRawReads",
        "mounts.ai.allow.0",
        "mounts.ai.defaults.openai-compatible",
        "mounts.storage.workspace",
    ]
    assert all(field in body["error"] for field in fields)


async def test_a_runtime_of_the_other_generation_has_its_id_for_an_alias(client: httpx.AsyncClient) -> None:
    made = await make_runtime(client, config={"locale": "de"})
    path = f"/v1/workspaces/{made['spaceId']}/runtimes"
    seen = await ok(client.get(f"{path}/{made['id']}"))
    assert (seen["alias"], seen["summary"]["currentDriver"], seen["config"]) == (made["id"], None, {"locale": "de"})
    assert await ok(client.get(path)) == {"runtimes": [seen]}

    named = await ok(client.post(path, json={"alias": "main"}))
    as_space = await ok(client.get(f"/v1/spaces/{made['spaceId']}/runtimes/{named['id']}"))
    assert (as_space["name"], as_space["activeRunId"]) == ("main", named["activeRunId"])


async def test_what_no_runtime_has_is_not_found(client: httpx.AsyncClient) -> None:
    path = await make_workspace(client)
    for alias in ("none", NEVER, "%00", "a%20b"):
        await refused(client.get(f"{path}/{alias}"), 404, "runtime.not_found")
        await refused(client.post(f"{path}/{alias}/stop"), 404, "runtime.not_found")
    await refused(client.get(path.replace(path.split("/")[3], NEVER)), 404, "workspace.not_found")
    elsewhere = path.replace(path.split("/")[3], NEVER)
    await refused(client.post(elsewhere, json={"alias": "main"}), 404, "workspace.not_found")


async def test_nothing_is_launched_in_a_closed_workspace(client: httpx.AsyncClient) -> None:
    path = await make_workspace(client)
    await ok(client.post(path, json={"alias": "main"}))
    await ok(client.post(path.replace("/runtimes", "/close")))
    assert (await ok(client.get(f"{path}/main")))["summary"]["endReason"]["code"] == "space.closed"
    body = await refused(client.post(path, json={"alias": "main"}), 409, "workspace.closed")
    assert "workspace" in body["error"]


async def test_the_state_of_a_workspace_has_its_live_runtimes(client: httpx.AsyncClient) -> None:
    path = await make_workspace(client)
    workspace = path.removesuffix("/runtimes")
    await ok(client.post(path, json={"alias": "gone"}))
    await ok(client.post(f"{path}/gone/stop"))
    live = await ok(client.post(path, json={"alias": "main"}))
    state = await ok(client.get(f"{workspace}/state"))
    assert state == {"workspace": await ok(client.get(workspace)), "runtimes": [live]}
    await refused(client.get(f"/v1/workspaces/{NEVER}/state"), 404, "workspace.not_found")
