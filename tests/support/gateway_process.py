"""A real gateway in a process of its own, for tests and benches.

    with GatewayProcess.start(data_dir, GATEWAY_LOG_LEVEL="debug") as gateway:
        httpx.get(f"{gateway.base_url}/healthz")

Everything it started is ended with it, also when the test run is killed.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from types import TracebackType

import psutil

from tests.support.prepared_database import prepare_database

ROOT = Path(__file__).resolve().parent.parent.parent
START_SECONDS = 300.0
STOP_SECONDS = 40.0

# Add it to the environment of a gateway whose coverage counts. Measuring takes a third of a start's time, so that other
# gateways are not measured: what they do is covered by tests within the process, or by those that are.
MEASURED = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}

# Options with which a gateway uses another database, or runs its own as another user.
_OTHER_DATABASE = {"GATEWAY_DATABASE_URL", "GATEWAY_UID_BASE"}

_LISTENING = re.compile(r"Listening on (https?://\S+)")
_PR_SET_PDEATHSIG = 1
# Loaded here, since between fork and exec nothing may be loaded.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class GatewayProcessError(AssertionError):
    """Raised when a gateway did not start, print or stop as expected; the message ends with its output."""


class GatewayProcess:
    """A running `gateway up`. Output and exit are followed by a thread; nothing here waits without a bound."""

    # The module that is run.
    program = "gateway"

    def __init__(self, process: subprocess.Popen[str], data_dir: Path) -> None:
        self.data_dir = data_dir
        self.base_url = ""
        self._process = process
        self._lines: list[str] = []
        self._closed = False
        self._changed = threading.Condition()
        self._seen: set[psutil.Process] = set()
        self._reader = threading.Thread(target=self._read, name=f"gateway-{process.pid}", daemon=True)
        self._reader.start()

    @classmethod
    def start(cls, data_dir: Path, *flags: str, **env: str) -> GatewayProcess:
        """Returns when it listens; raises GatewayProcessError, with its output, when it does not within a minute."""
        return cls.start_checkout(ROOT, data_dir, *flags, **env)

    @classmethod
    def start_checkout(cls, checkout: Path, data_dir: Path, *flags: str, **env: str) -> GatewayProcess:
        """As `start`, with the code of another checkout and the environment that is installed there."""
        python = sys.executable if checkout == ROOT else str(checkout / ".venv/bin/python")
        if checkout == ROOT and not env.keys() & _OTHER_DATABASE:
            prepare_database(data_dir)
        command = [python, "-m", cls.program, "up", "--port", "0", "--data-dir", str(data_dir), *flags]
        process = subprocess.Popen(
            command,
            cwd=checkout,
            env=environment_with(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # Its own session: Ctrl-C at the terminal stops the test run, which then stops the gateway, once.
            start_new_session=True,
            preexec_fn=prepare_child,
        )
        gateway = cls(process, data_dir)
        try:
            gateway.base_url = gateway.wait_for_output(_LISTENING, START_SECONDS).group(1).rstrip("/")
        except BaseException:
            gateway.close()
            raise
        return gateway

    @property
    def pid(self) -> int:
        return self._process.pid

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def log(self) -> str:
        """All that it printed so far, both streams in the order of their coming."""
        with self._changed:
            return "".join(self._lines)

    @property
    def api_key(self) -> str:
        return (self.data_dir / "api-key").read_text().strip()

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api_key}"}

    def wait_for_output(self, pattern: re.Pattern[str], timeout: float) -> re.Match[str]:
        """The first line with `pattern`, also one that was printed already."""
        deadline = time.monotonic() + timeout
        seen = 0
        with self._changed:
            while True:
                for line in self._lines[seen:]:
                    if match := pattern.search(line):
                        return match
                seen = len(self._lines)
                left = deadline - time.monotonic()
                if self._closed or left <= 0:
                    why = "ended" if self._closed else f"did not print it within {timeout:g} s"
                    raise GatewayProcessError(f"waited for {pattern.pattern!r}; the gateway {why}:\n{self._tail()}")
                self._changed.wait(left)

    def descendants(self) -> list[psutil.Process]:
        """Every process below the gateway, zombies too. What was seen once is looked for again at the end."""
        try:
            found = psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            found = []
        self._seen.update(found)
        return found

    def leftovers(self) -> list[psutil.Process]:
        """Living processes that came from this gateway: seen below it once, or working in its data directory."""
        alive = {process for process in self._seen if _is_alive(process)}
        return sorted(alive | set(_processes_in(self.data_dir)), key=lambda process: process.pid)

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self, timeout: float = STOP_SECONDS) -> int:
        """Its exit code; raises GatewayProcessError when it is still there after `timeout` seconds."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise GatewayProcessError(f"the gateway did not end within {timeout:g} s:\n{self._tail()}") from None

    def terminate(self, timeout: float = STOP_SECONDS) -> int:
        """SIGTERM, as an operator would; returns the exit code."""
        self.descendants()
        self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def kill(self) -> None:
        """SIGKILL to the gateway alone: what it started stays, for the next one to find. `close` ends that too."""
        self.descendants()
        self.signal(signal.SIGKILL)
        self._process.wait(STOP_SECONDS)

    def close(self) -> None:
        """Ends the gateway and whatever is left of it; raises when it had to be forced."""
        stuck: GatewayProcessError | None = None
        if self._process.poll() is None:
            try:
                self.terminate()
            except GatewayProcessError as error:
                stuck = error
                self.kill()
        for process in self.leftovers():
            _end(process)
        self._reader.join(5)
        if stuck is not None:
            raise stuck

    def __enter__(self) -> GatewayProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                with self._changed:
                    self._lines.append(line)
                    self._changed.notify_all()
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _tail(self) -> str:
        return "".join(self._lines[-80:])


@contextmanager
def temporary_data_dir() -> Iterator[Path]:
    """A data directory that other user ids may pass through: as root, browsers and database run under ids of their own.

    pytest's `tmp_path` won't do then, since it lies in a directory that only its owner may enter.
    """
    path = Path(tempfile.mkdtemp(prefix="gateway-"))
    path.chmod(0o711)
    try:
        yield path
    finally:
        rmtree(path)


def environment_with(extra: dict[str, str]) -> dict[str, str]:
    """The caller's environment with `extra`, without its own gateway options but which browser this machine has, and
    without MEASURED."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GATEWAY_") and key not in MEASURED}
    if "GATEWAY_CHROMIUM" in os.environ:
        kept["GATEWAY_CHROMIUM"] = os.environ["GATEWAY_CHROMIUM"]
    return kept | {"PYTHONUNBUFFERED": "1"} | extra


def prepare_child() -> None:
    """For `preexec_fn`: the child is asked to stop when the test run ends, even by SIGKILL."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)


def _processes_in(directory: Path) -> list[psutil.Process]:
    """Living processes whose command line or environment names the directory, this one left out.

    A browser's helpers don't repeat its profile on their command line, but inherit its TMPDIR.
    """
    found = []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        try:
            named = any(str(directory) in part for part in (*process.cmdline(), *process.environ().values()))
        except psutil.Error:
            continue
        if named and _is_alive(process):
            found.append(process)
    return found


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _end(process: psutil.Process) -> None:
    try:
        process.kill()
        process.wait(5)
    except psutil.Error:
        return  # Gone by itself, or a zombie that its parent has to collect.
