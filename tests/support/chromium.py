"""A Chromium without a gateway, whose DevTools are on a port of this machine."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Browser, async_playwright

from gateway.launchers.local import browsers


@asynccontextmanager
async def launched_chromium(*options: str) -> AsyncIterator[tuple[Browser, str]]:
    """The browser as Playwright launched it with options of the command line, and the address of its DevTools."""
    named = os.environ.get("GATEWAY_CHROMIUM")
    found = browsers.find(Path(named) if named else None)
    assert found is not None
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with async_playwright() as library:
        arguments = [f"--remote-debugging-port={port}", *options]
        browser = await library.chromium.launch(executable_path=found.get(None).path, args=arguments)
        yield browser, f"http://127.0.0.1:{port}"
        await browser.close()
