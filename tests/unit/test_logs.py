from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
import logging.config
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import uuid4

import pytest
import structlog
import uvicorn.config
import websockets
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.frames import Close, Frame, Opcode

from gateway.core.secret import MASK
from gateway.crypto.download_tokens import DownloadLink, DownloadTokens
from gateway.crypto.tokens import API_KEY, LEASE_TOKEN, TokenIssuer
from gateway.crypto.viewer_tokens import Kind, Viewer, ViewerTokens
from gateway.telemetry.logs import configure, redact
from tests.support.fake_providers import KEYS, served

ISSUER = TokenIssuer(bytes(32))
LEASE = ISSUER.lease_token()
API = ISSUER.api_key()
FILE_LINK = DownloadTokens(bytes(32)).sign(DownloadLink(uuid4(), uuid4(), datetime(2030, 1, 1, tzinfo=UTC)))
VIEWER = ViewerTokens(bytes(32)).sign(Viewer(uuid4(), Kind.LIVE, uuid4(), datetime(2030, 1, 1, tzinfo=UTC)))
PASSWORD = "hunter2-and-a-half"
MASTER_KEY = "q83vASNFZ4mrze8BI0VniavN7wEjRWeJq83vASNFZ4k="

# What must never be seen: of tokens and keys, the part after the prefix.
SECRETS = {
    "lease": LEASE.secret[12:],
    "viewer": VIEWER[5:],
    "api": API.secret[19:],
    "password": PASSWORD,
    "openai": KEYS["openai"][8:],
    "anthropic": KEYS["anthropic"][8:],
    "google": KEYS["google"][4:],
    "master": MASTER_KEY[:-1],
}

unhurried = settings(deadline=None)  # the machine may have other things to do
NOISY = ("httpx", "httpcore", "alembic", "uvicorn.error")

Format = Literal["console", "json"]
FORMATS: tuple[Format, ...] = ("console", "json")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


Configured = Callable[..., io.StringIO]


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Iterator[Configured]:
    """Configure logging and have what goes to stderr from then on; afterwards, logging is as it was."""
    root = logging.getLogger()
    handlers, level, structure = list(root.handlers), root.level, structlog.get_config()
    levels = {name: logging.getLogger(name).level for name in (*NOISY, "uvicorn", "uvicorn.access")}

    def configure_with(
        level: str, style: Format, stream: io.StringIO | None = None, secrets: Iterable[str] = ()
    ) -> io.StringIO:
        root.handlers[:] = []  # pytest's own raise on a record that can't be rendered
        stream = stream or io.StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        configure(level, style, secrets=secrets)
        return stream

    yield configure_with
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    logging.captureWarnings(False)
    structlog.configure(**structure)
    structlog.contextvars.clear_contextvars()


def assert_clean(text: str) -> None:
    """No secret, and no piece of one that is longer than chance makes it."""
    for name, secret in SECRETS.items():
        for start in range(len(secret) - 9):
            assert secret[start : start + 10] not in text, name


