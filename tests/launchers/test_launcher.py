"""LocalLauncher on real browsers: what they are launched with, how they end, and that nothing of them stays."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
import pytest_asyncio
from playwright.async_api import Error as PlaywrightError
from playwright.async_api import async_playwright

from gateway.core.errors import LaunchFailed
from gateway.core.unprivileged import grant_search
from gateway.egress.proxy import LOOPBACK
from gateway.launchers.base import BrowserName, LaunchSpec
from gateway.launchers.local import browsers, locales, processes, user_agent
from gateway.launchers.local.browsers import Binary, Browsers
from gateway.launchers.local.launcher import LocalLauncher
from gateway.launchers.local.local_browser import LocalBrowser
from gateway.settings import Settings
from tests.support import servers
from tests.support.browser_kinds import EACH_KIND, KINDS
from tests.support.devtools import DevTools
from tests.support.gateway_process import ROOT, temporary_data_dir
from tests.support.live import adopts_orphans_no_longer
from tests.support.waiting import SECONDS, until, wait_until

IS_ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not IS_ROOT, reason="only root gives browsers users of their own")
pytestmark = pytest.mark.unprivileged

PDF = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj 2 0 obj<</Type/Pages/Kids[]/Count 0>>endobj\n"
    b"trailer<</Root 1 0 R>>"
)
NOBODY = 65534

# So few ids are of this process's tests alone: other gateways of the machine share those that are the default.
FEW_USERS = {"uid_base": 1_300_000 + os.getpid() % 10_000 * 100, "uid_count": 10}
# With any arguments after it, which it does not mind.
SLEEP = ["/bin/sh", "-c", "sleep 300; :"]

VIEWPORT = (813, 607)
LOCALE = "de-AT"
TIMEZONE = "Pacific/Chatham"
USER_AGENT = "Agent/1.0 (of the test; with blanks)"

# In a page and in a worker.
INTL = """new Promise(resolve => {
    const own = 'Intl.NumberFormat().resolvedOptions().locale';
    const worker = new Worker(URL.createObjectURL(new Blob([`postMessage(${own})`])));
    worker.onmessage = event => resolve([eval(own), event.data]);
})"""

SPEC_VALUES = {
    "innerWidth": VIEWPORT[0],
    "innerHeight": VIEWPORT[1],
    "navigator.language": LOCALE,
    "Intl.DateTimeFormat().resolvedOptions().timeZone": TIMEZONE,
    "navigator.userAgent": USER_AGENT,
}


@pytest.fixture(scope="module")
def found() -> Browsers:
    there = browsers.find(None)
    assert there is not None
    return there


@pytest.fixture(scope="module", autouse=True)
def _adopts_orphans_no_longer() -> Iterator[None]:
    """A launcher makes its process the parent of orphans; the tests after these must find it as it was."""
    yield
    adopts_orphans_no_longer()


@contextlib.asynccontextmanager
async def opened(found: Browsers, *, warm: int | None = 0, **options: int | bool | str) -> AsyncIterator[LocalLauncher]:
    """A launcher with a data directory of its own, of which nothing may be left."""
    with temporary_data_dir() as data_dir:
        launcher = LocalLauncher(
            Settings(data_dir=data_dir, warm_browsers=warm, egress_allow=("127.0.0.1",), **options), found
        )
        await launcher.open()
        try:
            yield launcher
            if warm == 0:
                await assert_nothing_left(launcher)
        finally:
            await launcher.close()
        assert processes_of(data_dir) == []
        assert [path for path in data_dir.rglob("*") if path != data_dir / "runtimes"] == []


@pytest_asyncio.fixture(scope="module")
async def shared(found: Browsers) -> AsyncIterator[LocalLauncher]:
    """One launcher for the tests that need nothing special of it."""
    async with opened(found) as launcher:
        yield launcher


@contextlib.asynccontextmanager
async def launched(
    launcher: LocalLauncher, spec: BrowserName | LaunchSpec | None = None
) -> AsyncIterator[LocalBrowser]:
    browser = await launcher.launch(spec if isinstance(spec, LaunchSpec) else LaunchSpec(uuid4(), spec))
    try:
        yield browser
    finally:
        await browser.stop()


def customized_spec(name: BrowserName | None) -> LaunchSpec:
    return LaunchSpec(uuid4(), name, VIEWPORT, LOCALE, TIMEZONE, USER_AGENT)


def processes_of(directory: Path) -> list[psutil.Process]:
    """Living processes whose command line or environment names the directory."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(str(directory) in part for part in (*process.cmdline(), *process.environ().values())):
                found.append(process)
    return found


