"""Declared calls and their arguments, without a browser."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.automation.calls import (
    NO_OPTIONS,
    REST,
    Call,
    Json,
    Ref,
    RestOfTexts,
    Step,
    Text,
    Texts,
    Vocabulary,
    WrongArguments,
    checked,
    snake,
)
from gateway.automation.options import Click
from gateway.automation.vocabularies import VOCABULARIES

calls = Vocabulary("sample")


@calls.call("thing.act", binds="handle")
async def act(on: Any, name: str, count: int = 1, options: Click = NO_OPTIONS) -> Any:
    """Act."""


@calls.call("thing.type")
async def type_(on: Any, text: Text, others: Texts = None, target: Ref = None, more: Json = None) -> None:
    """Type."""


@calls.call("thing.pick")
async def pick(on: Any, name: str, choices: RestOfTexts = NO_OPTIONS) -> None:
    """Pick."""


def problems(call: str, args: Any, **more: Any) -> dict[str, str]:
    """Field and code of each problem of a step."""
    with pytest.raises(WrongArguments) as raised:
        checked(calls, [Step(call, args, **more)])
    return {problem.field: problem.code for problem in raised.value.problems}


@pytest.mark.parametrize(
    ("args", "found"),
    [
        ([], {"steps.0.args.0": "field.missing"}),
        ({}, {"steps.0.args.name": "field.missing"}),
        (None, {"steps.0.args.name": "field.missing"}),
        ([1], {"steps.0.args.0": "string_type"}),
        (["a", "b"], {"steps.0.args.1": "int_type"}),
        (["a", 1, {}, 4], {"steps.0.args.3": "field.invalid"}),
        (["a", 1, {"timeot": 1}], {"steps.0.args.2.timeot": "field.unknown"}),
        (["a", 1, {"button": "top"}], {"steps.0.args.2.button": "literal_error"}),
        (["a", 1, {"position": {"x": 1}}], {"steps.0.args.2.position.y": "field.missing"}),
        (["a", 1, {"modifiers": ["Hyper"]}], {"steps.0.args.2.modifiers.0": "literal_error"}),
        ({"name": "a", "options": {"delay": -1}}, {"steps.0.args.options.delay": "greater_than_equal"}),
        ({"nam": "a"}, {"steps.0.args.name": "field.missing", "steps.0.args.nam": "field.unknown"}),
    ],
)
def test_wrong_arguments_are_named(args: Any, found: dict[str, str]) -> None:
    assert problems("thing.act", args) == found


@pytest.mark.parametrize(
    "args", [["a"], ["a", 2], ["a", 2, {"delay": 5}], {"name": "a", "options": {"button": "left"}}]
)
def test_right_arguments_are_taken(args: Any) -> None:
    (step,) = checked(calls, [Step("thing.act", args)])
    assert step.arguments["name"] == "a"


@pytest.mark.parametrize(
    ("value", "is_right"),
    [
        ("text", True),
        ({"secret": "crm", "field": "password"}, True),
        ({"secret": "crm", "field": "totp"}, True),
        ({"secret": "crm", "field": "notes"}, False),
        ({"secret": "", "field": "password"}, False),
        ({"secret": "crm"}, False),
        (7, False),
        (None, False),
    ],
)
def test_a_text_may_be_a_secret(value: Any, is_right: bool) -> None:
    if is_right:
        checked(calls, [Step("thing.type", [value])])
    else:
        assert problems("thing.type", [value]) == {"steps.0.args.0": "field.invalid"}


def test_types_with_one_error() -> None:
    assert problems("thing.type", ["a", 1]) == {"steps.0.args.1": "field.invalid"}
    assert problems("thing.type", ["a", ["b"], "c"]) == {"steps.0.args.2": "field.invalid"}
    checked(calls, [Step("thing.type", ["a", ["b"], {"ref": "c"}, {"any": [1]}])])


def test_further_arguments_are_a_list_by_name() -> None:
    for args in (["a", "b", "c"], {"name": "a", "choices": ["b", "c"]}):
        (step,) = checked(calls, [Step("thing.pick", args)])
        assert step.arguments == {"name": "a", "choices": ["b", "c"]}
    (alone,) = checked(calls, [Step("thing.pick", ["a"])])
    assert alone.arguments == {"name": "a"}
    assert problems("thing.pick", ["a", "b", 3, 4]) == {
        "steps.0.args.2": "string_type",
        "steps.0.args.3": "string_type",
    }
    assert problems("thing.pick", {"name": "a", "choices": ["b", 3]}) == {"steps.0.args.choices.1": "string_type"}


def test_a_vocabulary_may_extend_another() -> None:
    more = Vocabulary("more", extends=calls)
    assert checked(more, [Step("thing.act", ["a"])])[0].call.name == "thing.act"
    assert [call.name for call in more] == []
    assert more.names() == list(calls.calls)


def test_an_unknown_call_names_the_nearest() -> None:
    with pytest.raises(WrongArguments) as raised:
        checked(calls, [Step("thing.act", ["a"]), Step("thing.atc")])
    (problem,) = raised.value.problems
    assert problem.field == "steps.1.call"
    assert "thing.act" in problem.message


def test_only_calls_that_bind_take_an_alias() -> None:
    assert problems("thing.type", ["a"], alias="b") == {"steps.0.as": "field.invalid"}
    checked(calls, [Step("thing.act", ["a"], alias="b")])


def test_messages_repeat_no_value_of_an_argument() -> None:
    with pytest.raises(WrongArguments) as raised:
        checked(calls, [Step("thing.act", ["a", "hunter2", {"button": "hunter2", "timeout": "hunter2"}])])
    assert len(raised.value.problems) == 3
    assert "hunter2" not in str(raised.value)


def test_a_name_is_declared_once() -> None:
    with pytest.raises(ValueError, match="twice"):
        calls.call("thing.act")(act)


def test_the_gateway_does_not_import_the_library() -> None:
    """What it checks a request with must not cost it the library's memory, or bring in its code."""
    import subprocess

    code = "import sys, gateway.automation.vocabularies; print('playwright' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(("name", "spelled"), [("waitUntil", "wait_until"), ("url", "url"), ("x1Y", "x1_y")])