REDACTED = [
    (f"GET /v1/connect/{LEASE.secret} 101", f"GET /v1/connect/{LEASE.prefix}*** 101"),
    (f"/v1/connect/{LEASE.secret}?a=b", f"/v1/connect/{LEASE.prefix}***?a=b"),
    (f"ws://127.0.0.1:1/v1/connect/{LEASE.secret}", f"ws://127.0.0.1:1/v1/connect/{LEASE.prefix}***"),
    (f"/v1/connect/{LEASE.secret[:30]}", f"/v1/connect/{LEASE.prefix}***"),
    (f"/v1/connect/%41{LEASE.secret[1:]}", "/v1/connect/***"),
    (f"/v1/connect/{LEASE.secret}/more", f"/v1/connect/{LEASE.prefix}***"),
    (f"url=ws%3A%2F%2Fh%2Fv1%2Fconnect%2F{LEASE.secret}&b", f"url=ws%3A%2F%2Fh%2Fv1%2Fconnect%2F{LEASE.prefix}***"),
    (f"lease {LEASE.secret} ended", f"lease {LEASE.prefix}*** ended"),
    (f"lease={LEASE.secret}, {LEASE.secret}", f"lease={LEASE.prefix}***, {LEASE.prefix}***"),
    (f"lease_{LEASE.secret}", f"lease_{LEASE.prefix}***"),
    (f"/v1/viewers/live/{VIEWER}/socket?a=b", "/v1/viewers/live/***?a=b"),
    (f"/v1/viewers/recording/%76{VIEWER[1:]}", "/v1/viewers/recording/***"),
    (f"url=ws%3A%2F%2Fh%2Fv1%2Fviewers%2Factivity%2F{VIEWER}", "url=ws%3A%2F%2Fh%2Fv1%2Fviewers%2Factivity%2F***"),
    (f"viewer {VIEWER} came", "viewer view_*** came"),
    (f"/v1/storage/downloads/{FILE_LINK}?a=b", "/v1/storage/downloads/***?a=b"),
    (f"/v1/storage/downloads/%66{FILE_LINK[1:]}", "/v1/storage/downloads/***"),
    (f"link {FILE_LINK} came", "link file_*** came"),
    (API.secret, f"{API.prefix}***"),
    (f"key {API.secret[:-1]} is unknown", f"key {API.prefix}*** is unknown"),
    (f"Authorization: Bearer {API.secret}", "Authorization: ***"),
    ("authorization: Basic dXNlcjpwYXNz", "authorization: ***"),
    (f"'authorization': 'Bearer {PASSWORD}', 'host': 'x'", "'authorization': '***', 'host': 'x'"),
    (f"(b'authorization', b'Bearer {PASSWORD}'), (b'host', b'x')", "(b'authorization', b'***'), (b'host', b'x')"),
    (f"(b'x-api-key', b'{PASSWORD}')", "(b'x-api-key', b'***')"),
    (f"x-goog-api-key: {PASSWORD}\nhost: h", "x-goog-api-key: ***\nhost: h"),
    (f'{{"X-Api-Key": "{PASSWORD}", "n": 1}}', '{"X-Api-Key": "***", "n": 1}'),
    (f"cookie='{PASSWORD}' n=1", "cookie='***' n=1"),
    (f"Set-Cookie: a={PASSWORD}", "Set-Cookie: ***"),
    (f"sent Bearer {PASSWORD} to h", "sent Bearer *** to h"),
    (f"postgresql://user:{PASSWORD}@h:5432/db", "postgresql://user:***@h:5432/db"),
    (f"postgresql+asyncpg://user:p@ss/{PASSWORD}@h/db", "postgresql+asyncpg://user:***@h/db"),
    (f"postgres://:{PASSWORD}'\"@h/db", "postgres://:***@h/db"),
    (f"host=h password={PASSWORD} user=u", "host=h password=*** user=u"),
    (f"postgresql://h/db?user=u&password={PASSWORD}&x=y", "postgresql://h/db?user=u&password=***&x=y"),
    (f"proxy http://user:{PASSWORD}@proxy:3128", "proxy http://user:***@proxy:3128"),
    (f"key {KEYS['openai']}!", "key sk-proj-***!"),
    (f"key {KEYS['anthropic']}!", "key sk-ant-***!"),
    (f"key {KEYS['google']}!", "key AIza***!"),
    (f"keys main:{MASTER_KEY}", "keys main:***"),
    (f"GET /?bearer={PASSWORD}&x=y", "GET /?bearer=***&x=y"),
    (f"GET /?access_token={PASSWORD}", "GET /?access_token=***"),
    (f"client_secret={PASSWORD} n=1", "client_secret=*** n=1"),
    (f'{{"password": "{PASSWORD}", "n": 1}}', '{"password": "***", "n": 1}'),
    (f'"{{\\"apiKey\\":\\"{PASSWORD}\\",\\"n\\":1}}"', '"{\\"apiKey\\":\\"***\\",\\"n\\":1}"'),
    (f"{{'token': '{PASSWORD}', 'n': 1}}", "{'token': '***', 'n': 1}"),
    (f"Proxy-Authorization: Basic {PASSWORD}", "Proxy-Authorization: ***"),
    (f"?h=Authorization%3A%20Bearer%20{PASSWORD}", "?h=Authorization%3A%20***"),
    (f"?h=Authorization%253A%2520Bearer%2520{PASSWORD}", "?h=Authorization%253A%2520***"),
    (f"?x=bearer%20{PASSWORD}", "?x=bearer%20***"),
    (f"?next=%2F%3Fpassword%3D{PASSWORD}", "?next=%2F%3Fpassword%3D***"),
    (f"?next=%252F%253Fpassword%253D{PASSWORD}", "?next=%252F%253Fpassword%253D***"),
    (f"?next=v1%252Fconnect%252F{LEASE.secret}", f"?next=v1%252Fconnect%252F{LEASE.prefix}***"),
    (f"GET /?%2570assword={PASSWORD} 200", "GET *** 200"),
    (f"GET /?%70assword={PASSWORD} 200", "GET *** 200"),
    (f"GET /?data=%257B%2522%2574oken%2522:%2522{PASSWORD}%2522%257D 200", "GET *** 200"),
]


