"""The state of a profile in object storage: written, read, copied, and refused once it was touched."""

from __future__ import annotations

import asyncio
import base64
import os
import random
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import text

from gateway.app import Gateway, build
from gateway.core.disk_space import ALWAYS_ROOM, DiskSpace
from gateway.core.errors import GatewayError, Internal, Unavailable
from gateway.core.ids import new_id
from gateway.core.scope import Scope
from gateway.crypto.keyring import create_key_file
from gateway.domain.profiles.packing import Packing, PackLimits, TooLarge, Unpacking
from gateway.domain.profiles.states import ProfileStates, State
from gateway.domain.secrets import KeySource, SecretStore, rotate
from gateway.settings import Settings
from gateway.store.database import Database
from gateway.store.objects import Objects
from tests.support.api import make_subaccount, ok, refused
from tests.support.launchers import WorkingLauncher


def client_of(gateway: Gateway, api_key: str) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {api_key}"}
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(gateway.app), base_url="http://localhost:8787", headers=headers
    )


LIMITS = PackLimits(bytes=20_000_000, entries=1000)
# Larger than two chunks and one window of the storage, and nothing that compresses.
CONTENT = random.Random(1).randbytes(5_000_000)


@pytest.fixture
def objects(settings: Settings) -> Objects:
    return Objects.of(settings)


@pytest_asyncio.fixture
async def states(objects: Objects, keys: KeySource) -> AsyncIterator[ProfileStates]:
    made = ProfileStates(objects, SecretStore(keys), ALWAYS_ROOM)
    yield made
    await made.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "source"
    (directory / "Default").mkdir(parents=True)
    (directory / "Default" / "Cookies").write_bytes(CONTENT)
    return directory


async def written(states: ProfileStates, source: Path, owner: Scope | None = None) -> tuple[State, int]:
    state = State.new(new_id(), owner or Scope(uuid4()))
    return state, await states.write(state, Packing(source, LIMITS, os.geteuid()).chunks(b"{}"))


async def restored(states: ProfileStates, state: State, stored: int, target: Path) -> bytes:
    def use(unpacking: Unpacking) -> bytes:
        target.mkdir()
        header = unpacking.header()
        unpacking.into(target, lambda entry: None)
        return header

    return await states.read(state, stored, LIMITS, use)


def place(objects: Objects, state: State) -> Path:
    assert objects.directory is not None
    return objects.directory / state.object_key


async def test_a_state_is_read_as_it_was_written(
    states: ProfileStates, objects: Objects, source: Path, tmp_path: Path
) -> None:
    state, stored = await written(states, source)
    assert place(objects, state).stat().st_size == stored
    assert await restored(states, state, stored, tmp_path / "target") == b"{}"
    assert (tmp_path / "target" / "Default" / "Cookies").read_bytes() == CONTENT
    assert CONTENT[1000:1100] not in place(objects, state).read_bytes()


async def test_a_copy_has_a_key_of_its_own(states: ProfileStates, source: Path, tmp_path: Path) -> None:
    state, stored = await written(states, source)
    target = State.new(new_id(), state.owner)
    assert await states.copy(state, stored, target) == stored
    await states.remove([state.object_id])
    await restored(states, target, stored, tmp_path / "target")
    assert (tmp_path / "target" / "Default" / "Cookies").read_bytes() == CONTENT


CHUNK = 1024 * 1024 + 16


