"""Recordings: what is taken of a browser, the video that is made of it, and the page that plays both, in a real one."""

from __future__ import annotations

import asyncio
import io
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import av
import httpx
import pytest
from playwright.async_api import Browser, Page, async_playwright
from sqlalchemy import text

from gateway.app import Gateway, build
from gateway.core.errors import Unavailable
from gateway.core.observation import Level
from gateway.core.scope import Scope
from gateway.domain.recordings import Recordings
from gateway.domain.secrets import KeySource
from gateway.launchers.local import browsers
from gateway.observer.masking import Masking
from gateway.observer.observers import Observation
from gateway.observer.recorder import Take
from gateway.observer.screencast import Frame, Screencasts, Tab, TabEvent
from gateway.settings import Settings
from gateway.store import recordings as store
from gateway.store.database import Database
from gateway.video import LEFT_ALONE
from gateway.video import encoder as encode
from gateway.video.reel import END, FRAME, Reel, ReelWriter
from gateway.video.writer import Disk
from tests.support.api import Json, bearer, make_subaccount, ok, problems, refused
from tests.support.devtools import DevTools
from tests.support.gateway_process import MEASURED, GatewayProcess, temporary_data_dir
from tests.support.launchers import WorkingLauncher
from tests.support.pages import PageServer
from tests.support.pictures import Colour, colour, solid
from tests.support.remote import Remote
from tests.support.serving import serving
from tests.support.waiting import until

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 200, 0), (0, 0, 255), (255, 255, 255)
# A JPEG and a video are only nearly what they show.
NEARLY = 12
TAB = Tab("1", "One", "https://one.example/?token=s3cret")


def near(seen: list[int], wanted: Colour) -> bool:
    return all(abs(one - other) <= NEARLY for one, other in zip(seen, wanted, strict=True))


# The player


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    named = os.environ.get("GATEWAY_CHROMIUM")
    found = browsers.find(Path(named) if named else None)
    assert found is not None
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=found.get(None).path)
        yield launched
        await launched.close()


