"""Extensions in real browsers: that they work, and that a launch is refused where they can't be contained."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
import pytest_asyncio

from gateway.core.errors import LaunchFailed, NotSupported
from gateway.core.launch import Failure
from gateway.launchers.base import LaunchedExtension, LaunchSpec
from gateway.launchers.local import extension_policy
from gateway.launchers.local.freezer import Freezer
from gateway.launchers.local.launcher import LocalLauncher
from gateway.launchers.local.local_browser import LocalBrowser
from gateway.launchers.local.warm_pool import WarmPool
from tests.support.devtools import DevTools
from tests.support.extensions import unpacked, worker_of, workers
from tests.support.launchers import local_launcher
from tests.support.pages import PageServer
from tests.support.waiting import until

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only a browser with a network of its own has extensions")
pytestmark = pytest.mark.unprivileged

WORKER = """
chrome.runtime.onMessage.addListener((message, sender, respond) => {
  chrome.storage.local.get({count: 0}).then(({count}) => {
    chrome.storage.local.set({count: count + 1}).then(() => respond(`${message}, visit ${count + 1}`));
  });
  return true;
});
"""
SCRIPT = """
chrome.runtime.sendMessage('hello').then(answer => { document.documentElement.dataset.answer = answer; });
"""


@pytest.fixture(scope="module")
def greeter() -> Iterator[LaunchedExtension]:
    """Its content script asks its service worker, which counts in its storage."""
    with unpacked(
        "greeter",
        {"worker.js": WORKER, "script.js": SCRIPT, "popup.html": "<title>Popup</title>"},
        background={"service_worker": "worker.js"},
        content_scripts=[{"matches": ["http://*/*"], "js": ["script.js"]}],
        permissions=["storage"],
    ) as extension:
        yield extension


@pytest_asyncio.fixture(scope="module")
async def launcher() -> AsyncIterator[LocalLauncher]:
    async with local_launcher(warm_browsers=0, egress_allow=("127.0.0.1",)) as launcher:
        yield launcher


@asynccontextmanager
async def launched(launcher: LocalLauncher, *extensions: LaunchedExtension) -> AsyncIterator[LocalBrowser]:
    browser = await launcher.launch(LaunchSpec(uuid4(), extensions=extensions))
    try:
        yield browser
    finally:
        await browser.stop()


@as_root
async def test_a_content_script_and_a_service_worker_work(
    launcher: LocalLauncher, greeter: LaunchedExtension, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whatever is warm has no extension.
    monkeypatch.setattr(WarmPool, "claim", None)
    with PageServer() as pages:
        async with launched(launcher, greeter) as browser, DevTools.attach(browser) as client:
            assert browser.name == "chromium"
            assert [page["url"] for page in await client.pages()] == ["about:blank"]
            for visit in (1, 2):
                page = await client.new_page(url=pages.url("/blank"))

                async def answered(page: str = page, visit: int = visit) -> bool:
                    answer = await client.evaluate("document.documentElement?.dataset.answer ?? null", page)
                    return bool(answer == f"hello, visit {visit}")

                await until(answered, "the content script has the service worker's answer")
            worker = await worker_of(client, greeter)
            assert await client.evaluate("chrome.storage.local.get().then(JSON.stringify)", worker) == '{"count":2}'


class CopiedProfile:
    """What an earlier browser left, as a saved profile."""

    cookies: Sequence[dict[str, Any]] = ()

    def __init__(self, source: Path) -> None:
        self._source = source

    async def restore(self, directory: Path, owner: tuple[int, int] | None) -> None:
        await asyncio.to_thread(self._copy, directory, owner)

    def _copy(self, directory: Path, owner: tuple[int, int] | None) -> None:
        shutil.copytree(self._source, directory, dirs_exist_ok=True, ignore=shutil.ignore_patterns("Singleton*"))
        if owner is not None:
            for path in (directory, *directory.rglob("*")):
                os.chown(path, *owner, follow_symlinks=False)


@as_root
async def test_a_profile_keeps_the_data_of_an_extension_and_nothing_that_would_load_another(
    launcher: LocalLauncher, greeter: LaunchedExtension, tmp_path: Path
) -> None:
    with unpacked("planted", {"worker.js": ""}, background={"service_worker": "worker.js"}) as planted:
        async with launched(launcher, greeter) as browser, DevTools.attach(browser) as client:
            # Not in the launch: it stands for what a hostile browser writes into its preferences by itself.
            await browser.process.command("Extensions.loadUnpacked", path=planted.directory)
            await worker_of(client, planted)
            kept = "chrome.storage.local.set({kept: 'yes'}).then(() => chrome.storage.local.get()).then(JSON.stringify)"
            assert await client.evaluate(kept, await worker_of(client, greeter)) == '{"kept":"yes"}'
            await client.send("Browser.close")
            await browser.ended
            shutil.copytree(Path(browser.files_dir).parent / "profile", tmp_path / "saved", symlinks=True)
        settings = json.loads((tmp_path / "saved/Default/Preferences").read_text())["extensions"]["settings"]
        assert planted.id in settings
        settings[greeter.id]["newAllowFileAccess"] = True
        (tmp_path / "saved/Default/Secure Preferences").write_text(json.dumps({"extensions": {"settings": settings}}))
        spec = LaunchSpec(uuid4(), profile=CopiedProfile(tmp_path / "saved"), extensions=(greeter,))
        browser = await launcher.launch(spec)
        try:
            async with DevTools.attach(browser) as client:
                worker = await worker_of(client, greeter)
                stored = "chrome.storage.local.get().then(JSON.stringify)"
                assert await client.evaluate(stored, worker) == '{"kept":"yes"}'
                assert await client.evaluate("chrome.extension.isAllowedFileSchemeAccess()", worker) is False
                assert await workers(client, planted) == []
                page = await client.new_page(url=f"chrome-extension://{planted.id}/manifest.json")
                assert await client.evaluate("location.href", page) == "chrome-error://chromewebdata/"
        finally:
            await browser.stop()


@as_root
async def test_an_extension_is_frozen_with_its_browser_and_continues(launcher: LocalLauncher) -> None:
    counting = "self.n = 0; setInterval(() => { self.n += 1; }, 5);"
    with unpacked("counting", {"worker.js": counting}, background={"service_worker": "worker.js"}) as extension:
        async with launched(launcher, extension) as browser, DevTools.attach(browser) as client:
            worker = await worker_of(client, extension)
            await until(lambda: client.evaluate("self.n > 3", worker), "the service worker counts")
            freezer = Freezer(0.1, look_seconds=0.02)
            running = asyncio.create_task(freezer.run(lambda: [browser]))
            try:
                await until(lambda: freezer.is_frozen(browser), "it is frozen")
                processes = psutil.Process(browser.group).children(recursive=True)
                workers_ = [process for process in processes if "--extension-process" in process.cmdline()]
                assert {process.status() for process in workers_} == {psutil.STATUS_STOPPED}
                browser.use.begin("a socket")
                counted = await client.evaluate("self.n", worker)
                await until(lambda: client.evaluate(f"self.n > {counted}", worker), "it counts again")
            finally:
                running.cancel()
                await asyncio.wait({running})


@as_root
async def test_a_launch_is_refused_where_extensions_can_not_be_contained(
    launcher: LocalLauncher, greeter: LaunchedExtension, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "contains_extensions", False)
    monkeypatch.setattr(extension_policy, "MOUNT_ETC", "mount -t nothing none /etc")
    spec = LaunchSpec(uuid4(), extensions=(greeter,))
    for attempt in (launcher.check, launcher.launch):
        with pytest.raises(NotSupported) as refused:
            await attempt(spec)
        assert refused.value.code == "extensions.not_available"
        assert refused.value.details["advice"] == extension_policy.ADVICE


async def test_a_launch_is_refused_without_a_network_of_its_own(greeter: LaunchedExtension) -> None:
    """In a page of an extension, WebRTC sends datagrams whatever the policies say."""
    async with local_launcher(warm_browsers=0, browser_network="off") as launcher:
        for attempt in (launcher.check, launcher.launch):
            with pytest.raises(NotSupported, match="no network of their own") as refused:
                await attempt(LaunchSpec(uuid4(), extensions=(greeter,)))
            assert refused.value.code == "extensions.not_available"


async def test_the_headless_shell_has_no_extensions(launcher: LocalLauncher, greeter: LaunchedExtension) -> None:
    with pytest.raises(NotSupported, match="the headless shell has none") as refused:
        await launcher.check(LaunchSpec(uuid4(), "headless-shell", extensions=(greeter,)))
    assert refused.value.code == "extensions.not_available"


@as_root
@pytest.mark.parametrize("missing", ["URLBlocklist", "the file"])
async def test_a_browser_in_which_the_policy_does_not_hold_is_not_handed_out(
    launcher: LocalLauncher, greeter: LaunchedExtension, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing == "the file":
        monkeypatch.setattr(extension_policy, "PLACES", ("chromium/elsewhere",))
    else:
        whole = extension_policy.policies
        monkeypatch.setattr(extension_policy, "policies", lambda: whole() | {missing: []})
    with pytest.raises(LaunchFailed) as failed:
        await launcher.launch(LaunchSpec(uuid4(), extensions=(greeter,)))
    assert failed.value.failure == Failure.EXTENSIONS_NOT_CONTAINED


@as_root
async def test_an_extension_that_the_browser_does_not_load_fails_the_launch(launcher: LocalLauncher) -> None:
    with unpacked("broken", {}, background={"service_worker": "missing.js"}) as broken:
        words = f"does not load the extension {broken.id}: Could not load background script"
        with pytest.raises(LaunchFailed, match=words) as failed:
            await launcher.launch(LaunchSpec(uuid4(), extensions=(broken,)))
    assert failed.value.failure == Failure.EXTENSION_REFUSED