# Numbers, since every worker must find the same tests, and the tokens are random.
@pytest.mark.parametrize(("text", "clean"), REDACTED, ids=range(len(REDACTED)))
def test_secrets_are_redacted(text: str, clean: str) -> None:
    assert redact(text) == clean
    assert_clean(clean)
    assert redact(clean) == clean


@pytest.mark.parametrize(
    "text",
    [
        "",
        "runtime 0190b5c2-1111-7222-8333-444455556666 is live",
        pytest.param(f"lease {LEASE.prefix} of {API.prefix} was made", id="prefixes of tokens"),
        "/v1/viewers/assets/live.js of a review_",
        "http://127.0.0.1:8787/v1/spaces?limit=10 listens",
        "postgresql://localhost:5432/gateway is the database",
        "postgresql:///gateway?host=/run/db is the database",
        "task-scheduler-for-browsers-12345678 and disk-usage-1234567890123456",
        "write to somebody@example.com about POST /v1/spaces/x/connections",
        "-" * 200,
        "_" * 200,
        "the cookie, the key and the authorization of a request",
        "a token, a password and a secret: none",
        "GET /caf%C3%A9?list%5B%5D=1&object=%7B%22a%22%3A1%7D 200",
        'File "/srv/gateway/domain/runtimes.py", line 12, in launch',
    ],
)
def test_harmless_text_is_not_redacted(text: str) -> None:
    assert redact(text) == text


def rendered(text: str) -> Iterator[str]:
    """A text as it may stand in a rendered line."""
    yield text
    yield repr(text)
    yield json.dumps({"event": text, "more": [text]})
    yield json.dumps({"event": json.dumps({"a": text})})
    yield f"\x1b[36mkey\x1b[0m=\x1b[35m{text}\x1b[0m"
    yield f"\x1b[1m{text}\x1b[0m"
    for before in ("\n", "\t", "\r", "é", "ж", '"', "'", "(", "=", ",", ": ", "<", "/"):
        yield f"x{before}{text}"
        yield json.dumps({"event": f"x{before}{text}{before}y"})


def sent(secret: str) -> Iterator[str]:
    for text in (
        secret,
        f"GET /v1/connect/{secret} HTTP/1.1",
        f"Authorization: Bearer {secret}",
        f"a {secret}, {secret}",
    ):
        yield from rendered(text)


@unhurried
@given(st.from_regex(LEASE_TOKEN, fullmatch=True))
def test_no_lease_token_survives(token: str) -> None:
    for line in sent(token):
        clean = redact(line)
        assert token[12:] not in clean
        assert MASK in clean


@unhurried
@given(st.from_regex(API_KEY, fullmatch=True))
def test_no_api_key_survives(key: str) -> None:
    for line in sent(key):
        clean = redact(line)
        assert key[19:] not in clean
        assert MASK in clean


@pytest.mark.parametrize("key", KEYS.values())
def test_no_provider_key_survives(key: str) -> None:
    for line in sent(key):
        assert_clean(redact(line))


# What the rules look for, in pieces, to be put together in every way.
PIECES = [
    *("cookie", "Authorization", "x-api-key", "Bearer", "password=", "postgres://", "http://", "v1/connect/", "bctrl_"),
    *(LEASE.secret, API.secret, KEYS["openai"], MASTER_KEY, "sk-", "AIza", "a" * 42),
    *("'", '"', "\\", "\n", " ", ",", ":", "=", "@", "/", "?", "b'", "é", "{", "}", "\x1b[31m", "u00e9", "n"),
]
pieces = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)


@unhurried
@given(st.recursive(st.text() | pieces, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(pieces, inner)))
def test_a_line_of_json_stays_one(value: Any) -> None:
    clean = json.loads(redact(json.dumps({"event": value, "level": "info"})))
    assert list(clean) == ["event", "level"]
    assert clean["level"] == "info"