class Player:
    """The page, in a frame of a page that keeps the messages it receives."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.wrong: list[str] = []
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("console", lambda said: self.wrong.append(said.text) if said.type == "error" else None)

    @classmethod
    @asynccontextmanager
    async def at(cls, browser: Browser, url: str, embedding: str) -> AsyncIterator[Player]:
        page = await browser.new_page(viewport={"width": 900, "height": 600})
        player = cls(page)
        try:
            await page.goto(embedding)
            await page.evaluate(
                """(url) => {
                  window.received = [];
                  window.addEventListener("message", ({ data: message }) => {
                    window.received.push({ message, at: performance.now() });
                  });
                  document.body.innerHTML = '<iframe style="width: 880px; height: 580px; border: 0"></iframe>';
                  document.querySelector("iframe").src = url;
                }""",
                url,
            )
            yield player
            assert player.wrong == []
        finally:
            await page.close()

    @property
    def frame(self) -> Any:
        return self.page.frames[1]

    async def until_playable(self, what: str) -> None:
        """`frame` or `video` is what it plays."""
        await self.frame.wait_for_selector(f"#{what}:not([hidden])")
        await self.frame.wait_for_selector("#play:not([disabled])")

    async def seek(self, ms: float) -> None:
        await self.frame.evaluate(
            """(ms) => {
              const seek = document.querySelector("#seek");
              seek.value = ms;
              seek.dispatchEvent(new Event("input"));
            }""",
            ms,
        )

    async def until_shows(self, wanted: Colour, x: float = 0.5) -> None:
        async def is_there() -> bool:
            return near(await self.colour(x), wanted)

        await until(is_there, f"the picture is {wanted}")

    async def colour(self, x: float = 0.5) -> list[int]:
        """In the middle of what is played, `x` of the way from its left."""
        seen: list[int] = await self.frame.evaluate(
            """(x) => {
              const shown = document.querySelector(".picture:not([hidden])");
              const canvas = document.createElement("canvas");
              const width = canvas.width = shown.videoWidth || shown.width;
              const height = canvas.height = shown.videoHeight || shown.height;
              const context = canvas.getContext("2d");
              context.drawImage(shown, 0, 0);
              return [...context.getImageData(Math.floor(x * width), height / 2, 1, 1).data.slice(0, 3)];
            }""",
            x,
        )
        return seen

    async def address(self) -> str:
        return str(await self.frame.input_value("#address"))

    async def tabs(self) -> list[str]:
        """Titles of the tabs, the one that is shown with a star."""
        return list(
            await self.frame.eval_on_selector_all(
                "[role=tab]", "(tabs) => tabs.map((tab) => tab.title + (tab.ariaSelected === 'true' ? '*' : ''))"
            )
        )

    async def time(self) -> float:
        return float(await self.frame.input_value("#seek"))

    async def received(self) -> list[Json]:
        return list(await self.page.evaluate("window.received"))

    async def end(self) -> list[str]:
        await self.frame.wait_for_selector("#end:not([hidden])")
        return [await self.frame.inner_text("#end-title"), await self.frame.inner_text("#end-text")]


@pytest.fixture(scope="module")
def pages() -> Any:
    with PageServer() as pages:
        yield pages


# A recording that a test makes


@dataclass
class Made:
    """A run of a gateway without browsers, whose recording is made by hand."""

    gateway: Gateway
    client: httpx.AsyncClient
    database: Database
    space: str
    runtime: str
    run: UUID

    @property
    def recordings(self) -> Recordings:
        return self.gateway.services.recordings

    @property
    def place(self) -> Path:
        return self.recordings.directory(self.run)

    async def film(self) -> None:
        """Red, then green in another tab, then blue in a picture of another shape; 3 s in all."""
        writer = await self.recordings.begin(self.run, time.time() - 1.5)
        writer.tab(0, 0, {"type": "opened", "pageId": "A", "title": "First", "url": "https://one.example/"})
        writer.tab(0, 0, {"type": "switched", "pageId": "A", "title": "First", "url": "https://one.example/"})
        writer.frame(0, 200, solid(RED, 320, 240), 320, 240)
        writer.tab(1, 1000, {"type": "opened", "pageId": "B", "title": "Second", "url": "https://two.example/"})
        writer.tab(1, 1000, {"type": "switched", "pageId": "B", "title": "Second", "url": "https://two.example/"})
        writer.frame(1, 1000, solid(GREEN, 320, 240), 320, 240)
        writer.frame(1, 2000, solid(BLUE, 160, 240), 160, 240)
        writer.close(3000)

    async def stop(self) -> None:
        await ok(self.client.post(f"/v1/spaces/{self.space}/runtimes/{self.runtime}/stop"))
        self.recordings.ended(self.run)

    async def mint(self, **body: Any) -> Json:
        minted: Json = await ok(self.client.post(f"/v1/runs/{self.run}/recording", json=body))
        return minted

    async def until(self, status: str) -> Json:
        async def is_there() -> bool:
            return bool((await self.mint())["status"] == status)

        await until(is_there, f"the recording is {status}", 10)
        return await self.mint()

    async def another(self) -> Made:
        runtime = await ok(self.client.post(f"/v1/spaces/{self.space}/runtimes", json={"config": {"recording": True}}))
        return replace(self, runtime=runtime["id"], run=UUID(runtime["activeRunId"]))

    async def change(self, statement: str) -> None:
        async with self.database.begin() as connection:
            await connection.execute(text(statement))

    async def asked(self, minted: Json, path: str = "", **headers: str) -> httpx.Response:
        return await self.client.get(f"{minted['iframeUrl']}{path}", headers=headers)


@pytest.fixture
async def made(gateway: Gateway, client: httpx.AsyncClient, database: Database) -> Made:
    space = (await ok(client.post("/v1/spaces", json={})))["id"]
    runtime = await ok(client.post(f"/v1/spaces/{space}/runtimes", json={"config": {"recording": True}}))
    return Made(gateway, client, database, space, runtime["id"], UUID(runtime["activeRunId"]))


@asynccontextmanager
async def reachable(made: Made, settings: Settings) -> AsyncIterator[str]:
    """The gateway behind a real port; its root."""
    async with serving(made.gateway, settings) as port:
        yield f"http://127.0.0.1:{port}"


async def test_the_player_plays_pictures_while_the_video_is_made_and_then_the_video(
    made: Made, settings: Settings, browser: Browser, pages: PageServer
) -> None:
    go_on = asyncio.Event()
    keep = made.gateway.services.files.keep

    async def keep_later(*given: Any) -> Any:
        await go_on.wait()
        return await keep(*given)

    made.gateway.services.files.keep = keep_later  # type: ignore[method-assign, assignment]
    await made.film()
    await made.stop()
    async with reachable(made, settings) as root:
        minted = await made.until("processing")
        path = minted["iframeUrl"].removeprefix("http://localhost:8787")
        async with Player.at(browser, root + path, pages.url("/blank")) as player:
            for what in ("frame", "video"):
                await player.until_playable(what)
                for ms, colour in ((600, RED), (1500, GREEN), (2500, BLUE), (100, RED)):
                    await player.seek(ms)
                    await player.until_shows(colour)
                go_on.set()
            assert await player.frame.inner_text("#length") == "0:03"
            # The picture of another shape has bars.
            await player.seek(2500)
            await player.until_shows((0, 0, 0), x=0.02)


async def test_the_player_reports_and_controls_its_position(
    made: Made, settings: Settings, browser: Browser, pages: PageServer
) -> None:
    await made.film()
    record = made.gateway.services.events.record(made.run, Level.STANDARD)
    record.note("navigation", {"url": "https://two.example/"})
    await made.stop()
    await made.until("ready")
    await made.gateway.services.events.write()
    minted = await made.mint(components=["activity"])
    assert minted["durationMs"] == 3000
    async with reachable(made, settings) as root:
        path = minted["iframeUrl"].removeprefix("http://localhost:8787")
        async with Player.at(browser, root + path, pages.url("/blank")) as player:
            await player.until_playable("video")
            assert (await player.tabs(), await player.address()) == (["First*"], "https://one.example/")
            await player.seek(1500)
            assert (await player.tabs(), await player.address()) == (["First", "Second*"], "https://two.example/")
            await player.frame.click("[role=tab][title=First]")
            await player.until_shows(RED)
            assert await player.time() == 0

            # Activity: an entry seeks, and the one of the moment is marked.
            entry = player.frame.locator(".entry", has_text="two.example")
            await entry.click()
            assert await entry.get_attribute("aria-current") == "true"
            at = await player.time()
            state = (await made.asked(minted, "/state")).json()
            item = next(
                item for item in (await made.asked(minted, "/activity")).json()["items"] if "two" in item["message"]
            )
            assert abs(at - min(3000, _ms(item["time"]) - _ms(state["startedAt"]))) < 5

            # Keys of the slider, which says where it is.
            await player.frame.focus("#seek")
            await player.page.keyboard.press("Home")
            assert await player.time() == 0
            assert await player.frame.get_attribute("#seek", "aria-valuetext") == "0:00 of 0:03"
            await player.page.keyboard.press("End")
            assert await player.time() == 3000

            # Playing, twice as fast, is reported to the page around it.
            await player.page.keyboard.press("Home")
            await player.frame.click("[data-speed='2']")
            await player.frame.click("#play")
            assert await player.frame.get_attribute("#play", "aria-label") == "Pause"

            async def is_over() -> bool:
                last = (await player.received())[-1]["message"]
                return bool(last["currentTimeMs"] >= 2990 and not last["playing"])

            await until(is_over, "it has played to its end", 20)
            last = (await player.received())[-1]
            assert last["message"] == {
                "type": "bctrl:recording-time",
                "currentTimeMs": 3000,
                "durationMs": 3000,
                "playing": False,
            }
            assert await player.frame.evaluate("document.querySelector('video').playbackRate") == 2


async def test_a_recording_that_cannot_be_played_is_explained(
    made: Made, settings: Settings, browser: Browser, pages: PageServer, database: Database
) -> None:
    """Nothing was seen of the first run; the second one was not recorded."""
    await made.stop()
    failed = await made.until("failed")
    other = await ok(made.client.post(f"/v1/spaces/{made.space}/runtimes", json={}))
    none = await ok(made.client.post(f"/v1/runs/{other['activeRunId']}/recording", json={}))
    assert none["status"] == "not_available"
    short = await made.mint(expiresInSeconds=1)
    async with reachable(made, settings) as root:
        for minted, title, text in (
            (failed, "The recording failed", "Nothing was seen of the run."),
            (none, "There is no recording", "This run was not recorded"),
        ):
            path = minted["iframeUrl"].removeprefix("http://localhost:8787")
            async with Player.at(browser, root + path, pages.url("/blank")) as player:
                shown = await player.end()
                assert shown[0] == title
                assert text in shown[1]

        async def has_expired() -> bool:
            return (await made.asked(short)).status_code == 410

        await until(has_expired, "a viewer of one second has expired")
        assert "expired" in (await made.asked(short)).text
        assert (await made.asked(short, "/state")).json()["code"] == "viewer.expired"
    assert (await made.client.get("/v1/viewers/recording/nonsense")).status_code == 404
    assert (await made.client.get("/v1/viewers/recording/nonsense/state")).json()["code"] == "viewer.unknown"


# The way of a recording


@pytest.mark.thorough
async def test_a_run_is_recorded_and_encoded_although_the_gateway_is_killed_meanwhile(
    pages: PageServer,
) -> None:
    options = {"GATEWAY_EGRESS_ALLOW": "127.0.0.1", "GATEWAY_RECORDING_FPS": "20", "GATEWAY_RECORDING": "true"}
    options |= MEASURED
    with temporary_data_dir() as data_dir:
        with GatewayProcess.start(data_dir, **options) as gateway:
            async with Remote(gateway) as remote:
                runtime = await remote.runtime()
                run = (await remote.get(runtime))["activeRunId"]
                async with DevTools.attach((await remote.lease(runtime)).url) as client:
                    page = await client.first_page()
                    minted = await remote.post(f"/v1/runs/{run}/recording", {})
                    assert minted["status"] == "preparing"

                    async def painted(session: str, colour: Colour) -> int:
                        await _paint(client, session, colour)
                        return await _recorded(remote, minted["iframeUrl"], colour)

                    await client.send("Page.navigate", page, url=pages.url("/blank?token=s3cret"))
                    seen = [(await painted(page, RED), RED)]
                    other = await client.new_page(url=pages.url("/form"))
                    seen += [(await painted(other, GREEN), GREEN), (await painted(other, BLUE), BLUE)]
            gateway.kill()
        with GatewayProcess.start(data_dir, **options) as gateway:
            async with Remote(gateway) as remote:

                async def is_ready() -> bool:
                    found = await remote.post(f"/v1/runs/{run}/recording", {})
                    assert found["status"] in ("preparing", "processing", "ready")
                    return bool(found["status"] == "ready")

                await until(is_ready, "the video is made", 60)
                (artifact,) = (await remote.get(f"/v1/runs/{run}/artifacts?kind=recording"))["artifacts"]
                assert (artifact["contentType"], artifact["runtimeId"]) == ("video/webm", runtime.rsplit("/", 1)[1])
                video = data_dir / "video.webm"
                video.write_bytes((await remote.api.get(artifact["downloadUrl"])).content)
                minted = await remote.post(f"/v1/runs/{run}/recording", {})
                state = (await remote.api.get(f"{minted['iframeUrl']}/state")).json()

                async def is_recorded() -> bool:
                    events = (await remote.get(f"/v1/runs/{run}/events?limit=500"))["events"]
                    types = [event["type"] for event in events]
                    return types.count("recording.status") >= 3 and "artifact.created" in types

                await until(is_recorded, "its states and its file are in the record of the run")
        for time_ms, shown in seen:
            assert near(_colour_at(video, time_ms + 1), shown)
        assert not list((data_dir / "recordings").iterdir())
    events = [(event["type"], event["url"].removeprefix(pages.base_url)) for event in state["tabs"]]
    assert ("navigated", "/blank?token=***") in events
    assert ("opened", "/form") in events or ("navigated", "/form") in events


async def _paint(client: DevTools, session: str, wanted: Colour) -> None:
    """Paint a page once it is loaded."""

    async def is_loaded() -> bool:
        return bool(
            await client.evaluate("location.pathname !== 'blank' && document.readyState === 'complete'", session)
        )

    await until(is_loaded, "the page is loaded")
    paint = f"document.documentElement.style.background = document.body.style.background = 'rgb{wanted}'"
    await client.evaluate(paint, session)


async def _recorded(remote: Remote, viewer: str, wanted: Colour) -> int:
    """The time in ms of the recording's last frame, once that has a colour in its middle."""
    time_ms = 0

    async def is_recorded() -> bool:
        nonlocal time_ms
        frames = (await remote.api.get(f"{viewer}/frames")).json()["frames"]
        if not frames:
            return False
        number, time_ms, _ = frames[-1]
        return near(_middle((await remote.api.get(f"{viewer}/frames/{number}")).content), wanted)

    await until(is_recorded, f"{wanted} is recorded", 60)
    return time_ms


