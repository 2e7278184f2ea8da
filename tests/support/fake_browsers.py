"""Browsers' executables that only print what they are asked for, as small as an ELF file can be."""

from __future__ import annotations

import platform
import struct
import sys
from pathlib import Path

import pytest

with_fakes = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="the fakes' machine code is for Linux on x86-64"
)


_PAUSE = b"\xb8\x22\x00\x00\x00\x0f\x05"


def make_fake(
    path: Path, version: str = "Chromium 9.8.7.6", *, last_words: str = "", status: int = 0, hangs: bool = False
) -> Path:
    """A real executable: `--version` prints `version`; any other call prints `last_words` and exits with `status`."""

    def write(descriptor: int, address: int, length: int) -> bytes:
        return b"\xbf%b\xbe%b\xba%b\xb8\x01\0\0\0\x0f\x05" % tuple(map(_four, (descriptor, address, length)))

    def leave(code: int) -> bytes:
        return b"\xbf%b\xb8\x3c\0\0\0\x0f\x05" % _four(code)

    texts = (f"{version}\n".encode(), f"{last_words}\n".encode())
    start = 0x400000 + 64 + 56
    size = len(_PAUSE) * hangs + 7 + 2 * len(write(0, 0, 0) + leave(0))
    printing = write(1, start + size, len(texts[0])) + leave(0)
    other = write(2, start + size + len(texts[0]), len(texts[1])) + leave(status)
    code = _PAUSE * hangs + b"\x48\x83\x3c\x24\x02\x75%c" % len(printing) + printing + other + b"".join(texts)
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, 62, 1, start, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, 120 + len(code), 120 + len(code), 0x1000)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + segment + code)
    path.chmod(0o755)
    return path


def _four(number: int) -> bytes:
    return struct.pack("<I", number)
