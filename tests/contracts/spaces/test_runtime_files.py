"""/v1/spaces/{id}/runtimes/{runtimeId}/files: into a runtime and out of it only, whatever the browser's user does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import threading
from pathlib import Path

import httpx
import pytest

from gateway.app import Gateway
from gateway.core.files_dir import FilesDir, NotAFile
from gateway.settings import Settings
from gateway.store.database import Database
from tests.support.api import NEVER, Json, checked, make_runtime, make_space, ok, problems, refused
from tests.support.launchers import WorkingLauncher, own


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"runtime_max_staged_bytes": 1000, "max_file_bytes": 2000, "max_uploads": 2})


@pytest.fixture
async def runtime(client: httpx.AsyncClient) -> Json:
    checked(client)
    space = await make_space(client)
    return await make_runtime(client, space)


@pytest.fixture
def files(runtime: Json) -> str:
    return f"/v1/spaces/{runtime['spaceId']}/storage/files"


@pytest.fixture
def root(runtime: Json) -> str:
    return f"/v1/spaces/{runtime['spaceId']}/runtimes/{runtime['id']}/files"


@pytest.fixture
def directory(launcher: WorkingLauncher, runtime: Json) -> Path:
    (browser,) = launcher.browsers.values()
    return Path(browser.files_dir)


async def upload(client: httpx.AsyncClient, files: str, body: bytes, path: str) -> Json:
    made: Json = await ok(client.post(files, files={"file": ("sent", body, "text/plain")}, data={"path": path}))
    return made


def write(path: Path, body: bytes) -> Path:
    path.write_bytes(body)
    own(path)
    return path


async def test_a_file_is_staged_by_its_id_or_its_path_for_the_browsers_user(
    client: httpx.AsyncClient, runtime: Json, files: str, root: str, directory: Path
) -> None:
    file = await upload(client, files, b"bytes", "reports/a.csv")
    for body, name in (
        ({"fileId": file["id"]}, "a.csv"),
        ({"path": "reports/a.csv"}, "a (1).csv"),
        ({"fileId": file["id"], "name": "b.txt"}, "b.txt"),
        ({"fileId": file["id"], "name": "../../b\\x.txt"}, "x.txt"),
        ({"fileId": file["id"], "runtimePath": "in/there/c"}, "in/there/c"),
        ({"fileId": file["id"], "runtimePath": f"{directory}/d"}, "d"),
    ):
        staged = await ok(client.post(f"{root}/stage", json=body))
        path = directory / name
        assert staged["path"] == staged["runtimePath"] == str(path)
        assert (staged["fileId"], staged["runtimeId"]) == (file["id"], runtime["id"])
        assert (staged["name"], staged["sizeBytes"]) == (path.name, 5)
        assert staged["expiresAt"] == runtime["summary"]["expiresAt"]
        assert path.read_bytes() == b"bytes"
        owner = os.stat(directory).st_uid
        assert (os.stat(path).st_uid, os.stat(path).st_mode & 0o777) == (owner, 0o600)
        assert os.stat(path.parent).st_uid == owner
    # Nothing half written stays.
    assert [name for name in os.listdir(directory) if name.startswith(".")] == []


async def test_an_invalid_stage_is_refused_with_its_code(
    client: httpx.AsyncClient, files: str, root: str, directory: Path, tmp_path: Path
) -> None:
    file = await upload(client, files, b"bytes", "a")
    (directory / "away").symlink_to(tmp_path)
    (directory / "broken").symlink_to("nowhere")
    write(directory / "there", b"mine")

    async def stage_refused(status: int, code: str, **body: str) -> None:
        await refused(client.post(f"{root}/stage", json=body), status, code)

    for path in ("../x", "/etc/x", "a/../../x", str(tmp_path / "x"), "away/x", "there/x", ".", "x" * 256):
        await stage_refused(400, "runtime_file.path_invalid", fileId=file["id"], runtimePath=path)
    for path in ("there", "broken", "away"):
        await stage_refused(409, "runtime_file.path_exists", fileId=file["id"], runtimePath=path)
    assert (directory / "there").read_bytes() == b"mine"
    assert not (directory / "nowhere").exists()
    assert not (tmp_path / "x").exists()
    await stage_refused(404, "file.not_found", fileId=NEVER)
    await stage_refused(404, "file.not_found", path="b")
    await stage_refused(400, "storage_file.path_invalid", path="../a")
    for body in ({}, {"fileId": NEVER, "path": "a"}, {"fileId": NEVER, "name": "a", "runtimePath": "b"}):
        assert await problems(client.post(f"{root}/stage", json=body)) == {"": "field.invalid"}


async def test_a_runtime_takes_so_many_bytes(client: httpx.AsyncClient, files: str, root: str) -> None:
    large = await upload(client, files, b"x" * 999, "large")
    small = await upload(client, files, b"x", "small")
    await ok(client.post(f"{root}/stage", json={"fileId": large["id"]}))
    # What failed does not count.
    body = {"fileId": small["id"], "runtimePath": "large"}
    await refused(client.post(f"{root}/stage", json=body), 409, "runtime_file.path_exists")
    await ok(client.post(f"{root}/stage", json={"fileId": small["id"]}))
    error = await refused(client.post(f"{root}/stage", json={"fileId": small["id"]}), 409, "runtime.staged_full")
    assert error["details"] == {"limit": 1000, "used": 1000}


async def test_a_file_is_collected_into_storage_and_as_an_artifact(
    client: httpx.AsyncClient, runtime: Json, files: str, root: str, directory: Path
) -> None:
    write(directory / "export.csv", b"1,2")
    body = {"path": str(directory / "export.csv"), "storagePath": "outputs/export.csv"}
    file = await ok(client.post(f"{root}/collect", json=body))
    assert (file["name"], file["path"], file["contentType"], file["sizeBytes"]) == (
        "export.csv",
        "outputs/export.csv",
        "text/csv",
        3,
    )
    assert (await client.get(f"{files}/{file['id']}/content")).content == b"1,2"
    await refused(client.post(f"{root}/collect", json=body), 409, "storage_file.path_exists")
    plain = await ok(client.post(f"{root}/collect", json={"path": "export.csv"}))
    assert (plain["path"], "artifact" in plain) == ("export.csv", False)
    asked = {"path": "export.csv", "storagePath": "b.csv", "artifact": {"kind": "report", "name": "June"}}
    made = await ok(client.post(f"{root}/collect", json=asked))
    run = runtime["activeRunId"]
    (artifact,) = (await ok(client.get(f"/v1/runs/{run}/artifacts")))["artifacts"]
    assert artifact == made["artifact"]
    assert {name: artifact[name] for name in artifact if name not in ("id", "createdAt", "downloadUrl")} == {
        "runId": run,
        "runtimeId": runtime["id"],
        "runtimeKind": "browser",
        "kind": "report",
        "name": "June",
        "fileId": made["id"],
        "path": "b.csv",
        "contentType": "text/csv",
        "sizeBytes": 3,
    }
    assert (await client.get(artifact["downloadUrl"])).content == b"1,2"


async def test_artifacts_are_listed_newest_first_by_kind_and_runtime_and_go_with_their_file(
    client: httpx.AsyncClient, runtime: Json, files: str, root: str, directory: Path
) -> None:
    write(directory / "a", b"a")
    for number, kind in enumerate(("report", "pdf", "report", "collected")):
        body = {"path": "a", "storagePath": f"{number}", "artifact": {} if kind == "collected" else {"kind": kind}}
        await ok(client.post(f"{root}/collect", json=body))

    async def listed(of: str, **query: str | int | list[str]) -> list[str]:
        found: list[str] = []
        while True:
            page = await ok(client.get(f"{of}/artifacts", params=query))
            found += [artifact["path"] for artifact in page["artifacts"]]
            if page["nextCursor"] is None:
                return found
            query["cursor"] = page["nextCursor"]

    space, run = f"/v1/spaces/{runtime['spaceId']}", f"/v1/runs/{runtime['activeRunId']}"
    for of in (space, run):
        assert await listed(of) == ["3", "2", "1", "0"]
        assert await listed(of, limit=1) == ["3", "2", "1", "0"]
        assert await listed(of, kind="report") == ["2", "0"]
        assert await listed(of, kind="report,pdf", limit=2) == ["2", "1", "0"]
        assert await listed(of, kind=["pdf", "collected"]) == ["3", "1"]
        assert await problems(client.get(f"{of}/artifacts", params={"cursor": "x"})) == {"cursor": "field.invalid"}
        assert await problems(client.get(f"{of}/artifacts", params={"kind": ","})) == {"kind": "field.invalid"}
    assert await listed(space, runtimeId=runtime["id"]) == ["3", "2", "1", "0"]
    assert await listed(space, runtimeId=NEVER) == []
    newest = (await ok(client.get(f"{run}/artifacts")))["artifacts"][0]
    await ok(client.delete(f"{files}/{newest['fileId']}"))
    assert await listed(space) == await listed(run) == ["2", "1", "0"]


async def test_nothing_but_a_plain_file_of_the_browsers_user_is_collected(
    client: httpx.AsyncClient, root: str, directory: Path, tmp_path: Path, settings: Settings
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    (directory / "link").symlink_to(secret)
    (directory / "inner-link").symlink_to("plain")
    write(directory / "plain", b"x" * 2000)
    (directory / "away").symlink_to(tmp_path)
    os.mkfifo(directory / "pipe")
    own(directory / "pipe")
    (directory / "folder").mkdir()
    own(directory / "folder")
    wrong = [
        "link",
        "inner-link",
        "away/secret",
        "pipe",
        "folder",
        "plain/x",
        "../downloads/plain",
        "..",
        "/etc/passwd",
    ]
    for path in (*wrong, "/etc/passwd", str(secret), f"{directory}/../../../../secret", "x\u0000"):
        code = "request.invalid" if "\x00" in path else "runtime_file.path_invalid"
        await refused(client.post(f"{root}/collect", json={"path": path, "storagePath": "s"}), 400, code)
    await refused(client.post(f"{root}/collect", json={"path": "nothing"}), 404, "runtime_file.not_found")
    await refused(client.post(f"{root}/collect", json={"path": "folder/x"}), 404, "runtime_file.not_found")
    await refused(
        client.post(f"{root}/collect", json={"path": "plain", "storagePath": "../s"}), 400, "storage_file.path_invalid"
    )
    await ok(client.post(f"{root}/collect", json={"path": "plain"}))
    write(directory / "over", b"x" * 2001)
    await refused(client.post(f"{root}/collect", json={"path": "over"}), 413, "storage_file.too_large")
    if os.geteuid() == 0:
        os.link(secret, directory / "hard")
        await refused(client.post(f"{root}/collect", json={"path": "hard"}), 400, "runtime_file.path_invalid")


async def test_files_go_into_and_out_of_live_runtimes_only(
    client: httpx.AsyncClient, gateway: Gateway, runtime: Json, files: str, root: str, database: Database
) -> None:
    file = await upload(client, files, b"a", "a")
    await ok(client.post(f"/v1/spaces/{runtime['spaceId']}/runtimes/{runtime['id']}/stop"))
    for path, body in ((f"{root}/stage", {"fileId": file["id"]}), (f"{root}/collect", {"path": "a"})):
        await refused(client.post(path, json=body), 409, "runtime.not_active")
    elsewhere = root.replace(runtime["id"], NEVER)
    await refused(client.post(f"{elsewhere}/collect", json={"path": "a"}), 404, "runtime.not_found")


def test_a_directory_that_is_swapped_for_a_link_while_we_walk_leads_nowhere(tmp_path: Path) -> None:
    """The browser's user goes on swapping its directories for links to the outside; what is read is its own, always."""
    path = tmp_path / "runtime" / "home" / "downloads"
    path.mkdir(parents=True)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"secret")
    over = threading.Event()

    def swap() -> None:
        there = path / "a"
        while not over.is_set():
            # What we make there may be in its way.
            with contextlib.suppress(OSError):
                there.symlink_to(outside)
            with contextlib.suppress(OSError):
                there.unlink()
            with contextlib.suppress(OSError):
                there.mkdir()
                (there / "file").write_bytes(b"mine")
            shutil.rmtree(there, ignore_errors=True)

    swapping = threading.Thread(target=swap)
    swapping.start()
    read: set[bytes] = set()
    try:
        for _ in range(1500):
            try:
                with FilesDir(str(path)).reading(("a", "file")) as descriptor:
                    read.add(os.read(descriptor, 100))
            except NotAFile:
                read.add(b"refused")
            try:
                with FilesDir(str(path)).writing(("a", "new"), rename_on_conflict=True) as writing:
                    writing.write(b"x")
                    writing.done()
            except NotAFile:
                continue
    finally:
        over.set()
        swapping.join()
    assert b"mine" in read
    assert b"secret" not in read
    assert [entry.name for entry in outside.iterdir()] == ["file"]