def _middle(jpeg: bytes) -> list[int]:
    with av.open(io.BytesIO(jpeg), "r", format="mjpeg") as container:
        return _pixel(next(container.decode(video=0)))


def _colour_at(video: Path, ms: float) -> list[int]:
    """The pixel in the middle of what is shown at a time."""
    with av.open(str(video)) as container:
        shown = None
        for picture in container.decode(video=0):
            if picture.time * 1000 > ms:
                break
            shown = picture
    assert shown is not None
    return _pixel(shown)


def _pixel(picture: av.VideoFrame) -> list[int]:
    rgb = picture.reformat(format="rgb24")
    at = rgb.height // 2 * rgb.planes[0].line_size + rgb.width // 2 * 3
    return list(bytes(rgb.planes[0])[at : at + 3])


def _ms(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp() * 1000


async def test_frames_that_another_gateway_has_are_asked_of_it(
    made: Made, settings: Settings, database: Database, keys: KeySource, api_key: str, tmp_path: Path
) -> None:
    await made.film()
    shared = f"file://{settings.data_dir / 'files'}"
    elsewhere = settings.model_copy(update={"data_dir": tmp_path / "other", "files_url": shared})
    other = await build(elsewhere, database, keys, WorkingLauncher(), uuid4())
    async with other.running(), reachable(made, settings) as root:
        made.gateway.supervisor.reached_at(root)
        await made.gateway.supervisor.round()
        transport = httpx.ASGITransport(other.app)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://localhost:8787", headers=bearer(api_key)
        ) as client:
            url = (await ok(client.post(f"/v1/runs/{made.run}/recording", json={})))["iframeUrl"]
            listed = await ok(client.get(f"{url}/frames"))
            assert [(time_ms, tab) for _, time_ms, tab in listed["frames"]] == [(200, 0), (1000, 1), (2000, 1)]
            assert [event["type"] for event in listed["tabs"]] == ["opened", "switched"] * 2
            rest = await ok(client.get(f"{url}/frames?from={listed['frames'][1][0]}"))
            assert rest["frames"] == listed["frames"][1:]
            picture = await client.get(f"{url}/frames/{listed['frames'][1][0]}")
            assert picture.headers["content-type"] == "image/jpeg"
            assert near(list(colour(picture.content, 9, 9)), (0, 192, 0))
            await refused(client.get(f"{url}/frames/0"), 404, "recording.picture_not_found")
            await refused(client.get(f"{url}/frames/-1"), 400, "request.invalid")
            # A request forwarded to a gateway without the take is refused, and not forwarded again.
            await refused(client.get(f"{url}/frames", headers={"Gateway-Hop": "1"}), 404, "recording.picture_not_found")
            await made.stop()
            await made.until("ready")
            video = await client.get(f"{url}/video", headers={"Range": "bytes=0-3"})
            assert (video.status_code, video.content) == (206, b"\x1a\x45\xdf\xa3")

            async def is_gone() -> bool:
                return (await client.get(f"{url}/frames")).status_code != 200

            # It is removed behind the row that says that the video is there.
            await until(is_gone, "the take is removed")
            await refused(client.get(f"{url}/frames"), 404, "recording.picture_not_found")


