"""Saved profiles where something fails: the last whole state stays, the profile is free, and the answer says why."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import text

from gateway.app import Gateway, build
from gateway.core.ids import new_id
from gateway.crypto.keyring import create_key_file
from gateway.domain.secrets import KeySource
from gateway.settings import Settings
from gateway.store import browser_profiles
from gateway.store.objects import Objects
from tests.support.api import Json, make_space, make_subaccount, ok, refused
from tests.support.away import Away
from tests.support.closing_browsers import Bot, ClosingLauncher
from tests.support.mounts import small_disk
from tests.support.waiting import until, until_locked

PATH = "/v1/browser-profiles"


def large(byte: int) -> bytes:
    """More than three chunks, of nothing that compresses."""
    return random.Random(byte).randbytes(3_500_000)


@pytest.fixture
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    return settings.model_copy(update=getattr(request, "param", {}))


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Away]:
    opened = Away(database_url, 10)
    yield opened
    await opened.close()


@pytest_asyncio.fixture
async def launcher(tmp_path: Path) -> AsyncIterator[ClosingLauncher]:
    async with ClosingLauncher(tmp_path / "runtimes").serving() as launcher:
        yield launcher


@pytest.fixture
async def bot(client: httpx.AsyncClient, launcher: ClosingLauncher) -> Bot:
    return await made(client, launcher, "bot")


async def made(client: httpx.AsyncClient, launcher: ClosingLauncher, name: str) -> Bot:
    profile = await ok(client.post(PATH, json={"name": name}))
    return Bot(client, launcher, await make_space(client), profile)


def stored(gateway: Gateway) -> list[Path]:
    """The states in storage, also what is left of unfinished ones."""
    directory = Objects.of(gateway.services.settings).directory
    assert directory is not None
    return sorted(path for path in (directory / "profiles").glob("*") if path.is_file())


async def path_of(gateway: Gateway, database: Away, bot: Bot) -> Path:
    """Where the state of a profile is."""
    async with database.connect() as connection:
        found = await connection.execute(text("SELECT object_id FROM browser_profiles WHERE id = :id"), {"id": bot.id})
        name = str(found.scalar_one())
    (path,) = (path for path in stored(gateway) if path.name == name)
    return path


# Writing the row


async def test_a_save_whose_commit_was_not_answered_is_a_save(
    bot: Bot, gateway: Gateway, database: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again, finds itself done, and keeps the object that the row has."""
    await bot.saves(b"first")
    save = browser_profiles.save
    tried: list[bool] = []

    async def save_and_lose(*given: Any) -> Any:
        database.mute = True
        return await save(*given)

    has_state = browser_profiles.has_state

    async def looks(*given: Any) -> bool:
        database.mute = False
        tried.append(await has_state(*given))
        return tried[-1]

    monkeypatch.setattr(browser_profiles, "save", save_and_lose)
    monkeypatch.setattr(browser_profiles, "has_state", looks)
    runtime = await bot.launch()
    bot.write(runtime, b"second")
    await bot.stop(runtime)
    await until(lambda: len(tried) == 2, "the save is tried again")
    shown = await bot.free()
    assert tried == [False, True]
    assert (shown["generation"], shown["saveError"]) == (2, None)
    assert (await path_of(gateway, database, bot)).exists()
    assert await bot.left() == b"second"


