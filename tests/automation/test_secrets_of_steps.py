"""Secrets of the vault as arguments: typed into pages of their origins, and seen nowhere else."""

from __future__ import annotations

import base64
from typing import Any

import pytest
import pytest_asyncio

from gateway.core.secret import MASK
from tests.support.execution import Executing, filled, step
from tests.support.gateway_process import GatewayProcess
from tests.support.pages import PageServer
from tests.support.remote import Remote
from tests.support.waiting import until

PASSWORD = "correct-horse-battery-7f3a"
REFERENCE = {"secret": "site/login", "field": "password"}
OPEN = step("page.goto", "{pages}/playground")
READ = step("page.evaluate", "document.querySelector('#password').value.length")


@pytest_asyncio.fixture(scope="module")
async def login(remote: Remote, pages: PageServer) -> Executing:
    """A runtime whose workspace may use the secret, of these pages' origin."""
    mounts = {"vault": {"allow": ["site"], "deny": ["site/other"]}}
    workspace = await remote.post("/v1/workspaces", {"name": "login", "mounts": mounts})
    made = await remote.post(f"/v1/workspaces/{workspace['id']}/runtimes", {"kind": "browser", "alias": "main"})
    for key in ("site/login", "site/other", "elsewhere"):
        body = {"username": "ada", "password": PASSWORD, "totp": "JBSWY3DPEHPK3PXP", "origins": [pages.base_url]}
        (await remote.api.put(f"/v1/vault/{key}", json=body)).raise_for_status()
    return Executing(remote, f"/v1/spaces/{workspace['id']}/runtimes/{made['id']}", pages.base_url)


@pytest.mark.parametrize(
    "typing",
    [
        [step("page.fill", "#password", REFERENCE)],
        [step("page.type", "#password", REFERENCE)],
        [step("page.locator", "#password", alias="field"), step("locator.fill", REFERENCE, ref="field")],
        [step("page.locator", "#password", alias="field"), step("locator.pressSequentially", REFERENCE, ref="field")],
        [step("page.querySelector", "#password", alias="field"), step("elementHandle.fill", REFERENCE, ref="field")],
        [step("page.focus", "#password"), step("keyboard.type", REFERENCE)],
    ],
    ids=lambda typing: typing[-1]["call"],
)
async def test_a_secret_is_typed(login: Executing, typing: list[dict[str, Any]]) -> None:
    assert await login.value(OPEN, *typing, READ) == len(PASSWORD)


async def test_it_is_masked_in_what_comes_back(login: Executing, gateway: GatewayProcess) -> None:
    results = await login.run(
        OPEN,
        step("page.fill", "#password", REFERENCE),
        step("page.inputValue", "#password"),
        step(
            "page.evaluate",
            "const it = document.querySelector('#password').value; console.log(it), [`it is ${it}!`]",
            options={"logs": "capture"},
        ),
        step("page.evaluate", "() => { throw new Error(document.querySelector('#password').value); }"),
    )
    assert results[2]["value"] == "***"
    assert results[3]["value"] == ["it is ***!"]
    assert results[3]["logs"] == [{"type": "log", "text": "***"}]
    assert not results[4]["ok"]
    assert PASSWORD not in str(results)
    # Also in a later execution, which refers to none.
    assert await login.value(step("page.inputValue", "#password")) == "***"
    run = (await login.remote.get(login.path))["activeRunId"]

    async def logged() -> list[Any]:
        kept = await login.remote.get(f"/v1/runs/{run}/events?limit=200")
        assert PASSWORD not in str(kept)
        return [each["data"]["text"] for each in kept["events"] if each["type"] == "console.message"]

    async def is_masked() -> bool:
        return any("***" in text for text in await logged())

    await until(is_masked, "what the page logged is recorded")
    assert PASSWORD not in gateway.log


