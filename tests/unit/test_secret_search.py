"""The search for secrets that ends each module of tests: a leak that is planted is found, in each place and form."""

from __future__ import annotations

import base64
import html
import json
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import asyncpg
import httpx
import pytest
import structlog
from prometheus_client import Counter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.websockets import WebSocket

from gateway.core.ids import new_id
from gateway.core.sealed import SecretOwner
from gateway.crypto.download_tokens import DownloadLink, DownloadTokens
from gateway.crypto.keyring import KEY_BYTES
from gateway.crypto.tokens import TokenIssuer
from gateway.crypto.viewer_tokens import Kind, Viewer, ViewerTokens
from gateway.domain.secrets import KeySource, SecretStore
from gateway.settings import Settings
from gateway.store.database import Database
from gateway.store.embedded import EmbeddedPostgres
from gateway.store.objects import Objects
from gateway.telemetry import metrics
from tests.support.api import make_space, make_subaccount, ok
from tests.support.databases import fresh_database
from tests.support.fake_providers import served
from tests.support.gateway_process import ROOT, GatewayProcess
from tests.support.secret_search import noting, places
from tests.support.secret_search.search import MOST_HELD_BYTES, PIECE, SHORTEST, Search, searching

SECRET = 'plant3d "secret" of <ada> & b\\b'
PLAIN = "plant3d-secret-of-ada"
NAME = "a password"


def found_in(text: str | bytes, secret: str | bytes = SECRET, *, random: bool = False) -> list[str]:
    search = Search()
    search.note(NAME, secret, random=random)
    search.take("here", text)
    return search.found()


# Forms


@pytest.mark.parametrize(
    "form",
    [
        lambda text: text,
        lambda text: json.dumps({"a": [text]}),
        lambda text: json.dumps({"a": json.dumps({"b": text})}),
        lambda text: quote(text),
        lambda text: quote(text, safe=""),
        lambda text: str(httpx.QueryParams(q=text)),
        lambda text: html.escape(text),
        repr,
        lambda text: text.encode().hex(),
        lambda text: base64.b64encode(text.encode()).decode(),
        lambda text: base64.b64encode(b"x" + text.encode()).decode(),
        lambda text: base64.b64encode(b"xx" + text.encode() + b"x").decode(),
        lambda text: base64.urlsafe_b64encode(b"???" + text.encode() + b"x").decode(),
        # A bytea, and base64 in a bytea.
        lambda text: r"\x" + (b"\x00" + text.encode() + b"\xff").hex(),
        lambda text: json.dumps({"column": r"\x" + base64.b64encode(text.encode()).hex()}),
    ],
)
@pytest.mark.parametrize("secret", [SECRET, PLAIN, "\u00fcber-gehe\u00efm-7?\u00ff\u00ff>>"])
def test_a_secret_is_found_in_each_form(form: Callable[[str], str], secret: str) -> None:
    written = form(secret)
    (line,) = found_in(f"before {written} after", secret)
    assert line.startswith(NAME)
    assert " in here: " in line
    assert written not in line
    assert found_in(form(secret.replace("e", "3")), secret) == []


def test_a_part_of_a_random_secret_is_found_and_the_rest_of_it_hidden() -> None:
    token = TokenIssuer(bytes(32)).lease_token().secret
    for begin in range(43 - 2 * PIECE + 2):
        part = token[12 + begin : 12 + begin + 2 * PIECE - 1]
        (line,) = found_in(f"GET /v1/connect/{part}... 200", token[12:], random=True)
        assert "here: GET *** 200" in line
    assert found_in(f"{token[:12]} is the public part", token[12:], random=True) == []


def test_what_may_be_there_by_chance_is_not_searched_for() -> None:
    search = Search()
    for weak in ("x" * SHORTEST, "short-one", "abcde" * 5):
        search.note(NAME, weak)
    assert (search.secrets, search.weak) == (0, 3)
    search.note(NAME, "abcdef" * 2)
    search.note(NAME, "ten-bytes!")
    assert (search.secrets, search.weak) == (2, 3)


def test_a_find_names_the_member_and_hides_all_secrets_around() -> None:
    search = Search()
    search.note("one", "first-secret-1")
    search.note("two", "second-secret-2")
    search.take("the table t", json.dumps({"id": 7, "data": {"url": "x?first-secret-1&second-secret-2"}}))
    search.take("the table t", json.dumps({"raw": r"\x" + b"a first-secret-1".hex()}))
    found = search.found()
    assert [line.partition(": ")[0].partition(" of ")[0] for line in found] == ["one", "two", "one"]
    assert [line.partition(": ")[0].rpartition(" in ")[2] for line in found] == [
        "the table t.data",
        "the table t.data",
        "the table t.raw",
    ]
    assert not any("first-secret" in line or "second-secret" in line for line in found)


