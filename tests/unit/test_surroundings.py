"""The tests run the same, whatever started them; what they lack is said where it can't be missed."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import missing

ROOT = Path(__file__).parent.parent.parent
PROGRAM = """
import json, os, resource, signal, time
from tests.support import surroundings

surroundings.normalize()
umask = os.umask(0)
with open(os.environ["REPORT"], "w") as report:
    json.dump({
        "environment": dict(os.environ),
        "ignored": [number for number in signal.valid_signals() if signal.getsignal(number) is signal.SIG_IGN],
        "interrupts": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        "blocked": list(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "umask": umask,
        "files": resource.getrlimit(resource.RLIMIT_NOFILE),
        "zone": time.tzname[0],
        "report": report.fileno(),
    }, report)
"""
DEVELOPERS = {
    "GATEWAY_EGRESS_ALLOW": "127.0.0.1",
    "GATEWAY_PORT": "1",
    "MAKEFLAGS": r" -j2 --jobserver-auth=3,4 -- ARGS=-k\ lease WORKERS=2 OTHER=x",
    "MAKELEVEL": "1",
    "ARGS": "-k lease",
    "OTHER": "x",
    "PYTEST_ADDOPTS": "-x",
    "VIRTUAL_ENV": "/nowhere",
    "NODE_OPTIONS": "--frozen",
    "PIP_USER": "1",
    "GIT_DIR": "/nowhere",
    "PGHOST": "nowhere",
    "AWS_ACCESS_KEY_ID": "key",
    "COLUMNS": "20",
    "LC_ALL": "C",
}
KEPT = {
    "GATEWAY_TEST_ALL": "1",
    "GATEWAY_CHROMIUM": "/browser",
    "PIP_INDEX_URL": "https://pypi.example",
    "http_proxy": "x:1",
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What is left of the worst that a shell can hand on."""
    report = tmp_path_factory.mktemp("surroundings") / "report"

    def prepare() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGALRM, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGALRM, signal.SIGTERM})
        os.umask(0o077)
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        os.close(0)

    environment = {**DEVELOPERS, **KEPT, "PATH": os.environ["PATH"], "LANG": "de_DE", "TZ": "Asia/Kathmandu"}
    environment |= {"NO_PROXY": "inner.example", "REPORT": str(report)}
    with subprocess.Popen([sys.executable, "-c", PROGRAM], cwd=ROOT, env=environment, preexec_fn=prepare) as process:
        assert process.wait(30) == 0
    reported: dict[str, Any] = json.loads(report.read_text())
    return reported


def test_signals_have_their_defaults(found: dict[str, Any]) -> None:
    assert set(found["ignored"]) == {signal.SIGPIPE, signal.SIGXFSZ}
    assert found["interrupts"]
    assert found["blocked"] == []


def test_variables_of_the_developers_shell_are_gone(found: dict[str, Any]) -> None:
    assert DEVELOPERS.keys() & found["environment"].keys() == set()


def test_what_says_where_things_are_stays(found: dict[str, Any]) -> None:
    assert found["environment"].items() >= KEPT.items()
    assert found["environment"]["HOME"] != ""


def test_no_proxy_is_between_the_tests_and_their_servers(found: dict[str, Any]) -> None:
    direct = "inner.example,localhost,127.0.0.1,::1"
    assert found["environment"]["no_proxy"] == found["environment"]["NO_PROXY"] == direct


def test_language_zone_umask_files_and_streams_are_the_same(found: dict[str, Any]) -> None:
    assert (found["environment"]["LANG"], found["environment"]["TZ"], found["zone"]) == ("C.UTF-8", "UTC", "UTC")
    assert found["umask"] == 0o022
    assert found["files"][0] == found["files"][1]
    assert found["report"] > 2


def test_a_missing_program_skips_or_fails_by_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GATEWAY_TEST_ALL", raising=False)
    assert Path(missing.program("sh", "dash")).is_absolute()
    with pytest.raises(
        pytest.skip.Exception, match="no-such-program is not installed; on Debian: apt-get install nothing"
    ):
        missing.program("no-such-program", "nothing")
    monkeypatch.setenv("GATEWAY_TEST_ALL", "1")
    with pytest.raises(pytest.fail.Exception, match=r"no-such-program is not installed.*GATEWAY_TEST_ALL is set"):
        missing.program("no-such-program", "nothing")


def test_the_summary_has_a_line_for_each_missing_program() -> None:
    nginx, npm = (f"Skipped: {name} is not installed; on Debian: apt-get install {name}" for name in ("nginx", "npm"))
    assert missing.summary([nginx, "Skipped: only root can do that", npm, nginx]) == [
        "2 tests did not run: nginx is not installed; on Debian: apt-get install nginx",
        "1 tests did not run: npm is not installed; on Debian: apt-get install npm",
    ]
