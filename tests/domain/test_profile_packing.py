"""Packing and unpacking a browser's directory (domain/profiles/packing.py)."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from gateway.domain.profiles.packing import Malformed, Packing, PackLimits, TooLarge, Unpacking

LIMITS = PackLimits(bytes=10_000_000, entries=1000)
FILES = {
    "Local State": b"{}",
    "Default/Cookies": b"cookies" * 1000,
    "Default/Local Storage/leveldb/000003.log": bytes(range(256)) * 3000,
    "Default/Service Worker/CacheStorage/1/index": b"",
    "Default/Service Worker/ScriptCache/1_0": b"script",
}


def filled(directory: Path, files: dict[str, bytes] = FILES) -> Path:
    directory.mkdir(exist_ok=True)
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return directory


def packed(directory: Path, header: bytes = b"{}", limits: PackLimits = LIMITS) -> bytes:
    return b"".join(Packing(directory, limits, os.geteuid()).chunks(header))


def unpacked(stream: bytes, directory: Path, limits: PackLimits = LIMITS, piece: int = 1000) -> bytes:
    directory.mkdir()
    unpacking = Unpacking((stream[start : start + piece] for start in range(0, len(stream), piece)), limits)
    header = unpacking.header()
    unpacking.into(directory, lambda entry: None)
    return header


def content(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_directory_is_unpacked_as_it_was(tmp_path: Path) -> None:
    source = filled(tmp_path / "source")
    (source / "Default" / "empty").mkdir()
    packing = Packing(source, LIMITS, os.geteuid())
    stream = b"".join(packing.chunks(b'{"cookies": []}'))
    assert packing.size == sum(map(len, FILES.values()))
    assert unpacked(stream, tmp_path / "target") == b'{"cookies": []}'
    assert content(tmp_path / "target") == FILES
    assert (tmp_path / "target" / "Default" / "empty").is_dir()


def test_caches_locks_and_crash_reports_are_left_out(tmp_path: Path) -> None:
    left_out = (
        "SingletonLock",
        "DevToolsActivePort",
        "Crashpad/reports/1.dmp",
        "ShaderCache/data_0",
        "Default/Cache/Cache_Data/1_0",
        "Default/Code Cache/js/index",
        "Default/GPUCache/data_0",
        "Default/Sessions/Tabs_1",
        "Default/Local Storage/leveldb/LOCK",
        "Default/Local Storage/leveldb/LOG",
    )
    source = filled(tmp_path / "source", FILES | dict.fromkeys(left_out, b"x"))
    # A site decides on this name, deeper down.
    kept = "Default/Service Worker/CacheStorage/1/Cache"
    filled(source, {kept: b"kept"})
    unpacked(packed(source), tmp_path / "target")
    assert content(tmp_path / "target") == FILES | {kept: b"kept"}


def test_nothing_but_plain_files_and_directories_is_packed(tmp_path: Path) -> None:
    source = filled(tmp_path / "source")
    secret = tmp_path / "secret"
    secret.write_bytes(b"the host's")
    (source / "link").symlink_to(secret)
    (source / "linked directory").symlink_to(tmp_path)
    os.mkfifo(source / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(source / "socket"))
        stream = packed(source)
    unpacked(stream, tmp_path / "target")
    assert content(tmp_path / "target") == FILES
    assert not list((tmp_path / "target").glob("link*"))
    assert b"the host's" not in zstandard.ZstdDecompressor().decompressobj().decompress(stream)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user's file")
def test_another_users_file_is_not_packed(tmp_path: Path) -> None:
    source = filled(tmp_path / "source", {"theirs": b"theirs", "own": b"own", "below/theirs": b"theirs"})
    os.chown(source / "theirs", 870_123, 870_123)
    os.chown(source / "below", 870_123, 870_123)
    unpacked(packed(source), tmp_path / "target")
    assert content(tmp_path / "target") == {"own": b"own"}


def test_a_link_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    filled(tmp_path / "source")
    (tmp_path / "link").symlink_to(tmp_path / "source")
    with pytest.raises(OSError, match="link"):
        packed(tmp_path / "link")


@pytest.mark.parametrize(
    ("most", "fits"), [(PackLimits(21, 3), True), (PackLimits(20, 3), False), (PackLimits(21, 2), False)]
)
def test_bytes_and_entries_are_limited(tmp_path: Path, most: PackLimits, fits: bool) -> None:
    source = filled(tmp_path / "source", {"Default/a": b"x" * 10, "Default/b": b"x" * 11})
    if fits:
        unpacked(packed(source, limits=most), tmp_path / "target", most)
        return
    with pytest.raises(TooLarge):
        packed(source, limits=most)
    with pytest.raises(Malformed, match="more"):
        unpacked(packed(source), tmp_path / "target", most)


def test_a_file_without_an_end_is_not_read_to_it(tmp_path: Path) -> None:
    source = filled(tmp_path / "source", {"a": b""})
    os.truncate(source / "a", 2**40)
    with pytest.raises(TooLarge, match="bytes"):
        packed(source)


def test_depth_and_length_of_paths_are_limited(tmp_path: Path) -> None:
    deep = filled(tmp_path / "deep", {"/".join("d" * 33) + "/file": b""})
    with pytest.raises(TooLarge, match="nested"):
        packed(deep)
    long = filled(tmp_path / "long", {"/".join(["d" * 250] * 5): b""})
    with pytest.raises(TooLarge, match="paths"):
        packed(long)


def test_names_may_be_any_bytes(tmp_path: Path) -> None:
    source = filled(tmp_path / "source")
    name = os.fsdecode(b"\xff\xfe name\n")
    (source / name).write_bytes(b"odd")
    unpacked(packed(source), tmp_path / "target")
    assert (tmp_path / "target" / name).read_bytes() == b"odd"


def test_memory_is_bounded_by_blocks(tmp_path: Path) -> None:
    """What compresses to almost nothing is not decompressed at once."""
    source = filled(tmp_path / "source", {"zeros": bytes(9_000_000)})
    stream = packed(source)
    assert len(stream) < 10_000
    sizes: list[int] = []

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(stream), 100):
            sizes.append((target / "zeros").stat().st_size if (target / "zeros").exists() else 0)
            yield stream[start : start + 100]

    target = tmp_path / "target"
    target.mkdir()
    unpacking = Unpacking(pieces(), LIMITS)
    unpacking.header()
    unpacking.into(target, lambda entry: None)
    assert sizes == sorted(sizes)
    assert len(set(sizes)) > 3


def compressed(plain: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(plain)


def entry(kind: int, path: bytes, data: bytes = b"") -> bytes:
    blocks = (struct.pack(">I", len(data)) + data if data else b"") + struct.pack(">I", 0)
    return struct.pack(">BH", kind, len(path)) + path + (blocks if kind == 2 else b"")


START = b"GWP1" + struct.pack(">I", 2) + b"{}"
END = struct.pack(">BH", 0, 0)


@pytest.mark.parametrize(
    "plain",
    [
        pytest.param(b"GWP2" + START[4:] + END, id="another magic"),
        pytest.param(START, id="no end"),
        pytest.param(START + entry(2, b"file", b"data")[:-6], id="cut in a file"),
        pytest.param(START + END + b"x", id="more after the end"),
        pytest.param(START + entry(3, b"name") + END, id="unknown kind"),
        pytest.param(START + entry(2, b"../escaped") + END, id="above"),
        pytest.param(START + entry(2, b"/escaped") + END, id="absolute"),
        pytest.param(START + entry(2, b"a//b") + END, id="empty segment"),
        pytest.param(START + entry(2, b".") + END, id="itself"),
        pytest.param(START + entry(2, b"a\x00b") + END, id="NUL"),
        pytest.param(START + entry(2, b"") + END, id="empty"),
        pytest.param(START + entry(2, b"d" * 1025) + END, id="long path"),
        pytest.param(START + struct.pack(">BH", 2, 1) + b"a" + struct.pack(">I", 2**31) + END, id="long block"),
        pytest.param(b"GWP1" + struct.pack(">I", 2**31), id="long header"),
    ],
)
def test_a_stream_of_another_form_is_refused(tmp_path: Path, plain: bytes) -> None:
    with pytest.raises(Malformed):
        unpacked(compressed(plain), tmp_path / "target")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["target"]


def test_what_is_not_compressed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Malformed):
        unpacked(b"GWP1 in plain text", tmp_path / "target")


def test_more_after_the_compressed_stream_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Malformed):
        unpacked(compressed(START + END) + b"more", tmp_path / "target")


def test_nothing_is_written_over(tmp_path: Path) -> None:
    twice = compressed(START + entry(2, b"file", b"a") + entry(2, b"file", b"b") + END)
    with pytest.raises(FileExistsError):
        unpacked(twice, tmp_path / "target")
