"""Downloads below a lease's root: the lease is enough, and shows those of its own run only."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import pytest

from gateway.app import Gateway
from gateway.http.cursors import Listing, PageQuery
from gateway.store.database import Database
from tests.support.api import NEVER, Json, make_runtime, make_space, ok, problems, refusal, refused
from tests.support.audit import log, only
from tests.support.launchers import WorkingLauncher, own


class Run:
    """A runtime with a lease."""

    def __init__(self, client: httpx.AsyncClient, path: str, directory: Path, lease: str, url: str) -> None:
        self.client = client
        self.path = path
        self.directory = directory
        self.lease = lease
        self.downloads = f"{urlsplit(url).path}/downloads"

    async def produce(self, name: str, kind: str = "download") -> str:
        """The id of an artifact of the run, of this kind."""
        file = self.directory / name
        file.write_bytes(name.encode() * 10)
        own(file)
        body = {"path": name, "storagePath": f"{kind}/{name}", "artifact": {"kind": kind, "name": name}}
        collected: Json = await ok(self.client.post(f"{self.path}/files/collect", json=body))
        identifier: str = collected["artifact"]["id"]
        return identifier


@pytest.fixture
async def space(client: httpx.AsyncClient) -> str:
    return await make_space(client)


async def begin(client: httpx.AsyncClient, launcher: WorkingLauncher, space: str) -> Run:
    runtime = await make_runtime(client, space)
    path = f"/v1/spaces/{space}/runtimes/{runtime['id']}"
    minted = await ok(client.post(f"{path}/connections", json={"protocol": "cdp"}))
    directory = Path(list(launcher.browsers.values())[-1].files_dir)
    return Run(client, path, directory, f"{path}/connections/{minted['id']}", minted["endpoint"]["url"])


@pytest.fixture
async def run(client: httpx.AsyncClient, launcher: WorkingLauncher, space: str) -> Run:
    return await begin(client, launcher, space)


async def test_the_lease_lists_and_fetches_what_was_downloaded(run: Run, anonymous: httpx.AsyncClient) -> None:
    assert await ok(anonymous.get(run.downloads)) == {"downloads": [], "nextCursor": None}
    made = await run.produce("June.csv")
    await run.produce("report.csv", "report")
    (listed,) = (await ok(anonymous.get(run.downloads)))["downloads"]
    assert {name: listed[name] for name in listed if name != "createdAt"} == {
        "id": made,
        "name": "June.csv",
        "contentType": "text/csv",
        "sizeBytes": 80,
        "url": str(anonymous.base_url.join(f"{run.downloads}/{made}")),
    }
    assert listed["createdAt"].endswith("Z")
    whole = await anonymous.get(listed["url"])
    assert (whole.status_code, whole.content) == (200, b"June.csv" * 10)
    assert whole.headers["content-disposition"].startswith("attachment")
    part = await anonymous.get(listed["url"], headers={"Range": "bytes=0-3"})
    assert (part.status_code, part.content) == (206, b"June")
    assert (await anonymous.head(listed["url"])).headers["content-length"] == "80"


async def test_only_downloads_of_the_leases_own_run_are_there(
    run: Run, client: httpx.AsyncClient, anonymous: httpx.AsyncClient, launcher: WorkingLauncher, space: str
) -> None:
    other = await begin(client, launcher, space)
    foreign, report = await other.produce("a.txt"), await run.produce("b.txt", "report")
    assert (await ok(anonymous.get(run.downloads)))["downloads"] == []
    for missing in (foreign, report, NEVER, "x", foreign.replace("-", "")):
        await refused(anonymous.get(f"{run.downloads}/{missing}"), 404, "download.not_found")


async def test_pages_have_a_size_and_a_cursor(run: Run, anonymous: httpx.AsyncClient) -> None:
    made = [await run.produce(f"{number}.txt") for number in range(3)]
    first = await ok(anonymous.get(run.downloads, params={"limit": 2}))
    assert [each["id"] for each in first["downloads"]] == made[:0:-1]
    rest = await ok(anonymous.get(run.downloads, params={"limit": 1, "cursor": first["nextCursor"]}))
    assert ([each["id"] for each in rest["downloads"]], rest["nextCursor"]) == (made[:1], None)
    assert len((await ok(anonymous.get(run.downloads, params={"limit": 200})))["downloads"]) == 3
    of_another = Listing("downloads", PageQuery(), UUID(NEVER)).cursor("2026-01-01T00:00:00+00:00", UUID(NEVER))
    assert await problems(anonymous.get(run.downloads, params={"cursor": of_another})) == {"cursor": "field.invalid"}


@pytest.mark.parametrize(
    ("parameter", "value", "code"),
    [
        ("limit", "0", "greater_than_equal"),
        ("limit", "201", "less_than_equal"),
        ("limit", "\u0661", "int_parsing"),
        ("cursor", "x", "field.invalid"),
        ("kind", "report", "field.unknown"),
    ],
)
async def test_invalid_parameters_are_refused_as_in_lists_of_the_api(
    run: Run, anonymous: httpx.AsyncClient, parameter: str, value: str, code: str
) -> None:
    assert await problems(anonymous.get(run.downloads, params={parameter: value})) == {parameter: code}


async def test_without_a_valid_lease_nothing_is_served(run: Run, anonymous: httpx.AsyncClient) -> None:
    made = await run.produce("a.txt")
    for path in ("/v1/connect/unknown/downloads", f"/v1/connect/unknown/downloads/{made}"):
        await refused(anonymous.get(path), 401, "lease.unknown")
    await ok(run.client.delete(run.lease))
    for path in (run.downloads, f"{run.downloads}/{made}"):
        await refused(anonymous.get(path), 410, "lease.revoked")


async def test_they_end_with_the_runtime(run: Run, anonymous: httpx.AsyncClient) -> None:
    await ok(run.client.post(f"{run.path}/stop"))
    await refused(anonymous.get(run.downloads), 410, "runtime.gone")


async def test_a_foreign_page_is_refused(run: Run, anonymous: httpx.AsyncClient) -> None:
    answer = await anonymous.get(run.downloads, headers={"Origin": "https://elsewhere.example"})
    refusal(answer, 403, "connect.origin_refused")


async def test_the_lease_is_who_fetched_in_the_audit_log(
    run: Run, anonymous: httpx.AsyncClient, gateway: Gateway, database: Database
) -> None:
    made = await run.produce("a.txt")
    assert (await anonymous.get(f"{run.downloads}/{made}")).status_code == 200
    found = only(await log(database, gateway.audit), "file.downloaded")
    assert (found["actor"], found["outcome"]) == (run.lease.rsplit("/", 1)[1], "ok")