@pytest.mark.parametrize("settings", [{"shutdown_grace_seconds": 1}], indirect=True)
async def test_a_gateway_that_may_not_wait_for_the_row_leaves_object_and_claim_in_order(
    settings: Settings, database: Away, keys: KeySource, launcher: ClosingLauncher, api_key: str
) -> None:
    """The object may belong to the row by then, so it is left to the sweep; the profile is free at once."""
    gateway = await build(settings, database, keys, launcher, new_id(), ())
    headers = {"Authorization": f"Bearer {api_key}"}
    transport = httpx.ASGITransport(gateway.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8787", headers=headers) as client:
        async with database.connect() as holding, gateway.running():
            bot = await made(client, launcher, "bot")
            await bot.saves(b"first")
            runtime = await bot.launch()
            bot.write(runtime, b"second")
            await holding.execute(text("BEGIN"))
            await holding.execute(text("SELECT FROM organizations FOR NO KEY UPDATE"))
            await bot.stop(runtime)
            await until_locked(database)
            await gateway.drain()
            assert len(stored(gateway)) == 2
            closing = asyncio.create_task(gateway.services.profiles.close())
            await asyncio.wait({closing})
            await holding.execute(text("ROLLBACK"))
        assert len(stored(gateway)) == 2
        row = await row_of(database)
        assert row == (1, None, "browser_profile.not_saved")
        old = await path_of(gateway, database, bot)
        for path in stored(gateway):
            os.utime(path, (0, 0))
        assert await gateway.services.files.sweep() == 1
        assert stored(gateway) == [old]


async def row_of(database: Away) -> tuple[Any, ...]:
    async with database.connect() as connection:
        found = await connection.execute(
            text("SELECT generation, runtime_id, save_error_code FROM browser_profiles WHERE name = 'bot'")
        )
        return tuple(found.one())


@pytest.mark.parametrize("settings", [{"shutdown_grace_seconds": 1}], indirect=True)
async def test_a_gateway_that_stops_before_a_browser_has_closed_frees_its_profile(
    bot: Bot, gateway: Gateway, database: Away
) -> None:
    await bot.saves(b"first")
    await bot.launch()
    bot.launcher.may_close.clear()
    await gateway.drain()
    assert (await row_of(database))[1] is not None
    await gateway.services.profiles.close()
    assert await row_of(database) == (1, None, "browser_profile.not_saved")
    bot.launcher.may_close.set()


async def test_all_profiles_are_saved_when_the_gateway_stops(
    client: httpx.AsyncClient, launcher: ClosingLauncher, gateway: Gateway, database: Away
) -> None:
    runtimes = []
    for number in range(8):
        bot = await made(client, launcher, f"bot-{number}")
        runtimes.append(await bot.launch(profile=bot.id))
        bot.write(runtimes[-1], b"%d" % number)
    await gateway.drain()
    async with database.connect() as connection:
        rows = await connection.execute(text("SELECT generation, runtime_id, save_error_code FROM browser_profiles"))
        assert [tuple(row) for row in rows] == [(1, None, None)] * 8


async def test_a_restart_says_what_was_not_saved(bot: Bot, gateway: Gateway, database: Away) -> None:
    await bot.saves(b"first")
    runtime = await bot.launch()
    await gateway.services.profiles.saves.release_left()
    assert (await bot.free())["saveError"]["code"] == "browser_profile.not_saved"
    await bot.stop(runtime)


@pytest.mark.parametrize(("seconds", "free"), [(25, False), (31, True)])
async def test_the_profile_of_a_silent_gateway_is_free_after_thirty_seconds(
    bot: Bot, database: Away, seconds: int, free: bool
) -> None:
    await bot.saves(b"first")
    other, runtime = new_id(), new_id()
    async with database.begin() as connection:
        await connection.execute(
            text(
                "INSERT INTO gateways (id, version, heartbeat_at)"
                " VALUES (:id, '1', now() - make_interval(secs => :seconds))"
            ),
            {"id": other, "seconds": seconds},
        )
        await connection.execute(
            text("UPDATE browser_profiles SET gateway_id = :id, runtime_id = :runtime"),
            {"id": other, "runtime": runtime},
        )
    if not free:
        assert (await bot.shown())["inUse"]["runtimeId"] == str(runtime)
        return
    assert (await bot.shown())["inUse"] is None
    launched = await bot.launch()
    # What the lost gateway had is not there, and that is said.
    assert bot.read(launched) == b"first"
    assert (await bot.shown())["saveError"]["code"] == "browser_profile.not_saved"
    await bot.stop(launched)
    assert (await bot.free())["saveError"] is None


async def test_a_profile_that_gets_free_during_a_claim_is_claimed(bot: Bot, monkeypatch: pytest.MonkeyPatch) -> None:
    claim = browser_profiles.claim
    late = [True]

    async def claims(*given: Any) -> bool:
        return False if late and late.pop() else await claim(*given)

    monkeypatch.setattr(browser_profiles, "claim", claims)
    await bot.stop(await bot.launch())
    assert (await bot.free())["generation"] == 1


# What a hostile browser says


@pytest.mark.parametrize("cookies", ["all of them", [1], {"a": 1}])
async def test_cookies_that_are_none_are_not_saved(bot: Bot, cookies: Any) -> None:
    await bot.saves(b"first")
    bot.launcher.cookies = {"cookies": cookies}
    shown = await bot.saves(b"second")
    assert (shown["generation"], shown["saveError"]["code"]) == (1, "browser_profile.not_saved")
    assert "cookies" in shown["saveError"]["message"]
    bot.launcher.cookies = {}
    assert await bot.left() == b"first"


# Storage


async def test_a_full_disk_of_runtimes_refuses_the_launch(bot: Bot, gateway: Gateway, tmp_path: Path) -> None:
    await bot.saves(large(1))
    with small_disk(tmp_path / "runtimes", megabytes=2):
        for body in ({}, {"readOnly": True}):
            await refused(bot.launching(**body), 503, "gateway.disk_full")
            await bot.free()
    assert await bot.left() == large(1)
    assert len(stored(gateway)) == 1


async def test_a_full_disk_of_storage_leaves_the_last_state(bot: Bot, gateway: Gateway) -> None:
    await bot.saves(b"first")
    (first,) = stored(gateway)
    whole = first.read_bytes()
    with small_disk(first.parent, megabytes=2):
        first.write_bytes(whole)
        shown = await bot.saves(large(1))
        assert (shown["generation"], shown["saveError"]["code"]) == (1, "storage.disk_full")
        assert stored(gateway) == [first]
        assert await bot.left() == b"first"
    assert (await bot.saves(large(1)))["saveError"] is None


@pytest.mark.parametrize("settings", [{"profile_restore_seconds": 0.2}], indirect=True)
@pytest.mark.parametrize("windows", [0, 1])
async def test_a_storage_that_does_not_answer_ends_the_launch(
    bot: Bot, monkeypatch: pytest.MonkeyPatch, windows: int
) -> None:
    content = random.Random(1).randbytes(9_000_000)
    await bot.saves(content)
    read = Objects.read
    hanging = True

    async def hangs(objects: Objects, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        number = 0
        async for window in read(objects, key, start, end):
            if hanging and number == windows:
                await asyncio.Event().wait()
            number += 1
            yield window

    monkeypatch.setattr(Objects, "read", hangs)
    await refused(bot.launching(), 503, "storage.unavailable")
    hanging = False
    monkeypatch.setattr(Objects, "read", read)
    assert (await bot.free())["generation"] == 1


@pytest.mark.parametrize("settings", [{"profile_store_seconds": 0.2}], indirect=True)
async def test_a_storage_that_takes_nothing_does_not_hold_the_profile(
    bot: Bot, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither an answer nor an error comes, also not to what discards the bytes."""

    async def hangs(*_: Any, **__: Any) -> None:
        await asyncio.Event().wait()

    with monkeypatch.context() as patched:
        patched.setattr("obstore.put_async", hangs)
        shown = await bot.saves(large(1))
    assert (shown["generation"], shown["saveError"]["code"]) == (0, "browser_profile.not_saved")
    assert "0.2 seconds" in shown["saveError"]["message"]
    assert stored(gateway) == []


@pytest.mark.parametrize("windows", [0, 1, 2])
async def test_a_storage_that_fails_during_a_launch_or_a_clone(
    bot: Bot, gateway: Gateway, monkeypatch: pytest.MonkeyPatch, windows: int
) -> None:
    """Before each piece that is read; nothing of a clone stays."""
    content = random.Random(1).randbytes(9_000_000)
    await bot.saves(content)
    read = Objects.read

    async def fails(objects: Objects, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        number = 0
        async for window in read(objects, key, start, end):
            if number == windows:
                async for _ in read(objects, "profiles/nothing", 0, 1):
                    raise AssertionError("it was read")
            number += 1
            yield window

    monkeypatch.setattr(Objects, "read", fails)
    await refused(bot.launching(), 503, "storage.unavailable")
    await bot.free()
    await refused(bot.client.post(f"{PATH}/{bot.id}/clone", json={"name": "x"}), 503, "storage.unavailable")
    assert len(stored(gateway)) == 1
    monkeypatch.setattr(Objects, "read", read)
    assert await bot.left() == content


async def test_a_state_of_another_time_or_profile_is_refused(
    client: httpx.AsyncClient, launcher: ClosingLauncher, bot: Bot, gateway: Gateway, database: Away
) -> None:
    """An earlier state of the same profile in the place of the newest one, and two profiles' states swapped."""
    await bot.saves(large(1))
    earlier = (await path_of(gateway, database, bot)).read_bytes()
    await bot.saves(large(2))
    newest = await path_of(gateway, database, bot)
    whole = newest.read_bytes()
    assert len(earlier) == len(whole)
    newest.write_bytes(earlier)
    await refused(bot.launching(), 500, "browser_profile.damaged")
    await bot.free()
    newest.write_bytes(whole)
    second = await made(client, launcher, "second")
    runtime = await second.launch(profile="second")
    second.write(runtime, large(3))
    await second.stop(runtime)
    await second.free()
    theirs = await path_of(gateway, database, second)
    kept = theirs.read_bytes()
    newest.write_bytes(kept)
    theirs.write_bytes(whole)
    for name in ("bot", "second"):
        await refused(bot.launching(profile=name), 500, "browser_profile.damaged")
    newest.write_bytes(whole)
    theirs.write_bytes(kept)
    assert await bot.left() == large(2)


async def test_without_its_master_key_a_state_is_refused_and_kept(bot: Bot, gateway: Gateway, tmp_path: Path) -> None:
    """A rotation that took the old key away too early: with the key back, all is there."""
    await bot.saves(b"first")
    file = tmp_path / "master-keys"
    old = file.read_text()
    create_key_file(tmp_path / "new", "new")
    file.write_text((tmp_path / "new").read_text())
    await refused(bot.launching(), 500, "browser_profile.damaged")
    await refused(bot.client.post(f"{PATH}/{bot.id}/clone", json={"name": "x"}), 500, "browser_profile.damaged")
    shown = await bot.free()
    assert (shown["generation"], shown["saveError"]) == (1, None)
    file.write_text((tmp_path / "new").read_text() + old)
    assert await bot.left() == b"first"
    # What is saved now is under the new key.
    await bot.saves(b"second")
    file.write_text((tmp_path / "new").read_text())
    assert await bot.left() == b"second"


# Limits


async def test_a_subaccounts_own_limits_of_profiles(
    client: httpx.AsyncClient, launcher: ClosingLauncher, gateway: Gateway
) -> None:
    """Under, at and over each of them, and a lower limit takes nothing away."""
    subaccount, own = await make_subaccount(client, limits={"maxProfiles": 1})

    async def limits(**given: int) -> Json:
        changed: Json = await ok(client.patch(f"/v1/subaccounts/{subaccount}", json={"limits": given}))
        assert changed["limits"] == given
        return changed

    profile = await ok(client.post(PATH, json={"name": "bot", "subaccountId": subaccount}))
    body = await refused(client.post(PATH, json={"name": "b"}, headers=own), 429, "subaccount.max_profiles")
    assert body["details"] == {"limit": 1}
    await refused(client.post(f"{PATH}/{profile['id']}/clone", json={"name": "b"}), 429, "subaccount.max_profiles")
    bot = Bot(client, launcher, await make_space(client, subaccountId=subaccount), profile)
    await limits(maxProfiles=0, maxBytesPerProfile=1000)
    assert (await bot.saves(b"x" * 1000))["generation"] == 1
    shown = await bot.saves(b"x" * 1001)
    assert (shown["generation"], shown["saveError"]["code"]) == (1, "browser_profile.too_large")
    assert "1000 bytes" in shown["saveError"]["message"]
    await limits(maxBytesPerProfile=0)
    # What is there can be launched.
    assert await bot.left() == b"x" * 1000
    await limits()
    size = (await bot.saves(large(1)))["storedBytes"]
    await limits(maxProfileBytes=size)
    assert (await bot.saves(large(2)))["saveError"] is None
    await limits(maxProfileBytes=1)
    # It takes no more than before.
    assert (await bot.saves(large(3)))["saveError"] is None
    shown = await bot.saves(large(4) + b"more")
    assert shown["saveError"]["code"] == "subaccount.profiles_full"
    body = await refused(client.post(f"{PATH}/{bot.id}/clone", json={"name": "b"}), 409, "subaccount.profiles_full")
    assert body["details"] == {"limit": 1, "used": size}
    assert await bot.left() == large(3)
    await limits(maxProfileBytes=2 * size)
    await ok(client.post(f"{PATH}/{bot.id}/clone", json={"name": "b"}))
    await refused(client.post(f"{PATH}/{bot.id}/clone", json={"name": "c"}), 409, "subaccount.profiles_full")
    # Others have those of the settings alone.
    await ok(client.post(PATH, json={"name": "of the organization"}))


@pytest.mark.parametrize("settings", [{"subaccount_max_profiles": 1}], indirect=True)
async def test_a_subaccounts_own_limit_is_not_above_the_gateways(client: httpx.AsyncClient) -> None:
    subaccount, own = await make_subaccount(client, limits={"maxProfiles": 5, "maxProfileBytes": 2**50})
    await ok(client.post(PATH, json={"name": "a"}, headers=own))
    body = await refused(client.post(PATH, json={"name": "b"}, headers=own), 429, "subaccount.max_profiles")
    assert body["details"] == {"limit": 1}
    assert subaccount


async def test_a_state_that_is_larger_than_the_limits_of_today_is_launched(
    bot: Bot, gateway: Gateway, database: Away, keys: KeySource, launcher: ClosingLauncher, api_key: str
) -> None:
    await bot.saves(large(1))
    settings = gateway.services.settings.model_copy(update={"profile_max_bytes": 1000})
    other = await build(settings, database, keys, launcher, new_id(), ())
    headers = {"Authorization": f"Bearer {api_key}"}
    transport = httpx.ASGITransport(other.app)
    async with (
        other.running(),
        httpx.AsyncClient(transport=transport, base_url="http://localhost:8787", headers=headers) as client,
    ):
        there = Bot(client, launcher, await make_space(client), await bot.shown())
        runtime = await there.launch()
        assert there.read(runtime) == large(1)
        await there.stop(runtime)
        assert (await there.free())["saveError"]["code"] == "browser_profile.too_large"


async def test_why_a_profile_is_not_saved_is_in_the_updates(bot: Bot, gateway: Gateway, database: Away) -> None:
    runtime = await bot.launch()
    bot.launcher.cookies = {"cookies": 1}
    await bot.stop(runtime)
    shown = await bot.free()
    query = text("SELECT data FROM events WHERE type = 'browser_profile.save_failed'")

    async def data() -> list[Json]:
        async with database.connect() as connection:
            return list((await connection.execute(query)).scalars())

    async def is_published() -> bool:
        return bool(await data())

    await until(is_published, "the update is published")
    (found,) = await data()
    assert found == {"profileId": bot.id, "name": "bot", "runtimeId": runtime["id"], **shown["saveError"]}


# Requests during a save


async def test_a_clone_of_a_taken_name_writes_nothing(
    bot: Bot, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bot.saves(b"first")
    # Taken before, and taken while the state was copied.
    await refused(bot.client.post(f"{PATH}/{bot.id}/clone", json={"name": "bot"}), 409, "browser_profile.name_taken")
    assert len(stored(gateway)) == 1
    monkeypatch.setattr(browser_profiles, "is_taken", never)
    await refused(bot.client.post(f"{PATH}/{bot.id}/clone", json={"name": "bot"}), 409, "browser_profile.name_taken")
    assert len(stored(gateway)) == 1


async def never(*_: Any) -> bool:
    return False


async def test_what_follows_a_stop_at_once_waits_for_the_save(bot: Bot) -> None:
    sends: list[Callable[[], Any]] = [
        lambda: bot.client.post(f"{PATH}/{bot.id}/clone", json={"name": "clone"}),
        lambda: bot.launching(readOnly=True),
        lambda: bot.client.post(f"{PATH}/{bot.id}/reset"),
        lambda: bot.client.delete(f"{PATH}/{bot.id}"),
    ]
    for number, send in enumerate(sends):
        runtime = await bot.launch()
        bot.write(runtime, b"%d" % number)
        bot.launcher.may_close.clear()
        await bot.stop(runtime)
        sent = asyncio.ensure_future(send())
        done, _ = await asyncio.wait({sent}, timeout=0.2)
        assert not done
        bot.launcher.may_close.set()
        answer = await ok(sent)
        if number == 0:
            assert (answer["name"], answer["sizeBytes"]) == ("clone", 1)
            cloned = await bot.launch(profile="clone", readOnly=True)
            assert bot.read(cloned) == b"0"
            await bot.stop(cloned)
        elif number == 1:
            assert bot.read(answer) == b"1"
            await bot.stop(answer)
    await refused(bot.client.get(f"{PATH}/{bot.id}"), 404, "browser_profile.not_found")


async def test_a_stop_waits_for_a_slow_database_and_not_for_the_browser(bot: Bot, database: Away) -> None:
    runtime = await bot.launch()
    bot.launcher.may_close.clear()
    async with database.begin() as holding:
        await holding.execute(text("SELECT FROM runtimes FOR UPDATE"))
        stopping = asyncio.ensure_future(bot.stop(runtime))
        # A slow database does not let a browser live on.
        await bot.launcher.was_asked.wait()
        assert not stopping.done()
    stopped = await stopping
    has_closed = bot.launcher.browsers[UUID(runtime["id"])].ended.done()
    bot.launcher.may_close.set()
    assert (stopped["status"], has_closed) == ("stopped", False)
    assert (await bot.free())["saveError"] is None


@pytest.mark.parametrize("settings", [{"profile_wait_seconds": 0.0}], indirect=True)
async def test_what_may_not_wait_any_longer_says_so_or_takes_the_last_state(bot: Bot) -> None:
    await bot.saves(b"1")
    runtime = await bot.launch()
    bot.launcher.may_close.clear()
    await bot.stop(runtime)
    for request in (bot.client.post(f"{PATH}/{bot.id}/reset"), bot.client.delete(f"{PATH}/{bot.id}"), bot.launching()):
        answer = await request
        assert (answer.status_code, answer.json()["details"]["saving"]) == (409, True)
        assert answer.headers["retry-after"] == "1"
    assert (await ok(bot.client.post(f"{PATH}/{bot.id}/clone", json={"name": "clone"})))["sizeBytes"] == 1
    assert await bot.left() == b"1"
    bot.launcher.may_close.set()
    await bot.free()


async def test_the_maximum_lifetime_saves(bot: Bot, gateway: Gateway, database: Away) -> None:
    runtime = await bot.launch()
    bot.write(runtime, b"old")
    async with database.begin() as connection:
        await connection.execute(text("UPDATE runtimes SET created_at = now() - interval '40 days'"))
    gateway.supervisor.wake()
    assert (await bot.free())["generation"] == 1
    assert await bot.left() == b"old"
