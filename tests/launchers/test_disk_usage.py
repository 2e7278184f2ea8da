"""What a runtime may take on disk: pages are refused storage first, and past the limit the runtime ends."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio

from gateway.core.launch import BrowserName
from gateway.core.worker_board import Board
from gateway.launchers.base import LaunchSpec
from gateway.launchers.local import browsers
from gateway.launchers.local.browsers import Browsers
from gateway.launchers.local.disk_usage import used_bytes
from gateway.launchers.local.launcher import LocalLauncher
from gateway.launchers.local.local_browser import LocalBrowser
from gateway.settings import Settings
from tests.support.browser_kinds import EACH_KIND
from tests.support.devtools import DevTools
from tests.support.disk import FullDisk
from tests.support.gateway_process import temporary_data_dir
from tests.support.pages import PageServer

MIB = 1024**2
# The least that can be set. Pages may store half of it, and one origin three quarters of this half.
LIMIT = 64 * MIB
ORIGIN = 24 * MIB

STORE = """
async (count) => {
  const cache = await caches.open("all");
  for (let i = 0; i < count; i++) {
    try {
      await cache.put(`/${i}`, new Response(crypto.getRandomValues(new Uint8Array(65536)).buffer));
    } catch (error) {
      return [i, error.name];
    }
  }
  return [count, null];
}
"""


@pytest.fixture(scope="module")
def found() -> Browsers:
    found = browsers.find(None)
    assert found is not None
    return found


@pytest_asyncio.fixture(scope="module")
async def launcher(found: Browsers) -> AsyncIterator[LocalLauncher]:
    with temporary_data_dir() as data_dir:
        settings = Settings(
            data_dir=data_dir, warm_browsers=0, egress_allow=("127.0.0.1",), runtime_max_disk_bytes=LIMIT
        )
        launcher = LocalLauncher(settings, found, measure_seconds=(0.02, 0.02))
        await launcher.open()
        yield launcher
        await launcher.close()


@pytest.mark.parametrize("name", EACH_KIND)
async def test_a_page_that_stores_too_much_is_refused_and_its_runtime_lives(
    launcher: LocalLauncher, name: BrowserName
) -> None:
    browser = await launcher.launch(LaunchSpec(uuid4(), name))
    with PageServer() as pages:
        async with DevTools.attach(browser) as client:
            page = await client.new_page()
            await client.send("Page.navigate", page, url=pages.url("/blank"))
            stored, error = await client.evaluate(f"({STORE})({LIMIT // 65536})", page)
            assert error == "QuotaExceededError"
            assert ORIGIN * 0.8 < stored * 65536 <= ORIGIN
            assert await client.evaluate("6 * 7", page) == 42
    assert not browser.ended.done()
    await browser.stop()


def fill(browser: LocalBrowser, size: int) -> None:
    """As downloads do."""
    with Path(browser.files_dir, uuid4().hex).open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)


async def test_a_runtime_that_takes_too_much_ends_and_no_other_does(launcher: LocalLauncher) -> None:
    other, browser = [await launcher.launch(LaunchSpec(uuid4())) for _ in range(2)]
    fill(other, LIMIT // 2)
    fill(browser, LIMIT + 1)
    ending = await browser.ended
    assert (ending.code, ending.status) == ("browser.out_of_disk", "failed")
    assert str(LIMIT) in ending.message
    assert not other.ended.done()
    await other.stop()


async def test_staged_files_count_apart(launcher: LocalLauncher) -> None:
    browser, measured_later = [await launcher.launch(LaunchSpec(uuid4())) for _ in range(2)]
    browser.files.staged_bytes = LIMIT
    fill(browser, LIMIT)
    fill(measured_later, LIMIT)
    await measured_later.ended
    assert not browser.ended.done()
    fill(browser, LIMIT)
    assert (await browser.ended).code == "browser.out_of_disk"


def write(path: Path, size: int) -> None:
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)


def test_what_is_below_a_directory_is_counted_by_what_it_takes(tmp_path: Path) -> None:
    assert used_bytes(tmp_path, MIB) == 0
    assert used_bytes(tmp_path / "none", MIB) == 0
    write(tmp_path / "one", 40_960)
    (tmp_path / "below").mkdir()
    write(tmp_path / "below" / "two", 81_920)
    # A directory and an empty file take an entry.
    assert used_bytes(tmp_path, MIB) in range(40_960 + 81_920 + 4096, 40_960 + 81_920 + 3 * 4096)
    before = used_bytes(tmp_path, MIB)
    for number in range(10):
        (tmp_path / str(number)).touch()
    assert used_bytes(tmp_path, MIB) == before + 10 * 4096
    # A file of which nothing is written takes nothing more.
    with (tmp_path / "one").open("r+b") as file:
        file.truncate(10**12)
    assert used_bytes(tmp_path, MIB) == before + 10 * 4096


def test_no_link_is_followed(tmp_path: Path) -> None:
    other, home = tmp_path / "other", tmp_path / "home"
    other.mkdir()
    home.mkdir()
    write(other / "large", MIB)
    (home / "directory").symlink_to(other)
    (home / "file").symlink_to(other / "large")
    (home / "itself").symlink_to(home)
    assert used_bytes(home, MIB) == 3 * 4096
    (tmp_path / "link").symlink_to(other)
    assert used_bytes(tmp_path / "link", MIB) == 0


def test_it_is_counted_no_further_than_needed(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / str(number)).touch()
    assert used_bytes(tmp_path, 10 * 4096) == 11 * 4096
    assert used_bytes(tmp_path, 100 * 4096) == 100 * 4096


def test_a_very_deep_tree_counts_as_too_much(tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(99):
        deep = deep / "d"
    deep.mkdir(parents=True)
    assert used_bytes(tmp_path, MIB) < MIB
    (deep / "d").mkdir()
    assert used_bytes(tmp_path, MIB) > MIB


async def test_on_a_nearly_full_disk_the_largest_runtime_ends(found: Browsers) -> None:
    space = FullDisk(reserve=32 * MIB)
    with temporary_data_dir() as data_dir:
        settings = Settings(data_dir=data_dir, warm_browsers=0)
        launcher = LocalLauncher(settings, found, measure_seconds=(0.02, 0.02), space=space)
        await launcher.open()
        small, larger, largest = [await launcher.launch(LaunchSpec(uuid4())) for _ in range(3)]
        fill(larger, 8 * MIB)
        fill(largest, 16 * MIB)
        space.leave(16 * MIB - 1)
        ending = await largest.ended
        assert (ending.code, ending.status) == ("browser.out_of_disk", "failed")
        assert "nearly full" in ending.message
        assert (await larger.ended).code == "browser.out_of_disk"
        # The next one goes only once the directory of the one before is removed.
        assert largest.removed.is_set()
        await larger.removed.wait()
        # One that takes next to nothing is of no use.
        another = await launcher.launch(LaunchSpec(uuid4()))
        assert not small.ended.done()
        assert not another.ended.done()
        await launcher.close()


async def test_on_a_nearly_full_disk_of_several_workers_only_the_largest_runtime_of_all_ends(found: Browsers) -> None:
    space = FullDisk(reserve=32 * MIB)
    memory = Board.create(2, 2)
    boards = [Board(memory, worker, 2, 2) for worker in range(2)]
    async with AsyncExitStack() as stack:
        for board in boards:
            board.serves(uuid4(), 4000 + board.worker)
        settings = Settings(data_dir=stack.enter_context(temporary_data_dir()), warm_browsers=0)
        own = [settings.model_copy(update={"data_dir": settings.data_dir / str(each.worker)}) for each in boards]
        launchers = [
            LocalLauncher(each, found, measure_seconds=(0.02, 0.02), space=space, board=board)
            for each, board in zip(own, boards, strict=True)
        ]
        for launcher in launchers:
            await launcher.open()
            stack.push_async_callback(launcher.close)
        larger, largest = [await launcher.launch(LaunchSpec(uuid4())) for launcher in launchers]
        fill(larger, 8 * MIB)
        fill(largest, 16 * MIB)
        # As if its end had made room.
        largest.ended.add_done_callback(lambda _: space.leave(32 * MIB))
        space.leave(16 * MIB - 1)
        assert (await largest.ended).code == "browser.out_of_disk"
        await largest.removed.wait()
        assert not larger.ended.done()
        space.leave(16 * MIB - 1)
        assert (await larger.ended).code == "browser.out_of_disk"
    for board in boards:
        board.close()
    os.close(memory)
