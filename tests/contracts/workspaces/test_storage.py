"""/v1/storage: objects of a storage that several workspaces may share, folders, and links that need no API key."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.app import Gateway
from gateway.settings import Settings
from tests.support.api import NEVER, Json, checked, make_runtime, make_space, make_subaccount, ok, problems, refused
from tests.support.artifacts import make_artifact
from tests.support.launchers import WorkingLauncher

PATH = "/v1/storage/objects"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    changed = {"max_file_bytes": 4000, "space_max_bytes": 5000, "space_max_files": 12, "download_link_max_seconds": 600}
    return settings.model_copy(update=changed)


@pytest.fixture
def client(client: httpx.AsyncClient) -> httpx.AsyncClient:
    return checked(client)


async def workspace(client: httpx.AsyncClient, storage: str | None = None, **more: Any) -> str:
    mounts = {} if storage is None else {"mounts": {"storage": {"workspace": storage}}}
    made: str = (await ok(client.post("/v1/workspaces", json={"name": "a", **mounts}, **more)))["id"]
    return made


async def upload(
    client: httpx.AsyncClient, body: bytes = b"0123456789", headers: dict[str, str] | None = None, **fields: str
) -> httpx.Response:
    return await client.post(PATH, files={"file": ("sent.txt", body, "text/plain")}, data=fields, headers=headers)


async def paths(client: httpx.AsyncClient, storage: str, **query: Any) -> list[str]:
    found: list[str] = []
    while True:
        page = await ok(client.get(PATH, params={"workspace": storage, **query}))
        found += [each["logicalPath"] for each in page["objects"]]
        if page["nextCursor"] is None:
            return found
        query = {**query, "cursor": page["nextCursor"]}


def content_of(staged: Json) -> str:
    """What a browser finds at the path of a staged file."""
    return Path(staged["path"]).read_text()


async def test_an_object_is_a_file_of_its_workspace(client: httpx.AsyncClient) -> None:
    place = await workspace(client)
    response = await upload(
        client, workspace=place, path="in/a.csv", filename="A", source="export", driver="selenium", target="page.pdf"
    )
    made = response.json()
    assert response.headers["location"] == f"{PATH}/{made['id']}"
    assert {name: made[name] for name in made if name not in ("id", "objectKey", "createdAt")} == {
        "workspace": place,
        "logicalPath": "in/a.csv",
        "filename": "A",
        "sizeBytes": 10,
        "contentType": "text/plain",
        "expiresAt": None,
        "source": "export",
        "driver": "selenium",
        "target": "page.pdf",
        "runtimeId": None,
        "workspaceId": place,
        "metadata": None,
    }
    assert await ok(client.get(f"{PATH}/{made['id']}")) == made
    assert await ok(client.get(PATH, params={"workspace": place})) == {"objects": [made], "nextCursor": None}
    part = await client.get(f"{PATH}/{made['id']}/content", headers={"Range": "bytes=2-4"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"234", "bytes 2-4/10")
    files = f"/v1/spaces/{place}/storage/files"
    (file,) = (await ok(client.get(files)))["files"]
    assert (file["id"], file["path"], file["name"]) == (made["id"], "in/a.csv", "A")
    # And the other way.
    metadata = {"of": ["a", 1]}
    other = await ok(client.post(files, files={"file": ("b.txt", b"b")}, data={"metadata": json.dumps(metadata)}))
    assert (await ok(client.get(f"{PATH}/{other['id']}")))["metadata"] == metadata
    assert await paths(client, place) == ["b.txt", "in/a.csv"]
    assert await ok(client.delete(f"{PATH}/{other['id']}")) == {"id": other["id"], "deleted": True}
    await refused(client.get(f"{files}/{other['id']}"), 404, "file.not_found")
    await refused(client.get(f"{PATH}/{other['id']}"), 404, "file.not_found")


async def test_the_file_may_be_the_first_part_of_the_form(client: httpx.AsyncClient) -> None:
    place = await workspace(client)
    body = b"".join(
        f'--x\r\nContent-Disposition: form-data; name="{head}\r\n\r\n{text}\r\n'.encode()
        for head, text in (('file"; filename="a.txt"', "bytes"), ('workspace"', place), ('path"', "p"))
    )
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    made = await ok(client.post(PATH, content=body + b"--x--\r\n", headers=headers))
    assert (made["workspace"], made["logicalPath"], made["filename"], made["sizeBytes"]) == (place, "p", "p", 5)


async def test_workspaces_share_a_storage_by_its_name(client: httpx.AsyncClient) -> None:
    first, second, apart = await workspace(client, "shared"), await workspace(client, "shared"), await workspace(client)
    runtime = await make_runtime(client, second)
    in_first = await ok(upload(client, workspace="shared", path="b"))
    in_second = await ok(upload(client, workspace="shared", path="a", runtimeId=runtime["id"]))
    assert (in_first["workspaceId"], in_second["workspaceId"]) == (first, second)
    assert {in_first["workspace"], in_second["workspace"]} == {"shared"}
    assert await paths(client, "shared") == ["a", "b"]
    assert await paths(client, apart) == []
    # A path is taken for all that share it.
    await refused(upload(client, workspace="shared", path="a"), 409, "storage_file.path_exists")
    # A storage that no workspace has is none: not that of a workspace which mounts another one either.
    for name in ("nowhere", NEVER, first):
        await refused(client.get(PATH, params={"workspace": name}), 404, "storage_workspace.not_found")
        await refused(upload(client, workspace=name), 404, "storage_workspace.not_found")
    assert await problems(upload(client, workspace=apart, runtimeId=runtime["id"])) == {"runtimeId": "field.invalid"}


async def test_the_files_of_a_space_are_those_of_its_storage(client: httpx.AsyncClient) -> None:
    """Also by the routes of spaces, whichever space of the storage has them."""
    first, second, apart = await workspace(client, "shared"), await workspace(client, "shared"), await workspace(client)
    made = [await ok(upload(client, path.encode(), workspace="shared", path=path)) for path in ("a", "c")]
    assert {each["workspaceId"] for each in made} == {first}
    files = f"/v1/spaces/{second}/storage/files"
    own = await ok(client.post(files, files={"file": ("b", b"b")}))
    listed = await ok(client.get(files, params={"limit": 2}))
    assert [each["path"] for each in listed["files"]] == ["a", "b"]
    rest = await ok(client.get(files, params={"limit": 2, "cursor": listed["nextCursor"]}))
    assert ([each["path"] for each in rest["files"]], rest["nextCursor"]) == (["c"], None)
    path = f"{files}/{made[0]['id']}"
    assert (await ok(client.get(path)))["path"] == "a"
    assert (await client.get(f"{path}/content")).content == b"a"
    # A path is taken for all that share it, by these routes too.
    for sharing in (first, second):
        again = client.post(f"/v1/spaces/{sharing}/storage/files", files={"file": ("b", b"b")})
        await refused(again, 409, "storage_file.path_exists")
    await refused(client.get(f"/v1/spaces/{apart}/storage/files/{own['id']}"), 404, "file.not_found")
    await refused(client.delete(f"/v1/spaces/{apart}/storage/files/{own['id']}"), 404, "file.not_found")
    assert await ok(client.delete(path)) == {"id": made[0]["id"], "deleted": True}
    assert await paths(client, "shared") == ["b", "c"]


async def test_a_file_of_the_storage_is_staged_whichever_space_has_it(
    client: httpx.AsyncClient, launcher: WorkingLauncher
) -> None:
    await workspace(client, "shared")
    second = await workspace(client, "shared")
    runtime = await make_runtime(client, second)
    made = await ok(upload(client, b"from the first", workspace="shared", path="in/a.txt"))
    stage = f"/v1/spaces/{second}/runtimes/{runtime['id']}/files/stage"
    for named in ({"fileId": made["id"]}, {"path": "in/a.txt"}):
        staged = await ok(client.post(stage, json=named))
        assert content_of(staged) == "from the first"
    apart = await workspace(client)
    theirs = await make_runtime(client, apart)
    for named in ({"fileId": made["id"]}, {"path": "in/a.txt"}):
        other = client.post(f"/v1/spaces/{apart}/runtimes/{theirs['id']}/files/stage", json=named)
        await refused(other, 404, "file.not_found")


async def test_objects_stay_in_their_storage_when_the_workspace_that_has_them_is_deleted(
    client: httpx.AsyncClient, gateway: Gateway
) -> None:
    first, second, third = [await workspace(client, "shared") for _ in range(3)]
    apart = await workspace(client)
    kept = await ok(upload(client, b"of the first", workspace="shared", path="deep/a.txt"))
    assert kept["workspaceId"] == first
    own = await ok(upload(client, workspace=apart, path="x"))
    await ok(client.delete(f"/v1/workspaces/{first}"))
    await ok(client.delete(f"/v1/workspaces/{apart}"))
    found = await ok(client.get(f"{PATH}/{kept['id']}"))
    assert (found["workspaceId"], found["logicalPath"]) == (second, "deep/a.txt")
    assert (await client.get(f"{PATH}/{kept['id']}/content")).content == b"of the first"
    await refused(client.get(f"{PATH}/{own['id']}"), 404, "file.not_found")
    await ok(client.delete(f"/v1/spaces/{second}"))
    assert await paths(client, "shared") == ["deep/a.txt"]
    await gateway.services.files.sweep()
    assert (await client.get(f"{PATH}/{kept['id']}/content")).content == b"of the first"
    # With the last one that has the storage it is gone.
    await ok(client.delete(f"/v1/spaces/{third}"))
    await refused(client.get(f"{PATH}/{kept['id']}"), 404, "file.not_found")


async def test_objects_stay_in_their_storage_when_the_workspace_that_has_them_mounts_another(
    client: httpx.AsyncClient,
) -> None:
    first, second = await workspace(client, "shared"), await workspace(client, "shared")
    kept = await ok(upload(client, b"of the first", workspace="shared", path="deep/a.txt"))
    mount = f"/v1/workspaces/{first}"
    # The same storage once more, and changes of other kinds, move nothing.
    for body in ({"mounts": {"storage": {"workspace": "shared"}}}, {"mounts": {"vault": None}}, {"name": "x"}):
        await ok(client.patch(mount, json=body))
    assert (await ok(client.get(f"{PATH}/{kept['id']}")))["workspaceId"] == first
    await ok(client.patch(mount, json={"mounts": {"storage": {"workspace": "elsewhere"}}}))
    assert (await ok(client.get(f"{PATH}/{kept['id']}")))["workspaceId"] == second
    assert (await client.get(f"{PATH}/{kept['id']}/content")).content == b"of the first"
    assert (await paths(client, "shared"), await paths(client, "elsewhere")) == (["deep/a.txt"], [])
    # Where no other has the storage, they come along: to a name, and back to the space's own storage.
    await ok(client.patch(f"/v1/workspaces/{second}", json={"mounts": {"storage": {"workspace": "elsewhere"}}}))
    assert await paths(client, "elsewhere") == ["deep/a.txt"]
    await ok(client.patch(mount, json={"mounts": {"storage": None}}))
    await ok(client.patch(f"/v1/spaces/{second}", json={"mounts": {"storage": None}}))
    assert (await paths(client, first), await paths(client, second)) == ([], ["deep/a.txt"])


async def test_a_path_that_two_workspaces_have_stays_twice(client: httpx.AsyncClient) -> None:
    places = [await workspace(client) for _ in range(2)]
    long = "x" * 200 + "/" + "y" * 3888 + "/a.txt"
    for place in places:
        for path in ("deep/a.txt", long, f"only-{place}"):
            await ok(upload(client, place.encode(), workspace=place, path=path))
        await ok(client.patch(f"/v1/workspaces/{place}", json={"mounts": {"storage": {"workspace": "shared"}}}))
    before = (await ok(client.get(PATH, params={"workspace": "shared"})))["objects"]
    files = f"/v1/spaces/{places[1]}/storage/files"
    runtime = await make_runtime(client, places[1])
    stage = f"/v1/spaces/{places[1]}/runtimes/{runtime['id']}/files/stage"
    # By its path, a space's own one is meant.
    staged = await ok(client.post(stage, json={"path": "deep/a.txt"}))
    assert content_of(staged) == places[1]
    await ok(client.delete(f"/v1/workspaces/{places[0]}"))
    after = (await ok(client.get(PATH, params={"workspace": "shared"})))["objects"]
    assert {each["id"] for each in after} == {each["id"] for each in before}
    assert len((await ok(client.get(files)))["files"]) == len(before) == 6
    moved = {each["id"]: each["logicalPath"] for each in before if each["workspaceId"] == places[0]}
    now = {each["id"]: each["logicalPath"] for each in after}
    for object_id, path in moved.items():
        if path.startswith("only-"):
            assert now[object_id] == path
        elif path == "deep/a.txt":
            assert now[object_id] == f"deep/a ({object_id}).txt"
        else:
            # No room for more in its folder.
            assert now[object_id] == f"a ({object_id}).txt"
        assert (await client.get(f"{PATH}/{object_id}/content")).content == places[0].encode()
        assert (await ok(client.get(f"{PATH}/{object_id}")))["workspaceId"] == places[1]


@pytest.mark.parametrize("leaves", ["deleted", "mounts another"] * 2)
async def test_workspaces_that_leave_a_storage_at_one_moment_lose_no_object_of_the_third(
    client: httpx.AsyncClient, leaves: str
) -> None:
    places = [await workspace(client, "shared") for _ in range(3)]
    made = await ok(upload(client, workspace="shared", path="a"))
    method, body = ("DELETE", None) if leaves == "deleted" else ("PATCH", {"mounts": {"storage": None}})
    answers = await asyncio.gather(
        *(client.request(method, f"/v1/workspaces/{place}", json=body) for place in places[:2])
    )
    assert [answer.status_code for answer in answers] == [200, 200]
    assert (await ok(client.get(f"{PATH}/{made['id']}")))["workspaceId"] == places[2]


async def test_what_is_wrong_with_an_upload_is_named(client: httpx.AsyncClient) -> None:
    place = await workspace(client)
    assert await problems(upload(client)) == {"workspace": "field.missing"}
    assert await problems(upload(client, workspace=place, runtimeId=NEVER, sessionId=NEVER)) == {
        "sessionId": "field.invalid"
    }
    assert await problems(upload(client, workspace=place, filename="a\x00")) == {"filename": "field.invalid"}
    for path in ("../a", "/a", "a//b", "a\\b", "a/./b", ""):
        await refused(upload(client, workspace=place, path=path), 400, "storage_file.path_invalid")
    for runtime in (NEVER, "x"):
        await refused(upload(client, runtimeId=runtime), 404, "runtime.not_found")
    assert await paths(client, place) == []


async def test_limits_of_files_hold(client: httpx.AsyncClient) -> None:
    place = await workspace(client)
    await refused(upload(client, b"x" * 4001, workspace=place), 413, "storage_file.too_large")
    await ok(upload(client, b"x" * 4000, workspace=place, path="a"))
    await refused(upload(client, b"x" * 1001, workspace=place, path="b"), 409, "space.storage_full")
    await ok(upload(client, b"x" * 1000, workspace=place, path="b"))
    for number in range(10):
        await ok(upload(client, b"", workspace=place, path=f"c{number}"))
    await refused(upload(client, b"", workspace=place, path="d"), 409, "space.max_files")
    # What was refused is not kept.
    assert await paths(client, place) == ["a", "b", *(f"c{number}" for number in range(10))]


async def test_lists_have_filters_pages_and_offsets(client: httpx.AsyncClient, gateway: Gateway) -> None:
    place = await workspace(client)
    launched = await ok(client.post(f"/v1/workspaces/{place}/runtimes", json={"alias": "m", "driver": "puppeteer"}))
    runtime: Json = await ok(client.get(f"/v1/spaces/{place}/runtimes/{launched['id']}"))
    await make_artifact(gateway, runtime, "download", "downloads/a.txt")
    await ok(upload(client, workspace=place, path="shots/b.png", source="screenshot", target="page.screenshot"))
    await ok(upload(client, workspace=place, path="shots/c.png", source="screenshot", sessionId=runtime["id"]))
    await ok(upload(client, path="d", driver="selenium", runtimeId=runtime["id"]))
    everything = ["d", "downloads/a.txt", "shots/b.png", "shots/c.png"]
    queries: list[tuple[Json, list[str]]] = [
        ({}, everything),
        ({"limit": "1"}, everything),
        ({"limit": 3}, everything),
        ({"offset": "1"}, everything[1:]),
        ({"offset": 1, "limit": 1}, everything[1:]),
        ({"offset": 4}, []),
        ({"runtimeId": runtime["id"]}, ["d", "downloads/a.txt", "shots/c.png"]),
        ({"source": "download"}, ["downloads/a.txt"]),
        ({"source": "screenshot", "limit": 1}, ["shots/b.png", "shots/c.png"]),
        # An artifact and an upload have the driver of their runtime, where they have no other.
        ({"driver": "puppeteer"}, ["downloads/a.txt", "shots/c.png"]),
        ({"driver": "selenium"}, ["d"]),
        ({"target": "page.screenshot"}, ["shots/b.png"]),
        ({"pathPrefix": "shots/"}, ["shots/b.png", "shots/c.png"]),
        ({"pathPrefix": "shots/c"}, ["shots/c.png"]),
        ({"runtimeId": NEVER}, []),
    ]
    assert [(query, await paths(client, place, **query)) for query, _ in queries] == queries
    assert await problems(client.get(PATH)) == {"workspace": "field.missing"}
    for query in ({"limit": 0}, {"limit": 201}, {"offset": -1}, {"runtimeId": "x"}, {"cursor": "x"}, {"colour": "x"}):
        assert list(await problems(client.get(PATH, params={"workspace": place, **query}))) == list(query)


async def test_folders_are_read_one_after_the_other(client: httpx.AsyncClient) -> None:
    place = await workspace(client, "shared")
    await workspace(client, "shared")
    for path in ("a", "b/1", "b/2", "b/c/3", "b.txt", "ü/x"):
        await ok(upload(client, workspace="shared", path=path))

    async def browsed(prefix: str = "", limit: int = 200) -> list[Any]:
        """Paths of objects, and of folders with the number and the bytes of what is below."""
        found: list[Any] = []
        cursor: Json = {}
        while True:
            query = {"workspace": "shared", "prefix": prefix, "limit": limit, **cursor}
            page = await ok(client.get("/v1/storage/browse", params=query))
            assert (page["workspace"], page["prefix"]) == ("shared", prefix)
            found += [(each["path"], each["name"], each["objects"], each["sizeBytes"]) for each in page["folders"]]
            found += [each["logicalPath"] for each in page["objects"]]
            if page["nextCursor"] is None:
                return found
            cursor = {"cursor": page["nextCursor"]}

    top = [("b/", "b", 3, 30), ("ü/", "ü", 1, 10), "a", "b.txt"]
    assert await browsed() == top
    assert await browsed(limit=1) == ["a", "b.txt", ("b/", "b", 3, 30), ("ü/", "ü", 1, 10)]
    assert await browsed("b/") == [("b/c/", "c", 1, 10), "b/1", "b/2"]
    assert await browsed("b") == [("b/", "b", 3, 30), "b.txt"]
    assert await browsed("ü/") == ["ü/x"]
    assert await browsed("%") == await browsed("nothing/") == []
    await refused(client.get("/v1/storage/browse", params={"workspace": place}), 404, "storage_workspace.not_found")


async def test_a_link_reads_one_object_without_a_key_until_it_expires(
    client: httpx.AsyncClient, anonymous: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, api_key: str
) -> None:
    made = await ok(upload(client, workspace=await workspace(client), path="a.txt"))
    create = f"{PATH}/{made['id']}/download-url"
    by_default = await ok(client.post(create))
    assert by_default["expiresInSeconds"] == 600
    assert (await ok(client.post(create, json={"expiresInSeconds": 600})))["expiresInSeconds"] == 600
    assert await problems(client.post(create, json={"expiresInSeconds": 601})) == {
        "expiresInSeconds": "less_than_equal"
    }
    link = await ok(client.post(create, json={"expiresInSeconds": 60}))
    assert api_key not in link["url"]
    whole = await anonymous.get(link["url"])
    assert (whole.status_code, whole.content) == (200, b"0123456789")
    assert whole.headers["content-disposition"] == 'attachment; filename="a.txt"'
    assert "sandbox" in whole.headers["content-security-policy"]
    part = await anonymous.get(link["url"], headers={"Range": "bytes=-3"})
    assert (part.status_code, part.content) == (206, b"789")
    await refused(anonymous.get(link["url"][:-1]), 401, "download_link.unknown")
    await refused(anonymous.delete(link["url"]), 405, "route.method_not_allowed")
    now = time.time()
    with monkeypatch.context() as later:
        later.setattr("gateway.crypto.download_tokens.time.time", lambda: now + 62)
        await refused(anonymous.get(link["url"]), 410, "download_link.expired")
    await ok(client.delete(f"{PATH}/{made['id']}"))
    await refused(anonymous.get(link["url"]), 404, "file.not_found")


async def test_a_link_ends_with_its_owner(client: httpx.AsyncClient, anonymous: httpx.AsyncClient) -> None:
    subaccount, headers = await make_subaccount(client)
    made = await ok(upload(client, headers=headers, workspace=await workspace(client, headers=headers)))
    link = await ok(client.post(f"{PATH}/{made['id']}/download-url", headers=headers))
    assert (await anonymous.get(link["url"])).content == b"0123456789"
    await ok(client.post(f"/v1/subaccounts/{subaccount}/archive"))
    await refused(anonymous.get(link["url"]), 404, "file.not_found")


async def test_a_storage_is_of_its_owner(client: httpx.AsyncClient) -> None:
    subaccount, headers = await make_subaccount(client)
    await workspace(client, "shared")
    theirs = await workspace(client, "shared", headers=headers)
    own_place = await make_space(client, subaccountId=subaccount)
    own = await ok(upload(client, workspace="shared", path="own"))
    made = await ok(upload(client, headers=headers, workspace="shared", path="theirs"))
    assert made["workspaceId"] == theirs

    async def seen(headers: dict[str, str] | None = None, **query: str) -> list[str]:
        page = await ok(client.get(PATH, params={"workspace": "shared", **query}, headers=headers))
        return [each["logicalPath"] for each in page["objects"]]

    assert (await seen(), await seen(headers)) == (["own"], ["theirs"])
    # An organization's key names the subaccount, or a workspace by its id; it sees each object by its id.
    assert await seen(subaccountId=subaccount) == ["theirs"]
    more = await ok(upload(client, workspace="shared", path="more", subaccountId=subaccount))
    assert (more["workspaceId"], await seen(headers)) == (theirs, ["more", "theirs"])
    assert (await ok(upload(client, workspace=own_place, path="x")))["workspaceId"] == own_place
    assert (await ok(client.get(f"{PATH}/{made['id']}")))["logicalPath"] == "theirs"
    for path in (f"{PATH}/{own['id']}", f"{PATH}/{own['id']}/content"):
        await refused(client.get(path, headers=headers), 404, "file.not_found")
    await refused(client.delete(f"{PATH}/{own['id']}", headers=headers), 404, "file.not_found")
    await refused(client.post(f"{PATH}/{own['id']}/download-url", headers=headers), 404, "file.not_found")
    await refused(client.get(PATH, params={"workspace": "shared", "subaccountId": NEVER}), 404, "subaccount.not_found")
