"""How errors of the database are reported."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text

from gateway.core.errors import Unavailable
from gateway.store.database import Database, translated_errors

LOCK = text("UPDATE gateways SET version = version WHERE id = CAST(:id AS uuid)")
ONE, OTHER = "0198b7d4-2f6c-7d3e-9a51-1c6f2b8e4d70", "0198b7d4-2f6c-7d3e-9a51-1c6f2b8e4d71"


async def test_of_two_deadlocked_transactions_one_commits_and_one_may_retry(database: Database) -> None:
    async with database.begin() as connection:
        for gateway in (ONE, OTHER):
            await connection.execute(text("INSERT INTO gateways (id, version) VALUES (:id, '1')"), {"id": gateway})
    both = asyncio.Barrier(2)

    async def lock(first: str, second: str) -> str:
        try:
            async with database.begin() as connection:
                await connection.execute(LOCK, {"id": first})
                await both.wait()
                await connection.execute(LOCK, {"id": second})
        except Unavailable as error:
            return error.code
        return "ok"

    outcomes = await asyncio.gather(lock(ONE, OTHER), lock(OTHER, ONE))
    assert sorted(outcomes) == ["database.busy", "ok"]


async def test_a_wrong_statement_is_not_reported_as_an_unavailable_database(database: Database) -> None:
    with pytest.raises(Exception, match="nothing_of_the_kind"):
        async with database.connect() as connection:
            await connection.execute(text("SELECT * FROM nothing_of_the_kind"))


async def test_a_cancellation_that_a_connection_raises_as_a_timeout_stays_one() -> None:
    entered = asyncio.Event()

    async def connecting() -> None:
        with translated_errors():
            try:
                entered.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise TimeoutError from None

    task = asyncio.create_task(connecting())
    await entered.wait()
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
