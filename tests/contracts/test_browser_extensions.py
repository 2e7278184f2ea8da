"""/v1/browser-extensions in both generations: uploaded, imported, used by launches and profiles, deleted."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from gateway.app import Gateway
from gateway.core.errors import RequestInvalid
from gateway.core.ids import new_id
from gateway.domain.extensions.importing import Imports, checked_address
from gateway.settings import Settings
from gateway.store.database import Database
from tests.support.api import Json, checked, make_subaccount, ok, problems, refused
from tests.support.audit import log
from tests.support.extension_packages import chromium_id, crx3, manifest, public, rsa_key, working, zip_of
from tests.support.launchers import WorkingLauncher

PATH = "/v1/browser-extensions"
LIMITS = {
    "extension_max_bytes": 20_000,
    "extension_max_per_runtime": 2,
    "organization_max_extensions": 8,
    "subaccount_max_extensions": 1,
    "extension_import_redirects": 2,
}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"egress_allow": ("127.0.0.1",), **LIMITS})


@pytest.fixture(params=["spaces", "workspaces"])
def client(client: httpx.AsyncClient, request: pytest.FixtureRequest) -> httpx.AsyncClient:
    client.headers["Gateway-Contract"] = request.param
    return checked(client)


async def upload(client: httpx.AsyncClient, content: bytes | None = None, **fields: Any) -> Json:
    files = {"file": ("marker.crx", content or working())}
    made: Json = await ok(client.post(f"{PATH}/upload", files=files, data=fields))
    return made


async def launch(client: httpx.AsyncClient, config: Json, **launching: Any) -> httpx.Response:
    """A runtime, in the client's generation."""
    if client.headers["Gateway-Contract"] == "workspaces":
        workspace = await ok(client.post("/v1/workspaces", json={"name": "x"}))
        body = {"alias": "main", "launch": {"mode": "ephemeral", "config": config, **launching}}
        return await client.post(f"/v1/workspaces/{workspace['id']}/runtimes", json=body)
    space = await ok(client.post("/v1/spaces", json={}))
    return await client.post(f"/v1/spaces/{space['id']}/runtimes", json={"config": config, **launching})


async def stop(client: httpx.AsyncClient, runtime: Json) -> None:
    home = "workspaces" if "workspaceId" in runtime else "spaces"
    parent = runtime.get("workspaceId") or runtime["spaceId"]
    await ok(client.post(f"/v1/{home}/{parent}/runtimes/{runtime['id']}/stop"))


def objects(settings: Settings) -> list[str]:
    root = settings.data_dir / "files"
    return [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]


def unpacked(settings: Settings) -> list[str]:
    return sorted(path.name for path in settings.extensions_dir.iterdir() if path.is_dir())


async def test_one_is_uploaded_listed_renamed_and_deleted(client: httpx.AsyncClient, settings: Settings) -> None:
    content = crx3(working())
    made = await upload(client, content)
    assert made == {
        "id": made["id"],
        "name": "Marker",
        "version": "1.2.3",
        "format": "crx",
        "profileCount": 0,
        "chromeExtensionId": chromium_id(public(rsa_key())),
        "sizeBytes": len(content),
        "contentHash": hashlib.sha256(content).hexdigest(),
        "createdAt": made["createdAt"],
        "updatedAt": made["createdAt"],
    }
    path = f"{PATH}/{made['id']}"
    named = await upload(client, name="mine")
    assert named["name"] == "mine"
    assert await ok(client.get(PATH)) == {"browserExtensions": [made, named]}
    first = await ok(client.get(PATH, params={"limit": 1}))
    assert first["browserExtensions"] == [made]
    rest = await ok(client.get(PATH, params={"limit": 1, "cursor": first["nextCursor"]}))
    assert rest == {"browserExtensions": [named]}
    assert await ok(client.get(path)) == made
    renamed = await ok(client.patch(path, json={"name": "x"}))
    assert renamed == made | {"name": "x", "updatedAt": renamed["updatedAt"]}
    assert await ok(client.patch(path, json={})) == renamed
    assert sorted(objects(settings)) == sorted(f"extensions/{each['id']}" for each in (made, named))
    assert await ok(client.delete(path)) == {"id": made["id"], "deleted": True}
    assert objects(settings) == [f"extensions/{named['id']}"]
    for answer in (client.get(path), client.patch(path, json={"name": "y"}), client.delete(path)):
        await refused(answer, 404, "browser_extension.not_found")


