"""Extensions unpacked on a machine: once for all, whole or not at all, and as long as something uses them."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest

from gateway.domain.extensions.unpacked import Damaged, Hold, UnpackedExtensions
from gateway.settings import Settings
from tests.support.extension_packages import manifest, zip_of

GROUP = Settings().uid_base
SIZE = 1000


def package(name: str) -> bytes:
    """Of SIZE bytes when it is unpacked."""
    about = manifest(name=name)
    return zip_of({"manifest.json": about, "fill": "x" * (SIZE - len(about))})


def hash_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Cache:
    """With what is fetched for it."""

    def __init__(self, root: Path, most_bytes: int = 10 * SIZE) -> None:
        self.root = root
        self.unpacked = UnpackedExtensions(root, most_bytes, GROUP)
        self.fetched: list[str] = []

    async def hold(self, name: str, content: bytes | None = None) -> Hold:
        async def fetch(file: BinaryIO) -> None:
            self.fetched.append(name)
            await asyncio.to_thread(file.write, package(name) if content is None else content)

        return await self.unpacked.hold(hash_of(package(name)), fetch)

    def names(self) -> set[str]:
        """The packages, of one letter each, that are there."""
        there = {path.name for path in self.root.iterdir() if path.is_dir()}
        known = {hash_of(package(name)): name for name in "abcdef"}
        return {known.get(each, each) for each in there}

    def used_at(self, name: str, seconds: int) -> None:
        os.utime(self.root / f"{hash_of(package(name))}.lock", (seconds, seconds))


@pytest.fixture
async def cache(tmp_path: Path) -> Cache:
    made = Cache(tmp_path / "extensions", 2 * SIZE)
    await made.unpacked.open()
    return made


async def test_one_is_unpacked_once_and_stays_within_the_size(cache: Cache) -> None:
    holds = await asyncio.gather(*(cache.hold("a") for _ in range(5)))
    assert cache.fetched == ["a"]
    assert {hold.directory for hold in holds} == {cache.root / hash_of(package("a"))}
    for hold in holds:
        hold.release()
        hold.release()
    (await cache.hold("b")).release()
    # As much as is kept.
    await cache.unpacked.trim()
    assert cache.names() == {"a", "b"}
    (await cache.hold("a")).release()
    assert cache.fetched == ["a", "b"]


async def test_the_longest_unused_is_removed_beyond_the_size(cache: Cache) -> None:
    for number, name in enumerate("abc"):
        (await cache.hold(name)).release()
        cache.used_at(name, number + 1)
    await cache.unpacked.trim()
    assert cache.names() == {"b", "c"}
    # A use counts, not when it was unpacked.
    (await cache.hold("b")).release()
    (await cache.hold("d")).release()
    await cache.unpacked.trim()
    assert cache.names() == {"b", "d"}


async def test_what_is_used_stays_whatever_the_size(cache: Cache) -> None:
    holds = [await cache.hold(name) for name in "abcd"]
    await cache.unpacked.trim()
    await cache.unpacked.forget(hash_of(package("a")))
    assert cache.names() == {"a", "b", "c", "d"}
    # Nor does a further worker of the gateway remove it at its start.
    other = Cache(cache.root, 0)
    await other.unpacked.open()
    assert other.names() == {"a", "b", "c", "d"}
    for hold in holds:
        hold.release()
    await cache.unpacked.forget(hash_of(package("a")))
    assert cache.names() == {"b", "c", "d"}
    await other.unpacked.open()
    assert list(other.root.glob("*.lock")) == [other.root / "new.lock"]


async def test_a_size_of_zero_keeps_what_is_used_only(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "extensions", 0)
    await cache.unpacked.open()
    hold = await cache.hold("a")
    assert cache.names() == {"a"}
    hold.release()
    await cache.unpacked.trim()
    assert cache.names() == set()


async def test_removing_and_using_at_once_never_gives_a_part(cache: Cache) -> None:
    async def use() -> None:
        for _ in range(20):
            hold = await cache.hold("a")
            assert sorted(path.name for path in hold.directory.iterdir()) == ["fill", "manifest.json"]
            hold.release()

    async def remove() -> None:
        for _ in range(40):
            await cache.unpacked.forget(hash_of(package("a")))

    await asyncio.gather(use(), use(), remove(), remove())


async def test_another_package_leaves_nothing(cache: Cache) -> None:
    for content in (package("b"), package("a")[:-1], b""):
        with pytest.raises(Damaged):
            await cache.hold("a", content)
    assert cache.names() == set()
    (await cache.hold("a")).release()
    assert cache.names() == {"a"}


async def test_a_start_clears_what_a_killed_gateway_was_unpacking(cache: Cache) -> None:
    left = cache.root / "new-left"
    left.mkdir()
    (left / "part").write_text("x")
    left.chmod(0o555)
    # One that unpacks now holds the lock.
    script = (
        "import fcntl, os, sys\n"
        "lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\n"
        "fcntl.flock(lock, fcntl.LOCK_SH)\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()\n"
    )
    unpacks = subprocess.Popen(  # noqa: ASYNC220 - it ends with the test
        [sys.executable, "-c", script, str(cache.root / "new.lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert unpacks.stdout is not None
    assert await asyncio.to_thread(unpacks.stdout.readline) == "locked\n"
    await cache.unpacked.open()
    assert cache.names() == {"new-left"}
    unpacks.kill()
    await asyncio.to_thread(unpacks.communicate)
    await cache.unpacked.open()
    assert cache.names() == set()