async def test_a_recording_goes_with_its_time_its_file_and_its_space(made: Made) -> None:
    await made.film()
    await made.stop()
    minted = await made.until("ready")
    (artifact,) = (await ok(made.client.get(f"/v1/runs/{made.run}/artifacts")))["artifacts"]
    assert (await made.asked(minted, "/video")).status_code == 200
    files = f"/v1/spaces/{made.space}/storage/files/{artifact['fileId']}"
    kept = await ok(made.client.get(files))
    assert _ms(kept["expiresAt"]) - time.time() * 1000 == pytest.approx(7 * 86_400_000, abs=60_000)
    await made.change("UPDATE recordings SET expires_at = now() + interval '1 hour'")
    await made.recordings.tend()
    assert (await made.mint())["status"] == "ready"

    await made.change("UPDATE recordings SET expires_at = now()")
    await made.change("UPDATE files SET expires_at = now()")
    await made.recordings.tend()
    assert (await made.mint())["status"] == "not_available"
    assert (await made.asked(minted, "/video")).status_code == 404
    await made.gateway.services.files.sweep()
    await refused(made.client.get(files), 404, "file.not_found")
    assert (await ok(made.client.get(f"/v1/runs/{made.run}/artifacts")))["artifacts"] == []

    again = await made.another()
    await again.film()
    await again.stop()
    await again.until("ready")
    (artifact,) = (await ok(again.client.get(f"/v1/runs/{again.run}/artifacts")))["artifacts"]
    assert (await again.client.delete(f"/v1/spaces/{again.space}/storage/files/{artifact['fileId']}")).status_code < 300
    assert (await again.mint())["status"] == "not_available"

    last = await again.another()
    await last.film()
    assert last.place.exists()
    minted = await last.mint()
    assert (await last.client.delete(f"/v1/spaces/{last.space}")).status_code < 300
    last.recordings.ended(last.run)
    await until(lambda: not last.place.exists(), "its frames are gone")
    await refused(last.client.get(f"{minted['iframeUrl']}/state"), 404, "run.not_found")