def test_the_directory_itself_may_be_a_link_by_its_user(tmp_path: Path) -> None:
    home = tmp_path / "runtime" / "home"
    home.mkdir(parents=True)
    (tmp_path / "file").write_bytes(b"secret")
    (home / "downloads").symlink_to(tmp_path)
    with pytest.raises(NotAFile), FilesDir(str(home / "downloads")).reading(("file",)):
        pass
    with pytest.raises(NotAFile), FilesDir(str(home / "downloads")).writing(("new",), rename_on_conflict=False):
        pass
    with pytest.raises(NotAFile):
        FilesDir(str(home / "downloads")).files()


async def test_a_copy_that_is_given_up_leaves_nothing(
    client: httpx.AsyncClient, gateway: Gateway, files: str, root: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = await upload(client, files, b"a", "a")
    reading, go = asyncio.Event(), asyncio.Event()
    read = gateway.services.files.content

    async def slow(*given: object) -> object:
        reading.set()
        await go.wait()
        async for chunk in read(*given):  # type: ignore[arg-type]
            yield chunk

    monkeypatch.setattr(gateway.services.files, "content", slow)
    staging = asyncio.create_task(client.post(f"{root}/stage", json={"fileId": file["id"]}))
    await reading.wait()
    assert len(os.listdir(directory)) == 1
    staging.cancel()
    await asyncio.wait({staging})
    assert os.listdir(directory) == []
