"""Idempotency keys on a real PostgreSQL: one request of many runs, and its answer is kept for the others."""

from __future__ import annotations

import asyncio
import base64
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from sqlalchemy import text

from gateway.app import Gateway
from gateway.core.errors import Conflict, RequestInvalid, Unavailable
from gateway.crypto.keyring import DecryptionFailed
from gateway.domain.audit import Audit
from gateway.domain.idempotency import Idempotency, StoredAnswer, Ticket, request_fingerprint
from gateway.domain.secrets import KeySource, rotate
from gateway.store.database import Database
from tests.support.away import Away

HOURS = 24
SILENT_SECONDS = 30
RACES = int(os.environ.get("GATEWAY_TEST_RACES", "100"))

PRINCIPAL = uuid4()
REQUEST = request_fingerprint("spaces", "POST", "/v1/spaces", "", "application/json", b'{"name": "one"}')
OTHER_REQUEST = request_fingerprint("spaces", "POST", "/v1/spaces", "", "application/json", b'{"name": "two"}')
ANSWER = StoredAnswer(
    201, (("content-type", "application/json"), ("x-a", "1"), ("x-a", "2")), b'{"key": "s3cret"}\n\xff'
)


async def execute(database: Database, statement: str, **values: Any) -> int:
    async with database.connect() as connection:
        return (await connection.execute(text(statement), values)).rowcount


