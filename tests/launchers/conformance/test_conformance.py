"""What every launcher does, by the interface alone (gateway/launchers/base.py)."""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from websockets.exceptions import ConnectionClosed

from gateway.core.files_dir import Found, NotAFile, NotThere, Taken
from gateway.core.hosts import Refusal
from gateway.core.traffic_rules import Traffic
from gateway.core.upstream_proxy import UpstreamProxy
from gateway.launchers.base import Browser, Launcher, LaunchSpec
from tests.support.devtools import DevTools
from tests.support.waiting import SECONDS, until

pytestmark = pytest.mark.unprivileged

BIG = 3_000_000
SPEC: dict[str, Any] = {
    "viewport": (813, 607),
    "locale": "de-AT",
    "timezone": "Pacific/Chatham",
    "user_agent": "Agent/1.0 (of the test; with blanks)",
}
SHOWN = """[innerWidth, innerHeight, navigator.language, Intl.DateTimeFormat().resolvedOptions().timeZone,
    navigator.userAgent]"""


LOADED = """new Promise(done => {
    const text = () => document.documentElement.outerHTML;
    const look = () => document.readyState == 'complete' ? done(text()) : setTimeout(look, 10);
    look();
})"""


@asynccontextmanager
async def page_server() -> AsyncIterator[tuple[int, list[str]]]:
    """The port of a server of pages, and the paths that were asked for."""
    asked: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head.split(b" ")[1].decode())
        body = b"x" * BIG if asked[-1] == "/big" else b"<title>page</title>"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n")
        writer.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], asked


async def visited(browser: Browser, url: str) -> str:
    """The text of a page after it went there."""
    async with DevTools.attach(browser) as client:
        page = await client.new_page()
        await client.send("Page.enable", page)
        await client.send("Page.navigate", page, url=url)
        text: str = await client.evaluate(LOADED, page)
        return text


async def write(browser: Browser, path: str, *chunks: bytes, rename: bool = False) -> str:
    segments = browser.files.relative(path)
    assert segments is not None
    async with browser.files.writing(segments, rename_on_conflict=rename) as file:
        for chunk in chunks:
            await file.write(chunk)
        return await file.done()


async def read(browser: Browser, path: str, most: int = 1024 * 1024) -> bytes:
    segments = browser.files.relative(path)
    assert segments is not None
    content = b""
    async with browser.files.reading(segments) as reading:
        while chunk := await reading(most):
            assert len(chunk) <= most
            content += chunk
    return content


# Launches


async def test_a_client_finds_a_blank_page_at_once(launcher: Launcher) -> None:
    browser = await launcher.launch(LaunchSpec(uuid4(), "headless-shell"))
    async with DevTools.attach(browser) as client:
        assert [page["url"] for page in await client.pages()] == ["about:blank"]
        assert browser.version in (await client.send("Browser.getVersion"))["product"]
    assert browser.name == "headless-shell"
    assert not browser.ended.done()
    await browser.stop()


async def test_options_are_the_browsers(launcher: Launcher) -> None:
    browser = await launcher.launch(LaunchSpec(uuid4(), **SPEC))
    async with DevTools.attach(browser) as client:
        shown = await client.evaluate(SHOWN, await client.first_page())
    assert shown == [*SPEC["viewport"], SPEC["locale"], SPEC["timezone"], SPEC["user_agent"]]
    await browser.stop()


async def test_several_connections_to_devtools_are_open_at_once(browser: Browser) -> None:
    async with DevTools.attach(browser) as one, DevTools.attach(browser) as other:
        page = await one.new_page()
        assert await one.evaluate("'x'.repeat(2000000)", page) == "x" * 2_000_000
        assert len(await other.pages()) == len(await one.pages())


# Files


async def test_a_file_that_is_written_is_read_by_the_browser_and_by_the_gateway(browser: Browser) -> None:
    path = await write(browser, "below/a.txt", b"one ", b"two")
    assert path == posixpath.join(browser.files_dir, "below/a.txt")
    assert await read(browser, path, most=3) == b"one two"
    assert await read(browser, "below/a.txt") == b"one two"
    async with DevTools.attach(browser) as client:
        page = await client.new_page()
        await client.evaluate("document.body.innerHTML = '<input type=file>'", page)
        root = (await client.send("DOM.getDocument", page))["root"]["nodeId"]
        node = (await client.send("DOM.querySelector", page, nodeId=root, selector="input"))["nodeId"]
        await client.send("DOM.setFileInputFiles", page, nodeId=node, files=[path])
        assert await client.evaluate("document.querySelector('input').files[0].text()", page) == "one two"


async def test_a_name_is_given_once(browser: Browser) -> None:
    await write(browser, "once.txt", b"first")
    with pytest.raises(Taken):
        await write(browser, "once.txt", b"second")
    assert posixpath.basename(await write(browser, "once.txt", b"third", rename=True)) == "once (1).txt"
    assert await read(browser, "once.txt") == b"first"