async def test_its_usual_forms_are_masked_as_it_is(login: Executing, gateway: GatewayProcess) -> None:
    odd = 'pa&ss <w\N{LATIN SMALL LETTER O WITH DIAERESIS}rd> "7f3a"/x+y'
    body = {"username": "ada", "password": odd, "origins": [login.pages]}
    (await login.remote.api.put("/v1/vault/site/odd", json=body)).raise_for_status()
    forms = [
        "btoa(it)",
        "btoa('ada:' + it)",
        "btoa(String.fromCharCode(...new TextEncoder().encode(it)))",
        "encodeURIComponent(it)",
        "encodeURI(it)",
        "escape(it)",
        "new URLSearchParams({ it }).toString()",
        "JSON.stringify(JSON.stringify({ it }))",
        "(document.body.dataset.it = it, document.body.cloneNode().outerHTML)",
        "(document.createElement('p').append(it), new XMLSerializer().serializeToString(new Text(it)))",
        "Array.from(it, (each) => each.charCodeAt().toString(16).padStart(2, '0')).join('')",
        "Array.from(it, (each) => each + '\\u0001').join('').replaceAll('\\u0001', '\\0')",
    ]
    read = "const it = document.querySelector('#password').value; "
    results = await login.run(
        OPEN,
        step("page.fill", "#password", {"secret": "site/odd", "field": "password"}),
        step("page.evaluate", f"{read} [{', '.join(forms)}]"),
        step("page.evaluate", f"{read} console.log('logged ' + btoa(it))", options={"logs": "capture"}),
        step("page.evaluate", f"() => {{ {read} throw new Error(encodeURIComponent(it)); }}"),
    )
    for form, shown in zip(forms, results[2]["value"], strict=True):
        assert "***" in shown, form
        assert "7f3a" not in shown, form
        # Nothing but what was around it.
        assert len(shown) < 40, (form, shown)
    assert results[3]["logs"] == [{"type": "log", "text": "logged ***"}]
    assert "***" in results[4]["error"]["message"]
    assert "7f3a" not in str(results)
    run = (await login.remote.get(login.path))["activeRunId"]

    async def is_recorded() -> bool:
        kept = await login.remote.get(f"/v1/runs/{run}/events?limit=200")
        texts = [each["data"]["text"] for each in kept["events"] if each["type"] == "console.message"]
        assert "7f3a" not in str(kept)
        return "logged ***" in texts

    await until(is_recorded, "what the page logged is recorded")
    assert "7f3a" not in gateway.log


async def test_its_beginning_is_masked_where_texts_are_cut(login: Executing) -> None:
    """A page knows where, and may place it across the cut."""
    # One of two places, 13 characters apart, is within the secret.
    steps = []
    for before in (0, 13):
        read = (
            "const it = document.querySelector('#password').value; "
            f"const many = (each, times = 1e5) => 'x'.repeat({before}) + each.repeat(times); "
        )
        steps += [
            step("page.evaluate", f"{read} many(it)"),
            step("page.evaluate", f"{read} many(btoa(it + '.'))"),
            step("page.evaluate", f"{read} new TextEncoder().encode(many(it + '.'))"),
            step("page.evaluate", f"{read} document.body.title = many(it); document.body"),
            step(
                "page.evaluate",
                f"{read} console.log(many(it, 1000)), console.log(many(btoa(it), 1000))",
                options={"logs": "capture"},
            ),
        ]
    results = await login.run(OPEN, step("page.fill", "#password", REFERENCE), *steps)
    for before in (0, 13):
        read = f"'x'.repeat({before}) + document.querySelector('#password').value.repeat(1e5)"
        results += await login.run(step("page.evaluate", f"() => {{ throw new Error({read}); }}"))
    encoded = [base64.b64encode(bytes(shift) + PASSWORD.encode()).decode()[2 + shift : 8 + shift] for shift in range(3)]
    for text in (PASSWORD[:6], *encoded):
        assert text not in str(results)
    run = (await login.remote.get(login.path))["activeRunId"]

    async def is_recorded() -> bool:
        kept = await login.remote.get(f"/v1/runs/{run}/events?limit=200&type=console.message")
        texts = [each["data"]["text"] for each in kept["events"] if each["data"]["text"].count(MASK) > 2]
        assert PASSWORD[:6] not in str(texts)
        return len(texts) >= 4

    await until(is_recorded, "what the page logged is recorded")


async def test_a_code_is_typed(login: Executing) -> None:
    assert await login.value(OPEN, step("page.fill", "#password", {**REFERENCE, "field": "totp"}), READ) == 6


async def test_a_page_of_another_origin_gets_none(login: Executing, pages: PageServer) -> None:
    other = step("page.setContent", "<input id=password>")
    error = await login.error(step("page.goto", "about:blank"), other, step("page.fill", "#password", REFERENCE))
    assert error["code"] == "vault.origin_refused"
    assert await login.value(READ) == 0