async def test_a_recording_whose_gateway_never_comes_back_fails_after_a_while(made: Made) -> None:
    await made.film()
    await made.stop()
    await made.until("ready")
    await made.change("UPDATE recordings SET status = 'processing', file_id = NULL, gateway_id = gen_random_uuid()")
    await made.recordings.tend()
    assert (await made.mint())["status"] == "processing"
    await made.change("UPDATE recordings SET updated_at = now() - interval '2 hours'")
    await made.change("UPDATE runs SET finished_at = now() - interval '2 hours'")
    await made.recordings.tend()
    minted = await made.mint()
    assert minted["status"] == "failed"
    assert "is lost" in (await made.asked(minted, "/state")).json()["message"]


async def test_recordings_of_several_owners_are_encoded_in_turn(made: Made) -> None:
    made_by_one = [made.run, (await made.another()).run, (await made.another()).run]
    account, headers = await make_subaccount(made.client)
    space = (await ok(made.client.post("/v1/spaces", json={}, headers=headers)))["id"]
    given = {"config": {"recording": True}}
    other = await ok(made.client.post(f"/v1/spaces/{space}/runtimes", json=given, headers=headers))
    # Of a gateway that does not encode them itself meanwhile.
    gateway_id = UUID(int=7)
    await made.change(f"UPDATE recordings SET gateway_id = '{gateway_id}', status = 'preparing'")
    owners, served = list[Scope](), list[UUID]()
    for _ in range(4):
        async with made.database.connect() as connection:
            taken = await store.take_next(connection, gateway_id, owners)
        assert taken is not None
        served.append(taken[0].run_id)
        owners = [*(owner for owner in owners if owner != taken[0].owner), taken[0].owner]
        await made.change(f"UPDATE recordings SET status = 'failed' WHERE run_id = '{served[-1]}'")
    assert served == [made_by_one[0], UUID(other["activeRunId"]), *made_by_one[1:]]
    assert str(owners[0].subaccount_id) == account


