"""Looks for secrets in all that a running process has: memory, environment, command line, open files.

Needs the process's user, or root.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from ahocorasick_rs import BytesAhoCorasick

from tests.support.secret_search.search import forms

_CHUNK = 16 * 1024 * 1024
_MOST_OF_A_FILE = 64 * 1024 * 1024


class ProcessSearch:
    """`secrets` have names, by which a find is told. They are looked for as they are, in UTF-16 as engines of
    JavaScript keep texts, and in the common encodings."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        named = {
            form: name
            for name, secret in secrets.items()
            for form in (*forms(secret.encode()), secret.encode("utf-16-le"))
        }
        self._names = list(named.values())
        self._overlap = max(map(len, named)) - 1
        self._automaton = BytesAhoCorasick(list(named))

    def within(self, data: bytes) -> set[str]:
        """Names of the secrets in this."""
        return {self._names[index] for index, _, _ in self._automaton.find_matches_as_indexes(data)}

    def process(self, pid: int) -> set[str]:
        """`name in place` for each that a process has; nothing of one that has ended by now."""
        found: set[str] = set()
        try:
            for place, data in _all_of(pid, self._overlap):
                found |= {f"{name} in {place}" for name in self.within(data)}
        except (FileNotFoundError, ProcessLookupError):
            assert not Path(f"/proc/{pid}/maps").exists()
        return found

    def files(self, directory: Path) -> set[str]:
        """The same for all files below a directory."""
        found: set[str] = set()
        for place, _, names in os.walk(directory):
            for name in names:
                path = Path(place) / name
                if path.is_file() and not path.is_symlink():
                    found |= {f"{each} in {path}" for each in self.within(path.read_bytes())}
        return found


def _all_of(pid: int, overlap: int) -> Iterator[tuple[str, bytes]]:
    for name in ("environ", "cmdline"):
        yield name, Path(f"/proc/{pid}/{name}").read_bytes()
    yield from _files(pid)
    yield from _memory(pid, overlap)


def _files(pid: int) -> Iterator[tuple[str, bytes]]:
    """Regular files that it has open, also those without a name."""
    for each in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{each}"
        try:
            if stat.S_ISREG(os.stat(path).st_mode):
                with open(path, "rb") as file:
                    yield f"the open file {os.readlink(path)}", file.read(_MOST_OF_A_FILE)
        except OSError as error:
            # It is closed by now, or a namespace, which has no content.
            if error.errno not in (errno.ENOENT, errno.EINVAL):
                raise


def _memory(pid: int, overlap: int) -> Iterator[tuple[str, bytes]]:
    """What it may read, but for unwritten parts of files."""
    with open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights, _, _, inode, *_ = line.split()
            if rights[0] != "r" or "[v" in line or (inode != "0" and rights[1:] in ("--p", "-xp")):
                continue
            begin, end = (int(side, 16) for side in span.split("-"))
            for at in range(begin, end, _CHUNK):
                try:
                    memory.seek(at)
                    yield "memory", memory.read(min(_CHUNK + overlap, end - at))
                except OSError as error:
                    # Parts that the kernel does not read: behind the end of a file, of a device, given back meanwhile.
                    if error.errno not in (errno.EIO, errno.EFAULT):
                        raise