def test_a_secret_that_is_noted_after_its_leak_is_found_and_much_text_is_searched_at_once() -> None:
    search = Search()
    search.take("early", PLAIN)
    search.note(NAME, PLAIN)
    assert len(search.found()) == 1
    search.take("large", b"x" * MOST_HELD_BYTES + PLAIN.encode())
    search.take("after", "nothing")
    assert len(search.found()) == 2


def test_a_module_s_search_is_apart() -> None:
    with searching() as outer:
        with searching() as inner:
            places.take_process(["program", PLAIN], None)
        inner.note(NAME, PLAIN)
        outer.note(NAME, PLAIN)
        assert (len(inner.found()), outer.found()) == (1, [])


# Places


@pytest.fixture
def search() -> Any:
    """A search of the test's own, for PLAIN."""
    with searching() as own:
        own.note(NAME, PLAIN)
        yield own


def only_find(search: Search) -> str:
    """The place of what was found."""
    (line,) = search.found()
    assert PLAIN not in line
    place: str = line.partition(": ")[0].rpartition(" in ")[2]
    return place


def test_a_token_in_a_log_that_was_never_noted(search: Search) -> None:
    issuer = TokenIssuer(bytes(32))
    with searching():
        tokens = [issuer.api_key().secret, f"/v1/connect/{issuer.lease_token().secret}"]
    for number, token in enumerate(tokens):
        places.take_log(f"log {number}", f"it has {token} in it")
    assert len(search.found()) == len(tokens)
    places.take_log("log 2", f"it has {tokens[0][:18]}_*** in it")
    assert len(search.found()) == len(tokens)


def test_in_a_line_of_a_log(search: Search) -> None:
    structlog.get_logger("gateway.planted").info("it happened", detail=f"it is {PLAIN}")
    assert only_find(search) == "a line of the logger gateway.planted.detail"


def test_what_a_client_of_tests_alone_logs_is_passed_over(search: Search) -> None:
    for name in ("urllib3.connectionpool", "urllib4"):
        logging.getLogger(name).warning("GET /%s", PLAIN)
    assert only_find(search).startswith("a line of the logger urllib4")


@pytest.mark.parametrize(
    ("statement", "value", "place"),
    [
        ("UPDATE organizations SET name = $1", PLAIN, "the table organizations.name"),
        ("CREATE TABLE planted AS SELECT $1::jsonb AS data", json.dumps([{"a": PLAIN}]), "the table planted.data"),
        ("CREATE TABLE planted AS SELECT $1::bytea AS raw", f"...{PLAIN}".encode(), "the table planted.raw"),
        ("CREATE TABLE planted AS SELECT $1::text[] AS list", ["x", PLAIN], "the table planted.list"),
        ("CREATE TABLE planted AS SELECT $1::text AS large", "x" * 1_000_000 + PLAIN, "the table planted.large"),
    ],
)
async def test_in_a_row(template_url: str, search: Search, statement: str, value: Any, place: str) -> None:
    async with fresh_database(template_url) as url:
        connection = await asyncpg.connect(url)
        await connection.execute("INSERT INTO organizations (id, name) VALUES ($1, 'x')", uuid4())
        await connection.execute(statement, value)
        await connection.close()
    assert only_find(search) == place


async def test_in_a_row_of_a_gateways_own_server(own_server: EmbeddedPostgres, search: Search) -> None:
    connection = await asyncpg.connect(own_server.start())
    await connection.execute("CREATE TABLE planted AS SELECT $1::text AS name", PLAIN)
    await connection.close()
    own_server.stop()
    assert only_find(search) == "the table planted.name"


async def test_in_an_object(tmp_path: Path, search: Search) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"much " * 1000
        yield PLAIN.encode()

    await Objects.of(Settings(data_dir=tmp_path)).put("a/b", chunks())
    assert only_find(search) == "an object"


def test_in_the_output_and_the_files_of_a_gateway(tmp_path: Path, search: Search) -> None:
    (tmp_path / "profiles").mkdir()
    for name in ("api-key", "master-keys", "profiles/x"):
        (tmp_path / name).write_text(PLAIN)
    program = f"print('First API key, shown this once (also in x): {PLAIN}'); print('Listening'); print('and {PLAIN}')"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    gateway = GatewayProcess(process, tmp_path)
    process.wait()
    gateway.close()
    assert only_find(search) == "the output of a gateway"
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "x").write_text(f"it is {PLAIN}")
    places.take_files(tmp_path)
    assert [line.partition(": ")[0].rpartition(" in ")[2] for line in search.found()][1:] == ["the file files/x"]


