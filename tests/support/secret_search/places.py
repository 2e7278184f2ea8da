"""What may hold no secret: rows, objects, files of a gateway, logs, metrics, command lines and environments.

Each function takes its place into the current search.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from weakref import WeakKeyDictionary

import asyncpg
import httpx
import psutil
import pytest
from prometheus_client import generate_latest

from gateway.store.embedded import EmbeddedPostgres
from gateway.store.objects import Objects
from gateway.telemetry import logs, metrics
from tests.support.gateway_process import ROOT, GatewayProcess
from tests.support.secret_search.noting import KEPT_SECRETS, note_kept, note_options, note_tokens
from tests.support.secret_search.search import current

# Of an object and a file so much is searched.
MOST_BYTES = 4 * 1024 * 1024
# Printed once at the first start, and not logged.
FIRST_KEY = re.compile(r"^First API key, shown this once .*$", re.MULTILINE)
# Of clients that only tests have, which log the addresses they request, and these are credentials.
CLIENTS_LOGGERS = ("urllib3.",)
# A database is searched by its rows, and browsers have what their pages were given.
NOT_FILES = ("postgres", "runtimes", "profiles")

_TABLES = """
    SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'public' AND c.relkind = 'r' AND pg_relation_size(c.oid) > 0 AND c.relname <> 'alembic_version'
"""
_WITHIN_SECONDS = 20.0


async def take_rows(url: str) -> None:
    """Every row of every table of a database."""
    connection = await asyncpg.connect(url, timeout=_WITHIN_SECONDS, server_settings={"lock_timeout": "20s"})
    try:
        names = [name for (name,) in await connection.fetch(_TABLES)]
        if not names:
            return
        union = " UNION ALL ".join(f"SELECT '{name}', to_jsonb(t)::text FROM public.\"{name}\" t" for name in names)
        for name, row in await connection.fetch(union):
            current().take(f"the table {name}", row)
    finally:
        await connection.close()


def take_rows_of_own_server(data_dir: Path) -> None:
    """Those of the database server in a data directory, if one is running."""
    try:
        pid, _, _, port, socket_dir, *_ = (data_dir / "postgres" / "postmaster.pid").read_text().splitlines()
    except (OSError, ValueError):
        return
    if psutil.pid_exists(int(pid)):
        url = f"postgresql://postgres@/gateway?port={port.strip()}&host={quote(socket_dir.strip())}"
        # Beside the loop of the test, which may be running.
        thread = threading.Thread(target=asyncio.run, args=(_if_answered(url),))
        thread.start()
        thread.join()


async def _if_answered(url: str) -> None:
    try:
        await take_rows(url)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
        # A test stopped the server, or has not migrated it.
        return


def take_files(directory: Path) -> None:
    """What a gateway keeps in its data directory, but KEPT_SECRETS and NOT_FILES."""
    for place, directories, names in os.walk(directory):
        if Path(place) == directory:
            directories[:] = [name for name in directories if name not in NOT_FILES]
            names = [name for name in names if name not in KEPT_SECRETS]
        for name in names:
            path = Path(place) / name
            # Some are another user's, or go while they are listed.
            with contextlib.suppress(OSError):
                if path.is_file():
                    with path.open("rb") as file:
                        current().take(f"the file {path.relative_to(directory)}", file.read(MOST_BYTES))


def take_processes(below: int) -> None:
    """Command lines and environments of the processes below one, and its own command line, which is in the open.

    Its own environment is how an operator may give it secrets.
    """
    try:
        first = psutil.Process(below)
        current().take("a command line (gateway)", "\n".join(first.cmdline()))
        found = first.children(recursive=True)
    except psutil.Error:
        return
    for process in found:
        try:
            take_process(process.cmdline(), process.environ())
        except psutil.Error:
            continue


def take_process(command: Sequence[Any], environment: Mapping[Any, Any] | None) -> None:
    words = [os.fsdecode(word) for word in command]
    name = Path(words[0]).name if words else "?"
    current().take(f"a command line ({name})", "\n".join(words))
    for variable, value in (environment or {}).items():
        if variable in ("PYTEST_CURRENT_TEST", b"PYTEST_CURRENT_TEST"):
            # The runner's own; a test's parameter may be a secret.
            continue
        current().take(f"the environment of {name}, {os.fsdecode(variable)}", os.fsdecode(value))


def take_log(place: str, text: str) -> None:
    """Lines of a log. Where they have tokens, these are secrets that only another client than httpx was given."""
    note_tokens("a token", text)
    current().take(place, text)


def take_metrics() -> None:
    """Those of this process."""
    current().take("the metrics", generate_latest(metrics.registry))


def take_metrics_at(base_url: str) -> None:
    """Those of a gateway that answers, where they are at its address."""
    with contextlib.suppress(httpx.HTTPError):
        page = httpx.get(f"{base_url}/metrics", timeout=2, trust_env=False)
        current().take("the metrics of a gateway", page.text)


def _hear_of_processes(event: str, arguments: tuple[Any, ...]) -> None:
    """A hook of `sys.addaudithook`: each process that the gateway's code starts here."""
    if event == "subprocess.Popen" and _is_started_by_gateway():
        _, command, _, environment = arguments
        words = [command] if isinstance(command, (str, bytes, os.PathLike)) else list(command)
        take_process(words, os.environ if environment is None else environment)


