"""How errors of the database are reported."""

from __future__ import annotations

import asyncio
import errno
import re
from unittest.mock import AsyncMock

import asyncpg
import pytest
from sqlalchemy import text

from gateway.core.errors import ConfigurationError, Unavailable
from gateway.store.database import Database, at, clocks_differ, failure, translated_errors, without_password

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


# Of letters and digits that no sentence has.
PASSWORDS = [
    password.replace("*", special)
    for special in [*"/#?@:% &=[]\t", "/#", "?@", "@/", "%zz", "?x=", "://", "\N{FULLWIDTH COLON}"]
    for password in ("*VJ7XZ8", "VJ7*XZ8", "VJ7XZ8*", "VJ7**XZ8", "77*88")
] + ["[VJ7]XZ8", "VJ7/X#Z?x@8:K%", "%40VJ7XZ8", "VJ7?Z=X@8", "VJ7@XZ/8?x=K"]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://app:{}@10.0.0.1:1/gateway",
        "postgres://app:{}@localhost,[::1]:1/gateway?sslmode=disable",
        "postgresql://app:{}/gateway",
        "postgresql://app@10.0.0.1:1/gateway?password={}",
        "postgresql:///gateway?user=app&password={}&host=/nowhere",
    ],
)
async def test_no_sentence_about_a_database_shows_a_part_of_its_password(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The driver reads each URL, and reports what it can't read; nothing is looked up.
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", AsyncMock(side_effect=OSError(errno.ENOENT, "")))
    # Without an @ after it, a password's own can only be taken for its end.
    for password in PASSWORDS if "@" in url or "password=" in url else [each for each in PASSWORDS if "@" not in each]:
        given = url.format(password)
        with pytest.raises(Exception) as refused:  # noqa: PT011  (of any type)
            await asyncpg.connect(given, timeout=5)
        for sentence in (without_password(given), at(given), failure(given, refused.value)):
            shown = sentence.partition("Percent-encode")[0]
            assert not re.search("[VJXZK78]", shown), (given, sentence)


@pytest.mark.parametrize(
    ("url", "shown", "address"),
    [
        ("postgresql://gw:s3/cr#et?x@127.0.0.1:9/gateway", "postgresql://gw:***@127.0.0.1:9/gateway", ""),
        ("postgresql://gw:s3cr@h:9/gateway?sslmode=require", "postgresql://gw:***@h:9/gateway", " at h:9"),
        ("postgresql://gw@h/gateway?password=s3", "postgresql://gw@h/gateway", " at h:5432"),
        ("postgresql://gw:s3@h/gateway?application_name=a@b", "postgresql://gw:***", ""),
        ("postgresql://gw@h/gateway?password=s3@cr", "postgresql://gw@h/gateway", ""),
        ("postgresql://gw:s3cr/gateway", "postgresql://gw:***", ""),
        ("postgresql://gw:1234/gateway", "postgresql://gw:***", ""),
        ("postgresql://h/gateway", "postgresql://h/gateway", " at h:5432"),
        ("postgresql:///gateway?host=/run/postgresql", "postgresql:///gateway", " at /run/postgresql:5432"),
    ],
)
def test_a_database_is_shown_up_to_where_its_password_certainly_is_not(url: str, shown: str, address: str) -> None:
    assert (without_password(url), at(url)) == (shown, address)


@pytest.mark.parametrize(
    ("url", "misread"),
    [
        ("postgresql://h:9/gateway?application_name=a@b", False),
        ("postgresql://[::1]/gateway?application_name=a@b", False),
        ("postgresql://gw:s3@h/gateway?application_name=a@b", False),
        ("postgresql://h/data@base", False),
        ("postgresql://gw:s3?x=y@h/gateway", True),
        ("postgresql://gw:s3/c@h/gateway?application_name=a@b", True),
        ("postgresql://gw:123?x@h/gateway", True),
        ("postgresql://gw:s3@cr/et@h/gateway", True),
    ],
)
def test_characters_that_were_not_encoded_are_named_as_the_reason(url: str, misread: bool) -> None:
    assert (ENCODE in failure(url, OSError())) is misread


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
