"""A whole gateway whose runtimes have the browsers of agents, over TLS."""

from __future__ import annotations

import base64
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.support.browser_agents import AgentProcess, start_agent
from tests.support.certificates import Authority
from tests.support.downloads import Attachments, Run
from tests.support.gateway_process import MEASURED, GatewayProcess, temporary_data_dir
from tests.support.remote import Remote, ask
from tests.support.waiting import until

NAME = "agent"


@pytest_asyncio.fixture
async def agent(tmp_path: Path) -> AsyncIterator[AgentProcess]:
    key = base64.b64encode(secrets.token_bytes(32))
    authority = Authority(tmp_path)
    own = str(authority.issued(NAME))
    (tmp_path / "key").write_bytes(key + b"\n")
    (tmp_path / "ca.pem").write_text(authority.pem)
    with temporary_data_dir() as directory:
        agent = await start_agent(directory / NAME, key, NAME, "--tls-key", own, network=f"--tls-certificate={own}")
        yield agent
        await agent.close()


async def test_a_lease_files_and_downloads_of_an_agents_browser(agent: AgentProcess, tmp_path: Path) -> None:
    attachments = Attachments()
    with (
        temporary_data_dir() as data_dir,
        GatewayProcess.start(
            data_dir,
            GATEWAY_EGRESS_ALLOW="127.0.0.1",
            GATEWAY_BROWSER_AGENTS=f"{NAME}@127.0.0.1:{await agent.listening()}",
            GATEWAY_BROWSER_AGENTS_KEY_FILE=str(tmp_path / "key"),
            GATEWAY_BROWSER_AGENTS_CA_FILE=str(tmp_path / "ca.pem"),
            **MEASURED,
        ) as gateway,
    ):
        async with Remote(gateway) as remote:
            path = await remote.runtime()
            refused = await remote.api.post(path.rpartition("/")[0], json={})
            assert refused.json()["details"]["class"] == "not_found"
            run = Run(remote, path, (await remote.get(path))["activeRunId"], await remote.attach(path))

            space = path.rpartition("/runtimes/")[0]
            kept = (await remote.api.post(f"{space}/storage/files", files={"file": ("june.csv", b"1,2")})).json()
            staged = await remote.post(f"{path}/files/stage", {"fileId": kept["id"]})
            page = (await ask(run.socket, "Target.createTarget", url="about:blank"))["targetId"]
            session = (await ask(run.socket, "Target.attachToTarget", targetId=page, flatten=True))["sessionId"]
            made = "document.body.innerHTML = '<input type=file>'; document.querySelector('input')"
            field = (await ask(run.socket, "Runtime.evaluate", session, expression=made))["result"]["objectId"]
            await ask(run.socket, "DOM.setFileInputFiles", session, files=[staged["path"]], objectId=field)
            text = "document.querySelector('input').files[0].text()"
            said = await ask(
                run.socket, "Runtime.evaluate", session, expression=text, awaitPromise=True, returnByValue=True
            )
            assert said["result"]["value"] == "1,2"
            collected = await remote.post(f"{path}/files/collect", {"path": staged["path"], "storagePath": "back"})
            assert collected["sizeBytes"] == 3

            await run.page(f"{attachments.url}/file?name=report.csv&size=1000")
            (artifact,) = await run.has_artifacts(1)
            assert (artifact["name"], artifact["sizeBytes"]) == ("report.csv", 1000)

            await run.stop()
            assert await remote.end_of(path) == ("stopped", "runtime.stopped")
            await until(lambda: agent.process.returncode == 0, "the agent has ended with its browser")
    attachments.close()
