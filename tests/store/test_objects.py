"""The bytes of files, in a directory and in a bucket: whole or not there, and swept when they belong to nothing."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest

from gateway.app import Gateway
from gateway.core.errors import Unavailable
from gateway.domain.files.service import Files, NewFile
from gateway.settings import Settings
from gateway.store.database import Database
from gateway.store.objects import Objects
from tests.support.api import make_runtime, make_space, ok
from tests.support.buckets import Bucket, serving_bucket

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with serving_bucket() as bucket:
        yield bucket


@pytest.fixture(params=["directory", "bucket"])
def settings(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    if request.param == "directory":
        return settings
    bucket: Bucket = request.getfixturevalue("bucket")
    return bucket.settings(settings)


@pytest.fixture
def objects(settings: Settings) -> Objects:
    return Objects.of(settings)


async def chunks(*given: bytes) -> AsyncIterator[bytes]:
    for chunk in given:
        yield chunk


async def read(objects: Objects, key: str, start: int, end: int) -> bytes:
    return b"".join([chunk async for chunk in objects.read(key, start, end)])


async def keys(objects: Objects) -> set[str]:
    return {listed.key async for page in objects.listed() for listed in page}


def left(settings: Settings, request: pytest.FixtureRequest) -> list[str]:
    """What is there beside whole objects."""
    if settings.files_url is None:
        return [path.name for path in (settings.data_dir / "files").rglob("*#*")]
    bucket: Bucket = request.getfixturevalue("bucket")
    return bucket.unfinished()


async def test_written_objects_are_read_in_whole_and_in_part(objects: Objects) -> None:
    body = os.urandom(9 * MIB)
    key = f"a/{uuid4()}"
    assert await objects.put(key, chunks(body[:100], body[100 : 3 * MIB], body[3 * MIB :])) == len(body)
    assert await read(objects, key, 0, len(body)) == body
    assert await read(objects, key, 4 * MIB - 1, 4 * MIB + 1) == body[4 * MIB - 1 : 4 * MIB + 1]
    assert await read(objects, key, len(body) - 1, len(body)) == body[-1:]
    assert await objects.put("a/empty", chunks()) == 0
    assert await read(objects, "a/empty", 0, 0) == b""
    assert {key, "a/empty"} <= await keys(objects)
    await objects.remove([key, "a/empty", "a/never"])
    assert not {key, "a/empty"} & await keys(objects)
    with pytest.raises(Unavailable) as raised:
        await read(objects, key, 0, 1)
    assert raised.value.code == "storage.unavailable"


async def test_an_interrupted_write_leaves_no_object(
    objects: Objects, settings: Settings, request: pytest.FixtureRequest
) -> None:
    class Broken(Exception):
        pass

    async def breaks() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield bytes(MIB)
        raise Broken

    with pytest.raises(Broken):
        await objects.put("b/broken", breaks())

    stalled = asyncio.Event()

    async def stalls() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield bytes(MIB)
        stalled.set()
        await asyncio.Event().wait()

    writing = asyncio.create_task(objects.put("b/canceled", stalls()))
    await stalled.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert not {"b/broken", "b/canceled"} & await keys(objects)
    assert left(settings, request) == []


async def test_an_unavailable_store_is_reported_and_blocks_no_other_request(settings: Settings, tmp_path: Path) -> None:
    if settings.files_url is None:
        objects = Objects.of(settings)
        directory = settings.data_dir / "files"
        directory.rmdir()
        directory.write_text("no directory")
    else:
        objects = Objects.of(settings.model_copy(update={"files_url": "s3://files?endpoint=http://127.0.0.1:9"}))

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(MIB)

    async with asyncio.timeout(20):
        with pytest.raises(Unavailable):
            await objects.put("c/x", endless())
        with pytest.raises(Unavailable):
            await read(objects, "c/x", 0, 1)


async def test_files_are_kept_in_either(client: httpx.AsyncClient, settings: Settings, gateway: Gateway) -> None:
    root = f"/v1/spaces/{await make_space(client)}/storage/files"
    body = os.urandom(2 * MIB)
    made = await ok(client.post(root, files={"file": ("a.bin", body)}))
    content = await client.get(f"{root}/{made['id']}/content", headers={"Range": "bytes=1000-1999"})
    assert (content.status_code, content.content) == (206, body[1000:2000])
    await ok(client.delete(f"{root}/{made['id']}"))
    objects = Objects.of(settings)
    assert [key for key in await keys(objects) if made["id"] in key] == []


async def test_a_sweep_removes_expired_and_orphaned_files(
    client: httpx.AsyncClient, gateway: Gateway, settings: Settings, database: Database
) -> None:
    files = gateway.services.files
    objects = Objects.of(settings)
    runtime = await make_runtime(client)
    caller = await gateway.services.access.authenticate(client.headers["authorization"])
    space = await gateway.services.spaces.get(caller.scope, UUID(runtime["spaceId"]))
    kept, _ = await files.keep(space.owner, space.id, chunks(b"kept"), NewFile("k", "k", "text/plain"))
    past = datetime(2020, 1, 1, tzinfo=UTC)
    expired, _ = await files.keep(
        space.owner, space.id, chunks(b"over"), NewFile("e", "e", "text/plain", expires_at=past)
    )
    assert (await client.get(f"/v1/spaces/{space.id}/storage/files/{expired.id}")).status_code == 404
    await objects.put("lost/1", chunks(b"lost"))
    # What is young may be about to get its row.
    await files.sweep()
    ours = {kept.object_key, "lost/1"}
    assert await keys(objects) & {*ours, expired.object_key} == ours
    # A second of a bucket's clock is one number.
    at_once = settings.model_copy(update={"file_grace_seconds": -1.0})
    await Files(database, objects, at_once, gateway.audit, gateway.services.events).sweep()
    assert await keys(objects) & ours == {kept.object_key}


async def test_partial_writes_of_a_killed_gateway_are_removed(settings: Settings, objects: Objects) -> None:
    if settings.files_url is not None:
        assert await objects.clear_unfinished(0) == 0
        return
    await objects.put("d/whole", chunks(b"whole"))
    half, young = settings.data_dir / "files" / "d" / "half#1", settings.data_dir / "files" / "d" / "young#2"
    half.write_bytes(b"half")
    young.write_bytes(b"half")
    os.utime(half, (time.time() - 100,) * 2)
    assert await keys(objects) == {"d/whole"}
    assert await objects.clear_unfinished(50) == 1
    assert young.exists()
    assert await objects.clear_unfinished(0) == 1
    assert await read(objects, "d/whole", 0, 5) == b"whole"
