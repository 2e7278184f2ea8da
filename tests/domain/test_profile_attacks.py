"""A directory in the hands of a hostile user: what it does to be packed wrongly, and to be unpacked elsewhere."""

from __future__ import annotations

import contextlib
import os
import random
import struct
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from gateway.crypto.streams import CHUNK_BYTES, StreamOpener, StreamSealer, new_key
from gateway.domain.profiles.packing import Malformed, Packing, PackLimits, TooLarge, Unpacking
from gateway.launchers.local.runtime_directory import write_preferences

LIMITS = PackLimits(bytes=200_000_000, entries=1000)
SECRET = b"the host's own secret"
UID = os.geteuid()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The hostile directory; `outside` beside it has what must not get in."""
    (tmp_path / "home").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(SECRET)
    return tmp_path / "home"


def plain(stream: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(stream)


def pieces(size: int) -> bytes:
    return random.Random(size).randbytes(size)


# Swaps while it is packed


@pytest.mark.parametrize("what", ["file", "directory", "pipe", "gone", "hard link"])
def test_what_is_swapped_during_packing_is_not_followed(home: Path, what: str) -> None:
    """Swapped after its directory was listed: the pack ends with an error, or lacks the entry."""
    (home / "a").write_bytes(pieces(3_000_000))
    (home / "b").mkdir()
    (home / "b" / "secret").write_bytes(b"own")
    (home / "c").write_bytes(b"own")
    outside = home.parent / "outside"
    packing = Packing(home, LIMITS, UID).chunks(b"{}")
    stream = bytearray(next(packing))
    if what == "directory":
        (home / "b").rename(home.parent / "b")
        (home / "b").symlink_to(outside)
    else:
        (home / "c").unlink()
    if what == "file":
        (home / "c").symlink_to(outside / "secret")
    elif what == "pipe":
        os.mkfifo(home / "c")
    elif what == "hard link":
        if UID != 0:
            pytest.skip("needs another user's file")
        os.chown(outside / "secret", 870_123, 870_123)
        os.link(outside / "secret", home / "c")
    # A link where a file or a directory was, or nothing, ends it.
    with contextlib.suppress(OSError):
        for chunk in packing:
            stream += chunk
    assert SECRET not in zstandard.ZstdDecompressor().decompressobj().decompress(bytes(stream))


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_swapping_all_the_time_gets_nothing_in(home: Path, kind: str) -> None:
    """A process that lives on after its browser, and swaps an entry for a link as fast as it can."""
    own, link = home.parent / "own", home.parent / "link"
    if kind == "file":
        own.write_bytes(b"own")
        link.symlink_to(home.parent / "outside" / "secret")
    else:
        own.mkdir()
        (own / "secret").write_bytes(b"own")
        link.symlink_to(home.parent / "outside")
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            own.rename(home / "x")
            (home / "x").rename(own)
            link.rename(home / "x")
            (home / "x").rename(link)

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        found = set()
        for _ in range(300):
            try:
                stream = plain(b"".join(Packing(home, LIMITS, UID).chunks(b"{}")))
            except OSError as error:
                found.add(type(error).__name__)
                continue
            assert SECRET not in stream
            found.add("own" if b"own" in stream else "without")
    finally:
        done.set()
        swapping.join()
    assert found


def test_a_directory_of_another_user_in_its_place_is_refused(home: Path) -> None:
    with pytest.raises(PermissionError):
        list(Packing(home, LIMITS, UID + 1).chunks(b"{}"))


def test_a_file_that_grows_while_it_is_read_ends_at_the_limit(home: Path) -> None:
    """A block more is written for each piece that is packed."""
    growing = home / "growing"
    growing.write_bytes(pieces(500_000))
    limits = PackLimits(bytes=5_000_000, entries=10)
    packing = Packing(home, limits, UID)

    def pack() -> None:
        with growing.open("ab") as more:
            for _ in packing.chunks(b"{}"):
                more.write(pieces(500_000))
                more.flush()

    with pytest.raises(TooLarge, match="bytes"):
        pack()
    assert packing.size <= limits.bytes


def test_a_huge_file_of_holes_is_refused_before_it_is_read(home: Path) -> None:
    (home / "huge").touch()
    os.truncate(home / "huge", 2**42)
    packing = Packing(home, LIMITS, UID)
    with pytest.raises(TooLarge, match="bytes"):
        list(packing.chunks(b"{}"))
    assert packing.size == 0


def test_a_directory_of_very_many_files_is_not_listed_to_its_end(home: Path) -> None:
    for number in range(50):
        (home / f"{number:03}").touch()
    stream = Packing(home, PackLimits(bytes=100, entries=20), UID).chunks(b"{}")
    with pytest.raises(TooLarge, match="20 files"):
        next(stream)


# Streams that are not ours


def stream_of(*entries: bytes) -> bytes:
    start = b"GWP1" + struct.pack(">I", 2) + b"{}"
    return zstandard.ZstdCompressor().compress(start + b"".join(entries) + struct.pack(">BH", 0, 0))


def entry(kind: int, path: bytes, data: bytes = b"") -> bytes:
    blocks = (struct.pack(">I", len(data)) + data if data else b"") + struct.pack(">I", 0)
    return struct.pack(">BH", kind, len(path)) + path + (blocks if kind == 2 else b"")


def unpack(stream: bytes, directory: Path, limits: PackLimits = LIMITS) -> None:
    unpacking = Unpacking(iter([stream]), limits)
    unpacking.header()
    unpacking.into(directory, lambda entry: None)


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param([entry(1, b"d"), entry(2, b"d/../../escaped", b"x")], id="above"),
        pytest.param([entry(2, b"file", b"x"), entry(2, b"file/below", b"x")], id="below a file"),
        pytest.param([entry(2, b"none/below", b"x")], id="below nothing"),
        pytest.param([entry(1, b"d"), entry(1, b"d")], id="a directory twice"),
        pytest.param([entry(1, b"d"), entry(2, b"d", b"x")], id="a file over a directory"),
        pytest.param([entry(2, b"n" * 300, b"x")], id="a name of 300 bytes"),
    ],
)
def test_an_entry_that_leads_elsewhere_writes_nothing_there(home: Path, entries: list[bytes]) -> None:
    with pytest.raises((Malformed, OSError)):
        unpack(stream_of(*entries), home)
    assert sorted(path.name for path in home.parent.iterdir()) == ["home", "outside"]


def test_a_link_that_is_there_already_is_not_written_through(home: Path) -> None:
    """Nothing else has the directory; and if something had."""
    (home / "file").symlink_to(home.parent / "outside" / "secret")
    with pytest.raises(OSError, match="exists"):
        unpack(stream_of(entry(2, b"file", b"altered")), home)
    assert (home.parent / "outside" / "secret").read_bytes() == SECRET


@pytest.mark.parametrize("form", ["one file", "many files", "header"])
def test_a_bomb_ends_at_the_limit(home: Path, form: str) -> None:
    """A few kilobytes that decompress to gigabytes: nothing beyond the limit is written or held."""
    block = struct.pack(">I", 256 * 1024) + bytes(256 * 1024)

    def content() -> Iterator[bytes]:
        if form == "header":
            yield b"GWP1" + struct.pack(">I", 39 * 1024 * 1024)
        else:
            yield b"GWP1" + struct.pack(">I", 2) + b"{}"
            yield struct.pack(">BH", 2, 1) + b"a"
        for number in range(400):
            yield block if form != "many files" else entry(2, b"%d" % number) * 100
            if form == "many files" and number == 0:
                yield struct.pack(">I", 0)

    compressor = zstandard.ZstdCompressor().compressobj()
    stream = b"".join([*(compressor.compress(piece) for piece in content()), compressor.flush()])
    assert len(stream) < 100_000
    limits = PackLimits(bytes=1_000_000, entries=50)
    tracemalloc.start()
    try:
        with pytest.raises((Malformed, OSError)):
            unpack(stream, home, limits)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(path.stat().st_size for path in home.iterdir()) <= limits.bytes
    assert len(list(home.iterdir())) <= limits.entries
    # The header alone is held as a whole, and has a limit of its own.
    assert most < (100 if form == "header" else 8) * 1024 * 1024


def test_memory_is_bounded_by_chunks(home: Path) -> None:
    """100 MB that do not compress, packed, encrypted, decrypted and unpacked: a few chunks are held at a time."""
    with (home / "file").open("wb") as file:
        for number in range(100):
            file.write(random.Random(number).randbytes(1_000_000))
    key, context = new_key(), b"a profile"
    sealer, opener = StreamSealer(key, context), StreamOpener(key, context)
    stored = 0

    def opened() -> Iterator[bytes]:
        nonlocal stored
        for piece in Packing(home, LIMITS, UID).chunks(b"{}"):
            for chunk in sealer.update(piece):
                stored += len(chunk)
                yield from opener.update(chunk)
        yield from opener.update(sealer.finish())
        yield opener.finish()

    target = home.parent / "target"
    target.mkdir()
    tracemalloc.start()
    try:
        unpacking = Unpacking(opened(), LIMITS)
        unpacking.header()
        unpacking.into(target, lambda entry: None)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (target / "file").stat().st_size == 100_000_000
    assert stored > 95 * CHUNK_BYTES
    assert most < 12 * CHUNK_BYTES


# What a restored directory may have where the gateway writes


@pytest.mark.parametrize("form", ["a file", "a directory", "huge", "deep", "no object"])
def test_preferences_are_written_over_whatever_is_there(home: Path, form: str) -> None:
    """A hostile browser leaves something else in the place of its preferences; the next one starts all the same."""
    default = home / "Default"
    if form == "a file":
        default.write_bytes(b"x")
    else:
        default.mkdir()
    if form == "a directory":
        (default / "Preferences").mkdir()
        (default / "Preferences" / "file").touch()
    elif form == "huge":
        (default / "Preferences").touch()
        os.truncate(default / "Preferences", 2**34)
    elif form in ("deep", "no object"):
        (default / "Preferences").write_text("[" * 100_000 if form == "deep" else "[1]")
    write_preferences(home, None)
    assert (default / "Preferences").stat().st_size < 1000
    assert b"always_open_pdf_externally" in (default / "Preferences").read_bytes()