@pytest.mark.parametrize(
    ("started", "place"),
    [
        (f"[sys.executable, '-c', 'pass', {PLAIN!r}]", "a command line (PYTHON)"),
        (f"[sys.executable, '-c', 'pass'], env={{'A_NAME': {PLAIN!r}}}", "the environment of PYTHON, A_NAME"),
    ],
)
def test_in_a_process_that_the_gateway_starts(search: Search, started: str, place: str) -> None:
    program = f"import subprocess, sys\nsubprocess.run({started})"
    exec(compile(program, str(ROOT / "tests" / "planted.py"), "exec"), {})
    assert search.found() == []
    exec(compile(program, str(ROOT / "gateway" / "planted.py"), "exec"), {})
    assert only_find(search) == place.replace("PYTHON", Path(sys.executable).name)


@pytest.mark.parametrize("where", ["command", "environment"])
def test_in_a_process_below_a_gateway(search: Search, where: str) -> None:
    command = ["cat", *(["-", f"/nowhere/{PLAIN}"] if where == "command" else [])]
    environment = {"PATH": os.environ["PATH"], **({"A_NAME": PLAIN} if where == "environment" else {})}
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE) as process:
        places.take_processes(os.getpid())
        process.stdin and process.stdin.close()
    assert (
        only_find(search) == {"command": "a command line (cat)", "environment": "the environment of cat, A_NAME"}[where]
    )


def test_in_the_metrics(search: Search) -> None:
    planted = Counter("planted", "A metric of a test.", ["who"], registry=metrics.registry)
    try:
        planted.labels(PLAIN).inc()
        places.take_metrics()
    finally:
        metrics.registry.unregister(planted)
    assert only_find(search) == "the metrics"


def test_in_the_metrics_of_a_gateway_process(search: Search) -> None:
    routes = [Route("/metrics", lambda request: PlainTextResponse(f'planted{{who="{PLAIN}"}} 1'))]
    with served(Starlette(routes=routes)) as port:
        places.take_metrics_at(f"http://127.0.0.1:{port}")
    assert only_find(search) == "the metrics of a gateway"


async def test_in_a_message_of_a_live_view(search: Search) -> None:
    async def send(message: Any) -> None:
        assert message["type"] in ("websocket.accept", "websocket.send")

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    socket = WebSocket({"type": "websocket", "path": "/v1/viewers/0/live"}, receive, send)
    await socket.accept()
    await socket.send_text(json.dumps({"type": "hello", "activityStream": f"https://gateway.example/{PLAIN}"}))
    assert search.found() == []
    await socket.send_text(json.dumps({"type": "notice", "text": PLAIN}))
    assert only_find(search) == "a message of a live view.text"


async def test_in_an_answer(client: httpx.AsyncClient, search: Search) -> None:
    made = await ok(client.post("/v1/spaces", json={"name": PLAIN}))
    assert only_find(search) == "an answer of spaces-create.name"
    async with client.stream("GET", f"/v1/spaces/{made['id']}") as answer:
        assert [PLAIN in line async for line in answer.aiter_lines()] == [True]
    assert search.found()[1].partition(": ")[0].endswith("an answer of spaces-get.name")


def answering(**options: Any) -> httpx.AsyncClient:
    """A client of a server that answers everything so."""

    async def answer(request: Request) -> Response:
        return Response(**options)

    transport = httpx.ASGITransport(Starlette(routes=[Route("/{path:path}", answer)]))
    return httpx.AsyncClient(transport=transport, base_url="http://localhost")


async def test_in_a_header_of_an_answer(search: Search) -> None:
    async with answering(headers={"X-Request-Id": "x", "Location": f"/v1/spaces/{PLAIN}"}) as client:
        await client.get("/v1/spaces")
    assert only_find(search) == "an answer of spaces-list, header location"


async def test_an_answer_of_no_gateway_is_passed_over(search: Search) -> None:
    """A provider may say what it likes."""
    for headers in ({}, {"X-Request-Id": "x"}):
        async with answering(content=f"{PLAIN} is no key", status_code=401, headers=headers) as provider:
            await provider.get("/v1/spaces")
        assert len(search.found()) == len(headers)


async def test_an_answer_may_show_the_token_of_its_own_address_alone(search: Search) -> None:
    issuer = TokenIssuer(bytes(32))
    own, other = issuer.lease_token().secret, issuer.lease_token().secret
    for shown, found in ((own, 0), (other, 1)):
        async with answering(content=f"ws://x/v1/connect/{shown}", headers={"X-Request-Id": "x"}) as client:
            await client.get(f"/v1/connect/{own}/json/version")
        assert len(search.found()) == found