async def test_a_frame_in_a_page_of_another_origin_gets_none(login: Executing) -> None:
    """Its own origin is the secret's, but the page around it sees where keys go."""
    framed = step("page.setContent", '<iframe name="inner" src="{pages}/form"></iframe>')
    error = await login.error(
        step("page.goto", "about:blank"),
        framed,
        step("page.frame", {"name": "inner"}, alias="inner"),
        step("frame.waitForSelector", "#name", ref="inner"),
        step("frame.fill", "#name", REFERENCE, ref="inner"),
    )
    assert error["code"] == "vault.origin_refused"


@pytest.mark.parametrize(
    ("key", "code"),
    [
        ("site/other", "vault.key_forbidden"),
        ("elsewhere", "vault.key_forbidden"),
        ("site/none", "vault.secrets.not_found"),
        # Whether there is one is not said.
        ("elsewhere/none", "vault.key_forbidden"),
    ],
)
async def test_mounts_say_which_keys_may_be_used(login: Executing, key: str, code: str) -> None:
    error = await login.error(OPEN, step("page.fill", "#password", {**REFERENCE, "secret": key}))
    assert error["code"] == code
    assert await login.value(READ) == 0


async def test_what_a_workspace_allows_no_longer_is_refused_and_the_rest_goes_on(login: Executing) -> None:
    allowed = {"vault": {"allow": ["site/login", "site/other"]}}
    workspace = await login.remote.post(
        "/v1/workspaces", {"name": "narrowed", "mounts": {"vault": {"allow": ["site"]}}}
    )
    path = f"/v1/workspaces/{workspace['id']}"
    made = await login.remote.post(f"{path}/runtimes", {"kind": "browser", "alias": "main", "mounts": allowed})
    later = {"mounts": {"vault": {"allow": ["site/login"]}}}
    (await login.remote.api.patch(path, json=later)).raise_for_status()
    narrowed = Executing(login.remote, f"/v1/spaces/{workspace['id']}/runtimes/{made['id']}", login.pages)
    assert await narrowed.value(OPEN, step("page.fill", "#password", REFERENCE), READ) == len(PASSWORD)
    error = await narrowed.error(step("page.fill", "#password", {**REFERENCE, "secret": "site/other"}))
    assert error["code"] == "vault.key_forbidden"


@pytest.mark.parametrize("prefer", ["sync", "async"])
async def test_an_execution_may_use_less_than_its_runtime(login: Executing, prefer: str) -> None:
    typing = filled([OPEN, step("page.fill", "#password", REFERENCE), READ], login.pages)

    async def error_with(vault: dict[str, Any]) -> dict[str, Any] | None:
        body = {"runtime": login.id, "steps": typing, "mounts": {"vault": vault}, "prefer": prefer}
        answer = await login.remote.post(login.url, body)
        if prefer == "async":
            answer = (await login.operation(answer["operation"]["id"]))["result"]
        error: dict[str, Any] | None = answer["steps"][-1].get("error")
        return error

    refused: list[dict[str, Any]] = [{"allow": ["site/none"]}, {"allow": []}, {"deny": ["site/log"]}]
    for narrower in refused:
        error = await error_with(narrower)
        assert error is not None
        assert error["code"] == "vault.key_forbidden"
    assert await error_with({"allow": ["site/login"]}) is None
    # The next one has all of them again.
    assert await login.value(OPEN, step("page.fill", "#password", REFERENCE), READ) == len(PASSWORD)


async def test_a_key_of_other_mounts_is_of_another_request(login: Executing) -> None:
    body = {"runtime": login.id, "steps": [step("page.title")], "idempotencyKey": "mounts"}
    narrower = {**body, "mounts": {"vault": {"allow": []}}}
    first = await login.remote.post(login.url, narrower)
    assert await login.remote.post(login.url, narrower) == first
    refusal = await login.remote.api.post(login.url, json=body)
    assert (refusal.status_code, refusal.json()["code"]) == (409, "idempotency.mismatch")


async def test_a_call_that_types_nothing_takes_no_secret(login: Executing) -> None:
    for wrong in (step("page.goto", REFERENCE), step("page.fill", REFERENCE, "x")):
        body = {"runtime": login.id, "steps": [wrong]}
        response = await login.remote.api.post(login.url, json=body)
        assert (response.status_code, response.json()["details"]["errors"][0]["field"]) == (400, "steps.0.args.0")
    # As data it is data.
    assert await login.value(OPEN, step("page.evaluate", "(given) => given.secret", REFERENCE)) == "site/login"