@pytest.mark.parametrize("what", ["cut_off", "timeout", "storage"])
async def test_a_failed_encoding_is_reported_or_retried(made: Made, what: str) -> None:
    await made.film()
    match what:
        case "cut_off":
            await made.change("UPDATE recordings SET attempts = 5")
        case "timeout":
            made.recordings.encode_seconds = 0.001
        case "storage":
            keep = made.gateway.services.files.keep
            refusals = iter([Unavailable("The storage is away.", "storage.unavailable")])

            async def away_once(*given: Any) -> Any:
                for refusal in refusals:
                    made.recordings.encode_soon()
                    raise refusal
                return await keep(*given)

            made.gateway.services.files.keep = away_once  # type: ignore[method-assign, assignment]
    await made.stop()
    if what == "storage":
        await made.until("ready")
        return
    minted = await made.until("failed")
    words = {"cut_off": "5 times over", "timeout": "within 0.001 seconds"}[what]
    assert words in (await made.asked(minted, "/state")).json()["message"]


async def test_a_viewer_is_minted_for_keys_that_see_the_run(made: Made) -> None:
    for body, field in (
        ({"expiresInSeconds": 86401}, "expiresInSeconds"),
        ({"expiresInSeconds": 0}, "expiresInSeconds"),
        ({"components": ["sound"]}, "components.0"),
        ({"control": "input"}, "control"),
    ):
        assert list(await problems(made.client.post(f"/v1/runs/{made.run}/recording", json=body))) == [field]
    before = time.time()
    minted = await made.mint(expiresInSeconds=86400)
    # In whole seconds, which are never fewer than those that were asked for.
    assert before <= _ms(minted["expiresAt"]) / 1000 - 86400 <= time.time() + 1
    assert "activityStreamUrl" not in minted
    assert "/v1/viewers/activity/" in (await made.mint(components=["activity"]))["activityStreamUrl"]
    await refused(made.client.post(f"/v1/runs/{uuid4()}/recording", json={}), 404, "run.not_found")
    await refused(made.client.get(f"{minted['iframeUrl']}/activity"), 404, "viewer.no_activity")
    # A recording's token opens nothing else.
    live = minted["iframeUrl"].replace("/recording/", "/live/")
    assert (await made.client.get(live)).status_code == 404


# What is taken


class Screen:
    """Stands in for the screencasts of a browser; a test says what it shows."""

    def __init__(self) -> None:
        self.tabs = [TAB]
        self.active = TAB.id
        self.fps = 0.0
        self.closings = 0

    def listen(self, listener: Any) -> None:
        self.tab_listener = listener

    def forget(self, listener: Any) -> None:
        assert listener == self.tab_listener

    def subscribe(self, listener: Any, *, fps: float) -> Screen:
        self.show_frame = listener
        self.fps = fps
        return self

    def close(self) -> None:
        self.closings += 1

    def shows(self, jpeg: bytes) -> None:
        self.show_frame(Frame(TAB.id, time.time(), jpeg, 320, 240, 320, 240, 0, 1))


class Taking:
    """A take whose reel is in a directory, and the events that it reported."""

    def __init__(self, directory: Path, disk: Disk | None = None, **settings: Any) -> None:
        self.events: list[Json] = []
        self.screen = Screen()
        self.directory = directory / "reel"
        self.disk = disk or Disk()
        begun = time.time()
        self.writer = ReelWriter(self.directory, begun)
        self.over = False
        self.take = Take(
            cast(Observation, self),
            cast(Screencasts, self.screen),
            cast(Recordings, self),
            Masking((), 2048),
            Settings(**settings),
            self.writer,
            begun,
        )
        self.take.start()

    async def shows(self, jpeg: bytes) -> None:
        """Show a picture as soon as the take keeps one."""
        await until(lambda: self.take.is_due, "the next frame is due")
        self.screen.shows(jpeg)

    # As an observation, its record, and the recordings.

    run_id = uuid4()

    @property
    def observed(self) -> Taking:
        return self

    @property
    def record(self) -> Taking:
        return self

    def note(self, _: str, data: Json) -> None:
        self.events.append(data)

    def ended(self, _: UUID) -> None:
        self.over = True

    async def reel(self) -> Reel:
        """What is on the disk, once it is there."""
        await self.take.end()
        assert self.over
        self.disk.close()
        return Reel(self.directory)


