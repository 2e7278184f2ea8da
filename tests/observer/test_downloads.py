"""Downloads of pages become artifacts: complete, under a safe name, with their events, or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import async_playwright

from tests.support.downloads import Attachments, Run
from tests.support.gateway_process import MEASURED, GatewayProcess, temporary_data_dir
from tests.support.remote import Remote, ask
from tests.support.waiting import until

LARGEST = 1024 * 1024


@pytest.fixture(scope="module")
def gateway() -> Iterator[GatewayProcess]:
    with (
        temporary_data_dir() as data_dir,
        GatewayProcess.start(
            data_dir,
            GATEWAY_EGRESS_ALLOW="127.0.0.1",
            GATEWAY_MAX_FILE_BYTES=str(LARGEST),
            GATEWAY_WARM_BROWSERS="1",
            **MEASURED,
        ) as gateway,
    ):
        yield gateway


@pytest.fixture
def attachments() -> Iterator[Attachments]:
    served = Attachments()
    yield served
    served.close()


@pytest_asyncio.fixture
async def remote(gateway: GatewayProcess) -> AsyncIterator[Remote]:
    async with Remote(gateway) as remote:
        yield remote
        await remote.clear()


@pytest_asyncio.fixture
async def run(remote: Remote) -> Run:
    path = await remote.runtime()
    runtime = await remote.get(path)
    return Run(remote, path, runtime["activeRunId"], await remote.attach(path))


async def test_a_spontaneous_download_becomes_an_artifact(run: Run, attachments: Attachments) -> None:
    page = await run.page(f"{attachments.url}/file?name=June%20%F0%9F%8E%88.csv&size=1000&token=secret")
    (artifact,) = await run.has_artifacts(1)
    assert {key: artifact[key] for key in ("kind", "name", "path", "contentType", "sizeBytes", "runId")} == {
        "kind": "download",
        "name": "June 🎈.csv",
        "path": "downloads/June 🎈.csv",
        "contentType": "text/csv",
        "sizeBytes": 1000,
        "runId": run.run,
    }
    assert (await run.remote.api.get(artifact["downloadUrl"])).content == b"x" * 1000
    # A client that has nothing but the lease finds it below the lease's own address.
    root = (await run.remote.lease(run.path)).url.replace("ws", "http", 1)
    async with httpx.AsyncClient(trust_env=False) as keyless:
        (listed,) = (await keyless.get(f"{root}/downloads")).raise_for_status().json()["downloads"]
        assert (listed["id"], listed["name"], listed["sizeBytes"]) == (artifact["id"], "June 🎈.csv", 1000)
        assert (await keyless.get(listed["url"])).content == b"x" * 1000
    started, completed = await run.has_event("started"), await run.has_event("completed")
    assert started["data"]["name"] == completed["data"]["name"] == "June 🎈.csv"
    assert started["data"]["url"] == f"{attachments.url}/file?name=June%20%F0%9F%8E%88.csv&size=1000&token=***"
    assert started["pageId"] == completed["pageId"] == page
    assert completed["data"]["artifactId"] == artifact["id"]
    events = (await run.remote.get(f"/v1/runs/{run.run}/events?limit=200"))["events"]
    types = [event["type"] for event in events if event["type"] in ("download", "artifact.created")]
    assert types == ["download", "artifact.created", "download"]


async def test_a_download_is_kept_when_the_runtime_is_stopped_right_after(run: Run, attachments: Attachments) -> None:
    await run.page(f"{attachments.url}/file?name=last.bin&size={LARGEST}")
    await until(lambda: any("." not in name for name in run.names()), "the file is whole", 20)
    await run.stop()
    (artifact,) = await run.artifacts()
    assert (artifact["name"], artifact["sizeBytes"]) == ("last.bin", LARGEST)
    await until(lambda: len(os.listdir(run.files_dir)) == 1, "only a warm browser has a directory", 20)


async def test_an_incomplete_download_is_not_kept(run: Run, attachments: Attachments) -> None:
    await run.page(f"{attachments.url}/slow")
    await until(lambda: any(name.endswith(".crdownload") for name in run.names()), "half is there", 20)
    await run.stop()
    assert (await run.has_event("canceled"))["data"]["name"] == "report.txt"
    assert await run.artifacts() == []


async def test_download_names_are_safe_and_unique(run: Run, attachments: Attachments) -> None:
    for number, name in enumerate(
        ("same.txt", "same.txt", "..%2F..%2Fetc%2Fpasswd", "a%22%0D%0Ab", "n" * 300 + ".txt")
    ):
        await run.page(f"{attachments.url}/file?name={name}")
        await run.has_artifacts(number + 1)
    paths = [artifact["path"] for artifact in reversed(await run.artifacts())]
    assert paths[:2] == ["downloads/same.txt", "downloads/same (1).txt"]
    for path in paths:
        assert re.fullmatch(r"downloads/[^/\\\x00-\x1f]{1,255}", path)
        assert not path.endswith("/..")
    assert paths[-1].endswith(".txt")


async def test_a_download_named_with_half_a_surrogate_pair_is_kept(run: Run, attachments: Attachments) -> None:
    page = (await ask(run.socket, "Target.createTarget", url=f"{attachments.url}/frame"))["targetId"]
    session = (await ask(run.socket, "Target.attachToTarget", targetId=page, flatten=True))["sessionId"]
    saving = "const a = document.createElement('a'); a.href = URL.createObjectURL(new Blob(['x']));"
    saving += "a.download = 'half \\ud83d.txt'; console.log('half \\ud83d'); document.title = '\\ud83d'; a.click()"
    await run.has_artifacts(1)
    await ask(run.socket, "Runtime.evaluate", session, expression=saving, userGesture=True)
    artifact = next(each for each in await run.has_artifacts(2) if each["name"] != "report.txt")
    assert (artifact["name"].startswith("half "), artifact["sizeBytes"]) == (True, 1)


async def test_a_download_above_the_maximum_is_reported_and_not_kept(run: Run, attachments: Attachments) -> None:
    await run.page(f"{attachments.url}/file?size={LARGEST + 1}")
    failed = await run.has_event("failed")
    assert failed["data"]["code"] == "storage_file.too_large"
    assert await run.artifacts() == []
    await run.page(f"{attachments.url}/file?size={LARGEST}")
    await run.has_artifacts(1)


async def test_contexts_of_clients_keep_their_download_behavior(run: Run, attachments: Attachments) -> None:
    async def context(**behavior: Any) -> str:
        made: str = (await ask(run.socket, "Target.createBrowserContext"))["browserContextId"]
        if behavior:
            await ask(run.socket, "Browser.setDownloadBehavior", browserContextId=made, **behavior)
        return made

    # One that asks for nothing, one that wants none, and one that wants them in a folder of its own by their names.
    await run.page(f"{attachments.url}/file?name=unasked", await context())
    await run.has_artifacts(1)
    await run.page(f"{attachments.url}/file?name=denied", await context(behavior="deny"))
    assert (await run.has_event("canceled"))["data"]["name"] == "denied"
    await run.page(f"{attachments.url}/file?name=own.txt", await context(behavior="allow", downloadPath="own"))
    artifacts = await run.has_artifacts(2)
    assert [artifact["name"] for artifact in artifacts] == ["own.txt", "unasked"]
    assert "own" in run.names()


async def test_a_download_of_a_frame_belongs_to_its_page(run: Run, attachments: Attachments) -> None:
    page = await run.page(f"{attachments.url}/frames")
    await run.has_artifacts(1)
    assert (await run.has_event("completed"))["pageId"] == page


async def test_a_client_that_waits_for_its_downloads_gets_them_as_before(run: Run, attachments: Attachments) -> None:
    endpoint = (await run.remote.lease(run.path)).url
    async with async_playwright() as playwright:
        browser = await playwright.chromium.connect_over_cdp(endpoint)
        for number, context in enumerate((browser.contexts[0], await browser.new_context(accept_downloads=True))):
            page = await context.new_page()
            await page.set_content(f"<a href='{attachments.url}/file?name={number}.txt'>x</a>")
            async with page.expect_download() as downloading:
                await page.click("a")
            download = await downloading.value
            assert download.suggested_filename == f"{number}.txt"
            assert await download.failure() is None
        await browser.close()
    artifacts = await run.has_artifacts(2)
    assert {artifact["name"] for artifact in artifacts} == {"0.txt", "1.txt"}


async def test_a_staged_file_is_put_into_a_page_and_a_downloaded_one_collected(
    run: Run, attachments: Attachments
) -> None:
    space = run.path.rpartition("/runtimes/")[0]
    answer = await run.remote.api.post(f"{space}/storage/files", files={"file": ("june.csv", b"1,2")})
    staged = await run.remote.post(f"{run.path}/files/stage", {"fileId": answer.json()["id"]})
    page = (await ask(run.socket, "Target.createTarget", url="about:blank"))["targetId"]
    session = (await ask(run.socket, "Target.attachToTarget", targetId=page, flatten=True))["sessionId"]
    made = "document.body.innerHTML = '<input type=file>'; document.querySelector('input')"
    field = (await ask(run.socket, "Runtime.evaluate", session, expression=made))["result"]["objectId"]
    await ask(run.socket, "DOM.setFileInputFiles", session, files=[staged["path"]], objectId=field)
    text = "(async ([file]) => file.name + await file.text())(document.querySelector('input').files)"
    evaluated = await ask(
        run.socket, "Runtime.evaluate", session, expression=text, awaitPromise=True, returnByValue=True
    )
    assert evaluated["result"]["value"] == "june.csv1,2"
    await run.page(f"{attachments.url}/file?size=10")
    await until(lambda: len([name for name in run.names() if "." not in name]) == 1, "the file is whole", 20)
    (name,) = (name for name in run.names() if "." not in name)
    collected = await run.remote.post(f"{run.path}/files/collect", {"path": name, "storagePath": "taken/out"})
    assert (collected["path"], collected["sizeBytes"]) == ("taken/out", 10)
