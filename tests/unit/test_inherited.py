"""What a process inherits, and what those inherit that it starts."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

# Reports itself and a child, by what the kernel says: numbers of signals that are ignored or blocked, and open streams.
PROGRAM = """
import json, os, resource, signal, subprocess, sys
from gateway.core import inherited

inherited.normalize()
child = subprocess.Popen(["cat", "/proc/self/status"], stdout=subprocess.PIPE)
status = child.communicate()[0].decode()
masks = dict(line.split(":\\t") for line in status.splitlines() if line.startswith(("SigIgn", "SigBlk")))
exit_code = subprocess.run(["sh", "-c", "exit 7"]).returncode
if inherited.is_ignored(signal.SIGHUP):
    os.kill(os.getpid(), signal.SIGHUP)
print("printed", file=sys.stdout)
print("printed", file=sys.stderr)
with open(sys.argv[1], "w") as report:
    json.dump({
        "child": masks,
        "exit code": exit_code,
        "ignored": [number for number in signal.valid_signals() if inherited.is_ignored(number)],
        "blocked": list(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "report": report.fileno(),
        "core dump": resource.getrlimit(resource.RLIMIT_CORE),
        "given to children": [each for each in map(int, sys.argv[2:]) if os.get_inheritable(each)],
    }, report)
"""
ALL = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD)


def as_started(prepare: Callable[[], None], report: str, descriptors: tuple[int, ...] = ()) -> dict[str, Any]:
    command = [sys.executable, "-c", PROGRAM, report, *map(str, descriptors)]
    with subprocess.Popen(command, preexec_fn=prepare, pass_fds=descriptors) as process:
        assert process.wait(30) == 0
    with open(report) as file:
        found: dict[str, Any] = json.load(file)
        return found


def _numbers(mask: str) -> set[int]:
    return {number for number in range(1, 65) if int(mask, 16) >> (number - 1) & 1}


def ignoring(numbers: Iterable[int]) -> Callable[[], None]:
    def prepare() -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)

    return prepare


def test_a_child_gets_the_default_of_what_was_ignored(tmp_path: Path) -> None:
    found = as_started(ignoring(ALL), str(tmp_path / "report"))
    assert _numbers(found["child"]["SigIgn"]) & set(ALL) == set()
    assert found["exit code"] == 7


def test_what_was_meant_to_be_ignored_still_is(tmp_path: Path) -> None:
    found = as_started(ignoring(ALL), str(tmp_path / "report"))
    assert {signal.SIGINT, signal.SIGQUIT, signal.SIGHUP} <= set(found["ignored"])
    assert not {signal.SIGTERM, signal.SIGCHLD} & set(found["ignored"])


def test_nothing_stays_blocked(tmp_path: Path) -> None:
    def prepare() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, ALL)

    found = as_started(prepare, str(tmp_path / "report"))
    assert found["blocked"] == []
    assert _numbers(found["child"]["SigBlk"]) == set()


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_a_closed_stream_gets_nothing_of_what_is_opened_later(tmp_path: Path, closed: tuple[int, ...]) -> None:
    def prepare() -> None:
        for descriptor in closed:
            os.close(descriptor)

    assert as_started(prepare, str(tmp_path / "report"))["report"] > 2


def test_a_child_gets_no_descriptor_that_was_inherited(tmp_path: Path) -> None:
    ends = os.pipe()
    try:
        assert as_started(lambda: None, str(tmp_path / "report"), ends)["given to children"] == []
    finally:
        for end in ends:
            os.close(end)


def test_no_core_dump_is_written_and_an_operator_may_have_one(tmp_path: Path) -> None:
    """By raising the soft limit of the running process (prlimit), which its own hard limit allows."""
    _, most = resource.getrlimit(resource.RLIMIT_CORE)

    def prepare() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (most, most))

    assert as_started(prepare, str(tmp_path / "report"))["core dump"] == [0, most]


def test_otherwise_all_is_as_it_was(tmp_path: Path) -> None:
    found = as_started(lambda: None, str(tmp_path / "report"))
    assert not set(ALL) & set(found["ignored"])
