"""A helper process: started when it is needed, and killed where an exchange with it did not end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from gateway.core.helper_process import HelperProcess

# Answers each line by its own process id and the names of its environment, and a line `hang` never.
PROGRAM = """
import os, sys
for line in sys.stdin:
    if line != "hang\\n":
        print(os.getpid(), sys.argv[1], *os.environ, flush=True)
"""


@pytest_asyncio.fixture
async def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[HelperProcess]:
    (tmp_path / "planted_helper.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("GATEWAY_PLANTED", "x")
    made = HelperProcess("planted_helper", "an argument")
    yield made
    await made.end()


async def ask(helper: HelperProcess, line: str = "x") -> list[str]:
    async with helper.exchange() as (requests, responses):
        requests.write(f"{line}\n".encode())
        await requests.drain()
        return (await responses.readuntil()).decode().split(maxsplit=1)


async def test_one_process_serves_exchanges_and_has_nothing_of_the_gateways_environment(helper: HelperProcess) -> None:
    process_id, rest = await ask(helper)
    assert await ask(helper) == [process_id, rest]
    assert rest.startswith("an argument ")
    assert set(rest.split()[2:]) <= {"PATH", "PYTHONPATH", "LC_CTYPE"}
    assert os.getpgid(int(process_id)) == int(process_id) != os.getpgid(0)
    await helper.end()
    assert not psutil.pid_exists(int(process_id))
    assert (await ask(helper))[0] != process_id


async def test_it_is_killed_where_an_exchange_did_not_end(helper: HelperProcess) -> None:
    process_id = (await ask(helper))[0]
    hanging = asyncio.create_task(ask(helper, "hang"))
    await asyncio.sleep(0)
    hanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hanging
    assert not psutil.pid_exists(int(process_id))
    second = (await ask(helper))[0]
    with pytest.raises(ZeroDivisionError):
        async with helper.exchange():
            raise ZeroDivisionError
    assert not psutil.pid_exists(int(second))


async def test_one_that_has_ended_is_started_once_more(helper: HelperProcess) -> None:
    process = psutil.Process(int((await ask(helper))[0]))
    process.kill()
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        await ask(helper)
    assert int((await ask(helper))[0]) != process.pid


async def test_one_that_can_not_be_started_is_an_error(helper: HelperProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(OSError, match="nowhere"):
        await ask(HelperProcess("planted_helper"))
