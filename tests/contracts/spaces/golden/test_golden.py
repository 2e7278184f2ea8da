"""The API of the spaces generation answers as it is recorded, to the byte."""

from __future__ import annotations

import json
import re

from gateway.http.error_codes import FIELD_CODES, field_table
from tests.contracts.spaces.golden import comparison, openapi
from tests.contracts.spaces.golden.record import played
from tests.contracts.spaces.golden.running import running_gateway


def test_answers_are_those_that_are_recorded() -> None:
    with running_gateway() as gateway, played(gateway) as recorder:
        document = openapi.document(gateway.base_url)
    found = comparison.compare(comparison.recorded(), recorder.exchanges)
    found = found.joined(openapi.compare(openapi.recorded(), document))
    assert not found.fails(strict=False), found.report()


def test_every_operation_is_recorded_with_a_success() -> None:
    """Of the recorded document: what a later one has more is not in the recorded answers."""
    succeeded = [
        (exchange.request.split(" | ")[0].partition("?")[0])
        for exchange in comparison.recorded()
        if 200 <= exchange.status < 300
    ]
    missing = [
        (method, path)
        for method, path in openapi.operations(openapi.recorded())
        if not any(re.fullmatch(f"{method} {_pattern(path)}", request) for request in succeeded)
    ]
    assert missing == []


def _pattern(path: str) -> str:
    return re.sub(r"\\\{[A-Za-z]+\\\}", "[^/]+", re.escape(path))


def test_every_code_of_a_wrong_field_is_documented() -> None:
    """Those of the recorded answers; `Recorder` holds those of all other tests against the list."""
    found = {
        error["code"]
        for exchange in comparison.recorded()
        if '"code":"request.invalid"' in exchange.body
        for error in json.loads(exchange.body)["details"].get("errors", [])
    }
    assert len(found) > 15
    assert found <= set(FIELD_CODES)
    assert all(f"`{code}`" in field_table() for code in FIELD_CODES)
