"""The database of a gateway that was started once, for the data directories of gateways that tests start.

To make and migrate one takes a quarter of the processor time of a first start; a copy takes little. What a first start
does without it is in tests/store/test_embedded.py, tests/live/test_readme.py and tests/live/test_wheel.py.
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import threading
from functools import cache
from pathlib import Path

from gateway.settings import Settings
from gateway.store import schema
from gateway.store.database import Database
from gateway.store.embedded import EmbeddedPostgres

_lock = threading.Lock()


def prepare_database(data_dir: Path) -> None:
    """Give a data directory that has no database yet an empty, migrated one."""
    target = data_dir / "postgres"
    if data_dir.is_dir() and not target.exists():
        with _lock:
            prepared = _prepared()
        # With owners and modes.
        subprocess.run(["cp", "-a", prepared.name + "/postgres", target], check=True)


@cache
def _prepared() -> tempfile.TemporaryDirectory[str]:
    """A data directory with the database, removed when this process ends."""
    directory = tempfile.TemporaryDirectory(prefix="prepared-", ignore_cleanup_errors=True)
    Path(directory.name).chmod(0o711)
    server = EmbeddedPostgres(Path(directory.name), Settings().uid_base)
    try:
        url = server.start()
        # Beside the loop of the test, which may be running.
        thread = threading.Thread(target=asyncio.run, args=(_migrate(url),))
        thread.start()
        thread.join()
    finally:
        server.stop()
    return directory


async def _migrate(url: str) -> None:
    database = Database(url, 1)
    await schema.upgrade(database)
    await database.close()
