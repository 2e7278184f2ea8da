"""The README's code blocks, run as a newcomer would run them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
START_SECONDS = 90


@pytest.fixture(scope="module")
def blocks() -> dict[str, list[str]]:
    """Code blocks of the README by language, in order."""
    found: dict[str, list[str]] = {}
    for language, code in BLOCK.findall((ROOT / "README.md").read_text()):
        found.setdefault(language, []).append(code)
    return found


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readme")


@pytest.fixture(scope="module")
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free: int = probe.getsockname()[1]
        return free


@pytest.fixture(scope="module")
def started(blocks: dict[str, list[str]], here: Path, port: int) -> Iterator[list[str]]:
    """The README's first command, with a directory and a port of this test; yields what it prints at its start."""
    environment = {**os.environ, "GATEWAY_DATA_DIR": str(here / "var"), "GATEWAY_PORT": str(port)}
    with subprocess.Popen(
        ["sh", "-c", blocks["sh"][0]],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        timer = signal.signal(signal.SIGALRM, lambda *_: os.killpg(process.pid, signal.SIGTERM))
        signal.alarm(START_SECONDS)
        try:
            lines = []
            for line in process.stdout:
                lines.append(line.strip())
                if line.startswith("First API key"):
                    break
            signal.alarm(0)
            yield lines
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, timer)
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.communicate(timeout=30)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def _as_here(code: str, port: int) -> str:
    return code.replace("http://127.0.0.1:8787", f"http://127.0.0.1:{port}")


def test_the_first_command_prints_addresses_and_the_api_key(started: list[str], here: Path, port: int) -> None:
    printed = "\n".join(started)
    assert f"Listening on http://127.0.0.1:{port}" in started
    assert f"API docs: http://127.0.0.1:{port}/docs" in started
    assert "Browser: " in printed
    assert "Database: " in printed
    key = (here / "var" / "api-key").read_text().strip()
    assert started[-1].endswith(key)
    assert (here / "var" / "api-key").stat().st_mode & 0o777 == 0o600


def test_the_provider_key_is_saved(started: list[str], blocks: dict[str, list[str]], here: Path, port: int) -> None:
    done = subprocess.run(
        ["sh", "-c", _as_here(blocks["sh"][1], port)], cwd=here, capture_output=True, text=True, timeout=30, check=True
    )
    assert json.loads(done.stdout)["hasStoredKey"] is True


def test_the_first_lease_drives_a_page(started: list[str], blocks: dict[str, list[str]], here: Path, port: int) -> None:
    script = here / "first_lease.py"
    script.write_text(_as_here(blocks["python"][0], port))
    done = subprocess.run([sys.executable, script], cwd=here, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Hello from your own browser\n", "")