# What is noted


def noted(search: Search, *secrets: str | bytes) -> None:
    """Each of these is searched for: it is found where it is planted."""
    for secret in secrets:
        before = len(search.found())
        search.take(f"planted {before}", secret)
        assert len(search.found()) > before


async def test_what_is_made_is_noted(database: Database, keys: KeySource, tmp_path: Path) -> None:
    with searching() as search:
        issuer = TokenIssuer(pepper := os.urandom(32))
        key, lease = issuer.api_key().secret, issuer.lease_token().secret
        viewer = Viewer(uuid4(), Kind.LIVE, uuid4(), datetime.now(UTC))
        page = ViewerTokens(pepper).sign(viewer)
        link = DownloadTokens(pepper).sign(DownloadLink(uuid4(), uuid4(), datetime.now(UTC)))
        master = os.urandom(KEY_BYTES)
        ring = tmp_path / "ring"
        ring.write_text(f"one:{base64.b64encode(master).decode()}\n")
        KeySource(ring.read_text, ring)
        async with database.begin() as connection:
            owner = SecretOwner("vault", None, None, new_id())
            stored = {"username": "somebody-else", "password": "st0red-password", "notes": "n0tes of it"}
            await SecretStore(keys).put(connection, owner, json.dumps(stored))
            await SecretStore(keys).put(connection, replace(owner, row_id=new_id()), "a-st0red-key")
        noted(search, pepper, pepper.hex(), key[19:], lease[12:], page, link, master, base64.b64encode(master))
        noted(search, "st0red-password", "n0tes of it", "a-st0red-key")
        before = len(search.found())
        search.take("nowhere", f"{stored['username']} {key[:18]} {lease[:12]} {page[:40]} {link[:40]}")
        assert len(search.found()) == before


def test_a_value_that_is_open_elsewhere_is_not_searched_for(search: Search) -> None:
    for value in noting.OPEN_VALUES:
        noting.note_value("a planted secret", value)
        noting.note_value("a planted secret", f"http://user:{PLAIN}@{value}")
    search.take("a text", f"{PLAIN} {' '.join(noting.OPEN_VALUES)}")
    (found,) = search.found()
    assert found.endswith(f"in a text: *** {' '.join(noting.OPEN_VALUES)}")


def test_secret_options_are_noted(tmp_path: Path) -> None:
    master = base64.b64encode(os.urandom(KEY_BYTES)).decode()
    options = {
        "master_keys": f"one:{master}",
        "database_url": "postgresql://me:pa55%20word-of-me@host/db",
        "files_secret_key": "s3cret-key-of-a-bucket",
    }
    with searching() as search:
        loaded = Settings(data_dir=tmp_path, **options)
        loaded.model_copy(update={"files_session_token": "a s3ssion of it"})
        noted(search, master, "pa55 word-of-me", "pa55%20word-of-me", options["files_secret_key"], "a s3ssion of it")
    with searching() as search:
        noting.note_options({f"GATEWAY_{name.upper()}": value for name, value in options.items()})
        noted(search, master, "pa55 word-of-me", "pa55%20word-of-me", options["files_secret_key"])


async def test_secrets_of_requests_and_answers_are_noted(client: httpx.AsyncClient) -> None:
    with searching() as search:
        body = {"username": "ada", "password": "g1ven-password", "notes": "g1ven notes"}
        await ok(client.put("/v1/vault/a/key", json=body))
        await client.put("/v1/vault/a/key", json={"password": ["wr0ngly-given"]})
        proxy = {"label": "x", "url": "http://ada:pr0xy-password@198.51.100.7:3128"}
        await client.post("/v1/spaces", json={"mounts": 1})
        space = await make_space(client)
        await client.post(f"/v1/spaces/{space}/runtimes", json={"config": {"proxy": {"url": proxy["url"]}}})
        _, headers = await make_subaccount(client)
        assert search.found() == []
        noted(search, "g1ven-password", "g1ven notes", "wr0ngly-given", "pr0xy-password")
        noted(search, headers["Authorization"].removeprefix("Bearer ")[19:])


async def test_a_raw_reading_may_show_what_it_reads_and_no_other_secret(client: httpx.AsyncClient) -> None:
    with searching() as search:
        await ok(client.put("/v1/vault/a/key", json={"value": PLAIN}))
        space = await make_space(client, mounts={"vault": {"allowRawReads": True}})
        read = await ok(client.get("/v1/vault/a/key", params={"spaceId": space}))
        assert PLAIN in json.dumps(read)
        assert search.found() == []
        await ok(client.post("/v1/spaces", json={"name": PLAIN}))
        assert len(search.found()) == 1
