"""What a model marks as Secret is in no error, log line, recorded command or audit event of its request.

A toy contract has secrets at every depth, and handlers that log and record all that they were given.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio
import structlog
from pydantic import Field

from gateway.app import CONTRACTS, Gateway, build
from gateway.core.errors import Conflict
from gateway.core.secret import Secret
from gateway.domain import audit_reading
from gateway.domain.audit import Action
from gateway.domain.secrets import KeySource
from gateway.http.contract import BodyRules, Contract
from gateway.http.endpoints import Call, Endpoints
from gateway.http.models import Answer, Body, optional
from gateway.settings import Settings
from gateway.store.database import Database
from tests.support.api import make_runtime, ok
from tests.support.launchers import WorkingLauncher

# With what JSON, URLs, reprs and shells write otherwise; and one too short to be looked for inside other words.
TOKEN = 's3cr3t "quoted" & \\slashed ünïcode 🔑'
PLAIN = "s3cr3tplain0123"
PIN = 918273645
WORDS = (TOKEN, PLAIN, str(PIN), "s3cr3t")

endpoints = Endpoints("Vaults")
_log = structlog.get_logger("gateway.vaults")
_library = logging.getLogger("a.library")


class Login(Body):
    user: str
    password: Secret[str]


class Vault(Body):
    name: str = "open name"
    logins: list[Login] = optional()
    by_site: dict[str, Login] = optional()
    either: Login | list[Login] = optional()
    pin: Secret[int] = optional()
    note: Secret[Annotated[str, Field(max_length=200)]] | None = None
    headers: Secret[dict[str, int]] = optional()
    inner: Vault = optional()
    address: Secret[str] = optional()
    labels: dict[str, Any] = optional()


class Done(Answer):
    ok: bool = True


async def _tell_all(call: Call, body: Vault) -> Done:
    run_id = call.path_id("id", "run")
    given = body.model_dump(by_alias=True, exclude_unset=True)
    _log.info("vault", body=body, given=given, text=str(body), inside=f"got {given!r} and {json.dumps(given)}")
    _log.debug("vault %s", given)
    _library.warning("the library got %s as %r", given, body)
    for secret in (TOKEN, PLAIN, PIN):
        _library.info("https://example.com/?q=%s", httpx.QueryParams(q=str(secret)))
    with call.services.audit.noting(Action.RUN_READ, run_id) as noting:
        noting.details["given"] = json.dumps(given)
    try:
        raise RuntimeError(f"went wrong with {given}")
    except RuntimeError:
        _log.exception("vault failed")
    with call.services.commands.noting(run_id, "vault.masked", body.masked()):
        pass
    with call.services.commands.noting(run_id, "vault.as_it_is", given):
        raise Conflict(f"There is a vault with {given['address']!r} already.", "vault.exists")


class StrictVault(Vault):
    pass


@endpoints.post("/v1/vaults/{id}", id="vaults-create", summary="Create a vault")
async def create(call: Call, body: StrictVault) -> Done:
    return await _tell_all(call, body)


@endpoints.patch("/v1/vaults/{id}", id="vaults-update", summary="Update a vault")
async def update(call: Call, body: Vault) -> Done:
    return await _tell_all(call, body)


VAULTS = Contract("vaults", tuple(endpoints.listed), bodies=BodyRules(merge_patch=True), idempotent=True)


@pytest_asyncio.fixture
async def vaults(
    settings: Settings, database: Database, keys: KeySource, launcher: WorkingLauncher, api_key: str
) -> AsyncIterator[Gateway]:
    built = await build(settings, database, keys, launcher, uuid4(), (), (*CONTRACTS, VAULTS))
    async with built.running():
        yield built


@pytest_asyncio.fixture
async def asking(vaults: Gateway, api_key: str) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {api_key}"}
    transport = httpx.ASGITransport(vaults.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8787", headers=headers) as client:
        yield client


def login(password: Any) -> dict[str, Any]:
    return {"user": "open user", "password": password}


FULL: dict[str, Any] = {
    "name": "open vault",
    "logins": [login(TOKEN), login(PLAIN)],
    "bySite": {"example.com": login(TOKEN)},
    "either": [login(PLAIN)],
    "pin": PIN,
    "note": PLAIN,
    "headers": {TOKEN: 1, PLAIN: 2},
    "inner": {"inner": {"logins": [login(PLAIN)], "pin": PIN}},
    "address": TOKEN,
    "labels": {"open label": 77},
}


def assert_hidden(text: str) -> None:
    for word in WORDS:
        spellings = {word, json.dumps(word)[1:-1], repr(word)[1:-1], str(httpx.QueryParams(q=word))[2:]}
        assert not [spelling for spelling in spellings if spelling in text], text


@pytest.mark.parametrize("method", ["POST", "PATCH"])
@pytest.mark.filterwarnings("error")
async def test_no_record_of_a_request_has_its_secrets(
    asking: httpx.AsyncClient,
    vaults: Gateway,
    database: Database,
    capsys: pytest.CaptureFixture[str],
    method: str,
) -> None:
    run_id = (await make_runtime(asking))["activeRunId"]
    media_type = "application/merge-patch+json" if method == "PATCH" else "application/json"
    answer = await asking.request(
        method, f"/v1/vaults/{run_id}", content=json.dumps(FULL), headers={"Content-Type": media_type}
    )
    assert (answer.status_code, answer.json()["code"]) == (409, "vault.exists")
    lines = capsys.readouterr().err
    assert lines.count('"logger": "gateway.vaults"') == 3
    assert "open label" in lines
    assert "RuntimeError: went wrong" in lines
    assert_hidden(lines)
    for line in filter(None, lines.splitlines()):
        json.loads(line)

    await vaults.services.events.write()
    commands = (await ok(asking.get(f"/v1/runs/{run_id}/commands?include=input")))["commands"]
    both = [each for each in commands if each["name"].startswith("vault.")]
    # They may have begun at the same moment, which leaves their order open; one of them failed.
    masked, as_it_is = sorted(both, key=lambda each: each.get("error") is not None)
    assert masked["input"]["logins"] == [login("***"), login("***")]
    assert masked["input"]["bySite"] == {"example.com": login("***")}
    assert masked["input"]["labels"] == FULL["labels"]
    assert masked["input"]["inner"] == {"inner": {"logins": [login("***")], "pin": "***"}}
    assert as_it_is["error"]["message"] == "There is a vault with '***' already."
    assert as_it_is["input"]["name"] == "open vault"
    assert_hidden(json.dumps(commands))

    await vaults.audit.write()
    events = [line async for lines in audit_reading.export(database, page_size=100) for line in lines]
    assert any("open label" in event for event in events)
    assert_hidden("\n".join(events))


WRONG: list[dict[str, Any]] = [
    FULL | {"note": [TOKEN]},
    FULL | {"note": {TOKEN: PLAIN}},
    FULL | {"pin": PLAIN},
    FULL | {"headers": {TOKEN: PLAIN}},
    FULL | {"headers": [TOKEN]},
    FULL | {"logins": TOKEN},
    FULL | {"logins": [TOKEN, [PLAIN], {"user": 1, "password": TOKEN}]},
    FULL | {"bySite": {"example.com": {"password": {PLAIN: TOKEN}}}},
    FULL | {"either": login([TOKEN])},
    FULL | {"inner": {"inner": {"inner": {"note": [[{"x": [TOKEN]}]]}}}},
    FULL | {"inner": TOKEN},
    FULL | {"passwrd": TOKEN, "unknown": [PLAIN]},
    FULL | {"logins": [login(TOKEN) | {"passwords": PLAIN}]},
]


@pytest.mark.parametrize("body", WRONG)
async def test_no_error_or_line_of_an_invalid_body_has_its_secrets(
    asking: httpx.AsyncClient, capsys: pytest.CaptureFixture[str], body: dict[str, Any]
) -> None:
    answer = await asking.post(f"/v1/vaults/{uuid4()}", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "request.invalid")
    assert_hidden(answer.text)
    assert_hidden(capsys.readouterr().err)


@pytest.mark.parametrize("place", [rf'{{"note": "{PLAIN}\ud800"}}', rf'{{"headers": {{"{PLAIN}\udc00": "x"}}}}'])
async def test_a_secret_with_half_a_surrogate_pair_is_not_repeated(
    asking: httpx.AsyncClient, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    answer = await asking.post(f"/v1/vaults/{uuid4()}", content=place, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert_hidden(answer.text)
    assert_hidden(capsys.readouterr().err)


async def test_a_later_request_is_logged_as_it_is(
    asking: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    await asking.post(f"/v1/vaults/{uuid4()}", json=FULL | {"unknown": 1})
    structlog.get_logger("gateway").info("after", text=PLAIN)
    assert PLAIN in capsys.readouterr().err