async def test_frames_are_taken_at_the_rate_and_the_last_one_before_a_rest_is_among_them(tmp_path: Path) -> None:
    taking = Taking(tmp_path, recording_fps=5)
    assert taking.screen.fps == 5
    began = time.monotonic()
    for shade in range(9):
        taking.screen.shows(b"%d" % shade)
        if shade % 3 == 2:
            await until(lambda: not taking.take.has_waiting_frame, "the last frame is taken")
    seconds = time.monotonic() - began
    reel = await taking.reel()
    entries = reel.entries()
    shown = [reel.read(entry) for entry in entries if entry.kind == FRAME]
    assert shown[0] == b"0"
    assert shown[-1] == b"8"
    # One that another followed before it was due is left out.
    assert b"1" not in shown
    assert len(shown) - 2 <= 5 * seconds
    assert entries[-1].kind == END
    (opened, switched) = reel.tabs(entries)
    assert (opened["type"], switched["type"]) == ("opened", "switched")
    assert opened["url"] == "https://one.example/?token=***"
    assert taking.events == [{"status": "recording", "framesPerSecond": 5}]


async def test_what_becomes_of_tabs_is_taken_in_their_order(tmp_path: Path) -> None:
    taking = Taking(tmp_path)
    other = Tab("2", "", "about:blank")
    notify = taking.screen.tab_listener
    notify(TabEvent("opened", other))
    notify(TabEvent("active", other))
    notify(TabEvent("changed", Tab("2", "Two", "https://two.example/")))
    notify(TabEvent("changed", Tab("2", "Two (1)", "https://two.example/")))
    notify(TabEvent("closed", Tab("2", "Two (1)", "https://two.example/")))
    notify(TabEvent("active", TAB))
    reel = await taking.reel()
    entries = [(event["tab"], event["type"], event["title"]) for event in reel.tabs(reel.entries())]
    assert entries[2:] == [
        (1, "opened", ""),
        (1, "switched", ""),
        (1, "navigated", "Two"),
        (1, "titled", "Two (1)"),
        (1, "closed", "Two (1)"),
        (0, "switched", "One"),
    ]


async def test_a_recording_gets_coarser_near_its_limit_and_ends_at_it_and_says_so(tmp_path: Path) -> None:
    most = 64 * 1024
    taking = Taking(tmp_path, recording_fps=60, recording_max_bytes=most)
    own = taking.take.kept_bytes
    half = most // 2 - own - 32
    await taking.shows(b"x" * half)
    assert taking.events[1:] == []
    await taking.shows(b"")
    assert taking.events[1:] == [{"status": "recording", "reason": "size", "framesPerSecond": 30}]
    assert taking.screen.fps == 30
    # Up to the last byte, and not one more.
    await taking.shows(b"x" * (most - taking.take.kept_bytes - 32))
    assert taking.take.kept_bytes == most
    assert taking.screen.closings == 0
    await taking.shows(b"")
    assert taking.screen.closings == 1
    assert (taking.events[-1]["status"], taking.events[-1]["reason"]) == ("cut", "size")
    count = len(taking.events)
    taking.screen.shows(b"x")
    taking.screen.tab_listener(TabEvent("closed", TAB))
    assert len(taking.events) == count
    reel = await taking.reel()
    assert [entry.kind for entry in reel.entries()][-1] == END


async def test_a_slow_disk_costs_frames_and_nothing_else(tmp_path: Path) -> None:
    go_on = threading.Event()
    # One recording may have half of it.
    disk = Disk(max_waiting_bytes=2000)
    taking = Taking(tmp_path, disk=disk, recording_fps=60)
    is_held = threading.Event()

    def hold() -> None:
        is_held.set()
        go_on.wait()

    held = asyncio.ensure_future(disk.run(hold))
    await until(is_held.is_set, "the disk is busy")
    for _ in range(3):
        # None of them waits for the disk, which would be for ever.
        await taking.shows(b"x" * 400)
    assert (taking.take.dropped, disk.waiting_bytes <= 1000) == (1, True)
    # Others have the rest.
    others = [disk.start(lambda: None, size, "another recording") for size in (1000, 1)]
    assert [other is not None for other in others] == [True, False]
    assert disk.start(lambda: None, 1000, "a third one") is None
    go_on.set()
    await held
    reel = await taking.reel()
    assert len([entry for entry in reel.entries() if entry.kind == FRAME]) == 2
    assert taking.events[-1] == {"status": "recording", "reason": "disk_slow", "droppedFrames": 1}


async def test_a_disk_that_fails_ends_the_recording_and_says_so(tmp_path: Path) -> None:
    taking = Taking(tmp_path, recording_fps=60)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    taking.writer.frame = full  # type: ignore[method-assign, assignment]
    taking.screen.shows(b"x")
    await until(lambda: taking.screen.closings > 0, "it is ended")
    assert (taking.events[-1]["status"], taking.events[-1]["reason"]) == ("cut", "disk")
    await taking.reel()


# What is made of it


def filmed(directory: Path) -> Reel:
    directory.parent.mkdir(exist_ok=True)
    writer = ReelWriter(directory, time.time())
    for number in range(8):
        writer.frame(0, number * 1000, solid(RED if number % 2 else BLUE, 320, 240), 320, 240)
    writer.close()
    return Reel(directory)


