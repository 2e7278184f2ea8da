"""What a page may do to its machine and to other runtimes: attacks by pages of real browsers, beside other ones."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
import pytest_asyncio

from gateway.launchers.base import BrowserName, LaunchSpec
from gateway.launchers.local.launcher import LocalBrowser, LocalLauncher
from tests.support.devtools import DevTools
from tests.support.launchers import local_launcher
from tests.support.pages import PageServer

KINDS: tuple[BrowserName, ...] = ("headless-shell", "chromium")
# Far less than what the pages below send, far more than two small connections need.
MOST_GROWTH = 64 * 1024 * 1024

# Each resolves once the browser has processed it: a worker that runs, or a page that printed and still responds. Sizes
# are around the longest string of V8 (2^29 - 24), which a program that collects such messages can't hold.
WORKER = """new Promise((resolve, reject) => {
  const script = new Blob(['onconnect = event => event.ports[0].postMessage(1)'], {type: 'text/javascript'});
  const worker = new SharedWorker(URL.createObjectURL(script), {name: '\\x01'.repeat(95e6)});
  worker.onerror = reject;
  worker.port.onmessage = () => resolve(true);
})"""
ATTACKS = {
    "the name of a shared worker": WORKER,
    "one line of 2^29 letters": "console.log('x'.repeat(2 ** 29 - 40)), true",
    "170 lines of 3.9 MB": "for (let i = 0; i < 170; i++) console.log('x'.repeat(3.9e6)); true",
    "3 lines of 200 MB": "for (let i = 0; i < 3; i++) console.log('x'.repeat(2e8)); true",
}


@pytest_asyncio.fixture(scope="module")
async def launcher() -> AsyncIterator[LocalLauncher]:
    async with local_launcher(warm_browsers=0, egress_allow=("127.0.0.1",)) as launcher:
        yield launcher


@asynccontextmanager
async def launched(launcher: LocalLauncher, name: BrowserName) -> AsyncIterator[LocalBrowser]:
    browser = await launcher.launch(LaunchSpec(uuid4(), name))
    try:
        yield browser
    finally:
        await browser.stop()


async def assert_works(browser: LocalBrowser) -> None:
    assert not browser.ended.done()
    async with DevTools.attach(browser.devtools_url) as client:
        assert await client.evaluate("6 * 7", await client.new_page()) == 42


@pytest.mark.parametrize(
    ("name", "attack"),
    [
        *(("headless-shell", attack) for attack in ATTACKS),
        # It prints no console messages.
        ("chromium", "the name of a shared worker"),
        ("chromium", "one line of 2^29 letters"),
    ],
)
async def test_nothing_that_a_page_says_reaches_what_runtimes_share(
    launcher: LocalLauncher, name: BrowserName, attack: str
) -> None:
    own = psutil.Process()
    with PageServer() as pages:
        async with (
            launched(launcher, "headless-shell") as one,
            launched(launcher, "chromium") as other,
            launched(launcher, name) as attacker,
            DevTools.attach(attacker.devtools_url) as client,
        ):
            page = await client.new_page()
            await client.send("Page.navigate", page, url=pages.url("/blank"))
            before = own.memory_info().rss
            assert await client.evaluate(ATTACKS[attack], page)
            # The browser's end of what was sent before: it answers in order.
            await client.send("Browser.getVersion")
            for victim in (one, other):
                await assert_works(victim)
            async with launched(launcher, name) as later:
                await assert_works(later)
            await attacker.stop()
            assert attacker.ended.result().code == "runtime.stopped"
            for victim in (one, other):
                await assert_works(victim)
            assert own.memory_info().rss - before < MOST_GROWTH
            psutil.Process(one.group).children()[0].kill()
            assert (await one.ended).code == "browser.killed"
            await assert_works(other)


@pytest.mark.parametrize("name", KINDS)
async def test_what_a_browser_prints_after_its_start_is_read_by_no_process(
    launcher: LocalLauncher, name: BrowserName
) -> None:
    async with launched(launcher, name) as browser:
        (main,) = psutil.Process(browser.group).children()
        (output,) = {open_files(main.pid)[number] for number in (1, 2)}
        assert output.startswith("pipe:")
        readers = [
            process.pid
            for process in psutil.process_iter()
            for number, target in open_files(process.pid).items()
            if target == output and not is_write_only(process.pid, number)
        ]
        assert readers == []


def is_write_only(pid: int, number: int) -> bool:
    lines = Path(f"/proc/{pid}/fdinfo/{number}").read_text().splitlines()
    (flags,) = [int(line.split()[1], 8) for line in lines if line.startswith("flags:")]
    return flags & os.O_ACCMODE == os.O_WRONLY


def open_files(pid: int) -> dict[int, str]:
    """What each descriptor of a process leads to; none for a process that has ended."""
    directory = Path(f"/proc/{pid}/fd")
    found = {}
    try:
        for entry in directory.iterdir():
            with contextlib.suppress(FileNotFoundError):
                found[int(entry.name)] = os.readlink(entry)
    except (FileNotFoundError, PermissionError):
        return {}
    return found
