"""The process that validates by JSON Schemas, without the process; and the checker, with it."""

from __future__ import annotations

import io
from typing import Any

import orjson
import psutil
import pytest

from gateway.core.shares import Taker
from gateway.schemas.checker import CheckTooSlow, InvalidSchema, SchemaChecker
from gateway.schemas.worker import LENGTH, checked, serve

TAKER = Taker(None, None)
# Each reference doubles what is to be looked at.
SLOW = {
    "$defs": {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(40)} | {"d40": {"type": "string"}},
    "$ref": "#/$defs/d0",
}


@pytest.mark.parametrize(
    ("schema", "value", "fields"),
    [
        ({"type": "object"}, {}, []),
        ({"properties": {"a": {"items": {"type": "string"}}}}, {"a": ["", 1]}, ["a.1"]),
        # A schema that refers to itself ends with the value.
        ({"properties": {"a": {"$ref": "#"}}, "type": "object"}, {"a": {"a": 1}}, ["a.a"]),
        ({"$ref": "#"}, 1, []),
        ({"const": "a"}, "s3cr3t", [""]),
    ],
)
def test_a_value_is_checked_by_a_schema(schema: Any, value: Any, fields: list[str]) -> None:
    found = checked(schema, value)["problems"]
    assert [field for field, _ in found] == fields
    # Nothing of a value is in a message.
    assert "s3cr3t" not in str(found)


def test_five_problems_are_named_at_most() -> None:
    assert len(checked({"items": {"type": "string"}}, [1] * 5)["problems"]) == 5
    assert len(checked({"items": {"type": "string"}}, [1] * 6)["problems"]) == 5


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "strin"},
        {"$ref": "http://127.0.0.1:1/schema.json"},
        {"$ref": "file:///etc/passwd"},
        {"$schema": "http://127.0.0.1:1/meta.json"},
        {"pattern": "(?=a)"},
        {"$ref": "#/$defs/none"},
    ],
)
def test_what_is_no_schema_says_why(schema: Any) -> None:
    assert checked(schema)["invalid"]


def test_requests_are_answered_until_there_are_no_more() -> None:
    given: list[list[Any]] = [[{}], [{"type": "string"}, 1]]
    texts = [orjson.dumps(request) for request in given]
    requests = io.BytesIO(b"".join(LENGTH.pack(len(text)) + text for text in texts))
    responses = io.BytesIO()
    serve(requests, responses, 60)
    responses.seek(0)
    answers = []
    while head := responses.read(LENGTH.size):
        answers.append(orjson.loads(responses.read(LENGTH.unpack(head)[0])))
    assert [answers[0], len(answers[1]["problems"]), len(answers)] == [{"problems": []}, 1, 2]


async def test_a_process_checks_schemas_and_values() -> None:
    checker = SchemaChecker(60.0)
    try:
        await checker.check({"type": "object"}, TAKER)
        assert [each.field for each in await checker.problems({"type": "object"}, [], TAKER)] == [""]
        with pytest.raises(InvalidSchema):
            await checker.check({"type": "strin"}, TAKER)
    finally:
        await checker.close()


def is_worker(process: psutil.Process) -> bool:
    try:
        return "gateway.schemas.worker" in process.cmdline()
    except psutil.NoSuchProcess:
        return False  # Another test's, which has ended.


async def test_a_check_that_takes_too_long_ends_with_its_process() -> None:
    checker = SchemaChecker(1.0)
    try:
        with pytest.raises(CheckTooSlow):
            await checker.problems(SLOW, 1, TAKER)
        assert not [each for each in psutil.Process().children() if is_worker(each)]
        # What follows is answered by another process; its start is no part of the time.
        assert await checker.problems({}, 1, TAKER) == []
    finally:
        await checker.close()
