"""/v1/proxies in both generations: saved proxies whose passwords stay inside, and tests through them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator

import httpx
import pytest
from sqlalchemy import text

from gateway.settings import Settings
from gateway.store.database import Database
from tests.support.api import Json, checked, make_subaccount, ok, problems, refused

PATH = "/v1/proxies"
PASSWORD = "p4ssw0rd-of-a-proxy"
LOGIN = base64.b64encode(f"ada:{PASSWORD}".encode()).decode()
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n198.51.100.7\n"


class FakeProxy:
    """An http proxy that needs a login, and is itself the server that is asked through it."""

    def __init__(self) -> None:
        self.answer = ANSWER
        self.asked: list[str] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.asked.append(head.split("\r\n")[0])
            if f"Proxy-Authorization: Basic {LOGIN}" not in head:
                writer.write(b"HTTP/1.1 407 No\r\n\r\n")
            else:
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
                await reader.readuntil(b"\r\n\r\n")
                writer.write(self.answer)
            await writer.drain()
        writer.close()


@pytest.fixture
async def proxy() -> AsyncIterator[FakeProxy]:
    fake = FakeProxy()
    server = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    fake.port = server.sockets[0].getsockname()[1]
    yield fake
    server.close()


@pytest.fixture
def settings(settings: Settings) -> Settings:
    allowed = {"egress_allow": ("127.0.0.1",), "proxy_test_url": "http://192.0.9.9/address"}
    return settings.model_copy(update=allowed)


@pytest.fixture(params=["spaces", "workspaces"])
def client(client: httpx.AsyncClient, request: pytest.FixtureRequest) -> httpx.AsyncClient:
    client.headers["Gateway-Contract"] = request.param
    return checked(client)


async def make(client: httpx.AsyncClient, port: int = 3128, **body: object) -> Json:
    given = {"name": "berlin", "protocol": "http", "host": "127.0.0.1", "port": port}
    made: Json = await ok(client.post(PATH, json=given | body))
    return made


async def test_one_is_made_listed_changed_and_deleted(client: httpx.AsyncClient) -> None:
    made = await make(client, username="ada", password=PASSWORD)
    assert made == {
        "id": made["id"],
        "name": "berlin",
        "type": "custom",
        "protocol": "http",
        "host": "127.0.0.1",
        "port": 3128,
        "username": "ada",
        "hasPassword": True,
        "dnsResolution": "local",
        "subaccountId": None,
        "createdAt": made["createdAt"],
        "updatedAt": made["createdAt"],
    }
    path = f"{PATH}/{made['id']}"
    assert await ok(client.get(PATH)) == {"proxies": [made]}
    assert await ok(client.get(path)) == made
    changed = await ok(client.patch(path, json={"name": "x", "dnsResolution": "proxy"}))
    assert changed == made | {"name": "x", "dnsResolution": "proxy", "updatedAt": changed["updatedAt"]}
    assert await ok(client.delete(path)) == {"id": made["id"], "deleted": True}
    await refused(client.get(path), 404, "proxy.not_found")


async def test_a_name_is_unique_within_its_owner(client: httpx.AsyncClient) -> None:
    await make(client)
    other = await make(client, name="other")
    body = {"name": "berlin", "url": "http://127.0.0.1:1"}
    await refused(client.post(PATH, json=body), 409, "proxy.conflict")
    await refused(client.patch(f"{PATH}/{other['id']}", json={"name": "berlin"}), 409, "proxy.conflict")
    contract = client.headers.pop("Gateway-Contract")
    subaccount, key = await make_subaccount(client)
    client.headers["Gateway-Contract"] = contract
    own = await ok(client.post(PATH, json=body | {"subaccountId": subaccount}))
    assert (await ok(client.get(PATH, headers=key)))["proxies"] == [own]


async def test_an_address_that_pages_may_not_reach_is_refused(client: httpx.AsyncClient) -> None:
    for host, code in (("10.0.0.1", "egress.private_address"), ("169.254.169.254", "egress.metadata")):
        body = {"name": "x", "protocol": "socks5", "host": host, "port": 1080}
        assert await problems(client.post(PATH, json=body)) == {"host": code}
    made = await make(client)
    assert await problems(client.patch(f"{PATH}/{made['id']}", json={"host": "10.0.0.1"})) == {
        "host": "egress.private_address"
    }


async def test_a_stored_password_goes_to_no_other_proxy(client: httpx.AsyncClient) -> None:
    path = f"{PATH}/{(await make(client, username='ada', password=PASSWORD))['id']}"
    for body in ({"port": 1}, {"host": "192.0.9.9"}, {"protocol": "socks5"}):
        await refused(client.patch(path, json=body), 409, "proxy.password_required")
    await refused(client.patch(path, json={"username": None}), 409, "proxy.login_mismatch")
    await refused(client.patch(path, json={"username": "a:b"}), 409, "proxy.login_mismatch")
    assert (await ok(client.patch(path, json={"port": 1, "password": "other"})))["hasPassword"]
    assert not (await ok(client.patch(path, json={"port": 2, "password": None})))["hasPassword"]


async def test_a_request_is_sent_through_it(client: httpx.AsyncClient, proxy: FakeProxy, database: Database) -> None:
    made = await make(client, proxy.port, username="ada", password=PASSWORD)
    path = f"{PATH}/{made['id']}"
    tested = await ok(client.post(f"{path}/test"))
    assert tested == {
        "ok": True,
        "exitIp": "198.51.100.7",
        "country": None,
        "httpStatus": 200,
        "latency": tested["latency"],
    }
    assert proxy.asked == ["CONNECT 192.0.9.9:80 HTTP/1.1"]
    async with database.connect() as connection:
        query = text("SELECT row_to_json(s)::text FROM secrets s UNION ALL SELECT row_to_json(p)::text FROM proxies p")
        stored = (await connection.execute(query)).scalars().all()
    assert len(stored) > 1
    assert [row for row in stored if PASSWORD in row] == []
    proxy.answer = b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"
    tested = await ok(client.post(f"{path}/test"))
    assert (tested["ok"], tested["httpStatus"], tested["exitIp"]) == (False, 503, None)
    proxy.answer = b""
    assert (await ok(client.post(f"{path}/test")))["error"] == "The proxy or the server behind it ended the connection."


async def test_what_fails_is_an_answer(client: httpx.AsyncClient, proxy: FakeProxy) -> None:
    path = f"{PATH}/{(await make(client, proxy.port, username='ada', password='wrong'))['id']}"
    tested = await ok(client.post(f"{path}/test"))
    assert (tested["ok"], tested["error"]) == (False, "The runtime's proxy rejected its username and password.")
    await ok(client.patch(path, json={"port": 1, "password": "wrong"}))
    assert (await ok(client.post(f"{path}/test")))["error"] == "The proxy can't be reached."
