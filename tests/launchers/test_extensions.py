"""Extensions in real browsers: that they work, and that a launch is refused where they can't be contained."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
import pytest_asyncio

from gateway.core.errors import LaunchFailed, NotSupported
from gateway.core.launch import Failure
from gateway.launchers.base import LaunchedExtension, LaunchSpec
from gateway.launchers.local import extension_policy
from gateway.launchers.local.launcher import LocalLauncher
from gateway.launchers.local.local_browser import LocalBrowser
from tests.support.devtools import DevTools
from tests.support.extensions import unpacked, worker_of
from tests.support.launchers import local_launcher
from tests.support.pages import PageServer
from tests.support.waiting import until

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


async def test_a_content_script_and_a_service_worker_work(launcher: LocalLauncher, greeter: LaunchedExtension) -> None:
    with PageServer() as pages:
        async with launched(launcher, greeter) as browser, DevTools.attach(browser) as client:
            assert browser.name == "chromium"
            assert [page["url"] for page in await client.pages()] == ["about:blank"]
            for visit in (1, 2):
                page = await client.new_page(url=pages.url("/blank"))

                async def answered(page: str = page, visit: int = visit) -> bool:
                    answer = await client.evaluate("document.documentElement.dataset.answer", page)
                    return bool(answer == f"hello, visit {visit}")

                await until(answered, "the content script has the service worker's answer")
            worker = await worker_of(client, greeter)
            assert await client.evaluate("chrome.storage.local.get().then(JSON.stringify)", worker) == '{"count":2}'


async def test_a_launch_is_refused_where_extensions_can_not_be_contained(
    launcher: LocalLauncher, greeter: LaunchedExtension, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "_contains_extensions", False)
    monkeypatch.setattr(extension_policy, "_MOUNT_ETC", "mount -t nothing none /etc")
    spec = LaunchSpec(uuid4(), extensions=(greeter,))
    for attempt in (launcher.check, launcher.launch):
        with pytest.raises(NotSupported) as refused:
            await attempt(spec)
        assert refused.value.code == "extensions.not_available"
        assert refused.value.details["advice"] == extension_policy.ADVICE


async def test_the_headless_shell_has_no_extensions(launcher: LocalLauncher, greeter: LaunchedExtension) -> None:
    with pytest.raises(NotSupported, match="the headless shell has none") as refused:
        await launcher.check(LaunchSpec(uuid4(), "headless-shell", extensions=(greeter,)))
    assert refused.value.code == "extensions.not_available"


@pytest.mark.parametrize("missing", ["URLBlocklist", "the file"])
async def test_a_browser_in_which_the_policy_does_not_hold_is_not_handed_out(
    launcher: LocalLauncher, greeter: LaunchedExtension, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing == "the file":
        monkeypatch.setattr(extension_policy, "_PLACES", ("chromium/elsewhere",))
    else:
        whole = extension_policy.policies
        monkeypatch.setattr(extension_policy, "policies", lambda ids: whole(ids) | {missing: []})
    with pytest.raises(LaunchFailed) as failed:
        await launcher.launch(LaunchSpec(uuid4(), extensions=(greeter,)))
    assert failed.value.failure == Failure.EXTENSIONS_NOT_CONTAINED


async def test_an_extension_that_the_browser_does_not_load_fails_the_launch(launcher: LocalLauncher) -> None:
    with unpacked("broken", {}, background={"service_worker": "missing.js"}) as broken:
        words = f"does not load the extension {broken.id}: Could not load background script"
        with pytest.raises(LaunchFailed, match=words) as failed:
            await launcher.launch(LaunchSpec(uuid4(), extensions=(broken,)))
    assert failed.value.failure == Failure.EXTENSION_REFUSED
