"""What is not relayed, in the provider's own words for errors; and that none of it reaches the provider."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.core.ai_providers import COMPATIBLE, ProviderName
from gateway.core.errors import Conflict, Unavailable
from tests.support.model_server import ModelServer
from tests.support.relay import ALL_KEYS, CALLS, MODEL, OTHER_MODEL, TOKEN_HEADERS, Relayed, relayed

PROVIDERS: tuple[ProviderName, ...] = tuple(ALL_KEYS)


def code_of(provider: ProviderName, body: Any, status: int) -> str:
    """The relay's code in an error of the provider's shape, of which every member is looked at."""
    error = body["error"]
    if provider == "anthropic":
        assert (body["type"], set(error)) == ("error", {"type", "message"})
        code, _, message = error["message"].partition(": ")
    elif provider == "google":
        assert set(error) == {"code", "message", "status", "details"}
        assert error["code"] == status
        assert error["status"].isupper()
        code, message = error["details"][0]["reason"], error["message"]
    else:
        assert set(error) == {"message", "type", "param", "code"}
        code, message = error["code"], error["message"]
    assert message.endswith(".")
    return str(code)


async def assert_refused(
    used: Relayed, answer: Any, status: int, code: str, models: ModelServer, times: int = 1
) -> None:
    assert answer.status_code == status, answer.text
    assert code_of(used.provider, answer.json(), status) == code
    # Client libraries need not try again.
    assert answer.headers["x-should-retry"] == "false"
    assert models.seen == []
    assert used.endpoint.usage.refused[code] == times
    assert used.endpoint.failure is not None
    assert used.endpoint.failure.code == code
    assert used.token not in answer.text


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("token", [None, "x", "{}x", "x{}", "{}é", "other"])
async def test_without_the_token_nothing_is_relayed(
    models: ModelServer, provider: ProviderName, token: str | None
) -> None:
    async with relayed(models, provider) as used, relayed(models, provider) as other:
        path, body = CALLS[provider]
        name, form = TOKEN_HEADERS[provider]
        given = other.token if token == "other" else None if token is None else token.replace("{}", used.token)
        headers = {} if given is None else {name.encode(): form.replace("{}", given).encode()}
        answer = await used.client.post(path, json=body, headers=headers)
        await assert_refused(used, answer, 401, "relay.unauthorized", models)
        assert used.keys.opened == 0


async def test_a_token_in_the_address_is_none(models: ModelServer) -> None:
    async with relayed(models, "google") as used:
        path, body = CALLS["google"]
        answer = await used.client.post(f"{path}?key={used.token}", json=body)
        await assert_refused(used, answer, 401, "relay.unauthorized", models)


PATHS = (
    "/",
    "/v1",
    "/v1/models",
    "/v1/chat/completions/",
    "/v1//chat/completions",
    "/v1/../v1/embeddings",
    "/v1/files",
    "/v1/responses/resp_1",
    "/v1/messages/batches",
    "/v1/messages/count_tokens",
    "/v1beta/models",
    f"/v1beta/models/{MODEL}:countTokens",
    f"/v1beta/models/{MODEL}:generateContent/x",
    f"/v1alpha/models/{MODEL}:generateContent",
)


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_no_other_path_and_method_is_relayed(models: ModelServer, provider: ProviderName) -> None:
    own, body = CALLS[provider]
    others = [path for path, _ in CALLS.values() if path != own]
    async with relayed(models, provider) as used:
        for times, path in enumerate([*PATHS, *others], 1):
            # As it is: httpx would take dots out of it.
            request = used.client.build_request("POST", "/", json=body, headers=used.headers())
            request.extensions["target"] = path.encode()
            answer = await used.client.send(request)
            await assert_refused(used, answer, 404, "relay.path_forbidden", models, times)
        for times, method in enumerate(["GET", "PUT", "PATCH", "DELETE", "OPTIONS"], 1):
            answer = await used.client.request(method, own, headers=used.headers())
            await assert_refused(used, answer, 405, "relay.method_forbidden", models, times)


@pytest.mark.parametrize("provider", ["openai", "anthropic", COMPATIBLE])
async def test_no_other_model_is_relayed(models: ModelServer, provider: ProviderName) -> None:
    others = [OTHER_MODEL, MODEL.upper(), f"{MODEL} ", f"openai/{MODEL}", None, 1, [MODEL], ...]
    async with relayed(models, provider) as used:
        for times, model in enumerate(others, 1):
            answer = await used.call(model=model)
            await assert_refused(used, answer, 403, "relay.model_forbidden", models, times)
            if model == OTHER_MODEL:
                assert used.endpoint.failure is not None
                assert f"{MODEL!r} only; the request has {OTHER_MODEL!r}" in used.endpoint.failure.message


async def test_no_other_model_of_google_is_relayed(models: ModelServer) -> None:
    own = f"/v1beta/models/{MODEL}:generateContent"
    async with relayed(models, "google") as used:
        for times, name in enumerate([OTHER_MODEL, f"{MODEL}-pro", f"{MODEL}%2F..%2F{OTHER_MODEL}"], 1):
            answer = await used.call(own.replace(MODEL, name))
            await assert_refused(used, answer, 403, "relay.model_forbidden", models, times)
        answer = await used.call(own, model=f"models/{OTHER_MODEL}")
        await assert_refused(used, answer, 403, "relay.model_forbidden", models, 4)
        for version in ("v1beta", "v1"):
            same = own.replace("v1beta", version)
            assert (await used.call(same, model=f"models/{MODEL}")).status_code == 200


async def test_a_model_that_is_named_twice_is_the_one_that_was_checked(models: ModelServer) -> None:
    async with relayed(models) as used:
        for first, second, status in ((OTHER_MODEL, MODEL, 200), (MODEL, OTHER_MODEL, 403)):
            content = f'{{"model": "{first}", "messages": [], "model": "{second}"}}'
            answer = await used.client.post("/v1/chat/completions", content=content, headers=used.headers())
            assert answer.status_code == status
    assert [(asked.model, OTHER_MODEL.encode() in asked.raw) for asked in models.seen] == [(MODEL, False)]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff", b"{" * 5000, b'{"a":' * 300 + b"1" + b"}" * 300])
async def test_a_body_that_is_no_object_is_refused(models: ModelServer, body: bytes) -> None:
    async with relayed(models, "google") as used:
        answer = await used.client.post(CALLS["google"][0], content=body, headers=used.headers())
        await assert_refused(used, answer, 400, "relay.body_invalid", models)


@pytest.mark.parametrize(
    ("provider", "path", "field"),
    [
        ("openai", "/v1/chat/completions", {"models": [OTHER_MODEL]}),
        (COMPATIBLE, "/v1/chat/completions", {"fallbacks": [OTHER_MODEL]}),
        (COMPATIBLE, "/v1/chat/completions", {"plugins": [{"id": "web"}]}),
        ("openai", "/v1/chat/completions", {"web_search_options": {}}),
        ("openai", "/v1/responses", {"background": True}),
        ("openai", "/v1/responses", {"prompt": {"id": "pmpt_1"}}),
        ("anthropic", "/v1/messages", {"mcp_servers": [{"type": "url", "url": "https://evil.example"}]}),
        ("anthropic", "/v1/messages", {"container": "container_1"}),
        ("google", None, {"cachedContent": "cachedContents/1"}),
    ],
)
async def test_fields_that_reach_beyond_the_call_are_refused(
    models: ModelServer, provider: ProviderName, path: str | None, field: dict[str, Any]
) -> None:
    async with relayed(models, provider) as used:
        await assert_refused(used, await used.call(path, **field), 403, "relay.field_forbidden", models)
        assert (await used.call(path, **dict.fromkeys(field))).status_code == 200


FUNCTION = {"type": "function", "function": {"name": "click"}}


@pytest.mark.parametrize(
    ("provider", "path", "tools"),
    [
        ("openai", "/v1/responses", [{"type": "web_search"}]),
        (
            "openai",
            "/v1/responses",
            [{"type": "function", "name": "click"}, {"type": "mcp", "server_url": "https://x"}],
        ),
        ("openai", "/v1/responses", [{"type": "code_interpreter", "container": {"type": "auto"}}]),
        ("openai", "/v1/responses", [{"type": "image_generation", "model": OTHER_MODEL}]),
        ("openai", "/v1/responses", [{"type": "file_search", "vector_store_ids": ["vs_1"]}]),
        ("openai", "/v1/chat/completions", [FUNCTION, {"type": "browser_search"}]),
        ("openai", "/v1/chat/completions", [FUNCTION, {}]),
        ("openai", "/v1/chat/completions", [FUNCTION, "web_search"]),
        ("anthropic", "/v1/messages", [{"type": "web_search_20250305", "name": "web_search"}]),
        ("anthropic", "/v1/messages", [{"name": "click"}, {"type": "code_execution_20250825", "name": "x"}]),
        ("anthropic", "/v1/messages", [{"type": 1}]),
        ("google", None, [{"googleSearch": {}}]),
        ("google", None, [{"functionDeclarations": [], "urlContext": {}}]),
        ("google", None, [{"codeExecution": {}}]),
    ],
)
async def test_tools_of_the_provider_are_refused(
    models: ModelServer, provider: ProviderName, path: str | None, tools: list[Any]
) -> None:
    async with relayed(models, provider) as used:
        await assert_refused(used, await used.call(path, tools=tools), 403, "relay.tool_forbidden", models)


async def test_tools_that_are_no_list_are_refused(models: ModelServer) -> None:
    async with relayed(models) as used:
        await assert_refused(used, await used.call(tools={"0": FUNCTION}), 400, "relay.body_invalid", models)


@pytest.mark.parametrize("query", ["?key=x", "?alt=json", "?alt=sse&alt=media", "?beta=true", "?alt", "?%ff", "?"])
async def test_no_other_parameter_is_relayed(models: ModelServer, query: str) -> None:
    async with relayed(models, "google") as used:
        path = CALLS["google"][0].replace("generateContent", "streamGenerateContent")
        await assert_refused(used, await used.call(path + query), 400, "relay.query_forbidden", models)


async def test_a_compressed_request_is_refused(models: ModelServer) -> None:
    async with relayed(models) as used:
        headers = {**used.headers(), "content-encoding": "gzip"}
        answer = await used.client.post("/v1/chat/completions", content=b"\x1f\x8b", headers=headers)
        await assert_refused(used, answer, 415, "relay.encoding_forbidden", models)


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_key_that_may_not_be_used_any_more_is_refused_by_its_code(
    models: ModelServer, provider: ProviderName
) -> None:
    async with relayed(models, provider) as used:
        assert (await used.call()).status_code == 200
        models.seen.clear()
        used.keys.error = Conflict("The AI connection is disabled.", "ai_connection.disabled")
        await assert_refused(used, await used.call(), 401, "ai_connection.disabled", models)
        used.keys.error = Unavailable("The database can't be reached.", "database.unavailable")
        await assert_refused(used, await used.call(), 503, "database.unavailable", models)
        used.keys.error = None
        assert (await used.call()).status_code == 200


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_nothing_of_a_client_reaches_the_provider_but_its_request(
    models: ModelServer, provider: ProviderName
) -> None:
    async with relayed(models, provider) as used:
        path, body = CALLS[provider]
        extra = {
            "user-agent": "library/1.0 on machine-7",
            "x-stainless-os": "Linux",
            "openai-project": "proj_1",
            "openai-organization": "org_1",
            "x-goog-user-project": "p",
            "cookie": "a=b",
            "x-forwarded-for": "10.0.0.1",
            "idempotency-key": "i",
        }
        assert (await used.client.post(path, json=body, headers={**used.headers(), **extra})).status_code == 200
        [asked] = models.seen
        name, form = TOKEN_HEADERS[provider]
        assert asked.headers == {
            "host": f"127.0.0.1:{models.port}",
            "accept": "application/json, text/event-stream",
            "accept-encoding": "identity",
            "connection": "keep-alive",
            "content-type": "application/json",
            "content-length": str(len(asked.raw)),
            "user-agent": "gateway",
            name: form.format(ALL_KEYS[provider]),
            **({"anthropic-version": "2023-06-01"} if provider == "anthropic" else {}),
        }
        assert asked.body == body


async def test_a_server_that_takes_no_key_gets_none(models: ModelServer) -> None:
    models.keys.add("")
    async with relayed(models, COMPATIBLE, key=None) as used:
        assert (await used.call()).status_code == 200
        assert "authorization" not in models.seen[0].headers
