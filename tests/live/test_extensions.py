"""Extensions of the API in real browsers: the one of docs/extensions.md, and what becomes of it until it is deleted."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gateway.domain.extensions.permissions import ALLOWED, REFUSED
from gateway.domain.secrets import KeySource
from gateway.store.database import Database
from tests.support.extension_packages import chromium_id, crx3, public, rsa_key, zip_of
from tests.support.gateway_process import ROOT, temporary_data_dir
from tests.support.live import adopts_orphans_no_longer, live_gateway
from tests.support.pages import PageServer
from tests.support.profiles import Visitor, stop, until_saved
from tests.support.remote import Remote
from tests.support.waiting import until

PATH = "/v1/browser-extensions"


@pytest.fixture(autouse=True)
def _adopts_orphans_no_longer() -> Iterator[None]:
    yield
    adopts_orphans_no_longer()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with PageServer() as pages:
        yield pages.url("/blank")


@pytest_asyncio.fixture
async def remote(database: Database, keys: KeySource, api_key: str) -> AsyncIterator[Remote]:
    with temporary_data_dir() as data_dir:
        async with live_gateway(data_dir, database, keys, api_key) as gateway, gateway.visit():
            yield gateway.remote


def documented_files() -> dict[str, str | bytes]:
    """The files of the extension that the page for users shows."""
    page = Path(ROOT, "docs", "extensions.md").read_text()
    found: dict[str, str | bytes] = dict(
        re.findall(r"^`([\w.]+)`\n\n```\w+\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    )
    assert list(found) == ["manifest.json", "mark.js", "worker.js"]
    return found


async def upload(remote: Remote, content: bytes) -> dict[str, Any]:
    answer = await remote.api.post(f"{PATH}/upload", files={"file": ("marker", content)})
    assert answer.status_code == 200, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def visits(remote: Remote, runtime: str, url: str) -> str:
    """What the content script of a page got from the service worker."""
    async with Visitor.at(remote, runtime, url) as visitor:
        found: list[str] = []

        async def is_marked() -> bool:
            found.append(await visitor.evaluate("document.documentElement.dataset.visits"))
            return bool(found[-1])

        await until(is_marked, "the page is marked")
        return found[-1]


async def test_a_content_script_and_a_service_worker_work_in_both_generations(remote: Remote, url: str) -> None:
    packed = zip_of(documented_files())
    extension = await upload(remote, crx3(packed))
    assert extension["chromeExtensionId"] == chromium_id(public(rsa_key()))
    runtime = await remote.runtime(extensionIds=[extension["id"]])
    assert (await remote.get(runtime))["summary"]["browser"] == "chromium"
    assert await visits(remote, runtime, url) == "1"
    assert await visits(remote, runtime, url) == "2"

    other = await upload(remote, packed)
    workspace = (await remote.post("/v1/workspaces", {"name": "a"}))["id"]
    launch = {"mode": "ephemeral", "config": {"extensionIds": [other["id"]]}}
    made = await remote.post(f"/v1/workspaces/{workspace}/runtimes", {"alias": "main", "launch": launch})
    second = f"/v1/spaces/{workspace}/runtimes/{made['id']}"
    assert await visits(remote, second, url) == "1"

    for used, at in ((extension, runtime), (other, second)):
        refusal = await remote.api.delete(f"{PATH}/{used['id']}")
        assert (refusal.status_code, refusal.json()["code"]) == (409, "browser_extension.in_use")
        await stop(remote, at)
        assert (await remote.api.delete(f"{PATH}/{used['id']}")).status_code == 200


@pytest.mark.thorough
async def test_an_extension_of_a_profile_keeps_its_data(remote: Remote, url: str) -> None:
    extension = await upload(remote, zip_of(documented_files()))
    body = {"name": "bot", "config": {"extensionIds": [extension["id"]]}}
    profile = (await remote.post("/v1/browser-profiles", body))["id"]
    for visit in ("1", "2"):
        made = await remote.post(remote.runtimes, {"profile": "bot"})
        runtime = f"{remote.runtimes}/{made['id']}"
        assert await visits(remote, runtime, url) == visit
        await stop(remote, runtime)
        found = await until_saved(remote, profile)
        assert (found["saveError"], found["browser"]) == (None, "chromium")
    assert (await remote.api.delete(f"{PATH}/{extension['id']}")).status_code == 409
    # Without it, the browser has none, whatever the profile has kept.
    made = await remote.post(remote.runtimes, {"profile": "bot", "config": {"extensionIds": []}})
    runtime = f"{remote.runtimes}/{made['id']}"
    async with Visitor.at(remote, runtime, url) as visitor:
        infos = (await visitor.devtools.send("Target.getTargets"))["targetInfos"]
        assert [info for info in infos if info["url"].startswith("chrome-extension://")] == []
    await stop(remote, runtime)
    await until_saved(remote, profile)
    assert (await remote.api.delete(f"/v1/browser-profiles/{profile}")).status_code == 200
    assert (await remote.api.delete(f"{PATH}/{extension['id']}")).status_code == 200


def test_the_page_for_users_names_each_permission() -> None:
    page = Path(ROOT, "docs", "extensions.md").read_text()
    assert [name for name in (*ALLOWED, *REFUSED) if f"`{name}`" not in page] == []


async def test_rules_of_requests_work(remote: Remote, url: str) -> None:
    """Those that its service worker sets."""
    rule = {
        "id": 1,
        "action": {"type": "redirect", "redirect": {"extensionPath": "/shown.txt"}},
        "condition": {"urlFilter": "/hidden", "resourceTypes": ["xmlhttprequest"]},
    }
    about = {
        "manifest_version": 3,
        "name": "Rules",
        "version": "1",
        "permissions": ["declarativeNetRequest"],
        "host_permissions": ["http://*/*"],
        "background": {"service_worker": "worker.js"},
        "web_accessible_resources": [{"resources": ["shown.txt"], "matches": ["http://*/*"]}],
    }
    worker = f"chrome.declarativeNetRequest.updateDynamicRules({{removeRuleIds: [1], addRules: [{json.dumps(rule)}]}});"
    files = {"manifest.json": json.dumps(about), "worker.js": worker, "shown.txt": "by the extension"}
    extension = await upload(remote, zip_of(files))
    runtime = await remote.runtime(extensionIds=[extension["id"]])
    async with Visitor.at(remote, runtime, url) as visitor:

        async def is_redirected() -> bool:
            return bool(await visitor.evaluate("fetch('/hidden').then((got) => got.text())") == "by the extension")

        await until(is_redirected, "the request is redirected")
    await stop(remote, runtime)