def _is_started_by_gateway() -> bool:
    """Whether it is code of the gateway, rather than of tests, that called what is running."""
    for frame, _ in traceback.walk_stack(None):
        path = frame.f_code.co_filename
        if path.startswith(_GATEWAY):
            return True
        if path.startswith(_TESTS) and not path.startswith(_HERE):
            return False
    return False


_GATEWAY = str(ROOT / "gateway") + os.sep
_TESTS = str(ROOT / "tests") + os.sep
_HERE = str(Path(__file__).parent) + os.sep
_hooked: list[bool] = []


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith(CLIENTS_LOGGERS):
            take_log(f"a line of the logger {record.name}", self.format(record))


def listen(patch: pytest.MonkeyPatch) -> None:
    """Take what is logged, stored and started from now on. Logging is configured before."""
    handler = _Handler()
    root = logging.getLogger()
    handler.setFormatter(next(each.formatter for each in root.handlers if isinstance(each, logs.Stderr)))
    patch.setattr(root, "handlers", [*root.handlers, handler])
    if not _hooked:
        # For good: there is no way to take one off.
        sys.addaudithook(_hear_of_processes)
        _hooked.append(True)
    put, server, stop = Objects.put, EmbeddedPostgres.__init__, EmbeddedPostgres.stop
    directories: WeakKeyDictionary[EmbeddedPostgres, Path] = WeakKeyDictionary()
    close, descendants = GatewayProcess.close, GatewayProcess.descendants

    async def taken_put(self: Objects, key: str, chunks: AsyncIterator[bytes]) -> int:
        kept = bytearray()

        async def taken() -> AsyncIterator[bytes]:
            async for chunk in chunks:
                kept.extend(chunk[: MOST_BYTES - len(kept)])
                yield chunk

        try:
            return await put(self, key, taken())
        finally:
            current().take("an object", bytes(kept))

    def noted_server(self: EmbeddedPostgres, data_dir: Path, uid: int) -> None:
        directories[self] = data_dir
        server(self, data_dir, uid)

    def taken_stop(self: EmbeddedPostgres) -> None:
        take_rows_of_own_server(directories[self])
        stop(self)

    def debugged_start(cls: type[GatewayProcess], data_dir: Any, /, *flags: str, **env: str) -> GatewayProcess:
        note_options(env)
        return cls.start_checkout(ROOT, data_dir, *flags, **({"GATEWAY_LOG_LEVEL": "debug"} | env))

    def taken_descendants(self: GatewayProcess) -> list[psutil.Process]:
        take_processes(self.pid)
        return descendants(self)

    def taken_close(self: GatewayProcess) -> None:
        take_rows_of_own_server(self.data_dir)
        take_metrics_at(self.base_url)
        try:
            close(self)
        finally:
            note_kept(self.data_dir)
            take_files(self.data_dir)
            take_log("the output of a gateway", FIRST_KEY.sub("", self.log))

    patch.setattr(Objects, "put", taken_put)
    patch.setattr(EmbeddedPostgres, "__init__", noted_server)
    patch.setattr(EmbeddedPostgres, "stop", taken_stop)
    patch.setattr(GatewayProcess, "start", classmethod(debugged_start))
    patch.setattr(GatewayProcess, "descendants", taken_descendants)
    patch.setattr(GatewayProcess, "close", taken_close)
