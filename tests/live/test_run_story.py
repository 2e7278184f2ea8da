"""A script of 50 steps over a lease, watched live and recorded: all records agree, in order."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import httpx
import pytest
from playwright.async_api import Browser, Page, async_playwright

from gateway.domain.secrets import KeySource
from gateway.launchers.local import browsers
from gateway.store.database import Database
from tests.support.live import Person, adopts_orphans_no_longer, live_gateway
from tests.support.pages import DOWNLOAD_NAME, PageServer
from tests.support.pictures import colour
from tests.support.waiting import until

STEPS = 50
# A JPEG and a video are only nearly what they show.
NEARLY = 24
# Between what the browser did and the picture of it.
SECONDS = 1.0

Recorded = dict[str, Any]


@pytest.fixture(autouse=True)
def _adopts_orphans_no_longer() -> Iterator[None]:
    yield
    adopts_orphans_no_longer()


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    """Of the person who watches."""
    found = browsers.find(None)
    assert found is not None
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=found.get(None).path)
        yield launched
        await launched.close()


def colour_of(step: int) -> tuple[int, int, int]:
    """One that differs from its neighbours by more than a picture is inexact."""
    return (step * 97 % 200 + 40, step * 61 % 200 + 40, step * 31 % 200 + 40)


class Recording:
    """What is on the recording of a run that still lives."""

    def __init__(self, api: httpx.AsyncClient, player: str) -> None:
        self._api = api
        self._player = player
        self._next = 0

    async def has(self, wanted: tuple[int, int, int]) -> None:
        """Return once a picture of this colour is on it, behind those that were seen before."""

        async def is_there() -> bool:
            fresh = (await self._api.get(f"{self._player}/frames?from={self._next}")).raise_for_status().json()
            for number, _, _ in fresh["frames"]:
                jpeg = (await self._api.get(f"{self._player}/frames/{number}")).raise_for_status().content
                self._next = number + 1
                if near(colour(jpeg, 40, 40), wanted):
                    return True
            return False

        await until(is_there, f"{wanted} is recorded")


class Script:
    """What a client does, step by step, and by which event of the record each step is known."""

    def __init__(self, page: Page, pages: PageServer, person: Person, recording: Recording) -> None:
        self.page = page
        self.pages = pages
        self.person = person
        self.recording = recording
        page.on("dialog", lambda dialog: asyncio.ensure_future(dialog.accept()))

    async def run(self) -> list[tuple[str, str]]:
        """The type of each step's event, and a text that its data have."""
        return [await self._step(number) for number in range(STEPS)]

    async def _step(self, number: int) -> tuple[str, str]:
        page = self.page
        if number % 5 == 0:
            red, green, blue = colour_of(number)
            url = self.pages.url(f"/step?number={number}&colour={red:02x}{green:02x}{blue:02x}")
            await page.goto(url)
            await self.person.sees((red, green, blue), 0.5, 0.5)
            await self.recording.has((red, green, blue))
            return "navigation", f"number={number}&"
        if number % 25 == 24:
            async with page.expect_download() as download:
                await page.click("#download")
            assert await (await download.value).failure() is None
            return "download", DOWNLOAD_NAME
        if number % 5 == 1:
            async with page.expect_console_message():
                await page.click("#step")
            return "console.message", f"clicked {number - 1}"
        if number % 5 == 2:
            await page.evaluate("(number) => fetch(`/blank?step=${number}`).then((answer) => answer.text())", number)
            return "network.response", f"step={number}"
        if number % 5 == 3:
            async with page.expect_event("pageerror"):
                await page.evaluate("(number) => setTimeout(() => { throw new Error(`wrong ${number}`) })", number)
            return "page.error", f"wrong {number}"
        await page.evaluate("(number) => confirm(`sure ${number}`)", number)
        return "dialog", f"sure {number}"


@pytest.mark.thorough
async def test_the_records_of_a_run_are_consistent(
    tmp_path: Path, database: Database, keys: KeySource, api_key: str, browser: Browser
) -> None:
    with PageServer() as pages:
        async with live_gateway(tmp_path, database, keys, api_key) as gateway, gateway.remote as remote:
            runtime = await remote.runtime(recording=True)
            run = f"/v1/runs/{(await remote.get(runtime))['activeRunId']}"
            lease = await remote.lease(runtime)
            view = await remote.post(f"{run}/live", {})
            person = await Person.at(browser, pages.url("/blank"), view["iframeUrl"])
            async with async_playwright() as playwright:
                client = await playwright.chromium.connect_over_cdp(lease.url)
                recording = Recording(remote.api, (await remote.post(f"{run}/recording", {}))["iframeUrl"])
                steps = await Script(client.contexts[0].pages[0], pages, person, recording).run()
                await client.close()
            await remote.post(f"{runtime}/stop", {})

            async def is_written() -> bool:
                return len((await remote.get(f"{run}/events?type=runtime.lifecycle"))["events"]) == 2

            await until(is_written, "the end is written")
            events = (await remote.get(f"{run}/events?limit=1000"))["events"]
            marks = in_order(events, steps)
            assert_ends_are_recorded(events)
            assert_activity_is_of(events, await remote.get(f"{run}/activity?limit=1000"))
            assert_commands_fit(events, (await remote.get(f"{run}/commands"))["commands"])
            assert_artifacts_fit(events, (await remote.get(f"{run}/artifacts?kind=download"))["artifacts"])

            async def is_ready() -> bool:
                return bool((await remote.post(f"{run}/recording", {}))["status"] == "ready")

            await until(is_ready, "the video is ready", seconds=60)
            player = (await remote.post(f"{run}/recording", {}))["iframeUrl"]
            began = moment((await remote.get(f"{player}/state"))["startedAt"])
            video = (await remote.api.get(f"{player}/video")).raise_for_status().content
            assert_video_shows(
                await asyncio.to_thread(colours, video),
                [
                    (colour_of(number), moment(mark["time"]) - began)
                    for number, mark in enumerate(marks)
                    if number % 5 == 0
                ],
            )


