"""One profile, two gateways, and requests at the same moment: one writer, whole states, nothing left over."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import text

from gateway.app import build
from gateway.core.ids import new_id
from gateway.domain.secrets import KeySource
from gateway.settings import Settings
from gateway.store.database import Database
from gateway.store.objects import Objects
from tests.support.api import Json, make_space, ok
from tests.support.closing_browsers import PROFILES, Bot, ClosingLauncher

# `GATEWAY_TEST_RACES=200` for the whole of what is promised.
RACES = int(os.environ.get("GATEWAY_TEST_RACES", "4"))


@pytest_asyncio.fixture
async def pair(
    settings: Settings, database: Database, keys: KeySource, api_key: str, tmp_path: Path
) -> AsyncIterator[tuple[Bot, Bot]]:
    """A profile at two gateways on one database and one storage."""
    async with AsyncExitStack() as stack:
        bots: list[Bot] = []
        profile: Json = {}
        for name in ("a", "b"):
            launcher = await stack.enter_async_context(ClosingLauncher(tmp_path / name).serving())
            gateway = await build(settings, database, keys, launcher, new_id(), ())
            await stack.enter_async_context(gateway.running())
            client = await stack.enter_async_context(
                httpx.AsyncClient(
                    transport=httpx.ASGITransport(gateway.app),
                    base_url="http://localhost:8787",
                    headers={"Authorization": f"Bearer {api_key}"},
                )
            )
            profile = profile or await ok(client.post(PROFILES, json={"name": "bot"}))
            bots.append(Bot(client, launcher, await make_space(client), profile))
        yield bots[0], bots[1]


async def test_of_two_launches_one_wins_and_begins_with_what_the_last_one_left(pair: tuple[Bot, Bot]) -> None:
    """Each winner is stopped, and the next two launches begin at once: they wait for its save."""
    left: bytes | None = None
    for number in range(RACES):
        answers = await asyncio.gather(*(bot.launching() for bot in pair))
        assert sorted(answer.status_code for answer in answers) == [200, 409], [answer.text for answer in answers]
        winner = next(bot for bot, answer in zip(pair, answers, strict=True) if answer.status_code == 200)
        won, lost = sorted((answer.json() for answer in answers), key=lambda body: "code" in body)
        assert lost["code"] == "browser_profile.in_use"
        assert (lost["details"]["runtimeId"], lost["details"]["spaceId"]) == (won["id"], won["spaceId"])
        assert winner.read(won) == left
        left = b"%d" % number
        winner.write(won, left)
        await winner.stop(won)
    assert (await pair[0].free())["generation"] == RACES


@pytest.mark.parametrize("request_name", ["delete", "reset", "clone", "patch", "readOnly"])
async def test_a_launch_and_another_request_at_once(
    pair: tuple[Bot, Bot], database: Database, settings: Settings, request_name: str
) -> None:
    """Whichever is first: each is answered as if it had been alone before or after the other, and all is whole."""
    first, second = pair
    for number in range(max(2, RACES // 4)):
        name = f"bot-{number}"
        bot = Bot(first.client, first.launcher, first.space, await ok(first.client.post(PROFILES, json={"name": name})))
        runtime = await bot.launch(profile=name)
        bot.write(runtime, b"first")
        await bot.stop(runtime)
        path = f"{PROFILES}/{bot.id}"
        there = {
            "delete": second.client.build_request("DELETE", path),
            "reset": second.client.build_request("POST", f"{path}/reset"),
            "clone": second.client.build_request("POST", f"{path}/clone", json={"name": f"of {name}"}),
            "patch": second.client.build_request("PATCH", path, json={"metadata": {"a": 1}}),
            "readOnly": second.client.build_request("POST", second.runtimes, json={"profile": name, "readOnly": True}),
        }[request_name]
        await bot.free()
        launched, answer = await asyncio.gather(bot.launching(profile=name), second.client.send(there))
        found = (launched.status_code, answer.status_code)
        assert (
            found
            in {
                "delete": {(404, 200), (200, 409)},
                "reset": {(200, 200), (200, 409)},
                "clone": {(200, 200)},
                "patch": {(200, 200)},
                "readOnly": {(200, 200)},
            }[request_name]
        ), (launched.text, answer.text)
        if answer.status_code == 409:
            details = answer.json()["details"]
            assert (details["runtimeId"], details["saving"]) == (launched.json()["id"], False)
        if request_name == "readOnly":
            assert second.read(answer.json()) == b"first"
            second.write(answer.json(), b"unsaved")
            await second.stop(answer.json())
        if launched.status_code == 200:
            # A reset before the launch leaves nothing.
            assert bot.read(launched.json()) == (None if request_name == "reset" and found[1] == 200 else b"first")
            bot.write(launched.json(), b"second")
            await bot.stop(launched.json())
            assert (await bot.free())["saveError"] is None
    await only_the_states_of_rows(database, settings)


async def test_a_stop_on_one_gateway_and_a_launch_on_the_other(pair: tuple[Bot, Bot]) -> None:
    """The natural script, without a wait; the stop is asked of the gateway that does not have the browser."""
    runtime = await pair[0].launch()
    for number in range(max(2, RACES // 4)):
        here, there = pair[number % 2], pair[(number + 1) % 2]
        here.write(runtime, b"%d" % number)
        await ok(there.client.post(f"{here.runtimes}/{runtime['id']}/stop"))
        runtime = await there.launch()
        assert there.read(runtime) == b"%d" % number
    await pair[max(2, RACES // 4) % 2].stop(runtime)
    await pair[0].free()


async def only_the_states_of_rows(database: Database, settings: Settings) -> None:
    """Each row has its object, and each data key is that of a row."""
    directory = Objects.of(settings).directory
    assert directory is not None
    async with database.connect() as connection:
        found = await connection.execute(text("SELECT object_id FROM browser_profiles WHERE object_id IS NOT NULL"))
        ids = {str(object_id) for object_id in found.scalars()}
        keys = await connection.execute(text("SELECT id FROM secrets WHERE purpose = 'browser_profile.state'"))
        assert {str(key) for key in keys.scalars()} == ids
    # What was replaced stays for a minute.
    assert ids <= {path.name for path in (directory / "profiles").iterdir()}
