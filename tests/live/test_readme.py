"""The README's code blocks, run as a newcomer would run them."""

from __future__ import annotations

import contextlib
import http.server
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.node import SCRIPTS, install_packages, node

ROOT = Path(__file__).parent.parent.parent
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
START_SECONDS = 90
GREETING = "Hello from your own browser"


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


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<h1>A page of this machine</h1>")

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def own_page() -> Iterator[int]:
    """The port of a server on this machine, which the gateway was started to allow."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def started(blocks: dict[str, list[str]], here: Path, port: int, own_page: int) -> Iterator[list[str]]:
    """The README's first command, with a directory and a port of this test; yields what it prints at its start."""
    (allowing,) = re.findall(r"`(GATEWAY_EGRESS_ALLOW)=127\.0\.0\.1:3000 make up`", (ROOT / "README.md").read_text())
    environment = os.environ | {
        "GATEWAY_DATA_DIR": str(here / "var"),
        "GATEWAY_PORT": str(port),
        allowing: f"127.0.0.1:{own_page}",
    }
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
        # No alarm, which is that of each test's own timeout.
        timer = threading.Timer(START_SECONDS, lambda: os.killpg(process.pid, signal.SIGTERM))
        timer.start()
        try:
            lines = []
            for line in process.stdout:
                lines.append(line.strip())
                if line.startswith("First API key"):
                    break
            timer.cancel()
            yield lines
        finally:
            timer.cancel()
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


def test_the_first_browser_in_python(started: list[str], blocks: dict[str, list[str]], here: Path, port: int) -> None:
    script = here / "first_browser.py"
    script.write_text(_as_here(blocks["python"][0], port))
    assert _printed(here, sys.executable, script) == GREETING


def test_the_first_browser_in_node(started: list[str], blocks: dict[str, list[str]], here: Path, port: int) -> None:
    install_packages()
    (here / "node_modules").symlink_to(SCRIPTS / "node_modules")
    script = here / "first_browser.mjs"
    script.write_text(_as_here(blocks["js"][0], port))
    assert _printed(here, node(), script) == GREETING


def test_a_page_of_this_machine_opens_where_it_is_allowed(
    started: list[str], blocks: dict[str, list[str]], here: Path, port: int, own_page: int
) -> None:
    code = re.sub(r'"data:text/html,[^"]*"', f'"http://localhost:{own_page}"', blocks["python"][0])
    script = here / "own_page.py"
    script.write_text(_as_here(code, port))
    assert _printed(here, sys.executable, script) == "A page of this machine"


def _printed(here: Path, *command: str | Path) -> str:
    """What the command prints, which must succeed without a word of error."""
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()