async def test_what_is_not_done_does_not_appear(browser: Browser) -> None:
    before = await browser.files.found()
    async with browser.files.writing(("never.txt",), rename_on_conflict=False) as file:
        await file.write(b"half")
    assert await browser.files.found() == before
    with pytest.raises(NotThere):
        await read(browser, "never.txt")


async def test_a_path_leads_nowhere_else(browser: Browser) -> None:
    for path in ("/etc/passwd", "../profile/Cookies", f"{browser.files_dir}/../profile", "", "a\x00b", "a" * 4097):
        assert browser.files.relative(path) is None
    await write(browser, "plain", b"")
    for path in ("plain/x", "n" * 256, "absent"):
        with pytest.raises(NotAFile):
            await read(browser, path)
    with pytest.raises(NotAFile):
        await write(browser, "plain/x", b"")


async def test_a_file_of_many_chunks_arrives_whole(browser: Browser) -> None:
    chunks = [bytes([number]) * 1024 * 1024 for number in range(3)]
    await write(browser, "large", *chunks, b"end")
    assert await read(browser, "large") == b"".join(chunks) + b"end"


# Downloads


async def test_a_download_is_found_and_read(browser: Browser) -> None:
    before = await browser.files.changed()
    assert await browser.files.changed() == before
    async with DevTools.attach(browser) as client:
        page = await client.new_page()
        await client.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=browser.files_dir)
        await client.evaluate(
            """(() => {
                const link = document.createElement('a');
                link.href = URL.createObjectURL(new Blob(['downloaded']));
                link.download = 'saved.txt';
                link.click();
            })()""",
            page,
        )

        async def is_there() -> bool:
            return Found("saved.txt", 10) in await browser.files.found()

        await until(is_there, "the download is found", SECONDS)
    assert await browser.files.changed() != before
    assert await read(browser, "saved.txt") == b"downloaded"


async def test_files_are_read_after_the_browsers_end(launcher: Launcher) -> None:
    browser = await launcher.launch(LaunchSpec(uuid4()))
    await write(browser, "kept", b"kept")
    holder = object()
    browser.files.hold(holder)
    await browser.stop()
    await asyncio.wait_for(browser.files.settled.wait(), SECONDS)
    assert await browser.files.found() == [Found("kept", 4)]
    assert await read(browser, "kept") == b"kept"
    browser.files.release(holder)


# Egress


async def test_pages_reach_what_the_rules_allow_and_it_is_counted(browser: Browser) -> None:
    async with page_server() as (port, asked):
        received = browser.usage.received
        assert len(await visited(browser, f"http://127.0.0.1:{port}/big")) > BIG
        assert BIG <= browser.usage.received - received < BIG + 10_000
        refused = browser.usage.refused.total()
        await visited(browser, f"http://127.0.0.2:{port}/private")
        assert browser.usage.refused.total() > refused
    assert "/private" not in asked


async def test_the_lists_of_a_runtime_apply_to_its_pages(launcher: Launcher) -> None:
    async with page_server() as (port, asked):
        traffic = Traffic(allow=["127.0.0.1"], block=[f"http://127.0.0.1:{port}/blocked"])
        browser = await launcher.launch(LaunchSpec(uuid4(), traffic=traffic))
        assert "page" in await visited(browser, f"http://127.0.0.1:{port}/open")
        assert "egress.url_blocklist" in await visited(browser, f"http://127.0.0.1:{port}/blocked")
        await browser.stop()
    assert "/blocked" not in asked


async def test_a_runtimes_proxy_is_checked_by_the_egress_rules(launcher: Launcher) -> None:
    await launcher.check(LaunchSpec(uuid4()))
    with pytest.raises(Refusal, match="private network"):
        await launcher.check(LaunchSpec(uuid4(), upstream=UpstreamProxy("http", "10.0.0.1", 3128)))


# Ends, and what is left


async def test_a_browser_that_is_closed_by_its_client_has_exited(launcher: Launcher) -> None:
    browser = await launcher.launch(LaunchSpec(uuid4()))
    async with DevTools.attach(browser) as client:
        await client.send("Browser.close")
    ending = await asyncio.wait_for(browser.ended, SECONDS)
    assert (ending.code, ending.asked) == ("browser.exited", False)
    with pytest.raises(ConnectionError):
        async with DevTools.attach(browser):
            pass


async def test_a_browser_that_crashes_has_crashed(launcher: Launcher) -> None:
    browser = await launcher.launch(LaunchSpec(uuid4()))
    with pytest.raises(ConnectionClosed):
        async with DevTools.attach(browser) as client:
            await client.send("Browser.crash")
    ending = await asyncio.wait_for(browser.ended, SECONDS)
    assert (ending.code, ending.asked) == ("browser.crashed", False)


async def test_a_stop_is_idempotent_and_leaves_nothing(launcher: Launcher) -> None:
    browser = await launcher.launch(LaunchSpec(uuid4()))
    await asyncio.gather(browser.stop(), browser.stop())
    await browser.stop()
    ending = browser.ended.result()
    assert (ending.code, ending.asked) == ("runtime.stopped", True)