async def test_the_list_takes_an_upload_too(client: httpx.AsyncClient) -> None:
    answer = await client.post(PATH, files={"file": ("x.zip", working())})
    assert answer.headers["Location"] == f"{PATH}/{answer.json()['id']}"
    assert answer.json()["name"] == "Marker"


async def test_a_bad_package_is_refused_and_nothing_is_kept(client: httpx.AsyncClient, settings: Settings) -> None:
    async def details(content: bytes) -> Json:
        answer = client.post(f"{PATH}/upload", files={"file": ("x", content)})
        body = await refused(answer, 400, "browser_extension.invalid_package")
        found: Json = body["details"]
        return found

    refusal = await details(zip_of({"manifest.json": manifest(permissions=["tabs", "debugger"])}))
    assert refusal == {"part": "manifest.json: permissions[1]", "rule": "permission", "permission": "debugger"}
    assert (await details(b"<!doctype html>"))["rule"] == "format"
    files = {"file": ("x", working())}
    assert await problems(client.post(f"{PATH}/upload", files=files, data={"name": ""})) == {"name": "string_too_short"}
    assert await problems(client.post(f"{PATH}/upload", files={"name": (None, "x")})) == {"file": "field.missing"}
    assert await ok(client.get(PATH)) == {"browserExtensions": []}
    assert objects(settings) == []


async def test_the_size_of_a_package_is_limited(client: httpx.AsyncClient, settings: Settings) -> None:
    most = LIMITS["extension_max_bytes"]
    # A package of any size: stored, and not compressed.
    rest = int(most) - len(zip_of({"manifest.json": manifest(), "a": b""}))
    exact = zip_of({"manifest.json": manifest(), "a": os.urandom(rest - 200)}, method=0)
    exact = zip_of({"manifest.json": manifest(), "a": os.urandom(rest - 200 + int(most) - len(exact))}, method=0)
    assert len(exact) == most
    await upload(client, exact)
    answer = client.post(f"{PATH}/upload", files={"file": ("x", exact + b"x")})
    assert (await refused(answer, 413, "browser_extension.too_large"))["details"] == {"limit": most}


async def test_their_number_is_limited(client: httpx.AsyncClient) -> None:
    contract = client.headers.pop("Gateway-Contract")
    subaccount, key = await make_subaccount(client)
    client.headers["Gateway-Contract"] = contract
    for number in range(7):
        await upload(client, name=str(number))
    own = await upload(client, subaccountId=subaccount)
    assert own["subaccountId"] == subaccount
    assert (await ok(client.get(PATH, headers=key)))["browserExtensions"] == [own]
    for headers, code in ((key, "organization.max_extensions"), ({}, "organization.max_extensions")):
        answer = client.post(f"{PATH}/upload", files={"file": ("x", working())}, headers=headers)
        await refused(answer, 429, code)
    await ok(client.delete(f"{PATH}/{(await ok(client.get(PATH)))['browserExtensions'][0]['id']}"))
    answer = client.post(f"{PATH}/upload", files={"file": ("x", working())}, headers=key)
    assert (await refused(answer, 429, "subaccount.max_extensions"))["details"] == {"limit": 1}


# Import by address