@pytest.mark.parametrize(
    ("alter", "error", "code"),
    [
        (
            lambda data: data[: CHUNK - 1] + bytes([data[CHUNK - 1] ^ 1]) + data[CHUNK:],
            Internal,
            "browser_profile.damaged",
        ),
        (lambda data: data[CHUNK : 2 * CHUNK] + data[:CHUNK] + data[2 * CHUNK :], Internal, "browser_profile.damaged"),
        (lambda data: data[:CHUNK] + data[2 * CHUNK :] + bytes(CHUNK), Internal, "browser_profile.damaged"),
        (lambda data: data[:-1], Unavailable, "storage.unavailable"),
        (lambda data: b"", Unavailable, "storage.unavailable"),
    ],
    ids=["a bit", "reordered", "a chunk left out", "cut", "empty"],
)
async def test_an_altered_state_is_refused(
    states: ProfileStates,
    objects: Objects,
    source: Path,
    tmp_path: Path,
    alter: Callable[[bytes], bytes],
    error: type[GatewayError],
    code: str,
) -> None:
    state, stored = await written(states, source)
    path = place(objects, state)
    path.write_bytes(alter(path.read_bytes()))
    with pytest.raises(error) as raised:
        await restored(states, state, stored, tmp_path / "target")
    assert raised.value.code == code
    assert str(path) not in raised.value.message
    with pytest.raises(error):
        await states.copy(state, stored, State.new(new_id(), state.owner))


async def test_a_state_of_another_profile_is_refused(
    states: ProfileStates, objects: Objects, source: Path, tmp_path: Path
) -> None:
    """Also under the same data key: the object's id and its owner are authenticated."""
    state, stored = await written(states, source)
    for other in (State(new_id(), state.owner, state.key), State(state.object_id, Scope(uuid4()), state.key)):
        place(objects, other).write_bytes(place(objects, state).read_bytes())
        with pytest.raises(Internal):
            await restored(states, other, stored, tmp_path / f"target-{other.object_id}-{other.owner.organization_id}")


async def test_the_data_key_is_rotated_with_all_secrets(
    states: ProfileStates, database: Database, tmp_path: Path, keys: KeySource
) -> None:
    state = State.new(new_id(), Scope(None))  # type: ignore[arg-type]  # no organization, so that it needs no row
    async with database.begin() as connection:
        await states.keep_key(connection, state)
    old = (tmp_path / "master-keys").read_text()
    create_key_file(tmp_path / "new", "new")
    (tmp_path / "master-keys").write_text((tmp_path / "new").read_text() + old)
    rotation = await rotate(database, keys, lambda done, left: None)
    assert (rotation.held, rotation.undecryptable) == ({"new": 1}, [])
    (tmp_path / "master-keys").write_text((tmp_path / "new").read_text())
    async with database.connect() as connection:
        assert (await states.opened(connection, state.object_id, state.owner)).key == state.key
        with pytest.raises(Internal) as without:
            await states.opened(connection, new_id(), state.owner)
        with pytest.raises(Internal) as moved:
            await states.opened(connection, state.object_id, Scope(uuid4()))
    assert {without.value.code, moved.value.code} == {"browser_profile.damaged"}
    assert base64.b64encode(state.key).decode() not in without.value.message + moved.value.message


async def test_what_can_not_be_written_whole_is_not_there(
    objects: Objects, keys: KeySource, states: ProfileStates, source: Path
) -> None:
    state = State.new(new_id(), Scope(uuid4()))
    with pytest.raises(TooLarge):
        await states.write(state, Packing(source, PackLimits(len(CONTENT) - 1, 10), os.geteuid()).chunks(b"{}"))
    free = iter([100, 100, 0, 0, 0])
    full = ProfileStates(
        objects, SecretStore(keys), DiskSpace(source, 50, lambda path: next(free), lambda: next(times))
    )
    times = iter(range(100))
    with pytest.raises(Unavailable) as raised:
        await full.write(state, Packing(source, LIMITS, os.geteuid()).chunks(b"{}"))
    assert raised.value.code == "storage.disk_full"
    await full.close()
    assert objects.directory is not None
    assert [path for path in objects.directory.rglob("*") if path.is_file()] == []


async def test_a_read_that_is_cancelled_ends_soon(states: ProfileStates, source: Path, tmp_path: Path) -> None:
    state, stored = await written(states, source)
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def use(unpacking: Unpacking) -> None:
        unpacking.header()
        loop.call_soon_threadsafe(begun.set)
        (tmp_path / "target").mkdir()
        unpacking.into(tmp_path / "target", lambda entry: None)

    reading = asyncio.create_task(states.read(state, stored, LIMITS, use))
    await begun.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


