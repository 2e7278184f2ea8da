"""Mounts of one execution: what would allow more than its runtime may use now is refused by its name."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.support.api import Json, checked, ok, refused
from tests.support.launchers import WorkingLauncher

MOUNTS: Json = {
    "vault": {"allow": ["crm/", "erp/"], "allowRawReads": True},
    "ai": {"allow": ["openai-prod", "openai-test"], "defaults": {"openai": "openai-prod"}},
    "storage": {"workspace": "shared"},
    "proxies": {"allow": ["berlin", "bern"]},
}
STEPS = [{"call": "page.title"}]


@pytest.fixture
def launcher() -> WorkingLauncher:
    return WorkingLauncher()


@pytest.fixture
async def client(client: httpx.AsyncClient) -> httpx.AsyncClient:
    for name in ("openai-prod", "openai-test"):
        body = {"id": name, "label": name, "provider": "openai", "apiKey": "sk-x"}
        await ok(client.post("/v1/ai-credentials", json=body))
    for name in ("berlin", "bern"):
        await ok(client.post("/v1/proxies", json={"name": name, "url": "http://192.0.9.9:3128"}))
    return checked(client)


async def launched(client: httpx.AsyncClient, **body: Any) -> str:
    """Path of a workspace with these mounts, in which `main` is live."""
    workspace = await ok(client.post("/v1/workspaces", json={"name": "x", "mounts": MOUNTS}))
    path = f"/v1/workspaces/{workspace['id']}"
    await ok(client.post(f"{path}/runtimes", json={"alias": "main", **body}))
    return path


async def widened(client: httpx.AsyncClient, path: str, mounts: Json, code: str = "mounts.widened") -> Json:
    """What is refused, by its field."""
    body = {"runtime": "main", "steps": STEPS, "mounts": mounts}
    answer = await refused(client.post(f"{path}/execute", json=body), 403, code)
    errors = answer["details"]["errors"]
    assert all(each["field"] in answer["error"] and each["code"] == code for each in errors)
    return {each["field"]: each.get("value") for each in errors}


async def test_what_would_allow_more_than_the_runtime_is_refused_by_its_name(client: httpx.AsyncClient) -> None:
    own = {"vault": {"allow": ["crm/"], "allowRawReads": False}, "ai": {"allow": ["openai-test"]},
           "proxies": {"allow": ["bern"]}}  # fmt: skip
    path = await launched(client, mounts=own)
    # Each is allowed by the workspace.
    assert await widened(client, path, MOUNTS) == {
        "mounts.vault.allow.1": "erp/",
        "mounts.vault.allowRawReads": True,
        "mounts.ai.allow.0": "openai-prod",
        "mounts.ai.defaults.openai": "openai-prod",
        "mounts.proxies.allow.0": "berlin",
    }
    assert await widened(client, path, {"storage": {"workspace": "other"}}) == {"mounts.storage.workspace": "other"}


async def test_a_workspace_that_is_narrowed_after_the_launch_narrows_its_executions(client: httpx.AsyncClient) -> None:
    path = await launched(client, mounts={"vault": {"allow": ["crm/"]}})
    later: Json = {"vault": {"allow": ["crm/login"]}, "ai": None, "proxies": {"allow": []}}
    await ok(client.patch(path, json={"mounts": later}))
    assert await widened(client, path, {"vault": {"allow": ["crm/"]}, "ai": {}, "proxies": {"allow": ["bern"]}}) == {
        "mounts.vault.allow.0": "crm/",
        "mounts.ai": None,
        "mounts.proxies.allow.0": "bern",
    }


async def test_a_saved_proxy_in_use_can_not_be_left_out(client: httpx.AsyncClient) -> None:
    launch = {"mode": "ephemeral", "config": {"proxy": "berlin"}}
    path = await launched(client, launch=launch)
    for allow in (["bern"], []):
        code = "mounts.proxy_in_use"
        found = await widened(client, path, {"proxies": {"allow": allow}}, code)
        assert found == {"mounts.proxies.allow": "berlin"}


async def test_wrong_mounts_are_refused_by_their_fields(client: httpx.AsyncClient) -> None:
    path = await launched(client)
    body = {"runtime": "main", "steps": STEPS, "mounts": {"vault": {"alow": []}}}
    answer = await refused(client.post(f"{path}/execute", json=body), 400, "request.invalid")
    assert [each["field"] for each in answer["details"]["errors"]] == ["mounts.vault.alow"]
