"""The gateway's own PostgreSQL: real servers, each in a directory of its own."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psutil
import pytest

from gateway.core.errors import ConfigurationError
from gateway.core.unprivileged import grant_search
from gateway.settings import Settings
from gateway.store import embedded
from gateway.store.embedded import EmbeddedPostgres
from tests.support.waiting import wait_until

UID = Settings().uid_base
ROOT = os.geteuid() == 0
PSQL = embedded.server_binaries() / "psql"
as_root = pytest.mark.skipif(not ROOT, reason="only root runs parts as other users")
pytestmark = pytest.mark.unprivileged

# A gateway as far as its database goes: up, say so, and down once standard input closes.
OWNER = """
import sys
from pathlib import Path
from gateway.store.embedded import EmbeddedPostgres
database = EmbeddedPostgres(Path(sys.argv[1]), int(sys.argv[2]))
print(database.start(), flush=True)
sys.stdin.read()
database.stop()
"""


@pytest.fixture
def private() -> Iterator[Path]:
    """A directory of mode 0700. (pytest's own may lose what is granted, when another run of pytest begins.)"""
    with tempfile.TemporaryDirectory(prefix="t-") as name:
        yield Path(name)


@pytest.fixture
def data_dir(private: Path) -> Iterator[Path]:
    """A data directory, of which no server may be left."""
    yield private / "var"
    assert servers(private) == []


@pytest.fixture
def temp_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short directory for what must not be in the data directory; nothing may be left in it."""
    with tempfile.TemporaryDirectory(prefix="t-") as name:
        monkeypatch.setattr(tempfile, "tempdir", name)
        monkeypatch.setenv("TMPDIR", name)
        yield Path(name)
        assert list(Path(name).iterdir()) == []


def database(data_dir: Path) -> EmbeddedPostgres:
    return EmbeddedPostgres(data_dir, UID)


def owner(data_dir: Path, *, user: int | None = None, group: int | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", OWNER, str(data_dir), str(UID)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
        user=user,
        group=group,
        extra_groups=None if user is None else [],
    )


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def killed(process: subprocess.Popen[str]) -> None:
    with process:
        process.kill()


def sql(url: str, statement: str) -> str:
    command = [str(PSQL), url, "-XAtc", statement]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def socket_dir(url: str) -> Path:
    return Path(parse_qs(urlsplit(url).query)["host"][0])


def servers(directory: Path) -> list[psutil.Process]:
    """PostgreSQL's first processes whose data is somewhere in `directory`."""
    found = []
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
        except psutil.Error:
            continue
        if command and command[0].endswith("/postgres") and any(str(directory) in part for part in command):
            found.append(process)
    return found


def test_a_database_that_answers_on_a_private_socket_only(data_dir: Path) -> None:
    postgres = database(data_dir)
    url = postgres.start()
    try:
        assert sql(url, "SELECT current_database()") == "gateway"
        assert sql(url, "SHOW listen_addresses") == ""
        assert sql(url, "SHOW server_encoding") == "UTF8"
        assert socket_dir(url).stat().st_mode & 0o777 == 0o700
        (server,) = servers(data_dir)
        assert server.uids().real == (UID if ROOT else os.geteuid())
        assert not [name for name in server.net_connections() if name.family.name != "AF_UNIX"]
        assert os.getsid(server.pid) != os.getsid(0)
    finally:
        postgres.stop()


def test_stop_leaves_no_process_and_no_socket_and_may_come_twice(data_dir: Path) -> None:
    postgres = database(data_dir)
    url = postgres.start()
    postgres.stop()
    postgres.stop()
    assert servers(data_dir) == []
    assert not socket_dir(url).exists()
    assert sorted(path.name for path in data_dir.iterdir()) == ["postgres", "postgres.lock", "postgres.log"]


def test_a_later_start_initializes_nothing_and_finds_the_data(data_dir: Path) -> None:
    postgres = database(data_dir)
    sql(postgres.start(), "CREATE TABLE kept AS SELECT 7 AS number")
    postgres.stop()
    version = data_dir / "postgres" / "PG_VERSION"
    made = version.stat()
    for _ in range(3):
        assert sql(postgres.start(), "SELECT number FROM kept") == "7"
        postgres.stop()
    assert (version.stat().st_ino, version.stat().st_mtime_ns) == (made.st_ino, made.st_mtime_ns)


def test_a_server_whose_gateway_was_killed_is_used_again_and_stopped(data_dir: Path) -> None:
    gateway = owner(data_dir)
    sql(first_line(gateway), "CREATE TABLE kept AS SELECT 7 AS number")
    killed(gateway)
    (orphan,) = servers(data_dir)
    postgres = database(data_dir)
    url = postgres.start()
    assert servers(data_dir) == [orphan]
    assert sql(url, "SELECT number FROM kept") == "7"
    postgres.stop()
    assert servers(data_dir) == []
    assert not socket_dir(url).exists()


def test_a_server_that_is_stopping_is_waited_for(data_dir: Path) -> None:
    gateway = owner(data_dir)
    url = first_line(gateway)
    killed(gateway)
    (old,) = servers(data_dir)
    with subprocess.Popen([str(PSQL), url, "-XAt"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdin is not None
        client.stdin.write("SELECT 'connected';\n")
        client.stdin.flush()
        assert first_line(client) == "connected"
        old.terminate()  # PostgreSQL goes once this client has gone.
        wait_until(
            lambda: "stopping" in (data_dir / "postgres" / "postmaster.pid").read_text(), "PostgreSQL is stopping"
        )
        with owner(data_dir) as gateway:
            client.stdin.close()
            assert sql(first_line(gateway), "SELECT 1") == "1"
            assert [server.pid for server in servers(data_dir)] != [old.pid]


def test_data_outlives_a_server_that_was_killed(data_dir: Path) -> None:
    postgres = database(data_dir)
    sql(postgres.start(), "CREATE TABLE kept AS SELECT 7 AS number")
    for process in servers(data_dir):
        process.kill()
    postgres.stop()
    assert sql(postgres.start(), "SELECT number FROM kept") == "7"
    postgres.stop()


def test_the_last_of_several_gateways_stops_the_server(data_dir: Path) -> None:
    first, second = database(data_dir), database(data_dir)
    url = first.start()
    assert second.start() == url
    (server,) = servers(data_dir)
    first.stop()
    assert servers(data_dir) == [server]
    assert sql(url, "SELECT 1") == "1"
    second.stop()
    assert servers(data_dir) == []


def test_two_first_starts_at_once_share_one_server(data_dir: Path) -> None:
    with owner(data_dir) as one, owner(data_dir) as other:
        assert first_line(one) == first_line(other) != ""
        assert len(servers(data_dir)) == 1
    assert (one.returncode, other.returncode) == (0, 0)
    assert servers(data_dir) == []


@pytest.mark.parametrize("name", ["d" * 100, "two words, and a comma"])
def test_where_a_socket_cannot_be_it_is_in_a_temp_directory(private: Path, temp_dir: Path, name: str) -> None:
    data_dir = private / name
    postgres = database(data_dir)
    url = postgres.start()
    assert socket_dir(url).parent == temp_dir
    assert socket_dir(url).stat().st_mode & 0o777 == 0o700
    assert sql(url, "SELECT 1") == "1"
    postgres.stop()
    assert list(temp_dir.iterdir()) == []

    gateway = owner(data_dir)
    first_line(gateway)
    killed(gateway)
    for process in servers(data_dir):
        process.kill()
    wait_until(lambda: servers(data_dir) == [], "PostgreSQL has ended")
    assert list(temp_dir.iterdir()) != []
    assert sql(postgres.start(), "SELECT 1") == "1"
    postgres.stop()


def test_a_start_that_waits_for_a_killed_server_leaves_no_directory(private: Path, temp_dir: Path) -> None:
    """PostgreSQL refuses to start beside processes of a killed server, and is started again until they are gone."""
    data_dir = private / "two words"
    gateway = owner(data_dir)
    first_line(gateway)
    (server,) = servers(data_dir)
    left = server.children()[0]
    left.suspend()
    killed(gateway)
    server.kill()
    wait_until(lambda: servers(data_dir) == [], "PostgreSQL's first process has ended")
    postgres = database(data_dir)
    with ThreadPoolExecutor(1) as thread:
        starting = thread.submit(postgres.start)
        wait_until(
            lambda: (data_dir / "postgres.log").read_text().count("shared memory block") >= 2, "it was refused twice"
        )
        left.kill()
        assert sql(starting.result(), "SELECT 1") == "1"
    postgres.stop()
    assert list(temp_dir.iterdir()) == []


@pytest.mark.parametrize("program", ["initdb", "postgres"])
def test_a_signal_in_the_midst_of_a_programs_start_leaves_no_process(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    begin = subprocess.Popen.__init__
    begun: list[int] = []

    def interrupted(self: subprocess.Popen[Any], command: list[Any], *given: Any, **options: Any) -> None:
        begin(self, command, *given, **options)
        if Path(command[0]).name == program and "-D" in map(str, command):
            begun.append(self.pid)
            signal.raise_signal(signal.SIGTERM)

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    postgres = database(data_dir)
    before = signal.signal(signal.SIGTERM, leave)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(subprocess.Popen, "__init__", interrupted)
            with pytest.raises(SystemExit):
                postgres.start()
        assert signal.getsignal(signal.SIGTERM) is leave
    finally:
        signal.signal(signal.SIGTERM, before)
    postgres.stop()
    assert begun != []
    assert not any(psutil.pid_exists(pid) for pid in begun)
    assert servers(data_dir) == []


def test_an_interrupted_first_start_is_done_again(data_dir: Path) -> None:
    gateway = owner(data_dir)
    wait_until(lambda: any(data_dir.glob("postgres.new-*/PG_VERSION")), "initdb is at work")
    killed(gateway)
    assert not (data_dir / "postgres").exists()
    postgres = database(data_dir)
    assert sql(postgres.start(), "SELECT current_database()") == "gateway"
    postgres.stop()
    assert list(data_dir.glob("postgres.new-*")) == []


def test_a_pid_file_that_names_another_process_does_no_harm(data_dir: Path) -> None:
    postgres = database(data_dir)
    postgres.start()
    (server,) = servers(data_dir)
    left = (data_dir / "postgres" / "postmaster.pid").read_text()
    postgres.stop()
    (data_dir / "postgres" / "postmaster.pid").write_text(left.replace(str(server.pid), str(os.getpid()), 1))
    assert sql(postgres.start(), "SELECT 1") == "1"
    postgres.stop()


def test_data_of_another_release_is_refused(data_dir: Path) -> None:
    postgres = database(data_dir)
    postgres.start()
    postgres.stop()
    (data_dir / "postgres" / "PG_VERSION").write_text("9\n")
    with pytest.raises(ConfigurationError, match=r"is of PostgreSQL 9, but this gateway brings PostgreSQL \d+"):
        postgres.start()
    assert servers(data_dir) == []


@as_root
def test_data_of_another_user_is_refused(data_dir: Path) -> None:
    postgres = database(data_dir)
    postgres.start()
    postgres.stop()
    with pytest.raises(ConfigurationError, match=rf"belongs to user {UID}, but would now be run by user {UID + 1}"):
        EmbeddedPostgres(data_dir, UID + 1).start()


def test_a_failed_start_reports_the_servers_last_output(data_dir: Path) -> None:
    postgres = database(data_dir)
    postgres.start()
    postgres.stop()
    with (data_dir / "postgres" / "postgresql.conf").open("a") as file:
        file.write("no_such_option = 1\n")
    with pytest.raises(ConfigurationError, match="no_such_option"):
        postgres.start()
    assert not (data_dir / "postgres.socket").exists()


def test_the_log_holds_no_values_and_does_not_grow_for_ever(data_dir: Path) -> None:
    postgres = database(data_dir)
    url = postgres.start()
    sql(url, "CREATE TABLE one (name text UNIQUE); INSERT INTO one VALUES ('se' || 'cret')")
    with pytest.raises(subprocess.CalledProcessError):
        sql(url, "INSERT INTO one VALUES ('secret')")
    log = (data_dir / "postgres.log").read_text()
    assert "duplicate key" in log
    assert "secret" not in log
    postgres.stop()
    with (data_dir / "postgres.log").open("a") as file:
        file.truncate(embedded.MAX_LOG_BYTES + 1)
    postgres.start()
    postgres.stop()
    assert (data_dir / "postgres.log").stat().st_size < 10_000


@as_root
def test_a_user_without_rights_runs_one_too(data_dir: Path) -> None:
    unprivileged = embedded.unprivileged_user()
    data_dir.mkdir()
    os.chown(data_dir, unprivileged, UID)
    for path in (data_dir, Path(sys.executable), Path(embedded.__file__)):
        grant_search(path, UID)
    with owner(data_dir, user=unprivileged, group=UID) as gateway:
        url = first_line(gateway)
        assert sql(url, "SELECT current_database()") == "gateway"
        assert [server.uids().real for server in servers(data_dir)] == [unprivileged]
    assert gateway.returncode == 0
    assert servers(data_dir) == []
    assert not socket_dir(url).exists()


def may(what: str, path: Path, uid: int, gid: int) -> bool:
    return subprocess.run(["/usr/bin/test", what, path], user=uid, group=gid, extra_groups=[], cwd="/").returncode == 0


def may_search(directory: Path, uid: int, gid: int) -> bool:
    return may("-d", directory / "..", uid, gid)


@as_root
def test_search_is_granted_to_one_group_only(private: Path) -> None:
    inner = private / "one" / "two"
    inner.mkdir(parents=True)
    inner.parent.chmod(0o700)
    assert not may_search(inner, UID, UID)
    grant_search(inner, UID)
    assert may_search(inner, UID, UID)
    assert may_search(inner, UID + 1, UID)
    assert not may_search(inner, UID + 1, UID + 1)
    assert not may("-r", private, UID, UID)
    assert not may("-w", private, UID, UID)


@as_root
def test_search_for_one_group_leaves_what_others_have(private: Path) -> None:
    inner = private / "inner"
    inner.mkdir()
    grant_search(inner, UID)
    private.chmod(0o700)  # The mask now holds back the search that UID's entry has.
    assert not may_search(inner, UID, UID)
    grant_search(inner, UID + 1)
    assert may_search(inner, UID + 1, UID + 1)
    assert not may_search(inner, UID, UID)
    grant_search(inner, UID)
    assert may_search(inner, UID, UID)
    assert may_search(inner, UID + 1, UID + 1)
    assert private.stat().st_mode & 0o707 == 0o700


@as_root
def test_where_all_may_search_nothing_is_changed(private: Path) -> None:
    private.chmod(0o711)
    grant_search(private / "inner", UID)
    assert os.listxattr(private) == []


@as_root
def test_where_search_cannot_be_granted_the_directory_and_a_remedy_are_named(
    private: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "setxattr", refuse)
    with pytest.raises(ConfigurationError, match=rf"can't enter {private} .*`chmod o\+x {private}`"):
        grant_search(private / "inner", UID)