def zombies() -> list[psutil.Process]:
    """Orphans that were adopted and not reaped; a process that some test started itself is that test's to wait for."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            started_here = os.getsid(child.pid) in (child.pid, os.getsid(0))
            if child.status() == psutil.STATUS_ZOMBIE and not started_here:
                found.append(child)
    return found


def members(browser: LocalBrowser) -> list[psutil.Process]:
    """The launch script and every process of its browser."""
    leader = psutil.Process(browser.group)
    return [leader, *leader.children(recursive=True)]


def main_process(browser: LocalBrowser) -> psutil.Process:
    """The browser itself: the child of its launch script."""
    return psutil.Process(browser.group).children()[0]


def command_lines(browser: LocalBrowser) -> list[str]:
    return [" ".join(process.cmdline()) for process in members(browser)]


def renderers(browser: LocalBrowser) -> list[psutil.Process]:
    return [process for process in members(browser) if "--type=renderer" in process.cmdline()]


# What browsers are launched with


@pytest.mark.parametrize("name", EACH_KIND)
async def test_a_client_finds_a_blank_page_at_once(shared: LocalLauncher, name: BrowserName) -> None:
    async with launched(shared, name) as browser, DevTools.attach(browser) as client:
        assert [page["url"] for page in await client.pages()] == ["about:blank"]
        assert browser.name == name
        assert browser.version in (await client.send("Browser.getVersion"))["product"]


@pytest.mark.parametrize("name", EACH_KIND)
async def test_options_apply_to_every_context(shared: LocalLauncher, found: Browsers, name: BrowserName) -> None:
    browser = await shared.launch(customized_spec(name))
    # `de` where the machine has the language files.
    intl = locales.intl_locale(found.get(name).path, LOCALE)
    assert (browser.warning is None) == (intl != "en-US")
    try:
        async with DevTools.attach(browser) as client, _Headers() as headers:
            expression = f"[{','.join(SPEC_VALUES)}]"
            for session in (
                await client.first_page(),
                await client.new_page(),
                await client.new_page(own_context=True),
            ):
                assert dict(zip(SPEC_VALUES, await client.evaluate(expression, session), strict=True)) == SPEC_VALUES
                assert await client.evaluate(INTL, session) == [intl, intl]
                await client.send("Page.navigate", session, url=headers.url)
                sent = await headers.next()
                assert sent["accept-language"].split(",")[0] == LOCALE
                assert sent["user-agent"] == USER_AGENT
    finally:
        await browser.stop()


async def test_browsers_have_the_arguments_that_playwright_gives_them(shared: LocalLauncher, tmp_path: Path) -> None:
    listing = tmp_path / "arguments"
    printer = script(tmp_path, f'for a; do echo "$a"; done >{listing}; exit 1')
    async with async_playwright() as playwright:
        with pytest.raises(PlaywrightError):
            await playwright.chromium.launch(executable_path=printer, chromium_sandbox=True)
    # Playwright's profile is a temporary directory, and the gateway's is the runtime's own.
    wanted = {line for line in listing.read_text().splitlines() if not line.startswith("--user-data-dir=")}
    features = {line for line in wanted if line.startswith(("--disable-features=", "--enable-features="))}
    assert len(features) == 2
    async with launched(shared) as browser:
        given = main_process(browser).cmdline()
        assert wanted - set(given) == features
        for line in features:
            assert [argument for argument in given if argument.startswith(f"{line},")] != []


# Of a page: its own size, what its window and screen leave beside it, and what it is shown on.
SIZES = """[innerWidth, innerHeight, outerWidth - screen.width, outerHeight - screen.height, screenX, screenY,
    screen.availWidth - screen.width, screen.availHeight - screen.height, devicePixelRatio]"""


async def until_sized(client: DevTools, session: str, width: int, height: int) -> None:
    """Until it is shown, a page of full Chromium may take its own rectangle for its window's."""

    async def sized() -> bool:
        sizes: list[int] = await client.evaluate(SIZES, session)
        return sizes == [width, height, 0, 0, 0, 0, 0, 0, 1]

    await until(sized)


