"""Work that outlives a request does not have the request's context, and chores do not begin with the start."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
import structlog

from gateway.core import background
from gateway.core.errors import Unavailable
from gateway.domain import audit
from gateway.egress.proxy import EgressProxy
from gateway.settings import Settings


async def context() -> dict[str, object]:
    return structlog.contextvars.get_contextvars()


async def test_a_task_in_the_background_has_no_request_id() -> None:
    with structlog.contextvars.bound_contextvars(request_id="of the request"):
        assert await background.start(context()) == {}
        assert await context() == {"request_id": "of the request"}


async def test_a_task_on_behalf_of_a_caller_keeps_the_actor_and_has_no_request_id() -> None:
    async def seen() -> tuple[dict[str, object], str]:
        return structlog.contextvars.get_contextvars(), audit.origin().actor

    with structlog.contextvars.bound_contextvars(request_id="of the request"), audit.acting(audit.OPERATOR):
        assert await background.start_on_behalf(seen()) == ({}, audit.OPERATOR.actor)
        assert await context() == {"request_id": "of the request"}


def test_a_chore_runs_first_after_a_random_part_of_its_interval_and_a_minute_at_most() -> None:
    short, long = ([background.first_interval(seconds) for _ in range(200)] for seconds in (5.0, 86400.0))
    assert 0 <= min(short) < 2.5 < max(short) <= 5
    assert 0 <= min(long) < 30 < max(long) <= 60


async def test_a_refused_request_of_a_page_has_the_id_of_no_request_to_the_gateway() -> None:
    """A listener of a warm browser is opened while another runtime is created."""
    with structlog.contextvars.bound_contextvars(request_id="of the request"):
        listener = await EgressProxy(Settings()).open_listener(uuid4(), None)
    seen: list[dict[str, object]] = []
    listener.usage.on_refusal = lambda *_: seen.append(structlog.contextvars.get_contextvars())
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    writer.write(b"CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n")
    assert b" 403 " in await reader.readline()
    writer.close()
    await listener.close()
    assert seen == [{}]


async def test_old_rows_are_removed_a_batch_at_a_time_also_after_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    results: list[int | Exception] = [Unavailable("The database is away."), RuntimeError("a fault"), 2, 2, 1, 0]
    all_are_taken = asyncio.Event()

    async def remove_some() -> int:
        result = results.pop(0)
        if not results:
            all_are_taken.set()
        if isinstance(result, Exception):
            raise result
        return result

    removing = asyncio.create_task(background.remove_old(remove_some, 2, "rows", seconds=0.001))
    await all_are_taken.wait()
    assert not removing.done()
    removing.cancel()
    assert [record.levelname for record in caplog.records if "can't be removed" in record.message] == [
        "WARNING",
        "ERROR",
    ]
