"""How errors of the database are reported."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text

from gateway.core.errors import ConfigurationError, Unavailable
from gateway.store.database import Database, clocks_differ, translated_errors

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


ENCODE = "Percent-encode such characters: %40 for @"


@pytest.mark.parametrize(
    ("url", "address", "reason"),
    [
        ("postgresql://app:s3cr-w0rd@127.0.0.1:9/gateway", " at 127.0.0.1:9", "Connection refused"),
        ("postgresql://app:s3cr-w0rd@[::1]:9/gateway", " at [::1]:9", "Connection refused"),
        ("postgresql://app:s3cr-w0rd@127.0.0.1:9,127.0.0.1:1/gateway", " at 127.0.0.1:9, 127.0.0.1:1", ""),
        ("postgresql://app@127.0.0.1:9/gateway?password=s3cr-w0rd", " at 127.0.0.1:9", "Connection refused"),
        ("postgresql://app:s3cr-w0rd@db.invalid/gateway", " at db.invalid:5432", "Name or service not known"),
        ("postgresql://app:s3cr-w0rd@/gateway?host=/nowhere", " at /nowhere:5432", "No such file or directory"),
        ("postgresql://app:s3cr%40w0rd@127.0.0.1:9/gateway", " at 127.0.0.1:9", "Connection refused"),
        *((f"postgresql://app:s3cr{character}w0rd@127.0.0.1:9/gateway", "", ENCODE) for character in "@/#?"),
        ("postgresql://app:s3cr-w0rd@127.0.0.1:port/gateway", "", "port"),
        ("postgresql://app:s3cr-w0rd@[::1/gateway", "", "IPv6"),
    ],
)
async def test_a_database_that_can_not_be_reached_is_named_without_its_password(
    url: str, address: str, reason: str
) -> None:
    database = Database(url)
    with pytest.raises(ConfigurationError) as refused:
        await database.check()
    await database.close()
    sentence = refused.value.message
    assert sentence.startswith(f"The database of GATEWAY_DATABASE_URL{address} can't be used: ")
    assert reason in sentence
    assert "s3cr" not in sentence
    assert "w0rd" not in sentence


@pytest.mark.parametrize(
    ("url", "where", "cause"),
    [
        ("postgresql://app:s3cr-w0rd@127.0.0.1:9/gateway", "127.0.0.1:9", "Connection refused."),
        ("postgresql://app:s3cr-w0rd@/gateway?host=/nowhere", "/nowhere:5432", "No such file or directory."),
        ("postgresql://app:s3cr-w0rd@db.invalid/gateway", "db.invalid:5432", "Name or service not known."),
    ],
)
async def test_the_log_names_a_lost_database_without_its_password(url: str, where: str, cause: str) -> None:
    database = Database(url)
    with pytest.raises(Unavailable) as refused:
        async with database.connect():
            """Not reached."""
    await database.close()
    assert database.why(refused.value) == {"database": where, "cause": cause}
    # Clients learn nothing of the operator's network.
    assert (refused.value.message, refused.value.details) == ("The database can't be reached; try again shortly.", {})


async def test_the_log_names_the_cause_of_a_broken_connection_without_its_statement(database: Database) -> None:
    with pytest.raises(Unavailable) as refused:
        async with database.connect() as connection:
            await connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    assert database.why(refused.value)["cause"].endswith("terminating connection due to administrator command")


@pytest.mark.parametrize(
    ("ahead", "sentence"),
    [
        (1.99, None),
        (2.0, "The database's clock is 2.0 s ahead of this machine's."),
        (-1.99, None),
        (-2.04, "The database's clock is 2.0 s behind this machine's."),
    ],
)
def test_clocks_differ_from_two_seconds_on(ahead: float, sentence: str | None) -> None:
    assert clocks_differ(ahead) == sentence


async def test_the_clock_of_the_database_is_read_at_a_start(database: Database) -> None:
    database.ahead = 99.0
    await database.check()
    assert clocks_differ(database.ahead) is None