@pytest.mark.parametrize("name", EACH_KIND)
async def test_by_default_a_browser_looks_like_an_ordinary_chromium(shared: LocalLauncher, name: BrowserName) -> None:
    async with (
        launched(shared, name) as browser,
        DevTools.attach(browser) as client,
        _Headers() as headers,
    ):
        agent = user_agent.ordinary(browser.version)
        for open_page in (client.first_page, client.new_page, partial(client.new_page, own_context=True)):
            session = await open_page()
            await until_sized(client, session, 1280, 720)
            assert await client.evaluate("navigator.userAgent", session) == agent
            await client.send("Page.navigate", session, url=headers.url)
            sent = await headers.next()
            assert sent["user-agent"] == agent
            assert sent["accept-language"] in ("en-US,en", "en-US,en;q=0.9")
            assert "Headless" not in str(sent)
        arguments = main_process(browser).cmdline()
        assert not [argument for argument in arguments if argument.startswith("--lang=")]
        assert not {"TZ", "LANGUAGE"} & set(main_process(browser).environ())
        assert browser.warning is None


@pytest.mark.parametrize("name", EACH_KIND)
async def test_the_screen_follows_the_viewport(shared: LocalLauncher, name: BrowserName) -> None:
    for width, height in ((813, 607), (390, 844)):
        browser = await shared.launch(LaunchSpec(uuid4(), name, (width, height)))
        try:
            async with DevTools.attach(browser) as client:
                # Full Chromium makes no narrower window.
                shown = width if name == "headless-shell" else max(width, 500)
                await until_sized(client, await client.first_page(), shown, height)
        finally:
            await browser.stop()


async def test_the_operator_chooses_the_viewport_and_what_browsers_say_they_are(found: Browsers) -> None:
    async with (
        opened(found, viewport="100x8192", headless_user_agent=True) as launcher,
        _Headers() as headers,
    ):
        for name in KINDS:
            async with launched(launcher, name) as browser, DevTools.attach(browser) as client:
                session = await client.first_page()
                assert (await client.evaluate("innerHeight", session)) == 8192
                await client.send("Page.navigate", session, url=headers.url)
                sent = await headers.next()
                assert "HeadlessChrome" in sent["user-agent"]
                assert ("HeadlessChrome" in sent["sec-ch-ua"]) == (name == "headless-shell")
        # Full Chromium's own differs from an ordinary one in this word only.
        assert sent["user-agent"].replace("Headless", "") == user_agent.ordinary(browser.version)


@pytest.mark.parametrize("name", EACH_KIND)
async def test_the_hints_of_a_user_agent_that_a_client_chose_do_not_contradict_it(
    shared: LocalLauncher, name: BrowserName
) -> None:
    browser = await shared.launch(LaunchSpec(uuid4(), name, user_agent=USER_AGENT))
    try:
        async with DevTools.attach(browser) as client, _Headers() as headers:
            await client.send("Page.navigate", await client.first_page(), url=headers.url)
            sent = await headers.next()
            assert (sent["user-agent"], sent["sec-ch-ua"], sent["sec-ch-ua-platform"]) == (USER_AGENT, "", '""')
    finally:
        await browser.stop()


async def test_the_frame_of_full_chromium_is_measured_once(found: Browsers) -> None:
    async with opened(found) as launcher:
        specs = [LaunchSpec(uuid4(), "chromium", size) for size in ((500, 400), (900, 700))]
        launching = asyncio.gather(*(launcher.launch(spec) for spec in specs))
        seen: set[Path] = set()

        def launched_all() -> bool:
            seen.update(launcher.runtimes_dir.iterdir())
            return launching.done()

        await until(launched_all, "both are launched", 60)
        first, second = await launching
        for browser, spec in ((first, specs[0]), (second, specs[1])):
            async with DevTools.attach(browser) as client:
                size = await client.evaluate("[innerWidth, innerHeight]", await client.first_page())
            assert tuple(size) == spec.viewport
        # The two, and the one that was measured.
        assert len(seen) == 3
        await asyncio.gather(first.stop(), second.stop())


