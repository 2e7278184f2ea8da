"""Files when gateways and clients die in the midst: nothing half looks whole, and no bytes stay for nothing."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import httpx
import pytest
import pytest_asyncio

from gateway.app import Gateway, build
from gateway.domain.secrets import KeySource
from gateway.settings import Settings
from gateway.store.database import Database
from tests.support.api import Json, make_runtime, ok, refused
from tests.support.downloads import Attachments, Run
from tests.support.gateway_process import GatewayProcess, temporary_data_dir
from tests.support.launchers import WorkingLauncher
from tests.support.remote import Remote
from tests.support.serving import serving
from tests.support.waiting import until

MIB = 1024 * 1024
NEIGHBOUR = UUID("0198b7d4-2f6c-7d3e-9a51-1c6f2b8e4d71")
HEAD = b'--x\r\nContent-Disposition: form-data; name="file"; filename="half.bin"\r\n\r\n'


def half_an_upload(port: int, path: str, key: str) -> socket.socket:
    """A connection on which 20 MiB of 40 have been sent."""
    connection = socket.create_connection(("127.0.0.1", port))
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {key}",
        "Content-Type: multipart/form-data; boundary=x",
        f"Content-Length: {40 * MIB}",
    ]
    connection.sendall("\r\n".join([*lines, "", ""]).encode() + HEAD + bytes(20 * MIB))
    return connection


def objects(data_dir: Path) -> list[Path]:
    return [path for path in (data_dir / "files").rglob("*") if path.is_file()]


@pytest.mark.thorough
async def test_a_gateway_that_is_killed_during_transfers_leaves_nothing_incomplete() -> None:
    options = {"GATEWAY_EGRESS_ALLOW": "127.0.0.1", "GATEWAY_WARM_BROWSERS": "0"}
    served = Attachments()
    with temporary_data_dir() as data_dir:
        with GatewayProcess.start(data_dir, **options) as gateway:
            async with Remote(gateway) as remote:
                path = await remote.runtime()
                runtime = await remote.get(path)
                run = Run(remote, path, runtime["activeRunId"], await remote.attach(path))
                storage = f"/v1/spaces/{runtime['spaceId']}/storage/files"
                whole = await ok(remote.api.post(storage, files={"file": ("whole", b"whole")}))
                port = int(gateway.base_url.rpartition(":")[2])
                uploading = half_an_upload(port, storage, gateway.api_key)
                await run.page(f"{served.url}/slow")
                # Much to copy, of which a disk has nothing.
                large = data_dir / "runtimes" / runtime["id"] / "home" / "downloads" / "large"
                large.touch()
                os.truncate(large, 4096 * MIB)
                os.chown(large, large.parent.stat().st_uid, -1)
                collecting = asyncio.create_task(remote.api.post(f"{path}/files/collect", json={"path": "large"}))
                await until(lambda: len([it for it in objects(data_dir) if "#" in it.name]) == 2, "both are half", 20)
                await until(lambda: any("crdownload" in name for name in os.listdir(large.parent)), "a third is", 20)
                await asyncio.to_thread(gateway.kill)
                collecting.cancel()
                await asyncio.wait({collecting})
                uploading.close()
        served.close()
        assert len(objects(data_dir)) == 3
        with GatewayProcess.start(data_dir, **options) as gateway:
            async with Remote(gateway) as remote:
                assert [path.name for path in objects(data_dir)] == [whole["id"]]
                assert await remote.get(storage) == {"files": [whole], "nextCursor": None}
                assert (await remote.get(f"/v1/runs/{run.run}/artifacts"))["artifacts"] == []


@pytest_asyncio.fixture
async def port(gateway: Gateway, settings: Settings) -> AsyncIterator[int]:
    async with serving(gateway, settings) as port:
        yield port


async def test_a_client_that_disconnects_during_an_upload_leaves_nothing(
    client: httpx.AsyncClient, api_key: str, port: int, settings: Settings
) -> None:
    space = (await ok(client.post("/v1/spaces", json={})))["id"]
    storage = f"/v1/spaces/{space}/storage/files"
    connection = await asyncio.to_thread(half_an_upload, port, storage, api_key)
    await until(lambda: len(objects(settings.data_dir)) == 1, "half is there", 20)
    connection.close()
    await until(lambda: objects(settings.data_dir) == [], "it is gone", 20)
    assert (await ok(client.get(storage)))["files"] == []


@pytest.mark.parametrize(("limit", "status"), [({"transfer_seconds": 0.5}, 408), ({"max_file_bytes": MIB}, 413)])
async def test_a_client_that_stalls_or_sends_too_much_gets_an_error_at_once_and_leaves_nothing(
    settings: Settings,
    database: Database,
    keys: KeySource,
    api_key: str,
    launcher: WorkingLauncher,
    limit: dict[str, float],
    status: int,
) -> None:
    hasty = settings.model_copy(update=limit)
    built = await build(hasty, database, keys, launcher, NEIGHBOUR, ())
    async with built.running(), serving(built, hasty) as port:
        headers = {"Authorization": f"Bearer {api_key}"}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, trust_env=False) as client:
            space = (await ok(client.post("/v1/spaces", json={})))["id"]
        connection = await asyncio.to_thread(half_an_upload, port, f"/v1/spaces/{space}/storage/files", api_key)
        answer = await asyncio.to_thread(connection.recv, 1000)
        assert answer.startswith(b"HTTP/1.1 %d" % status)
        assert objects(settings.data_dir) == []
        connection.close()


async def test_another_gateway_passes_on_what_only_the_browsers_own_can_do(
    client: httpx.AsyncClient,
    gateway: Gateway,
    port: int,
    settings: Settings,
    database: Database,
    keys: KeySource,
    api_key: str,
) -> None:
    runtime = await make_runtime(client)
    path = f"/v1/spaces/{runtime['spaceId']}/runtimes/{runtime['id']}/files"
    storage = f"/v1/spaces/{runtime['spaceId']}/storage/files"
    await ok(client.post(storage, files={"file": ("a", b"bytes")}))
    gateway.supervisor.reached_at(f"http://127.0.0.1:{port}")
    await gateway.supervisor.round()
    built = await build(settings, database, keys, WorkingLauncher(), NEIGHBOUR, ())
    headers = {"Authorization": f"Bearer {api_key}"}
    async with (
        built.running(),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(built.app), base_url="http://localhost", headers=headers
        ) as other,
    ):
        staged = await ok(other.post(f"{path}/stage", json={"path": "a"}))
        assert await asyncio.to_thread(Path(staged["path"]).read_bytes) == b"bytes"
        asked: Json = {"path": "a", "storagePath": "b", "artifact": {}}
        collected = await ok(other.post(f"{path}/collect", json=asked))
        assert (collected["path"], collected["artifact"]["kind"]) == ("b", "collected")
        await refused(other.post(f"{path}/collect", json=asked), 409, "storage_file.path_exists")
        gateway.supervisor.reached_at("http://127.0.0.1:9")
        await gateway.supervisor.round()
        await refused(other.post(f"{path}/stage", json={"path": "a"}), 503, "runtime.host_unavailable")