class FakeServer:
    """Answers each path with a head and a body."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[str, bytes]] = {}
        self.asked: list[str] = []
        self.port = 0
        self.wait = asyncio.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            path = head.split(" ")[1]
            self.asked.append(path)
            if path == "/never":
                await self.wait.wait()
            first, body = self.answers.get(path.partition("?")[0], ("HTTP/1.1 404 No\r\n", b""))
            writer.write(f"{first}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
            await writer.drain()
        writer.close()


OK_HEAD = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"


def redirect(to: str, status: int = 302) -> tuple[str, bytes]:
    return f"HTTP/1.1 {status} Go\r\nLocation: {to}\r\n", b""


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    fake = FakeServer()
    serving = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    fake.port = serving.sockets[0].getsockname()[1]
    yield fake
    fake.wait.set()
    serving.close()


async def test_one_is_imported_by_its_address(client: httpx.AsyncClient, server: FakeServer) -> None:
    server.answers = {
        "/marker": redirect("/hop?secret=2"),
        "/hop": redirect(server.url("/marker.crx"), 307),
        "/marker.crx": (OK_HEAD, crx3(working())),
    }
    made = await ok(client.post(f"{PATH}/import", json={"url": server.url("/marker?token=t0ken#x"), "name": "mine"}))
    assert (made["name"], made["sourceUrl"]) == ("mine", server.url("/marker"))
    assert made["chromeExtensionId"] == chromium_id(public(rsa_key()))
    assert server.asked == ["/marker?token=t0ken", "/hop?secret=2", "/marker.crx"]


async def test_what_an_address_gives_is_checked(client: httpx.AsyncClient, server: FakeServer) -> None:
    server.answers = {
        "/page": (OK_HEAD, b"<!doctype html>"),
        "/large": (OK_HEAD, working() + bytes(30_000)),
        "/around": redirect("/around"),
        "/nowhere": redirect("ftp://127.0.0.1/"),
        "/user": redirect("http://a:b@127.0.0.1/"),
        "/file": redirect("file:///etc/passwd"),
        "/inside": redirect("http://10.0.0.1/x.crx"),
        "/metadata": redirect("http://169.254.169.254/latest"),
        "/nonsense": ("", b""),
    }
    for path, status, code in (
        ("/page", 400, "browser_extension.invalid_package"),
        ("/large", 413, "browser_extension.too_large"),
        ("/missing", 400, "browser_extension.import_failed"),
        ("/around", 400, "browser_extension.import_failed"),
        ("/nowhere", 400, "browser_extension.import_failed"),
        ("/user", 400, "browser_extension.import_failed"),
        ("/file", 400, "browser_extension.import_failed"),
        ("/nonsense", 400, "browser_extension.import_failed"),
    ):
        await refused(client.post(f"{PATH}/import", json={"url": server.url(path)}), status, code)
    assert server.asked.count("/around") == 3
    for path, code in (("/inside", "egress.private_address"), ("/metadata", "egress.metadata")):
        assert await problems(client.post(f"{PATH}/import", json={"url": server.url(path)})) == {"url": code}
    assert await ok(client.get(PATH)) == {"browserExtensions": []}


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://10.0.0.1/x.crx", "egress.private_address"),
        ("ftp://example.com/x.crx", "field.invalid"),
        ("https://user:password@example.com/x.crx", "field.invalid"),
        ("nothing", "field.invalid"),
        ("http://", "field.invalid"),
        ("http://[::1", "field.invalid"),
        ("http://a\nb/", "field.invalid"),
        ("", "string_too_short"),
    ],
)
async def test_an_address_that_is_none_is_refused(client: httpx.AsyncClient, url: str, code: str) -> None:
    assert await problems(client.post(f"{PATH}/import", json={"url": url})) == {"url": code}


async def test_a_server_that_does_not_answer_is_not_waited_for(gateway: Gateway, server: FakeServer) -> None:
    imports = Imports(gateway.outbound, redirects=0, seconds=0.2)
    with pytest.raises(RequestInvalid, match="took more than"):
        async with imports.opened(checked_address(server.url("/never"))):
            pass
    with pytest.raises(RequestInvalid, match="can't be resolved"):
        async with imports.opened(checked_address("http://no-such-name.invalid/")):
            pass
    with pytest.raises(RequestInvalid, match="can't be imported"):
        async with imports.opened(checked_address("http://127.0.0.1:1/")):
            pass


# Launches


async def test_a_runtime_loads_them(client: httpx.AsyncClient, launcher: WorkingLauncher, settings: Settings) -> None:
    one, two = await upload(client, crx3(working())), await upload(client)
    runtime = await ok_of(await launch(client, {"extensionIds": [two["id"], one["id"]]}))
    assert runtime["config"]["extensionIds"] == [two["id"], one["id"]]
    (spec,) = launcher.specs
    assert spec.browser == "chromium"
    assert [each.id for each in spec.extensions] == [two["chromeExtensionId"], one["chromeExtensionId"]]
    for launched in spec.extensions:
        assert files_and_modes(launched.directory) == {
            "": 0o555,
            "manifest.json": 0o444,
            "worker.js": 0o444,
            "scripts": 0o555,
            "scripts/mark.js": 0o444,
        }
    for each in (one, two):
        body = await refused(client.delete(f"{PATH}/{each['id']}"), 409, "browser_extension.in_use")
        assert body["details"] == {"extensionId": each["id"], "profileIds": [], "runtimeIds": [runtime["id"]]}
    await stop(client, runtime)
    for each in (one, two):
        await ok(client.delete(f"{PATH}/{each['id']}"))
    assert unpacked(settings) == []
    # What the runtime was launched with stays known.
    home = "workspaces" if "workspaceId" in runtime else "spaces"
    parent = runtime.get("workspaceId") or runtime["spaceId"]
    ended = await ok(client.get(f"/v1/{home}/{parent}/runtimes/{runtime['id']}"))
    assert ended["config"]["extensionIds"] == [two["id"], one["id"]]


def files_and_modes(directory: str) -> dict[str, int]:
    root = Path(directory)
    assert root.is_absolute()
    places = [root, *root.rglob("*")]
    return {str(path)[len(directory) :].lstrip("/"): path.stat().st_mode & 0o777 for path in places}


async def ok_of(response: httpx.Response) -> Json:
    assert response.status_code == 200, response.text
    body: Json = response.json()
    return body


async def test_what_can_not_be_loaded_is_refused(client: httpx.AsyncClient, launcher: WorkingLauncher) -> None:
    one, again, other = (
        await upload(client, crx3(working())),
        await upload(client, crx3(working())),
        await upload(client),
    )

    async def wrong(**config: Any) -> dict[str, str]:
        answer = await launch(client, config)
        assert answer.status_code == 400, answer.text
        # Of a choice, such as `launch`, what was chosen is in between.
        wrong = answer.json()["details"]["errors"]
        return {each["field"].partition("config.")[2]: each["code"] for each in wrong}

    ids = "extensionIds"
    assert await wrong(extensionIds=[one["id"], one["id"]]) == {ids: "field.invalid"}
    # Two rows of one extension of the browser.
    assert await wrong(extensionIds=[one["id"], again["id"]]) == {ids: "field.invalid"}
    assert await wrong(extensionIds=[one["id"], other["id"], str(new_id())]) == {ids: "too_long"}
    assert list(await wrong(extensionIds=["x"])) == [f"{ids}.0"]
    assert list((await wrong(extensionIds=[one["id"]], browser="headless-shell")).values()) == ["field.invalid"]
    unknown = await launch(client, {"extensionIds": [str(new_id())]})
    assert (unknown.status_code, unknown.json()["code"]) == (404, "browser_extension.not_found")
    assert launcher.specs == []
    for config in (
        {"extensionIds": [one["id"]], "browser": "chromium"},
        {"extensionIds": [], "browser": "headless-shell"},
    ):
        await stop(client, await ok_of(await launch(client, config)))
    assert [len(spec.extensions) for spec in launcher.specs] == [1, 0]


async def test_an_extension_belongs_to_one_owner(client: httpx.AsyncClient) -> None:
    contract = client.headers.pop("Gateway-Contract")
    subaccount, key = await make_subaccount(client)
    client.headers["Gateway-Contract"] = contract
    of_organization, of_subaccount = await upload(client), await upload(client, subaccountId=subaccount)
    other = client.headers["Authorization"]
    client.headers.update(key)
    for extension, status in ((of_organization, 404), (of_subaccount, 200)):
        answer = await launch(client, {"extensionIds": [extension["id"]]})
        assert answer.status_code == status, answer.text
    client.headers["Authorization"] = other
    answer = await launch(client, {"extensionIds": [of_subaccount["id"]]})
    assert (answer.status_code, answer.json()["code"]) == (404, "browser_extension.not_found")


async def test_a_launch_and_a_delete_at_once_leave_nothing_half_done(
    client: httpx.AsyncClient, launcher: WorkingLauncher, settings: Settings
) -> None:
    """Either the launch has the extension, and it stays, or it is gone, and the launch says so."""
    for _ in range(5):
        extension = await upload(client)
        launched, deleted = await asyncio.gather(
            launch(client, {"extensionIds": [extension["id"]]}), client.delete(f"{PATH}/{extension['id']}")
        )
        assert (launched.status_code, deleted.status_code) in ((200, 409), (404, 200)), launched.text + deleted.text
        if launched.status_code == 200:
            assert "manifest.json" in files_and_modes(launcher.specs[-1].extensions[0].directory)
            await stop(client, launched.json())
            await ok(client.delete(f"{PATH}/{extension['id']}"))
    assert objects(settings) == []


async def test_many_launches_at_once_unpack_it_once(
    client: httpx.AsyncClient, launcher: WorkingLauncher, settings: Settings
) -> None:
    extension = await upload(client)
    launched = await asyncio.gather(*(launch(client, {"extensionIds": [extension["id"]]}) for _ in range(4)))
    runtimes = [await ok_of(each) for each in launched]
    assert unpacked(settings) == [extension["contentHash"]]
    assert {spec.extensions[0].directory for spec in launcher.specs} == {
        str(settings.extensions_dir.absolute() / extension["contentHash"])
    }
    for runtime in runtimes:
        await stop(client, runtime)


async def test_a_damaged_package_is_not_loaded(client: httpx.AsyncClient, settings: Settings) -> None:
    extension = await upload(client)
    stored = settings.data_dir / "files" / "extensions" / extension["id"]
    content = bytearray(stored.read_bytes())
    content[-1] ^= 1
    for damaged in (bytes(content), working(name="Other")[: len(content)].ljust(len(content), b"\0")):
        stored.write_bytes(damaged)
        answer = await launch(client, {"extensionIds": [extension["id"]]})
        assert (answer.status_code, answer.json()["code"]) == (500, "browser_extension.damaged")
    assert unpacked(settings) == []
    # The failed launch uses nothing.
    await ok(client.delete(f"{PATH}/{extension['id']}"))


# Profiles


async def test_a_profile_has_extensions(
    client: httpx.AsyncClient, launcher: WorkingLauncher, database: Database
) -> None:
    contract = client.headers["Gateway-Contract"]
    one, two = await upload(client, crx3(working())), await upload(client)

    async def count(extension: Json) -> int:
        found: int = (await ok(client.get(f"{PATH}/{extension['id']}")))["profileCount"]
        return found

    client.headers["Gateway-Contract"] = "workspaces"
    body = {"name": "a", "config": {"extensionIds": [one["id"]]}}
    profile = await ok(client.post("/v1/browser-profiles", json=body))
    path = f"/v1/browser-profiles/{profile['id']}"
    assert profile["config"] == {"extensionIds": [one["id"]]}
    clone = await ok(client.post(f"{path}/clone", json={"name": "b"}))
    client.headers["Gateway-Contract"] = contract
    assert (await count(one), await count(two)) == (2, 0)
    refusal = await refused(client.delete(f"{PATH}/{one['id']}"), 409, "browser_extension.in_use")
    assert sorted(refusal["details"]["profileIds"]) == sorted([profile["id"], clone["id"]])
    client.headers["Gateway-Contract"] = "workspaces"
    await ok(client.delete(f"/v1/browser-profiles/{clone['id']}"))
    await ok(client.patch(path, json={"name": "c"}))
    assert await count(one) == 1
    await ok(client.patch(path, json={"config": {"extensionIds": [two["id"]]}}))
    assert (await count(one), await count(two)) == (0, 1)
    for config, found in (
        ({"extensionIds": [two["id"], one["id"], str(new_id())]}, {"config.extensionIds": "too_long"}),
        ({"extensionIds": ["x"]}, {"config.extensionIds.0": "field.invalid"}),
    ):
        assert await problems(client.patch(path, json={"config": config})) == found
        assert await problems(client.post("/v1/browser-profiles", json={"name": "d", "config": config})) == found
    unknown = {"extensionIds": [str(new_id())]}
    await refused(client.patch(path, json={"config": unknown}), 404, "browser_extension.not_found")
    assert (await ok(client.get(path)))["config"] == {"extensionIds": [two["id"]]}
    await ok(client.patch(path, json={"config": None}))
    assert await count(two) == 0
    await ok(client.delete(f"{PATH}/{two['id']}"))


async def test_a_launch_takes_what_it_lacks_from_the_profile(
    client: httpx.AsyncClient, launcher: WorkingLauncher, database: Database
) -> None:
    contract = client.headers["Gateway-Contract"]
    one, two = await upload(client, crx3(working())), await upload(client)
    client.headers["Gateway-Contract"] = "workspaces"
    body = {"name": "a", "config": {"extensionIds": [one["id"]]}}
    profile = await ok(client.post("/v1/browser-profiles", json=body))
    client.headers["Gateway-Contract"] = contract
    launching: Json = {"mode": "profile", "profileId": profile["id"]} if contract == "workspaces" else {"profile": "a"}
    # The launcher of this test has no profiles: what it was asked for counts.
    configs: list[Json] = [{}, {"extensionIds": [two["id"]]}, {"extensionIds": []}]
    for config in configs:
        await launch(client, config, readOnly=True, **launching)
    assert [[each.id for each in spec.extensions] for spec in launcher.specs] == [
        [one["chromeExtensionId"]],
        [two["chromeExtensionId"]],
        [],
    ]
    assert launcher.specs[0].browser == "chromium"
    async with database.begin() as connection:
        await connection.execute(text("UPDATE browser_profiles SET browser = 'headless-shell'"))
    answer = await launch(client, {}, **launching)
    assert (answer.status_code, answer.json()["code"]) == (409, "browser_profile.other_browser")


# What is written about it


async def test_each_change_is_audited(client: httpx.AsyncClient, gateway: Gateway, database: Database) -> None:
    extension = await upload(client)
    path = f"{PATH}/{extension['id']}"
    await ok(client.patch(path, json={"name": "x"}))
    await ok(client.delete(path))
    await client.post(f"{PATH}/upload", files={"file": ("x", b"PK")})
    noted = [event for event in await log(database, gateway.audit) if event["objectKind"] == "browser_extension"]
    assert [(event["action"], event["outcome"]) for event in noted] == [
        ("browser_extension.created", "ok"),
        ("browser_extension.changed", "ok"),
        ("browser_extension.deleted", "ok"),
        ("browser_extension.created", "browser_extension.invalid_package"),
    ]
    assert {event["objectId"] for event in noted[:3]} == {extension["id"]}


async def test_an_import_that_is_repeated_is_done_once(client: httpx.AsyncClient, server: FakeServer) -> None:
    # The other one has no such header.
    client.headers["Gateway-Contract"] = "spaces"
    server.answers = {"/marker.crx": (OK_HEAD, working())}
    key = {"Idempotency-Key": "once"}
    first, again = [
        await ok(client.post(f"{PATH}/import", json={"url": server.url("/marker.crx")}, headers=key)) for _ in range(2)
    ]
    assert first == again
    assert server.asked == ["/marker.crx"]
    answer = client.post(f"{PATH}/upload", files={"file": ("x", working())}, headers=key)
    await refused(answer, 400, "idempotency.not_supported")


async def test_the_sweep_leaves_packages_and_removes_what_has_no_row(
    client: httpx.AsyncClient, gateway: Gateway, settings: Settings
) -> None:
    extension = await upload(client)
    stored = settings.data_dir / "files" / "extensions"
    orphan = stored / str(new_id())
    orphan.write_bytes(b"x")
    for path in stored.iterdir():
        os.utime(path, (1, 1))
    await gateway.services.files.sweep()
    assert objects(settings) == [f"extensions/{extension['id']}"]