async def count(database: Database, table: str) -> int:
    async with database.connect() as connection:
        return int((await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one())


async def started(database: Database, keys: KeySource, gateway_id: UUID | None = None) -> Idempotency:
    """Idempotency on a gateway whose heart has just beaten."""
    gateway_id = gateway_id or uuid4()
    await execute(
        database,
        "INSERT INTO gateways (id, version) VALUES (:id, '0') ON CONFLICT (id) DO UPDATE SET heartbeat_at = now()",
        id=gateway_id,
    )
    audit = Audit(database, gateway_id)
    return Idempotency(database, keys, audit, gateway_id, hours=HOURS, silent_seconds=SILENT_SECONDS)


async def ticket(service: Idempotency, key: str = "k", request: bytes = REQUEST) -> Ticket:
    begun = await service.begin(PRINCIPAL, key, request)
    assert isinstance(begun, Ticket)
    return begun


async def refusal(service: Idempotency, key: str = "k", request: bytes = REQUEST) -> str:
    with pytest.raises(Conflict) as refused:
        await service.begin(PRINCIPAL, key, request)
    return refused.value.code


async def test_a_request_runs_once_and_its_answer_is_replayed(database: Database, keys: KeySource) -> None:
    one, two = await started(database, keys), await started(database, keys)
    running = await ticket(one)
    assert await refusal(one) == await refusal(two) == "idempotency.in_progress"
    assert await refusal(two, request=OTHER_REQUEST) == "idempotency.mismatch"
    await one.complete(running, ANSWER)
    for service in (one, two):
        assert await service.begin(PRINCIPAL, "k", REQUEST) == ANSWER
        assert await refusal(service, request=OTHER_REQUEST) == "idempotency.mismatch"


async def test_a_key_belongs_to_the_api_key_that_sent_it(database: Database, keys: KeySource) -> None:
    service = await started(database, keys)
    await service.complete(await ticket(service), ANSWER)
    assert isinstance(await service.begin(uuid4(), "k", OTHER_REQUEST), Ticket)
    assert isinstance(await ticket(service, "K"), Ticket)


@pytest.mark.parametrize("status", [401, 429, 500, 503])
async def test_an_answer_that_is_not_an_outcome_is_not_kept(database: Database, keys: KeySource, status: int) -> None:
    service = await started(database, keys)
    await service.complete(await ticket(service), replace(ANSWER, status=status))
    await ticket(service, request=OTHER_REQUEST)


@pytest.mark.parametrize("status", [200, 204, 400, 404, 409])
async def test_an_answer_that_is_an_outcome_is_kept(database: Database, keys: KeySource, status: int) -> None:
    service = await started(database, keys)
    answer = StoredAnswer(status, (), b"")
    await service.complete(await ticket(service), answer)
    assert await service.begin(PRINCIPAL, "k", REQUEST) == answer


async def test_an_abandoned_request_may_be_sent_again(database: Database, keys: KeySource) -> None:
    service = await started(database, keys)
    await service.abandon(await ticket(service))
    assert await count(database, "idempotency_keys") == 0
    await ticket(service, request=OTHER_REQUEST)


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb", "schlüssel", "a\n", "\x7f"])
async def test_a_key_that_is_not_printable_ascii_is_refused(database: Database, keys: KeySource, key: str) -> None:
    service = await started(database, keys)
    with pytest.raises(RequestInvalid) as refused:
        await service.begin(PRINCIPAL, key, REQUEST)
    assert refused.value.code == "idempotency.key_invalid"
    assert await count(database, "idempotency_keys") == 0


async def test_the_longest_key_of_any_printable_character_is_taken(database: Database, keys: KeySource) -> None:
    service = await started(database, keys)
    key = "".join(map(chr, range(0x20, 0x7F))) * 3
    await service.complete(await ticket(service, key[:255]), ANSWER)
    assert await service.begin(PRINCIPAL, key[:255], REQUEST) == ANSWER


def test_a_fingerprint_covers_each_part_of_a_request() -> None:
    parts: dict[str, Any] = {
        "contract": "spaces",
        "method": "POST",
        "path": "/v1/spaces",
        "query": "a=1",
        "media_type": "application/json",
        "body": b"{}",
    }
    changed = {
        "contract": "runtimes",
        "method": "PUT",
        "path": "/v1/space",
        "query": "a=2",
        "media_type": "text/plain",
        "body": b"[]",
    }
    all_of_them = {request_fingerprint(**parts)}
    for name, value in changed.items():
        all_of_them.add(request_fingerprint(**parts | {name: value}))
    # No part runs into the next one.
    all_of_them.add(request_fingerprint("spaces", "POST", "/v1/spacesa", "=1", "application/json", b"{}"))
    assert len(all_of_them) == 8
    assert {len(found) for found in all_of_them} == {32}
    same = {"method": "post", "media_type": "Application/JSON; charset=utf-8"}
    assert request_fingerprint(**parts | same) == request_fingerprint(**parts)


# Races


async def test_of_requests_at_once_on_two_gateways_exactly_one_runs(
    database: Database, database_url: str, keys: KeySource
) -> None:
    second = Database(database_url, 10)
    services = [await started(database, keys), await started(second, keys)]
    try:
        for race in range(RACES):
            found = await asyncio.gather(
                *(service.begin(PRINCIPAL, str(race), REQUEST) for service in services * 2), return_exceptions=True
            )
            kinds = Counter(type(each) for each in found)
            assert kinds == {Ticket: 1, Conflict: 3}, found
            codes = {each.code for each in found if isinstance(each, Conflict)}
            assert codes == {"idempotency.in_progress"}
    finally:
        await second.close()


async def test_requests_that_race_with_an_end_get_the_answer_or_a_conflict_and_never_run_again(
    database: Database, database_url: str, keys: KeySource
) -> None:
    second = Database(database_url, 10)
    one, two = await started(database, keys), await started(second, keys)
    try:
        for race in range(RACES):
            running = await ticket(one, str(race))
            found, _ = await asyncio.gather(
                asyncio.gather(
                    *(service.begin(PRINCIPAL, str(race), REQUEST) for service in (one, two, two)),
                    return_exceptions=True,
                ),
                one.complete(running, ANSWER),
            )
            for each in found:
                assert each == ANSWER or (isinstance(each, Conflict) and each.code == "idempotency.in_progress"), each
            assert await two.begin(PRINCIPAL, str(race), REQUEST) == ANSWER
    finally:
        await second.close()


async def test_of_requests_that_take_over_from_a_dead_gateway_exactly_one_runs(
    database: Database, database_url: str, keys: KeySource
) -> None:
    second = Database(database_url, 10)
    dead = Idempotency(
        database, keys, Audit(database), uuid4(), hours=HOURS, silent_seconds=SILENT_SECONDS
    )  # It has no row, as one that has stopped.
    services = [await started(database, keys), await started(second, keys)]
    try:
        for race in range(RACES):
            await ticket(dead, str(race))
            found = await asyncio.gather(
                *(service.begin(PRINCIPAL, str(race), REQUEST) for service in services * 2), return_exceptions=True
            )
            assert Counter(type(each) for each in found) == {Ticket: 1, Conflict: 3}, found
    finally:
        await second.close()


# Gateways that die


async def test_a_request_of_a_gateway_that_died_may_be_sent_again(database: Database, keys: KeySource) -> None:
    dying, other = uuid4(), await started(database, keys)
    first = await started(database, keys, dying)
    running = await ticket(first)
    almost = "UPDATE gateways SET heartbeat_at = now() - interval '25 seconds' WHERE id = :id"
    await execute(database, almost, id=dying)
    assert await refusal(other) == "idempotency.in_progress"
    await execute(database, almost.replace("25", "31"), id=dying)
    again = await ticket(other)
    # It was not dead, but stood still: what it answers late does not count.
    await first.complete(running, replace(ANSWER, body=b"late"))
    await first.abandon(running)
    assert await refusal(other) == "idempotency.in_progress"
    await other.complete(again, ANSWER)
    assert await other.begin(PRINCIPAL, "k", REQUEST) == ANSWER


async def test_a_start_gives_up_what_the_earlier_process_ran_and_nothing_else(
    database: Database, keys: KeySource
) -> None:
    gateway_id = uuid4()
    before, other = await started(database, keys, gateway_id), await started(database, keys)
    await before.complete(await ticket(before, "answered"), ANSWER)
    await ticket(before, "running")
    await ticket(other, "elsewhere")
    after = await started(database, keys, gateway_id)
    assert await after.release_left() == 1
    await ticket(after, "running")
    assert await refusal(after, "elsewhere") == "idempotency.in_progress"
    assert await after.begin(PRINCIPAL, "answered", REQUEST) == ANSWER


async def test_a_start_of_the_gateway_gives_up_what_its_earlier_process_ran(gateway: Gateway) -> None:
    service = gateway.services.idempotency
    await ticket(service)
    await gateway.supervisor.stop()
    await gateway.supervisor.start()
    await ticket(service)


# A database that goes away


async def test_an_answer_is_kept_once_the_database_is_back(away: Away, keys: KeySource) -> None:
    service = await started(away, keys)
    answered, abandoned = await ticket(service, "answered"), await ticket(service, "abandoned")
    away.away = True
    await service.complete(answered, ANSWER)
    await service.abandon(abandoned)
    with pytest.raises(Unavailable):
        await service.write_waiting()
    away.away = False
    assert await refusal(service, "answered") == "idempotency.in_progress"
    await service.write_waiting()
    assert await service.begin(PRINCIPAL, "answered", REQUEST) == ANSWER
    await ticket(service, "abandoned")


async def test_an_answer_whose_commit_was_not_confirmed_is_kept_once(away: Away, keys: KeySource) -> None:
    service = await started(away, keys)
    running = await ticket(service)
    away.mute = True
    await service.complete(running, ANSWER)
    away.mute = False
    await service.write_waiting()
    assert await service.begin(PRINCIPAL, "k", REQUEST) == ANSWER
    assert await count(away, "secrets") == 1


async def test_answers_that_wait_are_bounded(away: Away, keys: KeySource, caplog: pytest.LogCaptureFixture) -> None:
    gateway_id = uuid4()
    await started(away, keys, gateway_id)
    service = Idempotency(
        away, keys, Audit(away), gateway_id, hours=HOURS, silent_seconds=SILENT_SECONDS, max_waiting=2
    )
    # One API key has half of it.
    tickets = [await ticket(service, str(number)) for number in range(2)]
    others = [uuid4(), uuid4()]
    for other in others:
        begun = await service.begin(other, "k", REQUEST)
        assert isinstance(begun, Ticket)
        tickets.append(begun)
    away.away = True
    for running in tickets:
        await service.complete(running, ANSWER)
    away.away = False
    assert "could not be completed" in caplog.text
    await service.write_waiting()
    assert await service.begin(PRINCIPAL, "0", REQUEST) == ANSWER
    assert await refusal(service, "1") == "idempotency.in_progress"
    assert await service.begin(others[0], "k", REQUEST) == ANSWER
    with pytest.raises(Conflict):
        await service.begin(others[1], "k", REQUEST)


# How long, and how


async def age(database: Database, key: str, hours: float) -> None:
    changed = await execute(
        database,
        "UPDATE idempotency_keys SET created_at = now() - :hours * interval '1 hour' WHERE key = :key",
        hours=hours,
        key=key,
    )
    assert changed == 1


async def test_an_answer_is_kept_for_its_hours_and_then_the_key_is_new(database: Database, keys: KeySource) -> None:
    service = await started(database, keys)
    await service.complete(await ticket(service), ANSWER)
    await age(database, "k", HOURS - 0.1)
    assert await service.begin(PRINCIPAL, "k", REQUEST) == ANSWER
    await age(database, "k", HOURS + 0.1)
    await ticket(service, request=OTHER_REQUEST)
    # The old answer went with its row.
    assert (await count(database, "idempotency_keys"), await count(database, "secrets")) == (1, 0)


async def test_the_sweep_takes_what_is_old_or_orphaned_and_nothing_else(database: Database, keys: KeySource) -> None:
    service = await started(database, keys)
    dead = Idempotency(database, keys, Audit(database), uuid4(), hours=HOURS, silent_seconds=SILENT_SECONDS)
    for key in ("old", "fresh"):
        await service.complete(await ticket(service, key), ANSWER)
    await dead.complete(await ticket(dead, "answered by a dead one"), ANSWER)
    await ticket(service, "running")
    await ticket(dead, "orphaned")
    await age(database, "old", HOURS + 1)
    assert await service.sweep() == 2
    assert await service.sweep() == 0
    for key in ("fresh", "answered by a dead one"):
        assert await service.begin(PRINCIPAL, key, REQUEST) == ANSWER
    assert await refusal(service, "running") == "idempotency.in_progress"
    assert (await count(database, "idempotency_keys"), await count(database, "secrets")) == (3, 2)


async def test_sweeps_at_once_share_the_work(database: Database, keys: KeySource) -> None:
    services = [await started(database, keys) for _ in range(4)]
    for number in range(20):
        await services[0].complete(await ticket(services[0], str(number)), ANSWER)
        await age(database, str(number), HOURS + 1)
    assert sum(await asyncio.gather(*(service.sweep() for service in services))) == 20
    assert (await count(database, "idempotency_keys"), await count(database, "secrets")) == (0, 0)


async def test_an_answer_is_encrypted_and_opening_it_is_in_the_audit_log(
    database: Database, database_url: str, keys: KeySource
) -> None:
    gateway_id = uuid4()
    await started(database, keys, gateway_id)
    audit = Audit(database, gateway_id)
    service = Idempotency(database, keys, audit, gateway_id, hours=HOURS, silent_seconds=SILENT_SECONDS)
    await service.complete(await ticket(service), ANSWER)
    connection = await asyncpg.connect(database_url)
    try:
        rows = [
            bytes(value)
            for table in ("secrets", "idempotency_keys")
            for row in await connection.fetch(f"SELECT * FROM {table}")
            for value in row.values()
            if isinstance(value, bytes)
        ]
    finally:
        await connection.close()
    assert len(rows) == 3
    assert not any(b"s3cret" in row for row in rows)
    await service.begin(PRINCIPAL, "k", REQUEST)
    await audit.write()
    async with database.connect() as connected:
        noted = (await connected.execute(text("SELECT action, details FROM audit_events"))).all()
    assert [tuple(row) for row in noted] == [("secret.decrypted", {"purpose": "idempotency.answer"})]


async def test_a_rotation_of_master_keys_takes_answers_along(database: Database, tmp_path: Path) -> None:
    def master_key(key_id: str) -> str:
        return f"{key_id}:{base64.b64encode(os.urandom(32)).decode()}\n"

    file = tmp_path / "rotated"
    file.write_text(master_key("old"))
    keys = KeySource(file.read_text, file)
    service = await started(database, keys)
    await service.complete(await ticket(service), ANSWER)
    new = master_key("new")
    file.write_text(new + file.read_text())
    rotation = await rotate(database, keys, lambda *_: None)
    assert (rotation.held, rotation.left) == ({"new": 1}, {})
    file.write_text(new)
    assert await service.begin(PRINCIPAL, "k", REQUEST) == ANSWER


MOVES = {
    "another request": "UPDATE idempotency_keys SET fingerprint = :other WHERE key = 'k'",
    "another key": "UPDATE idempotency_keys SET key = 'l' WHERE key = 'k'",
    "another API key": "UPDATE idempotency_keys SET api_key_id = gen_random_uuid() WHERE key = 'k'",
    "another claim": "UPDATE secrets SET id = :claim",
    "no answer": "DELETE FROM secrets",
}


@pytest.mark.parametrize("move", MOVES)
async def test_an_answer_that_was_moved_is_not_replayed(database: Database, keys: KeySource, move: str) -> None:
    service = await started(database, keys)
    await service.complete(await ticket(service), ANSWER)
    claim = uuid4()
    values = {"other": OTHER_REQUEST, "claim": claim}
    await execute(database, MOVES[move], **{name: value for name, value in values.items() if f":{name}" in MOVES[move]})
    if move == "another claim":
        await execute(database, "UPDATE idempotency_keys SET id = :claim", claim=claim)
    async with database.connect() as connection:
        query = text("SELECT api_key_id, key, fingerprint FROM idempotency_keys")
        api_key_id, key, request = (await connection.execute(query)).one()
    with pytest.raises(DecryptionFailed):
        await service.begin(api_key_id, key, bytes(request))