async def test_two_concurrent_launches_share_nothing(shared: LocalLauncher) -> None:
    one, other = await asyncio.gather(*(shared.launch(LaunchSpec(uuid4())) for _ in range(2)))
    try:
        assert one.devtools_url != other.devtools_url
        assert one.group != other.group
        homes = {main_process(browser).environ()["HOME"] for browser in (one, other)}
        assert len(homes) == 2
        for browser in (one, other):
            async with DevTools.attach(browser) as client:
                await client.new_page()
                assert len(await client.pages()) == 2
    finally:
        await asyncio.gather(one.stop(), other.stop())


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the network service has a sandbox")
@pytest.mark.parametrize("name", EACH_KIND)
async def test_the_network_service_is_a_part_of_the_browsers_process(shared: LocalLauncher, name: BrowserName) -> None:
    browser = await shared.launch(LaunchSpec(uuid4(), name))
    lines = command_lines(browser)
    await browser.stop()
    assert any("--type=zygote" in line for line in lines)
    assert not any("--utility-sub-type=network" in line for line in lines)


@pytest.mark.parametrize("name", EACH_KIND)
async def test_the_sandbox_is_on(shared: LocalLauncher, name: BrowserName) -> None:
    async with launched(shared, name) as browser, DevTools.attach(browser) as client:
        await client.evaluate("1", await client.first_page())
        assert renderers(browser)
        for renderer in renderers(browser):
            assert_sandboxed(renderer.pid)
        assert not [line for line in command_lines(browser) if "--no-sandbox" in line.split()]


async def test_the_unsafe_switch_turns_the_sandbox_off(found: Browsers) -> None:
    async with opened(found, unsafe_no_sandbox=True) as launcher, launched(launcher) as browser:
        assert "--no-sandbox" in main_process(browser).cmdline()


@as_root
async def test_as_root_each_browser_has_a_user_of_its_own(shared: LocalLauncher) -> None:
    async with launched(shared) as one, launched(shared, "chromium") as other:
        users = []
        for browser in (one, other):
            # Of the launch script nothing but its wait is root's.
            leader, *own = members(browser)
            assert leader.uids().real == 0
            (user,) = {process.uids() for process in own}
            (group,) = {process.gids() for process in own}
            assert len(set(user)) == 1
            assert set(group) == {Settings().uid_base}
            for process in own:
                assert status_of(process.pid)["Groups"] == ""
                assert status_of(process.pid)["NoNewPrivs"] == "1"
            users.append(user.real)
            directories = inside(main_process(browser).environ()["HOME"])
            assert {found.st_uid for found in directories} == {user.real}
            assert {found.st_mode & 0o077 for found in directories} == {0}
        assert len(set(users)) == 2
        base = Settings().uid_base
        assert all(base < user < base + Settings().uid_count for user in users)


