"""Which contract answers, by headers and path; and what fails at the start."""

from __future__ import annotations

import httpx
import pytest

from gateway.app import CONTRACTS
from gateway.core.errors import ConfigurationError
from gateway.http.contract import Contract
from gateway.http.dispatch import Contracts
from gateway.http.endpoints import Call, DuplicateEndpoint, Endpoints
from gateway.http.models import Answer
from gateway.http.openapi import document
from gateway.http.paths import PathTree
from tests.support.api import ok, refused
from tests.support.toys import TOYS

SERVED = Contracts((*CONTRACTS, TOYS), "spaces")


async def handler(call: Call) -> Answer:
    return Answer()


def contract(name: str, *routes: tuple[str, str]) -> Contract:
    endpoints = Endpoints(name)
    for method, path in routes:
        getattr(endpoints, method.lower())(path, id=f"{name} {method} {path}", summary=name)(handler)
    return Contract(name, tuple(endpoints.listed))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("GET", "/v1/spaces/{id}"), ("GET", "/v1/spaces/{id}")),
        (("GET", "/v1/spaces/{id}"), ("GET", "/v1/spaces/{spaceId}")),
        (("GET", "/v1/spaces/{id}"), ("PATCH", "/v1/spaces/{spaceId}")),
        (("PUT", "/v1/keys/{key:path}"), ("PUT", "/v1/keys/{key}")),
    ],
)
def test_two_endpoints_of_one_route_fail_at_the_start(one: tuple[str, str], other: tuple[str, str]) -> None:
    with pytest.raises(DuplicateEndpoint):
        contract("twice", one, other)
    parts = [(each, each.endpoints) for each in (contract("a", one), contract("b", other))]
    with pytest.raises(DuplicateEndpoint):
        document(parts, "/")


def test_a_default_that_is_not_served_fails_at_the_start() -> None:
    with pytest.raises(ConfigurationError, match=r"GATEWAY_CONTRACT is 'none'.*spaces, workspaces"):
        Contracts(CONTRACTS, "none")


async def test_an_unknown_version_is_400_with_those_that_are_served(client: httpx.AsyncClient) -> None:
    headers = {"BCTRL-Version": "1999-01-01"}
    for path in ("/v1/spaces", "/v1/updates", "/none"):
        body = await refused(client.get(path, headers=headers), 400, "request.version_unsupported")
        assert body["details"] == {"given": "1999-01-01", "served": []}
    assert (await client.get("/healthz", headers=headers)).status_code == 200


def test_a_version_names_what_is_served_and_beats_a_name() -> None:
    refusal = SERVED.choose("/v1/spaces", [(b"bctrl-version", b"1999-01-01")]).refusal
    assert refusal is not None
    assert refusal.details == {"given": "1999-01-01", "served": ["2030-01-01"]}
    both = [(b"gateway-contract", b"spaces"), (b"bctrl-version", b"2030-01-01")]
    assert SERVED.choose("/v1/spaces", both).contract is TOYS


async def test_an_unknown_name_of_a_contract_is_400(client: httpx.AsyncClient) -> None:
    answer = client.get("/v1/spaces", headers={"Gateway-Contract": "none"})
    body = await refused(answer, 400, "request.contract_unsupported")
    assert body["details"] == {"given": "none", "served": ["spaces", "workspaces"]}


async def test_what_a_named_contract_does_not_have_is_not_found(client: httpx.AsyncClient) -> None:
    await ok(client.get("/v1/spaces", headers={"Gateway-Contract": "spaces"}))
    await refused(client.get("/v1/spaces", headers={"Gateway-Contract": "workspaces"}), 404, "route.not_found")
    await refused(client.get("/v1/updates", headers={"Gateway-Contract": "spaces"}), 404, "route.not_found")


async def test_a_path_of_one_contract_does_not_vary(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/spaces")
    assert not {"vary", "x-gateway-contract"} & set(answer.headers)


def test_what_no_contract_is_claimed_for_is_the_default_s_and_what_one_contract_has() -> None:
    unclaimed = {each.name: {endpoint.operation_id for endpoint in listed} for each, listed in SERVED.unclaimed()}
    assert unclaimed["spaces"] == {endpoint.operation_id for endpoint in CONTRACTS[0].endpoints}
    assert unclaimed["toys"] == {"toys-put", "toys-ask"}
    # The vault, saved proxies and extensions are on the same paths in both.
    shared = ("/v1/vault", "/v1/proxies", "/v1/browser-extensions")
    own = {endpoint.operation_id for endpoint in CONTRACTS[1].endpoints if not endpoint.path.startswith(shared)}
    assert unclaimed["workspaces"] == own


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/a/b", ("/a/b", {})),
        ("/a/x", ("/a/{id}", {"id": "x"})),
        ("/a/b/c", ("/a/b/c", {})),
        ("/a/x/c", ("/a/{id}/c", {"id": "x"})),
        ("/k/x", ("/k/{key:path}", {"key": "x"})),
        ("/k/x/y", ("/k/{key:path}", {"key": "x/y"})),
        ("/k/x/end/y/end", ("/k/{key:path}/end", {"key": "x/end/y"})),
        ("/k/", None),
        ("/a/", None),
        ("/a", None),
        ("//a/b", None),
        ("/a/b/", None),
    ],
)
def test_a_segment_that_is_spelled_out_beats_a_parameter(path: str, found: tuple[str, dict[str, str]] | None) -> None:
    tree = PathTree[str]()
    for template in ("/a/{id}", "/a/b", "/a/{id}/c", "/a/b/c", "/k/{key:path}", "/k/{key:path}/end"):
        tree.add(template, template)
    assert tree.match(path) == found


@pytest.mark.parametrize("template", ["/a/{id}.json", "/a/x{id}"])
def test_a_parameter_is_a_whole_segment(template: str) -> None:
    with pytest.raises(ValueError, match="whole segment"):
        PathTree[str]().add(template, template)
