"""The OpenAPI document of the spaces generation: nothing that it has may change or go; it may gain."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.contracts.spaces.golden.comparison import Differences

DOCUMENT = Path(__file__).with_name("openapi.json")

# Sentences for people.
_WORDING = {"description", "summary", "title"}


def document(base_url: str) -> dict[str, Any]:
    """As the gateway serves it, without its address and the gateway's version."""
    found: dict[str, Any] = httpx.get(f"{base_url}/openapi.json", timeout=60).raise_for_status().json()
    found["info"]["x-gateway-version"] = "<version>"
    found["servers"] = [{"url": "<origin>"} for _ in found["servers"]]
    return found


def recorded() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DOCUMENT.read_text())
    return found


def write(found: dict[str, Any]) -> None:
    """An operation or a schema a line."""
    text = json.dumps(found, separators=(",", ":"), ensure_ascii=False)
    for start in (r'"/[^"]*":\{"(?:get|post|patch|delete)":', r'"(?:get|post|patch|delete)":\{"operationId"'):
        text = re.sub(f"(?<!\n)({start})", r"\n\1", text)
    text = re.sub(r'("[A-Z][A-Za-z]*":\{"(?:properties|type|additionalProperties|description|title)")', r"\n\1", text)
    DOCUMENT.write_text(f"{text}\n")


def operations(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Method and path of each operation."""
    return [(method.upper(), path) for path, methods in found["paths"].items() for method in methods]


def compare(before: dict[str, Any], now: dict[str, Any]) -> Differences:
    found: dict[str, list[str]] = {"wrong": [], "wording": [], "added": []}
    for kind, place, what in _differing(before, now, "$"):
        found[kind].append(f"openapi {place}: {what}")
    return Differences(*(tuple(sorted(lines)) for lines in found.values()))


def _differing(before: Any, now: Any, place: str) -> Iterator[tuple[str, str, str]]:
    if isinstance(before, dict) and isinstance(now, dict):
        for name in before.keys() | now.keys():
            below = f"{place}.{name}"
            if name not in now:
                yield "wrong", below, "is gone"
            elif name not in before:
                yield "added", below, "is new"
            elif name in _WORDING and isinstance(before[name], str):
                if before[name] != now[name]:
                    yield "wording", below, f"{before[name]!r} is now {now[name]!r}"
            else:
                yield from _differing(before[name], now[name], below)
    elif place == "$.tags":
        yield from _differing({tag["name"]: tag for tag in before}, {tag["name"]: tag for tag in now}, place)
    elif place.endswith(".parameters"):
        yield from _differing(_named(before), _named(now), f"{place}[by name]")
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for index, (old, new) in enumerate(zip(before, now, strict=True)):
            yield from _differing(old, new, f"{place}[{index}]")
    elif before != now:
        yield "wrong", place, f"{json.dumps(before)[:300]} is now {json.dumps(now)[:300]}"


def _named(parameters: list[dict[str, Any]]) -> dict[str, Any]:
    return {f"{parameter['in']} {parameter['name']}": parameter for parameter in parameters}
