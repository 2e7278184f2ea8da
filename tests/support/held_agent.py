"""A gateway that a test kills: it takes an agent's browser for a runtime, leaves something in its page and says so.

Its argument is JSON; the key of the gateways comes in hexadecimal by standard input."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from uuid import UUID

from gateway.egress.proxy import EgressProxy
from gateway.launchers.base import LaunchSpec
from gateway.launchers.remote.connecting import AgentAddress
from gateway.launchers.remote.launcher import RemoteLauncher
from gateway.settings import Settings
from tests.support.devtools import DevTools


async def main() -> None:
    given = json.loads(sys.argv[1])
    key = bytes.fromhex(sys.stdin.readline().strip())
    settings = Settings(data_dir=Path(tempfile.gettempdir()))
    agents = [AgentAddress("127.0.0.1", given["port"], given["name"], key)]
    launcher = RemoteLauncher(settings, EgressProxy(settings), agents)
    browser = await launcher.launch(LaunchSpec(UUID(given["runtime"])))
    async with DevTools.attach(browser) as client:
        await client.evaluate("window.kept = 'as it was'", await client.first_page())
    print("held", flush=True)
    await browser.ended


if __name__ == "__main__":
    asyncio.run(main())