def test_names_of_options(name: str, spelled: str) -> None:
    assert snake(name) == spelled


def _wrong(call: Call) -> Iterator[tuple[str, Any, str]]:
    """Arguments that a call does not take, and the field that is wrong."""
    names = list(call.schema().get("properties", {}))
    required = call.schema().get("required", [])
    good = list(call.example.args) if not isinstance(call.example.args, dict) else []
    if not call.parameters or call.parameters[-1].kind is not REST:
        yield "too many", [*good, *[None] * (len(names) - len(good)), None], f"args.{len(names)}"
    yield "unknown", {"nope": 1}, "args.nope"
    if required:
        yield "missing", {}, f"args.{required[0]}"


WRONG = [
    (vocabulary.name, call.name, args, field)
    for vocabulary in VOCABULARIES.values()
    for call in vocabulary
    for _, args, field in _wrong(call)
]


@pytest.mark.parametrize("driver", VOCABULARIES)
def test_wrong_calls_of_every_vocabulary_name_the_field(driver: str) -> None:
    wrong = [each for each in WRONG if each[0] == driver]
    for _, name, args, field in wrong:
        with pytest.raises(WrongArguments) as raised:
            checked(VOCABULARIES[driver], [Step("nothing.real"), Step(name, args)])
        fields = [problem.field for problem in raised.value.problems]
        assert f"steps.1.{field}" in fields, (name, args, fields)
        assert "steps.0.call" in fields


def test_there_are_enough_of_them() -> None:
    assert len(WRONG) >= 200