async def test_a_browsers_environment_has_nothing_of_the_gateways(
    shared: LocalLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_SOMETHING", "of-the-gateways")
    async with launched(shared) as browser:
        for process in (psutil.Process(browser.group), main_process(browser)):
            environment = process.environ()
            assert set(environment) <= {"HOME", "TMPDIR", "PATH", "LANG", "PWD", "OLDPWD"}
            assert environment["HOME"].startswith(f"{shared.runtimes_dir}/")
            assert environment["LANG"] == "C.UTF-8"
        # Of the others, some have written a title over theirs.
        for process in members(browser):
            assert b"of-the-gateways" not in raw_environment(process.pid)


async def test_a_strict_umask_does_not_break_browsers(found: Browsers) -> None:
    before = os.umask(0o077)
    try:
        async with (
            opened(found) as launcher,
            launched(launcher) as browser,
            DevTools.attach(browser) as client,
        ):
            assert len(await client.pages()) == 1
    finally:
        os.umask(before)


@pytest.mark.parametrize("name", EACH_KIND)
async def test_a_long_data_directory_does_not_matter(found: Browsers, name: BrowserName) -> None:
    with temporary_data_dir() as place:
        data_dir = place / ("a-directory-with-a-long-name-" * 4)
        launcher = LocalLauncher(Settings(data_dir=data_dir, warm_browsers=0), found)
        await launcher.open()
        try:
            async with launched(launcher, name) as browser, DevTools.attach(browser) as client:
                assert len(await client.pages()) == 1
        finally:
            await launcher.close()


# As another user than root: one script, since a process can't take its rights back.

UNPRIVILEGED = """
import asyncio, json, os, sys
from pathlib import Path
from typing import Any
from uuid import uuid4
import psutil
from gateway.launchers.base import LaunchSpec
from gateway.launchers.local import browsers
from gateway.launchers.local.launcher import LocalLauncher
from gateway.settings import Settings
from gateway.telemetry import logs
from tests.support.devtools import DevTools

async def main():
    logs.configure("info", "console")  # to stderr
    launcher = LocalLauncher(Settings(data_dir=Path(sys.argv[1]), warm_browsers=0), browsers.find(None))
    await launcher.open()
    browser = await launcher.launch(LaunchSpec(uuid4()))
    async with DevTools.attach(browser) as client:
        await client.evaluate("1", await client.first_page())
    leader = psutil.Process(browser.group)
    everything = [leader, *leader.children(recursive=True)]
    print(json.dumps({
        "uids": [process.uids().real for process in everything],
        "commands": [process.cmdline() for process in everything],
        "nested": [
            len(next(line for line in Path(f"/proc/{process.pid}/status").open() if line.startswith("NSpid")).split())
            for process in everything if "--type=renderer" in process.cmdline()
        ],
    }))
    await browser.stop()
    await launcher.close()
    print(json.dumps(sorted(str(path) for path in Path(sys.argv[1]).rglob("*"))))

asyncio.run(main())
"""


@as_root
def test_as_another_user_browsers_run_as_the_gateway_with_their_sandbox() -> None:
    for path in (Path(sys.executable).resolve(), Path(sys.prefix), ROOT / "gateway"):
        grant_search(path, Settings().uid_base)
    with temporary_data_dir() as data_dir:
        os.chown(data_dir, NOBODY, NOBODY)
        done = subprocess.run(
            [sys.executable, "-c", UNPRIVILEGED, str(data_dir)],
            cwd=ROOT,
            env={"PATH": os.defpath, "HOME": str(data_dir), "PYTHONDONTWRITEBYTECODE": "1"},
            user=NOBODY,
            group=Settings().uid_base,
            extra_groups=[],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        seen, left = map(json.loads, done.stdout.splitlines())
        assert set(seen["uids"]) == {NOBODY}
        assert seen["nested"]
        assert min(seen["nested"]) > 2
        assert not [command for command in seen["commands"] if "--no-sandbox" in command]
        assert left == [str(data_dir / "runtimes")]
        assert processes_of(data_dir) == []


@pytest.mark.skipif(IS_ROOT, reason="root gives browsers users of their own")
async def test_browsers_run_as_the_gateways_user(shared: LocalLauncher) -> None:
    async with launched(shared) as browser:
        assert {process.uids().real for process in members(browser)} == {os.getuid()}


# Launches that fail


def script(directory: Path, text: str) -> Path:
    path = directory / "browser"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


FAULTS = {
    "exited": "echo 'a last word' >&2; exit 3",
    "timeout": "/bin/sleep 60",
    "no_shared_memory": "kill -BUS $$",
    "not_found": None,
}


@pytest.mark.parametrize("failure", FAULTS)
async def test_a_failed_launch_reports_its_class_and_leaves_nothing(failure: str) -> None:
    text = FAULTS[failure]
    with temporary_data_dir() as place:
        path = place / "missing" if text is None else script(place, text)
        binary = Binary("headless-shell", path, "1.2.3.4", "of the test")
        # Fewer users than launches: those that failed must have given theirs back.
        options = {"launch_timeout_seconds": 1 if failure == "timeout" else 30, **FEW_USERS}
        async with opened(Browsers(binary, binary, None), **options) as launcher:
            for _ in range(2 if failure == "timeout" else 12):
                with pytest.raises(LaunchFailed) as error:
                    await launcher.launch(LaunchSpec(uuid4()))
                assert error.value.failure == failure
                assert str(place) not in error.value.message
                assert list(launcher.runtimes_dir.iterdir()) == []
            assert processes_of(launcher.runtimes_dir) == []
            if failure == "exited":
                assert "a last word" in error.value.message


async def test_a_cancelled_launch_leaves_nothing(found: Browsers) -> None:
    async with opened(found) as launcher:
        for _ in range(3):
            launching = asyncio.create_task(launcher.launch(LaunchSpec(uuid4())))
            await until(lambda: bool(list(launcher.runtimes_dir.glob("*/launch"))), "a launch has begun")
            launching.cancel()
            with pytest.raises(asyncio.CancelledError):
                await launching
            assert list(launcher.runtimes_dir.iterdir()) == []
        await until(lambda: processes_of(launcher.runtimes_dir) == [], "its processes are gone")


@as_root
async def test_when_all_users_are_taken_a_launch_fails_until_one_is_free(found: Browsers) -> None:
    async with opened(found, **FEW_USERS) as launcher:
        taken = await asyncio.gather(*(launcher.launch(LaunchSpec(uuid4())) for _ in range(8)))
        with pytest.raises(LaunchFailed, match="user ids") as error:
            await launcher.launch(LaunchSpec(uuid4()))
        assert error.value.failure == "out_of_processes"
        stopped = taken.pop()
        await stopped.stop()
        # The user is free once all of its files are removed.
        await asyncio.wait_for(stopped.removed.wait(), SECONDS)
        assert len(list(launcher.runtimes_dir.iterdir())) == 7
        async with launched(launcher):
            assert len(list(launcher.runtimes_dir.iterdir())) == 8
        await asyncio.gather(*(browser.stop() for browser in taken))


# How browsers end


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGKILL, "browser.killed"),
        (signal.SIGSEGV, "browser.crashed"),
        (signal.SIGABRT, "browser.crashed"),
        (signal.SIGTERM, "browser.killed"),
    ],
)
async def test_the_end_of_a_browser_is_noticed_with_its_cause(
    shared: LocalLauncher, number: signal.Signals, code: str
) -> None:
    browser = await shared.launch(LaunchSpec(uuid4()))
    main_process(browser).send_signal(number)
    ending = await asyncio.wait_for(browser.ended, SECONDS)
    assert (ending.code, ending.asked) == (code, False)
    assert number.name in ending.message
    await assert_nothing_left(shared)


