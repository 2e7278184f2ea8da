"""What a page may do to its machine and to other runtimes: attacks by pages of real browsers, beside other ones."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
import pytest_asyncio

from gateway.launchers.base import BrowserName, LaunchSpec
from gateway.launchers.local import browsers
from gateway.launchers.local.command_line import NO_PROGRAMS
from gateway.launchers.local.launcher import LocalLauncher
from gateway.launchers.local.local_browser import LocalBrowser
from gateway.settings import Settings
from tests.support.browser_kinds import EACH_KIND
from tests.support.devtools import DevTools
from tests.support.gateway_process import temporary_data_dir
from tests.support.launchers import local_launcher
from tests.support.pages import PageServer
from tests.support.waiting import until

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
}


# What desktops have programs for, what Chromium knows itself, and a name that nothing knows.
SCHEMES = (
    *("mailto", "tel", "sms", "smsto", "callto", "sip", "sips", "xmpp", "irc", "ircs", "news", "snews", "nntp"),
    *("ftp", "sftp", "ssh", "telnet", "vnc", "rdp", "smb", "afp", "nfs", "file", "magnet", "webcal", "geo"),
    *("market", "intent", "steam", "zoommtg", "vscode", "slack", "search-ms", "ms-word", "web+unknown"),
)

# A program of this name that is started says so, in the directory that is a browser's TMPDIR.
PROGRAM = """#!/bin/sh
echo "$0" "$@" >>{started}
"""


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
    async with DevTools.attach(browser) as client:
        assert await client.evaluate("6 * 7", await client.new_page()) == 42


@pytest.mark.parametrize(
    ("name", "attack"),
    [
        ("headless-shell", "170 lines of 3.9 MB"),
        *(pytest.param("headless-shell", attack, marks=pytest.mark.thorough) for attack in tuple(ATTACKS)[:2]),
        # It prints no console messages.
        pytest.param("chromium", "the name of a shared worker", marks=pytest.mark.thorough),
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
            DevTools.attach(attacker) as client,
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


@pytest.mark.parametrize("name", EACH_KIND)
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


@pytest.mark.parametrize(
    ("name", "trapped"),
    [
        pytest.param("chromium", True, marks=pytest.mark.thorough),
        ("chromium", False),
        pytest.param("headless-shell", False, marks=pytest.mark.thorough),
    ],
    ids=["chromium-a PATH of traps", "chromium-the PATH of browsers", "headless-shell-the PATH of browsers"],
)
async def test_a_page_starts_no_program(name: BrowserName, trapped: bool) -> None:
    """With a PATH of traps, full Chromium is seen to start programs, by which this test could fail."""
    found = browsers.find(None)
    assert found is not None
    with temporary_data_dir() as data_dir, tempfile.TemporaryDirectory() as traps, PageServer() as pages:
        started = set_traps(Path(traps))
        settings = Settings(data_dir=data_dir, warm_browsers=0, egress_allow=("127.0.0.1",))
        launcher = LocalLauncher(settings, found, path=traps if trapped else NO_PROGRAMS)
        await launcher.open()
        try:
            async with launched(launcher, name) as browser, DevTools.attach(browser) as client:
                with Programs(browser) as programs:
                    for scheme in ("mailto",) if trapped else SCHEMES:
                        page = await client.new_page()
                        await client.send("Page.navigate", page, url=pages.url("/blank"))
                        # As by a click, and as a page does it by itself.
                        await client.send(
                            "Runtime.evaluate",
                            page,
                            expression=f"location = '{scheme}:x@y?attach=/etc/passwd'",
                            userGesture=True,
                        )
                        await client.send("Page.navigate", page, url=pages.url("/blank"))
                        assert await client.evaluate("6 * 7", page) == 42
                    if trapped:
                        await until(lambda: "attach=/etc/passwd" in started.read_text(), "a program was started")
                if not trapped:
                    assert started.read_text() == ""
                    assert programs.seen == set()
                (main,) = psutil.Process(browser.group).children()
                assert trapped or main.environ()["PATH"] == "/dev/null"
        finally:
            await launcher.close()


def set_traps(directory: Path) -> Path:
    """Programs that desktops have, which note their start in the file that is returned."""
    directory.chmod(0o755)
    started = directory / "started"
    started.touch()
    started.chmod(0o666)
    for name in ("xdg-open", "xdg-email", "xdg-settings", "xdg-mime", "gio", "gvfs-open", "kde-open", "exo-open"):
        (directory / name).write_text(PROGRAM.format(started=started))
        (directory / name).chmod(0o755)
    return started


class Programs:
    """Which programs a runtime runs besides its browser's own, looked at again and again."""

    def __init__(self, browser: LocalBrowser) -> None:
        self.seen: set[str] = set()
        self._leader = psutil.Process(browser.group)
        (main,) = self._leader.children()
        self._own = Path(main.exe()).parent
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Programs:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        # What it would see lives longer; a look reads of every process of the machine.
        while not self._done.wait(0.02):
            for process in self._leader.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    program = process.exe()
                    if program and Path(program).parent != self._own:
                        self.seen.add(program)
