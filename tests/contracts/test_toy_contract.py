"""A second contract is served beside the first, on a path of both, and through a hop of two gateways."""

from __future__ import annotations

from uuid import uuid4

import httpx

from gateway.app import CONTRACTS, build
from gateway.domain.secrets import KeySource
from gateway.settings import Settings
from gateway.store.database import Database
from tests.support.launchers import WorkingLauncher
from tests.support.serving import serving
from tests.support.toys import TOYS

VERSION = {"BCTRL-Version": "2030-01-01"}


async def test_two_contracts_on_one_path_and_through_a_hop(
    settings: Settings, database: Database, keys: KeySource, api_key: str
) -> None:
    served = (*CONTRACTS, TOYS)
    first, second = [await build(settings, database, keys, WorkingLauncher(), uuid4(), (), served) for _ in range(2)]
    headers = {"Authorization": f"Bearer {api_key}", "User-Agent": "toy-client"}
    transport = httpx.ASGITransport(first.app)
    async with (
        serving(second, settings) as port,
        httpx.AsyncClient(transport=transport, base_url="http://localhost:8787", headers=headers) as client,
    ):
        # The path of both: the first contract's by default, and the toys' by their version, without a body.
        space, toy = await client.post("/v1/spaces", json={}), await client.post("/v1/spaces", headers=VERSION)
        assert (space.status_code, space.headers["x-gateway-contract"]) == (200, "spaces")
        assert (toy.status_code, toy.json()) == (201, {"name": "space", "color": "none"})
        assert toy.headers["vary"] == space.headers["vary"]
        # A path of the toys alone needs no header; a header parameter has its default.
        assert (await client.put("/v1/toys/a/b")).json() == {"name": "a/b", "color": "red"}
        assert (await client.put("/v1/toys/a", headers={"Toy-Color": "blue"})).json()["color"] == "blue"
        # The peer answers as the same contract; the error has this gateway's request id, and is kept here alone.
        hop = VERSION | {"Idempotency-Key": "once", "Peer": f"http://127.0.0.1:{port}"}
        refused, again = [await client.post("/v1/toys", headers=hop) for _ in range(2)]
        error = refused.json()["error"]
        assert (refused.status_code, error["message"]) == (404, "No toy for toy-client.")
        assert error["id"] == refused.headers["x-request-id"]
        assert (again.content, again.headers["idempotency-replayed"]) == (refused.content, "true")
        # Errors outside of any route have the claimed contract's shape; its own 404 does not fall through.
        for method, path, status in (("GET", "/v1/runs", 404), ("GET", "/none", 404), ("DELETE", "/v1/spaces", 405)):
            answer = await client.request(method, path, headers=VERSION)
            assert (answer.status_code, list(answer.json())) == (status, ["error"])
        document = (await client.get("/openapi.json?contract=toys")).json()
        assert set(document["paths"]["/v1/toys/{key}"]) == {"put"}
        assert "201" in document["paths"]["/v1/spaces"]["post"]["responses"]
    await first.services.peers.aclose()