async def test_the_end_of_a_whole_process_group_is_noticed(shared: LocalLauncher) -> None:
    browser = await shared.launch(LaunchSpec(uuid4()))
    os.killpg(browser.group, signal.SIGKILL)
    ending = await asyncio.wait_for(browser.ended, SECONDS)
    assert (ending.code, ending.asked) == ("browser.killed", False)
    await assert_nothing_left(shared)


async def first_byte(port: int) -> bytes:
    """What a new connection is sent at once; raises ConnectionError or IncompleteReadError."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        return await reader.readexactly(1)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_a_stop_is_answered_when_the_proxy_of_the_browser_is_closed(shared: LocalLauncher) -> None:
    browser = await shared.launch(LaunchSpec(uuid4()))
    await browser.stop()
    # The rest is removed behind the answer; no process that left the group reaches anything meanwhile.
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await first_byte(browser.listener.port)
    await assert_nothing_left(shared)


async def test_an_unresponsive_browser_is_stopped(shared: LocalLauncher) -> None:
    browser = await shared.launch(LaunchSpec(uuid4()))
    for process in members(browser):
        process.suspend()
    await asyncio.wait_for(browser.stop(), 5)
    await assert_nothing_left(shared)


async def test_launches_leave_no_process_zombie_descriptor_or_file(found: Browsers) -> None:
    async with opened(found) as launcher:

        async def cycle(name: BrowserName) -> None:
            browser = await launcher.launch(LaunchSpec(uuid4(), name))
            async with DevTools.attach(browser) as client:
                await client.evaluate("1", await client.first_page())
            await browser.stop()

        def footprint() -> tuple[int, int, list[Path]]:
            own = psutil.Process()
            return own.num_fds(), len(own.children(recursive=True)), sorted(launcher.runtimes_dir.parent.rglob("*"))

        for name in KINDS:
            await cycle(name)
        await assert_nothing_left(launcher)
        before = footprint()
        for number in range(10):
            await cycle("chromium" if number == 5 else "headless-shell")
        await assert_nothing_left(launcher)
        # A directory that is just being measured is open meanwhile.
        await until(lambda: footprint() == before, f"nothing more than {before[:2]} is left, after {footprint()[:2]}")


async def test_closing_ends_remaining_browsers(found: Browsers) -> None:
    async with opened(found, warm=2) as launcher:
        browser = await launcher.launch(LaunchSpec(uuid4()))
    assert browser.ended.result().asked


# Browsers kept warm


async def test_a_spec_without_options_gets_a_warm_browser_and_another_takes_its_place(found: Browsers) -> None:
    async with opened(found, warm=1) as launcher:
        await until(lambda: len(launcher.warm) == 1, "one is warm")
        (warm,) = launcher.warm
        async with launched(launcher) as browser:
            assert browser is warm
            await until(lambda: len(launcher.warm) == 1, "another one is warm")
            configured = await launcher.launch(LaunchSpec(uuid4(), locale=LOCALE))
            assert f"--lang={LOCALE}" in main_process(configured).cmdline()
            assert len(launcher.warm) == 1
            await configured.stop()


async def test_a_warm_browser_that_died_is_not_handed_out(found: Browsers) -> None:
    async with opened(found, warm=1) as launcher:
        await until(lambda: len(launcher.warm) == 1, "one is warm")
        (warm,) = launcher.warm
        main_process(warm).kill()
        await asyncio.wait_for(warm.ended, SECONDS)
        async with launched(launcher) as browser:
            assert browser is not warm
            assert not browser.ended.done()


async def test_a_warm_browser_with_options_is_what_a_launch_with_these_gives(found: Browsers) -> None:
    """Full Chromium with all options is kept warm after its second launch, with the same command line."""
    options: dict[str, Any] = {"viewport": VIEWPORT, "locale": LOCALE, "timezone": TIMEZONE, "user_agent": USER_AGENT}
    async with opened(found, warm=None, warm_min=0, warm_max=1) as launcher:
        cold = []
        for _ in range(2):
            async with launched(launcher, LaunchSpec(uuid4(), "chromium", **options)) as browser:
                cold.append(started_with(browser))
        await until(lambda: len(launcher.warm) == 1, "one is warm")
        (warm,) = launcher.warm
        async with launched(launcher, LaunchSpec(uuid4(), "chromium", **options)) as browser:
            assert browser is warm
            assert cold == [started_with(browser)] * 2
            async with DevTools.attach(browser) as client:
                session = await client.new_page(own_context=True)
                values = await client.evaluate(f"[{','.join(SPEC_VALUES)}]", session)
                assert dict(zip(SPEC_VALUES, values, strict=True)) == SPEC_VALUES


async def test_defaults_that_are_spelled_out_get_a_warm_browser_too(found: Browsers) -> None:
    async with opened(found, warm=1) as launcher:
        await until(lambda: len(launcher.warm) == 1, "one is warm")
        (warm,) = launcher.warm
        async with launched(launcher, LaunchSpec(uuid4(), found.default.name, (1280, 720))) as browser:
            assert browser is warm


def started_with(browser: LocalBrowser) -> tuple[list[str], dict[str, str]]:
    """Command line and environment of a browser, without what is each one's own: its directory and its listener."""
    process = main_process(browser)
    home = str(Path(browser.files_dir).parent)
    port = f":{browser.listener.port}"
    line = [argument.replace(home, "HOME").replace(port, ":PORT") for argument in process.cmdline()]
    return line, {name: value.replace(home, "HOME") for name, value in process.environ().items()}


