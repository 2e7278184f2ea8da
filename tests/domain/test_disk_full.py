"""A gateway whose disk is nearly full takes no files and starts no runtimes, and goes on once there is room."""

from __future__ import annotations

import os
from collections.abc import Callable
from uuid import uuid4

import httpx
import pytest

from gateway.settings import Settings
from tests.support.api import make_runtime, make_space, ok, refused
from tests.support.waiting import until

FILE = {"file": ("sent", b"bytes", "text/plain")}


@pytest.fixture
def leave(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Leaves so many bytes free on all disks."""
    left = [float(2**60)]

    def statvfs(_: object) -> os.statvfs_result:
        return os.statvfs_result((1, 1, int(left[0]), int(left[0]), int(left[0]), 0, 0, 0, 0, 255))

    monkeypatch.setattr(os, "statvfs", statvfs)
    return lambda free: left.__setitem__(0, free)


async def test_files_and_new_runtimes_are_refused_and_the_rest_goes_on(
    client: httpx.AsyncClient, settings: Settings, leave: Callable[[float], None]
) -> None:
    space = await make_space(client)
    runtime = await make_runtime(client, space)
    files = f"/v1/spaces/{space}/storage/files"
    below = f"/v1/spaces/{space}/runtimes/{runtime['id']}"
    kept = await ok(client.post(files, files=FILE, data={"path": "kept"}))
    staged = {"fileId": kept["id"]}

    async def upload_status() -> int:
        return (await client.post(files, files=FILE, data={"path": uuid4().hex})).status_code

    async def disk_check() -> tuple[int, bool]:
        ready = await client.get("/readyz")
        return ready.status_code, ready.json()["checks"]["disk"]["ok"]

    async def not_ready() -> bool:
        return await disk_check() == (503, False)

    async def answers(status: int) -> bool:
        return await upload_status() == status

    leave(settings.disk_reserve_bytes * 3 / 4)
    assert await upload_status() == 200
    assert await disk_check() == (200, True)
    leave(settings.disk_reserve_bytes * 3 / 4 - 1)
    # A measurement counts for a moment.
    await until(lambda: answers(503))
    await until(not_ready)
    await refused(client.post(files, files=FILE), 503, "storage.disk_full")
    await refused(client.post(f"{below}/files/stage", json=staged), 503, "storage.disk_full")
    answer = await client.post(f"/v1/spaces/{space}/runtimes", json={})
    assert (answer.status_code, answer.json()["code"]) == (503, "gateway.disk_full")
    assert int(answer.headers["retry-after"]) > 0
    # What is there is served still.
    assert (await client.get(f"{files}/{kept['id']}/content")).content == b"bytes"
    assert (await ok(client.get(below)))["status"] == "active"
    leave(2**60)
    await until(lambda: answers(200))
    await make_runtime(client, space)
    await ok(client.post(f"{below}/files/stage", json=staged))