@pytest.mark.parametrize(
    "part",
    [
        "postgres://:",
        "://:",
        "password=",
        "cookie' ",
        "a1b2c3d4e5f6_",
        "sk- ",
        "v1/connect/ ",
        "bearer  ",
        "A" * 42,
        "%41",
        "%2541 ",
        "token%3D",
    ],
)
def test_redaction_time_is_linear_in_line_length(part: str) -> None:
    text = "sk- " + part * (200_000 // len(part))
    started = time.process_time()
    redact(text)
    assert time.process_time() - started < 3


# Lines as the libraries write them, and how they are to come out.


@pytest.mark.parametrize("style", FORMATS)
def test_records_of_libraries_are_redacted(
    configured: Configured, style: Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A server of another test that has no access log cuts this logger off for the whole process.
    monkeypatch.setattr(logging.getLogger("uvicorn.access"), "propagate", True)
    stderr = configured("debug", style)
    uvicorn_log, websockets_log = logging.getLogger("uvicorn.error"), logging.getLogger("websockets.server")
    path = f"/v1/connect/{LEASE.secret}"
    uvicorn_log.info('%s - "WebSocket %s" [accepted]', ("127.0.0.1", 1), path)
    uvicorn_log.info('%s - "WebSocket %s" 403', ("127.0.0.1", 1), path)
    logging.getLogger("uvicorn.access").info('%s - "%s %s HTTP/%s" %d', "127.0.0.1:1", "GET", path + "?x=1", "1.1", 404)
    websockets_log.debug("< GET %s HTTP/1.1", path)
    websockets_log.debug("< %s: %s", "Authorization", f"Bearer {API.secret}")
    websockets_log.debug("< %s", Frame(Opcode.TEXT, json.dumps({"password": PASSWORD}).encode()))
    websockets_log.debug("> %s", Frame(Opcode.BINARY, LEASE.secret.encode() * 3, fin=False))
    websockets_log.debug("> %s", Frame(Opcode.CLOSE, Close(4404, "runtime_gone").serialize()))
    logging.getLogger("asyncpg").warning("can't reach postgresql://gateway:%s@db:5432/gateway", PASSWORD)
    logging.getLogger("alembic").info("Context impl %s", f"postgresql+asyncpg://gateway:{PASSWORD}@db/gateway")
    logging.getLogger("httpx").info("HTTP Request: GET %s", f"https://h/v1/models?key={KEYS['google']}")
    logging.getLogger("asyncio").error("Task %r failed", {"url": f"ws://h{path}", "key": KEYS["anthropic"]})
    output = stderr.getvalue()
    assert_clean(output)
    assert len(output.splitlines()) == 12
    assert output.count(f"/v1/connect/{LEASE.prefix}***") == 5
    for kept in (
        "[accepted]",
        "TEXT [34 bytes]",
        "BINARY [165 bytes, continued]",
        "CLOSE 4404",
        "runtime_gone",
        "sk-ant-***",
    ):
        assert kept in output


@pytest.mark.parametrize("style", FORMATS)
def test_exceptions_are_redacted(configured: Configured, style: Format) -> None:
    stderr = configured("info", style)
    try:
        try:
            raise ValueError(f"no lease {LEASE.secret}")
        except ValueError as error:
            error.add_note(f"asked with {API.secret}")
            raise ConnectionError(f"postgresql://u:{PASSWORD}@h refused") from error
    except ConnectionError:
        logging.getLogger("other").exception("failed with %s", KEYS["openai"])
        structlog.get_logger("ours").exception("failed", key=KEYS["google"], url=f"/v1/connect/{LEASE.secret}")
        structlog.get_logger("ours").warning("failed", exc_info=True, stack_info=True)
    output = stderr.getvalue()
    assert_clean(output)
    assert output.count("ConnectionError: postgresql://u:***@h refused") == 3
    assert output.count(f"ValueError: no lease {LEASE.prefix}***") == 3
    assert output.count(f"asked with {API.prefix}***") == 3
    assert "AIza***" in output


def test_an_unrenderable_record_is_logged_without_its_arguments(configured: Configured) -> None:
    stderr = configured("info", "json")
    logging.getLogger("other").info("%d leases", LEASE.secret)
    logging.getLogger("other").info("%s", LEASE.secret, API.secret)
    output = stderr.getvalue()
    assert_clean(output)
    assert output.count("wrote a line that can't be logged") == 2
    assert "test_logs.py" in output
    assert "TypeError" in output


def test_an_unretrieved_task_exception_is_redacted(configured: Configured) -> None:
    stderr = configured("info", "console")

    async def fail() -> None:
        raise RuntimeError(f"lease {LEASE.secret}")

    async def main() -> None:
        task = asyncio.create_task(fail())
        await asyncio.wait([task])
        del task
        gc.collect()

    asyncio.run(main())
    assert f"RuntimeError: lease {LEASE.prefix}***" in stderr.getvalue()
    assert_clean(stderr.getvalue())


def test_json_lines_have_time_level_logger_event_and_request_id(configured: Configured) -> None:
    stderr = configured("info", "json")
    with structlog.contextvars.bound_contextvars(request_id="req-1"):
        structlog.get_logger("ours").info("runtime %s is live", "r-1", seconds=0.5)
        logging.getLogger("theirs").warning("plain %s", "text")
    logging.getLogger("theirs").info("after")
    ours, theirs, after = map(json.loads, stderr.getvalue().splitlines())
    for line in (ours, theirs, after):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line.pop("timestamp"))
    assert ours == {
        "event": "runtime r-1 is live", "level": "info", "logger": "ours", "request_id": "req-1", "seconds": 0.5
    }  # fmt: skip
    assert theirs == {"event": "plain text", "level": "warning", "logger": "theirs", "request_id": "req-1"}
    assert after == {"event": "after", "level": "info", "logger": "theirs"}


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_console_lines_are_for_people_and_coloured_on_a_terminal_alone(
    configured: Configured, stream: io.StringIO
) -> None:
    configured("info", "console", stream)
    logging.getLogger("theirs").warning("plain")
    structlog.get_logger("ours").info(
        "logged", token=LEASE.secret, key=API.secret, provider=KEYS["openai"], request_id="r"
    )
    output = stream.getvalue()
    assert ("\x1b[" in output) == stream.isatty()
    assert_clean(output)
    plain = re.sub(r"\x1b\[\d*m", "", output)
    assert re.search(r"^\d{4}-.*Z \[warning *\] plain +\[theirs\]$", plain, re.MULTILINE)
    assert f"token={LEASE.prefix}*** key={API.prefix}*** provider=sk-proj-*** request_id=r" in plain


@pytest.mark.parametrize(
    ("level", "logged"),
    [("debug", "diwe"), ("info", "iwe"), ("warning", "we"), ("error", "e")],
)
def test_levels(configured: Configured, level: str, logged: str) -> None:
    stderr = configured(level, "json")
    for logger in (logging.getLogger("theirs"), structlog.get_logger("ours")):
        logger.debug("d")
        logger.info("i")
        logger.warning("w")
        logger.error("e")
    for name in NOISY:
        logging.getLogger(name).info("noise")
        logging.getLogger(name).error("trouble")
    lines = [json.loads(line) for line in stderr.getvalue().splitlines()]
    for name in ("theirs", "ours"):
        assert "".join(line["event"] for line in lines if line["logger"] == name) == logged
    for name in NOISY:
        output = [line["event"] for line in lines if line["logger"] == name]
        assert output == (["noise", "trouble"] if level == "debug" else ["trouble"])


def test_warnings_are_logged(configured: Configured) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        stderr = configured("info", "json")
        warnings.warn(f"old key {API.secret}", stacklevel=1)
        logging.captureWarnings(False)
    [line] = map(json.loads, stderr.getvalue().splitlines())
    assert (line["logger"], line["level"]) == ("py.warnings", "warning")
    assert f"UserWarning: old key {API.prefix}***" in line["event"]


def test_other_handlers_on_stderr_are_taken_off_and_a_second_call_changes_all(configured: Configured) -> None:
    stderr = configured("error", "json")
    kept = logging.NullHandler()
    logging.getLogger().addHandler(logging.StreamHandler())
    logging.getLogger().addHandler(kept)
    logging.config.dictConfig(uvicorn.config.LOGGING_CONFIG | {"disable_existing_loggers": False})
    configure("info", "console")
    logging.getLogger("uvicorn.access").warning("once")
    logging.getLogger("uvicorn.error").warning("once")
    logging.getLogger("theirs").warning("once")
    assert [line.count("once") for line in stderr.getvalue().splitlines()] == [1, 1, 1]
    assert kept in logging.getLogger().handlers


def test_a_closed_stderr_breaks_nothing(configured: Configured, monkeypatch: pytest.MonkeyPatch) -> None:
    stderr = configured("info", "console")
    for broken in (io.StringIO(), None):
        if broken is not None:
            broken.close()
        monkeypatch.setattr(sys, "stderr", broken)
        logging.getLogger("theirs").info("lost")
    monkeypatch.setattr(sys, "stderr", stderr)
    logging.getLogger("theirs").info("logged")
    assert "logged" in stderr.getvalue()


@pytest.mark.parametrize("style", FORMATS)
async def test_debug_logs_of_a_real_server_and_client_are_redacted(configured: Configured, style: Format) -> None:
    """The real uvicorn and websockets: accepted, refused and failing upgrades, frames both ways, plain requests."""
    stderr = configured("debug", style)

    async def connect(websocket: WebSocket) -> None:
        if "refuse" in websocket.query_params:
            await websocket.close()
            return
        if "fail" in websocket.query_params:
            raise RuntimeError(f"broke on {websocket.url}")
        await websocket.accept()
        await websocket.send_text(await websocket.receive_text())
        await websocket.close(4404, "runtime_gone")

    async def plain(request: Request) -> PlainTextResponse:
        raise RuntimeError(f"broke on {request.url} with {request.headers['authorization']}")

    routes = [WebSocketRoute("/v1/connect/{token}", connect), Route("/v1/connect/{token}", plain)]
    headers = {"Authorization": f"Bearer {API.secret}", "x-api-key": KEYS["anthropic"], "Cookie": f"a={PASSWORD}"}
    with served(Starlette(routes=routes), log_level="debug") as port:
        url = f"ws://127.0.0.1:{port}/v1/connect/{LEASE.secret}"
        async with websockets.connect(url, additional_headers=headers, proxy=None) as websocket:
            await websocket.send(f"{PASSWORD} {LEASE.secret} {KEYS['openai']}")
            assert await websocket.recv() == f"{PASSWORD} {LEASE.secret} {KEYS['openai']}"
            with pytest.raises(websockets.ConnectionClosed):
                await websocket.recv()
        for query in ("refuse", "fail"):
            with pytest.raises(websockets.InvalidStatus):
                await websockets.connect(f"{url}?{query}=1", additional_headers=headers, proxy=None)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(
            f"GET /v1/connect/{LEASE.secret}?a=1 HTTP/1.1\r\nHost: h\r\n{head}Connection: close\r\n\r\n".encode()
        )
        assert b" 500 " in await reader.read()
        writer.close()
    output = stderr.getvalue()
    assert_clean(output)
    for kept in (
        f"WebSocket /v1/connect/{LEASE.prefix}***",
        f"> GET /v1/connect/{LEASE.prefix}*** HTTP/1.1",
        f"< GET /v1/connect/{LEASE.prefix}*** HTTP/1.1",
        f"/v1/connect/{LEASE.prefix}***?refuse=1",
        "Authorization: ***",
        "TEXT [125 bytes]",
        "runtime_gone",
        "RuntimeError: broke on ws://",
        "RuntimeError: broke on http://",
    ):
        assert kept.replace('"', '\\"') in output, kept
    assert output.count("TEXT [") == 4


@pytest.mark.parametrize("style", FORMATS)
def test_secrets_of_the_process_are_masked_in_each_line(configured: Configured, style: Format) -> None:
    """What no pattern knows, also in an exception and in what a library logs."""
    secret = 'a session/of a "bucket"'
    stream = configured("debug", style, secrets=[secret, "s3cret-key"])
    structlog.get_logger("gateway").info("answered", cause=f"<Token>{secret}</Token>", also=[secret])
    logging.getLogger("library").warning("it has %s and %r", "s3cret-key", secret)
    try:
        raise ValueError(f"no such key: {secret!r}")
    except ValueError:
        structlog.get_logger("gateway").exception("failed")
    structlog.get_logger("gateway").info("open")
    text = stream.getvalue()
    assert text.count("***") == 5
    assert not any(part in text for part in ("session", "bucket", "s3cret"))
    assert "open" in text