def test_a_reel_is_read_up_to_its_last_whole_record(tmp_path: Path) -> None:
    reel = filmed(tmp_path / "reel")
    whole = reel.entries()
    assert len(whole) == 8
    (segment,) = (tmp_path / "reel").glob("*.frames")
    with open(segment, "r+b") as file:
        file.truncate(whole[-1].offset + whole[-1].length - 1)
    assert reel.entries() == whole[:-1]
    with open(tmp_path / "reel" / "index", "r+b") as file:
        file.truncate(file.seek(0, os.SEEK_END) - 2 * 32 - 1)
    assert reel.entries() == whole[:-3]
    with open(segment, "r+b") as file:
        file.seek(whole[2].offset + 5)
        file.write(b"\0\0\0")
    video = encode.encode(reel, reel.entries(), tmp_path / "video.webm")
    assert (video.frames, video.damaged) == (4, 1)
    assert near(_colour_at(tmp_path / "video.webm", 2500), RED)


def test_a_long_rest_is_few_frames_and_a_seek_is_never_far_from_a_key(tmp_path: Path) -> None:
    writer = ReelWriter(tmp_path / "reel", time.time())
    for number in range(300):
        writer.frame(0, number * 200, solid((number % 250, 0, 0), 320, 240), 320, 240)
    writer.close(3_600_000)
    reel = Reel(tmp_path / "reel")
    video = encode.encode(reel, reel.entries(), tmp_path / "video.webm")
    assert video.duration_ms == 3_600_000
    assert video.frames < 300 + 3600 / 30 + 2
    with av.open(str(tmp_path / "video.webm")) as container:
        assert container.duration == 3_600_000_000
        packets = [packet for packet in container.demux(video=0) if packet.pts is not None]
    keys = [place for place, packet in enumerate(packets) if packet.is_keyframe]
    assert all(later - key <= 50 for key, later in zip(keys, [*keys[1:], len(packets)], strict=True))
    # Players find key frames by an index that comes first.
    head = (tmp_path / "video.webm").read_bytes()[:4096]
    assert b"\x1c\x53\xbb\x6b" in head


# The encoder, for which every directory of packages is closed from the moment on at which it gives up its rights.
CLOSED = """
import os, sys
from gateway.video import encoder

class Closed:
    def find_spec(self, name, path=None, target=None):
        raise ModuleNotFoundError(f"{name} can't be reached any more")

def give_up(*ids, real=os.setresuid):
    real(*ids)
    sys.meta_path.insert(0, Closed())

os.setresuid = give_up
code = encoder.main(*sys.argv[1:])
assert isinstance(sys.meta_path[0], Closed)
sys.exit(code)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_nothing_is_imported_once_the_rights_are_given_up(tmp_path: Path) -> None:
    filmed(tmp_path / "reel")
    command = [sys.executable, "-c", CLOSED, str(tmp_path / "reel"), "video", "871234"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as encoder:
        assert encoder.stdout is not None
        printed = encoder.stdout.read().splitlines()
    assert encoder.returncode == 0
    assert len(printed) == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("umask", [0o022, 0o077], ids=oct)
def test_what_reads_the_pictures_has_no_rights(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        filmed(tmp_path / "reels" / "reel")
    finally:
        os.umask(before)
    (tmp_path / "reels").chmod(0o700)
    command = [sys.executable, "-m", "gateway.video.encoder", str(tmp_path / "reels" / "reel"), "video", "871234"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as encoder:
        assert encoder.stdout is not None
        assert encoder.stdout.readline()
        status = Path(f"/proc/{encoder.pid}/status").read_text()
        assert re.findall(r"^[UG]id:(.*)$", status, re.MULTILINE) == ["\t871234" * 4] * 2
        assert re.findall(r"^(?:Groups|CapEff):\s*?(\w*) *$", status, re.MULTILINE) == ["", "0" * 16]
        assert encoder.stdin is not None
        encoder.stdout.read()
        assert encoder.wait(10) == 0
    assert (tmp_path / "reels" / "reel" / "video").stat().st_uid == 871234


def test_an_encoder_ends_with_its_gateway(tmp_path: Path) -> None:
    filmed(tmp_path / "reel")
    command = [sys.executable, "-m", "gateway.video.encoder", str(tmp_path / "reel"), "video", "871234"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=20)
    assert done.returncode == LEFT_ALONE


def test_a_reel_without_frames_has_no_video(tmp_path: Path) -> None:
    writer = ReelWriter(tmp_path / "reel", time.time())
    writer.close(1000)
    reel = Reel(tmp_path / "reel")
    with pytest.raises(encode.NoFrames):
        encode.encode(reel, reel.entries(), tmp_path / "video.webm")
    shutil.rmtree(tmp_path / "reel")
    with pytest.raises(FileNotFoundError):
        Reel(tmp_path / "reel")
