"""API keys that a gateway knows for a second: what it saves, and that whatever takes a key away holds when answered."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from gateway.core.errors import GatewayError
from gateway.core.ids import new_id
from gateway.core.scope import Scope
from gateway.crypto.tokens import TokenIssuer
from gateway.domain.accounts.access import Access, Principal
from gateway.domain.accounts.known_keys import KNOWN_SECONDS, KnownKeys
from gateway.domain.accounts.organizations import Organizations
from gateway.domain.audit import Audit
from gateway.store import accounts, gateways
from gateway.store.accounts import KeyRecord
from gateway.store.database import Connection, Database

PEPPER = b"pepper of these tests, 32 bytes."
KEY = KeyRecord(uuid4(), uuid4(), None, b"digest", usable=True, suspended=False, expires_in=None)


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


class Counting(Database):
    """Counts the connections that are taken for single statements."""

    taken = 0

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[Connection]:
        self.taken += 1
        async with super().connect() as connection:
            yield connection


async def _gateway(database: Database, known: KnownKeys | None = None) -> Access:
    """The accounts of a gateway that lives."""
    gateway_id = new_id()
    async with database.connect() as connection:
        await gateways.beat(connection, gateway_id, "1", None)
    return Access(database, TokenIssuer(PEPPER), Audit(database, gateway_id), gateway_id, known)


async def _organization(database: Database) -> Scope:
    return Scope((await Organizations(database, Audit(database)).create("acme")).id)


async def _key(access: Access, scope: Scope, expires_at: datetime | None = None) -> tuple[Principal, str]:
    _, secret = await access.create_key(scope, None, expires_at)
    header = f"Bearer {secret}"
    return await access.authenticate(header), header


@pytest.mark.parametrize(("expires_in", "seconds"), [(None, KNOWN_SECONDS), (0.25, 0.25), (3600.0, KNOWN_SECONDS)])
def test_a_key_is_known_from_before_it_was_read_until_it_expires(expires_in: float | None, seconds: float) -> None:
    clock = Clock()
    known = KnownKeys(clock)
    key = replace(KEY, expires_in=expires_in)
    reading = known.reading()
    clock.seconds += 0.125
    known.keep("one", key, reading)
    clock.seconds = 100 + seconds - 0.0625
    assert known.get("one") == key
    clock.seconds = 100 + seconds
    assert known.get("one") is None
    assert known.get("two") is None


def test_what_was_read_before_keys_were_forgotten_is_not_kept() -> None:
    known = KnownKeys(Clock())
    before = known.reading()
    known.forget()
    known.keep("one", KEY, before)
    assert known.get("one") is None
    known.keep("one", KEY, known.reading())
    assert known.get("one") == KEY


async def test_a_busy_caller_asks_the_database_once_a_second(database_url: str) -> None:
    database, clock = Counting(database_url, 2), Clock()
    access = await _gateway(database, KnownKeys(clock))
    scope = await _organization(database)
    principal, header = await _key(access, scope)
    database.taken = 0
    assert [await access.authenticate(header) for _ in range(5)] == [principal] * 5
    assert database.taken == 0
    with pytest.raises(GatewayError, match="unknown, expired or revoked"):
        # The part that can be seen is known, the secret is another one.
        await access.authenticate(header[:-4] + "AAAA")
    clock.seconds += KNOWN_SECONDS
    assert await access.authenticate(header) == principal
    assert database.taken == 1
    await database.close()


async def test_the_row_says_how_long_a_key_is_valid(database: Database) -> None:
    access = await _gateway(database)
    organization = await _organization(database)
    for lasts in (timedelta(hours=1), None):
        expires_at = None if lasts is None else datetime.now(UTC) + lasts
        key, _ = await access.create_key(organization, None, expires_at)
        async with database.connect() as connection:
            found = await accounts.key_by_prefix(connection, key.prefix)
        assert found is not None
        if lasts is None:
            assert found.expires_in is None
        else:
            assert found.expires_in is not None
            assert 3000 < found.expires_in <= 3600


TakingAway = Callable[[Database, Access, Scope, Principal], Awaitable[object]]


async def _revoke(database: Database, access: Access, organization: Scope, caller: Principal) -> None:
    await access.revoke_key(organization, caller.key_id)


async def _revoke_of(database: Database, access: Access, organization: Scope, caller: Principal) -> None:
    assert caller.scope.subaccount_id is not None
    await access.revoke_key_of(Principal(uuid4(), organization), caller.scope.subaccount_id, caller.key_id)


async def _archive(database: Database, access: Access, organization: Scope, caller: Principal) -> None:
    assert caller.scope.subaccount_id is not None
    await access.archive_subaccount(Principal(uuid4(), organization), caller.scope.subaccount_id)


async def _suspend(database: Database, access: Access, organization: Scope, caller: Principal) -> None:
    await Organizations(database, Audit(database)).suspend(organization.organization_id)


@pytest.mark.parametrize("take_away", [_revoke, _revoke_of, _archive, _suspend])
async def test_no_gateway_accepts_a_key_once_that_was_answered(database: Database, take_away: TakingAway) -> None:
    here, there = await _gateway(database), await _gateway(database)
    organization = await _organization(database)
    subaccount = await here.create_subaccount(Principal(uuid4(), organization), "one")
    caller, header = await _key(here, Scope(organization.organization_id, subaccount.id))
    for access in (here, there):
        assert await access.authenticate(header) == caller
    await take_away(database, here, organization, caller)
    for access in (here, there):
        with pytest.raises(GatewayError, match=r"unknown, expired or revoked|is suspended"):
            await access.authenticate(header)


async def test_the_gateway_that_revokes_a_key_forgets_it(database: Database) -> None:
    access = await _gateway(database, KnownKeys(Clock()))
    organization = await _organization(database)
    caller, header = await _key(access, organization)
    await access.revoke_key(organization, caller.key_id)
    with pytest.raises(GatewayError, match="unknown, expired or revoked"):
        await access.authenticate(header)