def moment(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def in_order(events: list[Recorded], steps: list[tuple[str, str]]) -> list[Recorded]:
    """The event of each step: each behind that of the step before."""
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    assert all(before["time"] <= after["time"] for before, after in pairwise(events))
    rest = iter(events)
    found = []
    for type_, text in steps:
        mark = next((event for event in rest if event["type"] == type_ and text in str(event["data"])), None)
        assert mark is not None, f"{type_} {text} is not recorded in its place"
        found.append(mark)
    return found


def assert_ends_are_recorded(events: list[Recorded]) -> None:
    """What frames a run is there once, in its order: the run holds the connection, and the connection the script."""
    framing = ("runtime.lifecycle", "connection.opened", "connection.closed", "viewer.opened", "viewer.closed")
    recorded = [(event["type"], event["data"].get("status")) for event in events if event["type"] in framing]
    assert recorded == [
        ("runtime.lifecycle", "started"),
        ("viewer.opened", None),
        ("connection.opened", None),
        ("connection.closed", None),
        ("viewer.closed", None),
        ("runtime.lifecycle", "stopped"),
    ]


def assert_activity_is_of(events: list[Recorded], activity: Recorded) -> None:
    """Its items are events, in their order, and no event that has a sentence is left out."""
    places = {event["id"]: event for event in events}
    items = activity["items"]
    assert [item["sequence"] for item in items] == sorted(item["sequence"] for item in items)
    for item in items:
        event = places[item["id"]]
        assert (item["sequence"], item["time"], item["type"]) == (event["sequence"], event["time"], event["type"])
        assert item["message"]
    shown = ("navigation", "dialog", "page.error", "artifact.created", "runtime.lifecycle", "connection.opened")
    assert {item["id"] for item in items} >= {event["id"] for event in events if event["type"] in shown}


def assert_commands_fit(events: list[Recorded], commands: list[Recorded]) -> None:
    names = [command["name"] for command in commands]
    assert names == ["connections.create", "live.create", "recording.create", "runtimes.stop"]
    assert {command["status"] for command in commands} == {"succeeded"}
    recorded = [event["data"]["name"] for event in events if event["type"] == "tool.command"]
    assert recorded == names
    last = next(event for event in reversed(events) if event["type"] == "navigation")
    assert commands[2]["createdAt"] <= last["time"] <= commands[3]["createdAt"]


def assert_artifacts_fit(events: list[Recorded], artifacts: list[Recorded]) -> None:
    """Newest first: one for each finished download."""
    recorded = [event["data"]["artifactId"] for event in events if event["type"] == "artifact.created"]
    assert [artifact["id"] for artifact in reversed(artifacts)] == recorded
    assert len(recorded) == STEPS // 25
    assert [artifact["name"] for artifact in artifacts] == [DOWNLOAD_NAME] * len(recorded)
    finished = [
        event["data"]["artifactId"]
        for event in events
        if event["type"] == "download" and event["data"]["state"] == "completed"
    ]
    assert finished == recorded


def near(seen: Sequence[int], wanted: Sequence[int]) -> bool:
    return all(abs(one - other) < NEARLY for one, other in zip(seen, wanted, strict=True))


def colours(video: bytes) -> list[tuple[float, list[int]]]:
    """Second and colour of the middle of each picture."""
    found = []
    with av.open(io.BytesIO(video), "r") as container:
        for picture in container.decode(video=0):
            plane = picture.reformat(format="rgb24").planes[0]
            middle = plane.line_size * (picture.height // 2) + 3 * (picture.width // 2)
            found.append((float(picture.time or 0), list(bytes(plane)[middle : middle + 3])))
    return found


def assert_video_shows(
    pictures: list[tuple[float, list[int]]], wanted: list[tuple[tuple[int, int, int], float]]
) -> None:
    """Each colour, at about its time, and behind the one before."""
    rest = iter(pictures)
    for wanted_colour, second in wanted:
        shown = next((at for at, seen in rest if near(seen, wanted_colour)), None)
        assert shown is not None, f"{wanted_colour} is not shown in its place"
        assert abs(shown - second) < SECONDS, f"{wanted_colour} is shown at {shown}, and was there at {second}"
