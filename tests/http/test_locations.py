"""What makes a resource names its path, which gets it."""

from __future__ import annotations

import httpx
import pytest

from gateway.app import Gateway
from gateway.settings import Settings
from tests.support.api import ENDPOINTS, make_space, ok


@pytest.fixture(params=[None, "https://example.com/browsers"], ids=["without a public URL", "with a public URL"])
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    return settings.model_copy(update={"public_url": request.param})


def test_whatever_makes_a_resource_that_can_be_had_says_where_it_is() -> None:
    # What an alias or a name finds has no path with the answer's id behind it.
    parts = {endpoint.path.removesuffix("}").rpartition("/{") for endpoint in ENDPOINTS if endpoint.method == "GET"}
    gets = {collection for collection, _, parameter in parts if parameter.lower().endswith("id")}
    made = {endpoint.path for endpoint in ENDPOINTS if endpoint.creates}
    assert made == {endpoint.path for endpoint in ENDPOINTS if endpoint.method == "POST" and endpoint.path in gets}
    assert len(made) >= 6


async def test_the_location_is_that_of_what_was_made(client: httpx.AsyncClient, gateway: Gateway) -> None:
    prefix = "/browsers" if gateway.services.settings.public_url else ""

    async def make(path: str, **body: object) -> str:
        """Its path on this gateway, where it is found."""
        answer = await client.post(path, **body)  # type: ignore[arg-type]
        assert answer.status_code == 200, answer.text
        assert answer.headers.get_list("location") == [f"{prefix}{path}/{answer.json()['id']}"]
        location = answer.headers["location"].removeprefix(prefix)
        assert (await ok(client.get(location)))["id"] == answer.json()["id"]
        return str(location)

    space = await make("/v1/spaces", json={})
    runtime = await make(f"{space}/runtimes", json={}, headers={"Prefer": "wait=5"})
    await make(f"{runtime}/connections", json={"protocol": "cdp"})
    await make(f"{space}/storage/files", files={"file": b"x"}, data={"path": "a.txt"})
    await make("/v1/subaccounts", json={"name": "a"})
    await make("/v1/ai-connections", json={"label": "a", "provider": "openai"})


async def test_an_error_and_a_repetition(client: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "a"}
    first, again = [await client.post("/v1/spaces", json={}, headers=key) for _ in range(2)]
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers.get_list("location") == first.headers.get_list("location")
    space = await make_space(client)
    for answer in (await client.post("/v1/spaces", json={"name": 1}), await client.get(f"/v1/spaces/{space}")):
        assert "location" not in answer.headers