async def test_writing_does_not_block_the_event_loop(states: ProfileStates) -> None:
    """Chunks are made by a thread: the loop goes on while one is awaited."""
    loop = asyncio.get_running_loop()
    turned = asyncio.Event()

    def chunks() -> Iterator[bytes]:
        # Ends only if the loop runs meanwhile.
        asyncio.run_coroutine_threadsafe(turned.wait(), loop).result()
        yield b"x"

    writing = asyncio.create_task(states.write(State.new(new_id(), Scope(uuid4())), chunks()))
    loop.call_later(0.01, turned.set)
    assert await writing == 17


async def test_a_clone_has_the_state_within_the_limits_of_bytes(
    client: httpx.AsyncClient, gateway: Gateway, database: Database, source: Path, tmp_path: Path, keys: KeySource
) -> None:
    objects = Objects.of(gateway.services.settings)
    subaccount, _ = await make_subaccount(client)
    made = await ok(client.post("/v1/browser-profiles", json={"name": "a", "subaccountId": subaccount}))
    path = f"/v1/browser-profiles/{made['id']}"
    states = ProfileStates(objects, SecretStore(keys), ALWAYS_ROOM)
    async with database.connect() as connection:
        found = await connection.execute(text("SELECT organization_id, subaccount_id FROM browser_profiles"))
        state, stored = await written(states, source, Scope(*found.one()))
        await states.keep_key(connection, state)
        await connection.execute(
            text(
                "UPDATE browser_profiles SET object_id = :id, stored_bytes = :stored, size_bytes = :size,"
                " browser = 'chromium', generation = 7, saved_at = now()"
            ),
            {"id": state.object_id, "stored": stored, "size": len(CONTENT)},
        )
    clone = await ok(client.post(f"{path}/clone", json={"name": "b"}))
    assert (clone["browser"], clone["sizeBytes"], clone["generation"]) == ("chromium", len(CONTENT), 1)
    # The sweep keeps what a profile has, and nothing else.
    async with database.connect() as connection:
        found = await connection.execute(text("SELECT object_id FROM browser_profiles WHERE name = 'b'"))
        copy = await states.opened(connection, found.scalar_one(), state.owner)
    orphan, _ = await written(states, source)
    for kept in (state, copy, orphan):
        os.utime(place(objects, kept), (0, 0))
    assert await gateway.services.files.sweep() == 1
    assert [place(objects, each).exists() for each in (state, copy, orphan)] == [True, True, False]
    await restored(states, copy, stored, tmp_path / "copy")
    # What was reset is gone; in the clone it is not.
    assert (await ok(client.post(f"{path}/reset")))["sizeBytes"] == 0
    again = await ok(client.post(f"/v1/browser-profiles/{clone['id']}/clone", json={"name": "c"}))
    assert again["storedBytes"] == stored
    await states.close()


@pytest.mark.parametrize("room", [1, 0, -1])
async def test_bytes_in_storage_are_limited(
    settings: Settings, database: Database, keys: KeySource, launcher: WorkingLauncher, api_key: str, room: int
) -> None:
    """At, under and over the limit of a subaccount, which a clone would exceed."""
    settings = settings.model_copy(update={"subaccount_max_profile_bytes": 2000 + room})
    gateway = await build(settings, database, keys, launcher, new_id(), ())
    async with gateway.running(), client_of(gateway, api_key) as client:
        subaccount, _ = await make_subaccount(client)
        made = await ok(client.post("/v1/browser-profiles", json={"name": "a", "subaccountId": subaccount}))
        async with database.begin() as connection:
            await connection.execute(text("UPDATE browser_profiles SET stored_bytes = 1000"))
        cloned = client.post(f"/v1/browser-profiles/{made['id']}/clone", json={"name": "b"})
        if room >= 0:
            await ok(cloned)
        else:
            body = await refused(cloned, 409, "subaccount.profiles_full")
            assert body["details"] == {"limit": 1999, "used": 1000}
