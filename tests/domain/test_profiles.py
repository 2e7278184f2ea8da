"""Runtimes that are launched from profiles: one writer, whole states, and what prevents a save."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import text

from gateway.app import Gateway
from gateway.core.errors import Unavailable
from gateway.core.ids import new_id
from gateway.launchers.base import FilesHold
from gateway.settings import Settings
from gateway.store.database import Database
from gateway.store.objects import Objects
from tests.support.api import make_space, make_subaccount, ok, refused
from tests.support.closing_browsers import COOKIE, CRASHED, Bot, ClosingLauncher
from tests.support.launchers import WorkingLauncher
from tests.support.tiers import first_of
from tests.support.waiting import until

PATH = "/v1/browser-profiles"


@pytest.fixture
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    return settings.model_copy(update=getattr(request, "param", {}))


@pytest_asyncio.fixture
async def launcher(tmp_path: Path) -> AsyncIterator[ClosingLauncher]:
    async with ClosingLauncher(tmp_path / "runtimes").serving() as launcher:
        yield launcher


@pytest.fixture
async def space(client: httpx.AsyncClient) -> str:
    return await make_space(client)


@pytest.fixture
async def bot(client: httpx.AsyncClient, launcher: ClosingLauncher, space: str) -> Bot:
    made = await ok(client.post(PATH, json={"name": "bot"}))
    return Bot(client, launcher, space, made)


async def test_the_next_runtime_begins_with_what_the_last_one_left(bot: Bot, space: str) -> None:
    runtime = await bot.launch()
    assert (runtime["backing"], runtime["summary"]["launchMode"]) == ({"kind": "profile"}, "profile")
    assert runtime["summary"]["profileId"] == bot.id
    assert bot.read(runtime) is None
    shown = await bot.shown()
    assert shown["inUse"] == {"runtimeId": runtime["id"], "workspaceId": space, "alias": None, "saving": False}
    assert shown["lastUsedAt"] is not None
    bot.write(runtime, b"login")
    await bot.stop(runtime)
    # By its id, and at once: the launch waits for the save.
    again = await bot.launch(profile=bot.id)
    assert bot.read(again) == b"login"
    # Session cookies alone: the others are in the browser's files.
    assert bot.launcher.restored[UUID(again["id"])] == [COOKIE]
    await bot.stop(again)
    saved = await bot.free()
    assert (saved["generation"], saved["browser"], saved["sizeBytes"]) == (2, "headless-shell", 5)
    assert saved["savedAt"] is not None


async def test_a_stop_is_answered_before_the_browser_has_closed(bot: Bot) -> None:
    runtime = await bot.launch()
    bot.write(runtime, b"login")
    bot.launcher.may_close.clear()
    assert (await bot.stop(runtime))["status"] == "stopped"
    assert (await bot.shown())["inUse"]["saving"]
    bot.launcher.may_close.set()
    assert (await bot.free())["generation"] == 1


async def test_one_runtime_saves_and_others_read(client: httpx.AsyncClient, bot: Bot, space: str) -> None:
    await bot.saves(b"first")
    workspace = f"/v1/workspaces/{space}/runtimes"
    launch = {"mode": "profile", "profileId": bot.id}
    writer = await ok(client.post(workspace, json={"alias": "main", "launch": launch}))
    assert (writer["summary"]["launchMode"], writer["summary"]["profileId"]) == ("profile", bot.id)
    for refusal in (bot.launching(), client.post(workspace, json={"alias": "second", "launch": launch})):
        details = (await refused(refusal, 409, "browser_profile.in_use"))["details"]
        where = {"runtimeId": writer["id"], "spaceId": space, "alias": "main", "saving": False}
        assert details == {"profileId": bot.id, **where}
    reader = await ok(client.post(workspace, json={"alias": "reader", "launch": {**launch, "readOnly": True}}))
    assert bot.read(reader) == b"first"
    bot.write(reader, b"unsaved")
    await bot.stop(reader)
    await bot.stop(writer)
    assert (await bot.free())["generation"] == 2
    assert await bot.left() == b"first"


@pytest.mark.parametrize("settings", [{"profile_wait_seconds": 0.0}], indirect=True)
async def test_a_launch_that_has_waited_long_enough_says_that_the_state_is_being_saved(bot: Bot) -> None:
    runtime = await bot.launch()
    bot.launcher.may_close.clear()
    await bot.stop(runtime)
    body = await refused(bot.launching(), 409, "browser_profile.in_use")
    assert (body["details"]["runtimeId"], body["details"]["saving"]) == (runtime["id"], True)
    bot.launcher.may_close.set()
    await bot.free()


async def test_of_launches_at_once_one_gets_the_profile(bot: Bot) -> None:
    answers = await asyncio.gather(*(bot.launching() for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409]


async def test_a_profile_of_another_owner_is_not_found(client: httpx.AsyncClient, bot: Bot) -> None:
    subaccount, own = await make_subaccount(client)
    theirs = await make_space(client, subaccountId=subaccount)
    for name in ("bot", bot.id, "nothing"):
        body = {"profile": name}
        await refused(
            client.post(f"/v1/spaces/{theirs}/runtimes", json=body, headers=own), 404, "browser_profile.not_found"
        )
        await refused(client.post(f"/v1/spaces/{theirs}/runtimes", json=body), 404, "browser_profile.not_found")


async def test_the_config_of_a_launch_takes_precedence(client: httpx.AsyncClient, bot: Bot) -> None:
    config = {"locale": "de-DE", "timezone": "Europe/Berlin", "proxy": {"url": "http://u:hidden@192.0.2.1:3128"}}
    await ok(client.patch(f"{PATH}/{bot.id}", json={"config": config}))
    runtime = await bot.launch(config={"locale": "fr-FR"})
    spec = bot.launcher.specs[-1]
    assert (spec.locale, spec.timezone) == ("fr-FR", "Europe/Berlin")
    assert spec.upstream is not None
    assert (spec.upstream.host, spec.upstream.password) == ("192.0.2.1", "hidden")
    assert runtime["config"]["timezone"] == "Europe/Berlin"
    assert "hidden" not in str(runtime)
    await bot.stop(runtime)


async def test_a_state_is_of_one_kind_of_browser(bot: Bot) -> None:
    await bot.saves(b"login")
    body = await refused(bot.launching(config={"browser": "chromium"}), 409, "browser_profile.other_browser")
    assert body["details"] == {"browser": "headless-shell"}
    await ok(bot.client.post(f"{PATH}/{bot.id}/reset"))
    runtime = await bot.launch(config={"browser": "chromium"})
    await bot.stop(runtime)
    assert (await bot.free())["browser"] == "chromium"


# What prevents a save


async def test_a_browser_that_crashes_leaves_the_last_state(bot: Bot) -> None:
    await bot.saves(b"first")
    runtime = await bot.launch()
    bot.write(runtime, b"half")
    bot.launcher.browsers[UUID(runtime["id"])].end(CRASHED)
    shown = await bot.free()
    assert (shown["generation"], shown["saveError"]["code"]) == (1, "browser_profile.not_saved")
    assert "crashed" in shown["saveError"]["message"]
    assert await bot.left() == b"first"
    assert (await bot.saves(b"second"))["saveError"] is None


@pytest.mark.parametrize("settings", [{"profile_close_seconds": 0.05}], indirect=True)
async def test_a_browser_that_does_not_close_is_killed_and_leaves_the_last_state(bot: Bot) -> None:
    runtime = await bot.launch()
    bot.launcher.may_close.clear()
    await bot.stop(runtime)
    shown = await bot.free()
    assert (shown["generation"], shown["saveError"]["code"]) == (0, "browser_profile.not_saved")
    assert bot.launcher.browsers == {}
    bot.launcher.may_close.set()


class StoppingObjects:
    """The storage stops once it has taken so many chunks; None: it works."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.chunks: int | None = None
        original = Objects.put

        async def put(objects: Objects, key: str, chunks: AsyncIterator[bytes]) -> int:
            return await original(objects, key, self._some(chunks))

        monkeypatch.setattr(Objects, "put", put)

    async def _some(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        number = 0
        async for chunk in chunks:
            if number == self.chunks:
                break
            number += 1
            yield chunk
        if self.chunks is not None:
            raise Unavailable("The storage does not work.", "storage.unavailable")


def large(byte: int) -> bytes:
    """More than three chunks, of nothing that compresses."""
    import random

    return random.Random(byte).randbytes(3_500_000)


@pytest.mark.parametrize("chunks", first_of([3, 0, 1, 4]))
async def test_a_storage_that_stops_leaves_the_last_state(
    bot: Bot, gateway: Gateway, monkeypatch: pytest.MonkeyPatch, chunks: int
) -> None:
    """Before the first chunk, between chunks, and after the last one."""
    storage = StoppingObjects(monkeypatch)
    await bot.saves(b"first")
    storage.chunks = chunks
    shown = await bot.saves(large(1))
    assert (shown["generation"], shown["saveError"]["code"]) == (1, "storage.unavailable")
    storage.chunks = None
    assert await bot.left() == b"first"
    objects = Objects.of(gateway.services.settings)
    assert objects.directory is not None
    assert len([path for path in (objects.directory / "profiles").iterdir() if path.is_file()]) == 1
    assert (await bot.saves(large(2)))["generation"] == 2
    assert await bot.left() == large(2)


@pytest.mark.parametrize(
    ("settings", "saved"),
    [({"profile_max_bytes": 1001}, True), ({"profile_max_bytes": 1000}, True), ({"profile_max_bytes": 999}, False)],
    indirect=["settings"],
)
async def test_the_size_of_a_profile_is_limited(bot: Bot, saved: bool) -> None:
    shown = await bot.saves(b"x" * 1000)
    assert shown["generation"] == saved
    assert (shown["saveError"] and shown["saveError"]["code"]) == (None if saved else "browser_profile.too_large")


@pytest.mark.parametrize("settings", [{"organization_max_profile_bytes": 2_000_000}], indirect=True)
async def test_bytes_of_all_profiles_are_limited_when_one_is_saved(bot: Bot) -> None:
    await bot.saves(b"first")
    shown = await bot.saves(large(1))
    assert (shown["generation"], shown["saveError"]["code"]) == (1, "organization.profiles_full")
    assert await bot.left() == b"first"


async def test_a_gateway_that_was_taken_for_lost_does_not_save(bot: Bot, database: Database) -> None:
    runtime = await bot.launch()
    bot.write(runtime, b"late")
    other = new_id()
    async with database.begin() as connection:
        await connection.execute(text("UPDATE browser_profiles SET runtime_id = :id"), {"id": other})
    await bot.stop(runtime)

    async def is_reported() -> bool:
        async with database.connect() as connection:
            found = await connection.execute(text("SELECT count(*) FROM events WHERE type LIKE '%.save_failed'"))
            return bool(found.scalar_one())

    await until(is_reported, "the failure is published")
    assert (await bot.shown())["generation"] == 0
    async with database.connect() as connection:
        row = (
            await connection.execute(text("SELECT runtime_id, object_id, save_error_code FROM browser_profiles"))
        ).one()
        secrets = await connection.execute(text("SELECT count(*) FROM secrets WHERE purpose = 'browser_profile.state'"))
        assert (tuple(row), secrets.scalar_one()) == ((other, None, None), 0)


async def test_the_profile_of_a_lost_gateway_is_free(bot: Bot, database: Database) -> None:
    await bot.launch()
    async with database.begin() as connection:
        await connection.execute(text("UPDATE browser_profiles SET gateway_id = :id"), {"id": new_id()})
    await bot.launch()


async def test_a_restarted_gateway_frees_what_its_earlier_process_used(
    bot: Bot, gateway: Gateway, database: Database
) -> None:
    async with database.begin() as connection:
        await connection.execute(
            text("UPDATE browser_profiles SET runtime_id = :id, gateway_id = :gateway"),
            {"id": new_id(), "gateway": gateway.id},
        )
    await gateway.services.profiles.saves.release_left()
    await bot.stop(await bot.launch())


# Ends


async def test_an_idle_end_saves(bot: Bot, gateway: Gateway, database: Database) -> None:
    runtime = await bot.launch()
    bot.write(runtime, b"idle")
    async with database.begin() as connection:
        await connection.execute(text("UPDATE runtimes SET last_active_at = now() - interval '1 day'"))
    gateway.supervisor.wake()
    assert (await bot.free())["generation"] == 1
    assert await bot.left() == b"idle"
    ended = await ok(bot.client.get(f"/v1/spaces/{runtime['spaceId']}/runtimes/{runtime['id']}"))
    assert ended["summary"]["endReason"]["code"] == "runtime.idle_timeout"


async def test_a_gateway_that_stops_saves(bot: Bot, gateway: Gateway, database: Database) -> None:
    runtime = await bot.launch()
    bot.write(runtime, b"drained")
    await gateway.drain()
    async with database.connect() as connection:
        row = (await connection.execute(text("SELECT generation, runtime_id FROM browser_profiles"))).one()
    assert tuple(row) == (1, None)


async def test_the_end_of_a_space_saves(bot: Bot, space: str) -> None:
    runtime = await bot.launch()
    bot.write(runtime, b"kept")
    await ok(bot.client.delete(f"/v1/spaces/{space}"))
    assert (await bot.free())["generation"] == 1


# Launches that fail


async def test_a_launch_that_fails_frees_the_profile(bot: Bot, gateway: Gateway, database: Database) -> None:
    await bot.saves(b"first")
    objects = Objects.of(gateway.services.settings)
    assert objects.directory is not None
    (stored,) = (objects.directory / "profiles").iterdir()
    whole = stored.read_bytes()
    stored.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    body = await refused(bot.launching(), 500, "browser_profile.damaged")
    assert str(objects.directory) not in str(body)
    await bot.free()
    stored.write_bytes(whole)
    assert await bot.left() == b"first"
    async with database.begin() as connection:
        await connection.execute(text("DELETE FROM secrets WHERE purpose = 'browser_profile.state'"))
    await refused(bot.launching(), 500, "browser_profile.damaged")
    await bot.free()


class LauncherWithoutProfiles(ClosingLauncher):
    async def launch(self, spec: Any) -> Any:
        return await WorkingLauncher.launch(self, spec)


async def test_a_launcher_without_profiles_is_refused(
    bot: Bot, launcher: ClosingLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(launcher), "launch", LauncherWithoutProfiles.launch)
    await refused(bot.launching(), 501, "browser_profile.none")
    assert launcher.browsers == {}
    await bot.free()


async def test_files_are_held_until_they_are_saved() -> None:
    hold = FilesHold()
    hold.hold("profile")
    assert not hold.settled.is_set()
    hold.release("profile")
    await hold.free()