# What an earlier process left


async def test_a_sweep_removes_orphans_only(found: Browsers) -> None:
    async with opened(found, warm=1) as launcher:
        root = launcher.runtimes_dir
        await until(lambda: len(launcher.warm) == 1, "one is warm")
        stray = root / str(uuid4())
        home = stray / "home"
        home.mkdir(parents=True)
        script(stray, "sleep 300; :").rename(stray / "launch")
        gone = root / str(uuid4())
        runs = {
            # A launch script, a browser whose launch script is gone, and one whose whole directory is gone.
            "script": [str(stray / "launch"), "--headless"],
            "browser": [*SLEEP, f"--user-data-dir={home}/profile"],
            "of a removed directory": [*SLEEP, f"--user-data-dir={gone}/home/profile"],
        }
        others = {
            # `tail` ends when it has no file left, as when the sweep removes the script before it has opened it.
            "an editor": ["tail", "-f", "/dev/null", str(stray / "launch")],
            "a shell": [*SLEEP, str(stray)],
            "a browser of somebody else": [*SLEEP, "--user-data-dir=/elsewhere/profile"],
        }
        async with launched(launcher) as browser:
            await until(lambda: len(launcher.warm) == 1, "another one is warm")
            with started(runs) as strays, started(others) as bystanders:
                assert await launcher.sweep() == 2
                await until(lambda: all(process.poll() is not None for process in strays.values()), "strays are gone")
                assert [name for name, process in bystanders.items() if process.poll() is not None] == []
            assert len(list(root.iterdir())) == 2
            assert not browser.ended.done()
            assert len(launcher.warm) == 1
            assert await launcher.sweep() == 0


