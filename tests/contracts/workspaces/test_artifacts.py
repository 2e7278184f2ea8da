"""/v1/artifacts: of all workspaces that a key sees, by their filters, and their bytes."""

from __future__ import annotations

import httpx
import pytest

from gateway.app import Gateway
from tests.support.api import NEVER, Json, checked, make_runtime, make_space, make_subaccount, ok, problems, refused
from tests.support.artifacts import make_artifact

PATH = "/v1/artifacts"


@pytest.fixture
def client(client: httpx.AsyncClient) -> httpx.AsyncClient:
    return checked(client)


async def launched(client: httpx.AsyncClient, workspace: str, alias: str) -> Json:
    """A runtime with an alias, as the generation of spaces has it."""
    made = await ok(client.post(f"/v1/workspaces/{workspace}/runtimes", json={"alias": alias}))
    runtime: Json = await ok(client.get(f"/v1/spaces/{workspace}/runtimes/{made['id']}"))
    return runtime


async def listed(client: httpx.AsyncClient, **query: str | int | list[str]) -> list[str]:
    """Paths, page by page up to the last one."""
    found: list[str] = []
    while True:
        page = await ok(client.get(PATH, params=query))
        found += [artifact["logicalPath"] for artifact in page["artifacts"]]
        if page["nextCursor"] is None:
            return found
        query["cursor"] = page["nextCursor"]


async def test_an_artifact_is_described_and_its_bytes_are_read(client: httpx.AsyncClient, gateway: Gateway) -> None:
    runtime = await make_runtime(client)
    made = await make_artifact(gateway, runtime, "pdf", "pages/a.txt", b"0123456789")
    found = await ok(client.get(f"{PATH}/{made.id}"))
    assert found == {
        "id": str(made.id),
        "workspaceId": runtime["spaceId"],
        "runtimeId": runtime["id"],
        "runId": runtime["activeRunId"],
        "kind": "pdf",
        "name": "a.txt",
        "objectId": str(made.file_id),
        "logicalPath": "pages/a.txt",
        "contentType": "text/plain",
        "sizeBytes": 10,
        "pageId": None,
        "createdAt": found["createdAt"],
        "contentUrl": found["contentUrl"],
    }
    assert await ok(client.get(PATH)) == {"artifacts": [found], "nextCursor": None}
    # The generation of spaces has the same one.
    (same,) = (await ok(client.get(f"/v1/spaces/{runtime['spaceId']}/artifacts")))["artifacts"]
    assert (same["id"], same["fileId"], same["path"]) == (found["id"], found["objectId"], found["logicalPath"])
    whole = await client.get(found["contentUrl"])
    assert (whole.status_code, whole.content) == (200, b"0123456789")
    assert whole.headers["content-disposition"] == 'attachment; filename="a.txt"'
    part = await client.get(f"{PATH}/{made.id}/content", headers={"Range": "bytes=2-4"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"234", "bytes 2-4/10")


async def test_filters_and_pages(client: httpx.AsyncClient, gateway: Gateway) -> None:
    one, other = await make_space(client), await make_space(client)
    main, second = await launched(client, one, "main"), await launched(client, one, "second")
    elsewhere = await launched(client, other, "main")
    plain = await make_runtime(client, other)
    for runtime, kind, path in (
        (main, "download", "a"),
        (second, "pdf", "b"),
        (elsewhere, "download", "c"),
        (plain, "recording", "d"),
    ):
        await make_artifact(gateway, runtime, kind, path)
    queries: list[tuple[dict[str, str | int | list[str]], list[str]]] = [
        ({}, ["d", "c", "b", "a"]),
        ({"limit": 1}, ["d", "c", "b", "a"]),
        ({"workspaceId": one}, ["b", "a"]),
        ({"workspaceId": one, "limit": 1}, ["b", "a"]),
        ({"runtime": "main"}, ["c", "a"]),
        ({"runtime": "main", "workspaceId": one}, ["a"]),
        # As in paths, an id stands for an alias.
        ({"runtime": plain["id"]}, ["d"]),
        ({"runtime": "nowhere"}, []),
        ({"runtimeId": second["id"]}, ["b"]),
        ({"runId": elsewhere["activeRunId"]}, ["c"]),
        ({"kind": "download"}, ["c", "a"]),
        ({"kind": "pdf,recording"}, ["d", "b"]),
        ({"kind": ["pdf", "download"]}, ["c", "b", "a"]),
        ({"kind": "download", "workspaceId": other}, ["c"]),
        ({"workspaceId": NEVER}, []),
        ({"runtimeId": NEVER}, []),
        ({"runId": NEVER}, []),
    ]
    assert [(query, await listed(client, **query)) for query, _ in queries] == queries
    cursor = (await ok(client.get(PATH, params={"limit": 1})))["nextCursor"]
    wrong = ({"cursor": cursor, "kind": "pdf"}, {"cursor": "x"}, {"kind": ","}, {"runtime": ""}, {"workspaceId": "x"})
    for query in wrong:
        assert len(await problems(client.get(PATH, params=query))) == 1, query


async def test_what_is_not_the_callers_is_not_there(client: httpx.AsyncClient, gateway: Gateway) -> None:
    _, headers = await make_subaccount(client)
    runtime = await make_runtime(client)
    made = await make_artifact(gateway, runtime)
    for path in (f"{PATH}/{made.id}", f"{PATH}/{made.id}/content", f"{PATH}/{NEVER}"):
        await refused(client.get(path, headers=headers), 404, "artifact.not_found")
    assert await ok(client.get(PATH, headers=headers)) == {"artifacts": [], "nextCursor": None}


async def test_an_artifact_goes_with_its_file(client: httpx.AsyncClient, gateway: Gateway) -> None:
    runtime = await make_runtime(client)
    made = await make_artifact(gateway, runtime)
    await ok(client.delete(f"/v1/spaces/{runtime['spaceId']}/storage/files/{made.file_id}"))
    await refused(client.get(f"{PATH}/{made.id}"), 404, "artifact.not_found")
    await refused(client.get(f"{PATH}/{made.id}/content"), 404, "artifact.not_found")
    assert await listed(client) == []
