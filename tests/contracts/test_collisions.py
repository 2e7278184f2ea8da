"""Paths that several contracts have, later ones among them (later_paths.json), asked as each known client asks."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path

import pytest

from gateway.app import CONTRACTS
from gateway.http.contract import Contract
from gateway.http.dispatch import Contracts
from gateway.http.endpoints import Call, Endpoints
from gateway.http.models import Answer
from gateway.http.paths import shape
from tests.support.toys import TOYS

LATER = json.loads(Path(__file__).with_name("later_paths.json").read_text())
VERSIONS = {"browsers": frozenset({"2026-10-03"})}

# The headers that each client sends, and the contract that it speaks.
CLIENTS: dict[str, tuple[dict[str, str], str]] = {
    "sdk-js": ({"User-Agent": "@bctrl/sdk/1.0.10 v1", "x-sdk-version": "1.0.10"}, "runtimes"),
    "python-0.1": ({"User-Agent": "bctrl-python/0.1.5", "Connection": "close"}, "runtimes"),
    "cli": ({"User-Agent": "BCTRL CLI", "Accept": "application/json"}, "runtimes"),
    "python-0.3": (
        {"User-Agent": "bctrl/0.3.0", "BCTRL-Version": "2026-10-03", "X-Fern-Language": "Python"},
        "browsers",
    ),
    "python-0.3 with another version": ({"User-Agent": "bctrl/0.3.0"}, "browsers"),
    "toys": ({"BCTRL-Version": "2030-01-01"}, "toys"),
    "curl": ({"User-Agent": "curl/8.5.0"}, "spaces"),
    "nothing": ({}, "spaces"),
    **{f"named {name}": ({"Gateway-Contract": name}, name) for name in ("spaces", "workspaces", "toys", "browsers")},
}


def later(name: str) -> Contract:
    endpoints = Endpoints(name)

    async def handler(call: Call) -> Answer:
        raise AssertionError("only paths are asked for")

    for number, (method, path) in enumerate(line.split(" ") for line in LATER[name]):
        getattr(endpoints, method.lower())(path, id=f"{name}-{number}", summary=name)(handler)
    return Contract(name, tuple(endpoints.listed), versions=VERSIONS.get(name, frozenset()))


SERVED = (*CONTRACTS, TOYS, *map(later, LATER))
CHOSEN = Contracts(SERVED, "spaces")


def has(contract: Contract, path: str) -> bool:
    """Whether a path fits a template, found another way than the product finds it."""
    return any(
        re.fullmatch(re.sub(r"{\w+:path}", ".+", re.sub(r"{\w+}", "[^/]+", resource.path)), path)
        for resource in contract.resources
    )


# Of each path of a contract, with x for its parameters, the contracts that have it.
PATHS = {
    path: tuple(contract.name for contract in SERVED if has(contract, path))
    for path in sorted({shape(resource.path).replace("{}", "x") for each in SERVED for resource in each.resources})
}
TABLE = {path: having for path, having in PATHS.items() if len(having) > 1}


def raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


def test_the_table_has_the_pairs_that_collide() -> None:
    pairs = {frozenset(pair) for names in TABLE.values() for pair in combinations(names, 2)}
    expected = (("spaces", "toys"), ("spaces", "browsers"), ("spaces", "runtimes"), ("runtimes", "browsers"))
    assert pairs >= set(map(frozenset, expected))
    assert len(TABLE) > 50


@pytest.mark.parametrize("client", CLIENTS)
def test_every_path_is_answered_as_the_client_asks(client: str) -> None:
    headers, speaks = CLIENTS[client]
    explicit = {"BCTRL-Version", "Gateway-Contract"} & headers.keys()
    for path, having in PATHS.items():
        choice = CHOSEN.choose(path, raw(headers))
        alone = having[0] if len(having) == 1 else "spaces"
        expected = speaks if explicit or speaks in having else alone
        assert (choice.contract.name, choice.refusal) == (expected, None), (path, having)
        # A named contract's 404 is its own.
        assert (choice.resource is not None) == (expected in having), (path, having)
        varies = {b"vary": b"BCTRL-Version, Gateway-Contract, User-Agent", b"x-gateway-contract": expected.encode()}
        assert dict(choice.headers) == (varies if path in TABLE else {})