async def test_a_sweep_during_launches_and_ends_removes_no_live_browser(found: Browsers) -> None:
    async with opened(found, warm=1) as launcher:
        done = asyncio.Event()

        async def sweep() -> list[int]:
            cleared = []
            while not done.is_set():
                cleared.append(await launcher.sweep())
            return cleared

        sweeping = asyncio.create_task(sweep())
        for _ in range(8):
            browser = await launcher.launch(LaunchSpec(uuid4()))
            async with DevTools.attach(browser) as client:
                assert len(await client.pages()) == 1
            await browser.stop()
        done.set()
        cleared = await sweeping
        assert len(cleared) > 3
        assert set(cleared) == {0}


def gone(group: int) -> bool:
    return not processes.group_exists(group)


def has_command_line(pid: int) -> bool:
    return bool(psutil.Process(pid).cmdline())


@contextlib.contextmanager
def started(commands: dict[str, list[str]]) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Processes, each in a group of its own; ended and reaped at the end."""
    running = {
        name: subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
        for name, command in commands.items()
    }
    try:
        # A program that has just been started has no command line for a moment.
        for process in running.values():
            wait_until(partial(has_command_line, process.pid), "it has its command line")
        yield running
    finally:
        for process in running.values():
            processes.kill_group(process.pid)
            process.wait(5)
            wait_until(partial(gone, process.pid), "its children are gone", 5)


async def assert_nothing_left(launcher: LocalLauncher) -> None:
    """No directory, process or zombie of a runtime, at once or within moments."""
    await until(lambda: list(launcher.runtimes_dir.iterdir()) == [], "its directory is removed")
    await until(lambda: processes_of(launcher.runtimes_dir) == [], "its processes are gone")
    # The crash handlers of full Chromium end after it, and the next sweep reaps them.
    async with asyncio.timeout(5):
        while zombies():
            await launcher.sweep()


def assert_sandboxed(pid: int) -> None:
    """In user and process namespaces of its own, without rights, and under a system call filter."""
    for namespace in ("user", "pid"):
        assert os.readlink(f"/proc/{pid}/ns/{namespace}") != os.readlink(f"/proc/self/ns/{namespace}")
    assert status_of(pid)["Seccomp"] == "2"


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def raw_environment(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


def inside(directory: str) -> list[os.stat_result]:
    """What the directory is, and what is directly in it."""
    return [path.stat() for path in (Path(directory), *Path(directory).iterdir())]


class _Headers:
    """A server that notes the headers of each request for `/`."""

    async def __aenter__(self) -> _Headers:
        self._seen: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/"
        return self

    async def __aexit__(self, *_: object) -> None:
        await servers.close(self._server)

    async def next(self) -> dict[str, str]:
        return await asyncio.wait_for(self._seen.get(), 10)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        except asyncio.IncompleteReadError:
            # A connection that was opened ahead of its need.
            writer.close()
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        await writer.drain()
        writer.close()
        if request.startswith("GET / "):
            pairs = (line.partition(":") for line in lines if ":" in line)
            await self._seen.put({name.lower(): value.strip() for name, _, value in pairs})


async def test_full_chromium_has_no_pages_of_its_own_that_a_client_could_use(shared: LocalLauncher) -> None:
    async with launched(shared, "chromium") as browser, DevTools.attach(browser) as client:
        (features,) = [part for part in main_process(browser).cmdline() if part.startswith("--disable-features=")]
        # Playwright's own list is still there.
        assert {"MediaRouter", "WebUIOmniboxPopup", "WebUIOmniboxAimPopup"} <= set(features.split("=")[1].split(","))
        page = await client.new_page()
        await client.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=browser.files_dir)
        await client.send("Page.enable", page)
        data = base64.b64encode(PDF).decode()
        bytes_of = f"Uint8Array.from(atob('{data}'), c => c.charCodeAt())"
        made = f"URL.createObjectURL(new Blob([{bytes_of}], {{type: 'application/pdf'}}))"
        await client.send("Page.navigate", page, url=await client.evaluate(made, page))
        await until(lambda: os.listdir(browser.files_dir) != [], "the PDF is downloaded and not shown", 20)
        targets = (await client.send("Target.getTargets", filter=[{}]))["targetInfos"]
        schemes = {target["url"].split(":")[0] for target in targets}
        assert not schemes & {"chrome", "chrome-extension", "chrome-untrusted", "devtools"}
