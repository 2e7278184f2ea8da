"""Calls of a vocabulary: each is a Python function with annotations, declared once with its name.

    @calls.call("page.fill", args=["#name", "Ada"])
    async def fill(on: Page, selector: str, value: Text, options: ActionOptions = NO_OPTIONS) -> None: ...

The first parameter is the object that the step is about. From the others, in the library's order, come validation, the
JSON Schema, `help`, docs/execute.md, and the test that runs the example. A name that is not declared does not exist.
"""

from __future__ import annotations

import difflib
import inspect
import re
import typing
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import SimpleNamespace
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, WithJsonSchema, create_model
from pydantic.alias_generators import to_camel

Function = Callable[..., Coroutine[Any, Any, Any]]
BindingType = Literal["page", "context", "handle", "subscription"]

# The default of an options object; never changed.
NO_OPTIONS: Any = {}
# Of an example whose value is not compared.
ANY: Any = object()
_NEAREST = 3
_SHOWN_NAME = 100


@dataclass(frozen=True, slots=True)
class Problem:
    """A wrong field of a request: where it is, and what would be right. Values of arguments are not repeated."""

    field: str
    message: str
    code: str = "field.invalid"


class WrongArguments(Exception):
    """Raised for arguments that a call does not take."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(f"{problem.field}: {problem.message}" for problem in problems))
        self.problems = problems


# Types of arguments


class ArgumentKind:
    """What the worker does with an argument before the call."""

    def __init__(self, name: str) -> None:
        self.name = name


REF = ArgumentKind("ref")
REST = ArgumentKind("rest")
TEXT = ArgumentKind("text")


def _checked(check: Callable[[Any], bool], message: str, schema: dict[str, Any], *marks: Any) -> Any:
    """A type with one error for all that is wrong, where a union would have one for each member."""

    def validated(value: Any) -> Any:
        if not check(value):
            raise ValueError(message)
        return value

    return Annotated[Any, PlainValidator(validated), WithJsonSchema(schema), *marks]


def _is_ref(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"ref"} and isinstance(value["ref"], str)


SECRET_FIELDS = ("password", "totp", "username", "value")


def is_secret_reference(value: Any) -> bool:
    """Whether an argument names a secret of the vault."""
    return (
        isinstance(value, dict)
        and set(value) == {"secret", "field"}
        and isinstance(value["secret"], str)
        and 0 < len(value["secret"]) <= 512
        and value["field"] in SECRET_FIELDS
    )


_REF_SCHEMA = {
    "type": "object",
    "properties": {"ref": {"type": "string"}},
    "required": ["ref"],
    "additionalProperties": False,
}
_SECRET_SCHEMA = {
    "type": "object",
    "properties": {"secret": {"type": "string", "minLength": 1}, "field": {"enum": list(SECRET_FIELDS)}},
    "required": ["secret", "field"],
    "additionalProperties": False,
}

if typing.TYPE_CHECKING:
    Ref = Any
    Text = Any
    Texts = Any
    Rest = list[Any]
    RestOfTexts = list[str]
else:
    # The object of a binding: the function gets the object itself.
    Ref = _checked(_is_ref, 'must be a binding, such as {"ref": "alias"}', _REF_SCHEMA, REF)
    # What is typed into a page: a text, or a secret of the vault, which the function gets as a `Secret`.
    Text = _checked(
        lambda value: isinstance(value, str) or is_secret_reference(value),
        'must be a text, or a secret such as {"secret": "key", "field": "password"}',
        {"anyOf": [{"type": "string"}, _SECRET_SCHEMA]},
        TEXT,
    )
    # A text or several.
    Texts = _checked(
        lambda value: (
            isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value))
        ),
        "must be a text or a list of texts",
        {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
    )
    # All further arguments by position, of a library's function that takes any number; a list by name.
    Rest = Annotated[list[Any], Field(max_length=100), REST]
    RestOfTexts = Annotated[list[str], Field(max_length=100), REST]

Milliseconds = Annotated[float, Field(ge=0, le=86_400_000)]
# A JSON value of any type.
Json = Any


# Declarations


@dataclass(frozen=True, slots=True)
class Example:
    """Steps that work on the page of the tests (tests/support/pages.py, /playground): those before, and the call's own.

    `{pages}` in a text is the address of these pages. `value` is what the call returns, `error` its code of failure.
    """

    args: Sequence[Any] | Mapping[str, Any] = ()
    ref: str | None = None
    before: Sequence[Mapping[str, Any]] = ()
    value: Any = ANY
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Parameter:
    """`name` is the one on the wire."""

    name: str
    python_name: str
    is_required: bool
    kind: ArgumentKind | None


class AgentCall(NamedTuple):
    """An agent that the gateway asks on behalf of a step, and what it is asked (gateway/agents/jobs.py)."""

    library: Literal["stagehand", "browser-use"]
    method: Literal["act", "observe", "extract", "agent"]


@dataclass(frozen=True)
class Call:
    """`on` is the kind of object that the step is about, and `binds` the type of the binding that it makes.

    `binds_with_alias`: whether it makes one only for a step with `as`.
    """

    name: str
    on: str
    function: Function
    binds: BindingType | None
    binds_with_alias: bool
    example: Example
    # Of a call that an agent carries out: which one, and its method.
    agent: AgentCall | None = None

    @cached_property
    def summary(self) -> str:
        return inspect.cleandoc(self.function.__doc__ or "")

    @cached_property
    def _annotations(self) -> dict[str, Any]:
        """Those of the parameters after the first, whose type is the library's and is not imported here."""
        names = list(inspect.signature(self.function).parameters)[1:]
        wanted: Any = SimpleNamespace(__annotations__={name: self.function.__annotations__[name] for name in names})
        return typing.get_type_hints(wanted, self.function.__globals__, include_extras=True)

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        given = inspect.signature(self.function).parameters
        return tuple(
            Parameter(
                to_camel(name),
                name,
                given[name].default is inspect.Parameter.empty,
                next((mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, ArgumentKind)), None),
            )
            for name, hint in self._annotations.items()
        )

    @cached_property
    def _model(self) -> type[BaseModel]:
        given = inspect.signature(self.function).parameters
        fields: dict[str, Any] = {
            # A model has attributes of its own, such as `schema`.
            f"argument_{parameter.python_name}": (
                self._annotations[parameter.python_name],
                Field(... if parameter.is_required else given[parameter.python_name].default, alias=parameter.name),
            )
            for parameter in self.parameters
        }
        config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True)
        return create_model(self.name, __config__=config, **fields)

    @cached_property
    def timeout_option(self) -> str | None:
        """The parameter whose `timeout` limits the call, if it has one."""
        for parameter in self.parameters:
            if "timeout" in getattr(self._annotations[parameter.python_name], "__annotations__", {}):
                return parameter.name
        return None

    def schema(self) -> dict[str, Any]:
        """JSON Schema of the arguments by name, in the order in which they may be given by position."""
        made: dict[str, Any] = _without_titles(self._model.model_json_schema())
        return made

    def arguments(self, args: list[Any] | dict[str, Any] | None, at: str) -> dict[str, Any]:
        """The arguments by their names on the wire. Raises WrongArguments, with fields below `at`."""
        names = [parameter.name for parameter in self.parameters]
        if isinstance(args, list) and self.parameters and self.parameters[-1].kind is REST:
            fixed = len(names) - 1
            given = dict(zip(names, [*args[:fixed], *([args[fixed:]] if len(args) > fixed else [])], strict=False))
            places = {name: str(place) for place, name in enumerate(names)}
        elif isinstance(args, list):
            if len(args) > len(names):
                takes = f"takes {len(names)} arguments" if len(names) != 1 else "takes 1 argument"
                shown = f" ({', '.join(names)})" if names else ""
                raise WrongArguments([Problem(f"{at}.{len(names)}", f"{self.name} {takes}{shown}")])
            given = dict(zip(names, args, strict=False))
            places = {name: str(place) for place, name in enumerate(names)}
        else:
            given = args or {}
            places = {name: name for name in names}
        try:
            self._model.model_validate(given)
        except ValidationError as error:
            raise WrongArguments([self._problem(dict(each), at, places) for each in error.errors()]) from None
        return given

    def _problem(self, error: dict[str, Any], at: str, places: dict[str, str]) -> Problem:
        first, *rest = [str(part) for part in error["loc"]]
        last = self.parameters[-1].name if self.parameters else None
        if rest and first == last and self.parameters[-1].kind is REST and places[first].isdigit():
            # By position they are no list of their own.
            places, rest = {first: str(int(places[first]) + int(rest[0]))}, rest[1:]
        where = ".".join([at, places.get(first, first[:_SHOWN_NAME]), *(part[:_SHOWN_NAME] for part in rest)])
        if error["type"] == "missing":
            return Problem(where, f"{self.name} needs {rest[-1] if rest else first}", "field.missing")
        if error["type"] == "extra_forbidden":
            known = self._names_at(first, rest)
            near = difflib.get_close_matches((rest or [first])[-1][:_SHOWN_NAME], known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            return Problem(where, f"{self.name} has no such argument{hint}", "field.unknown")
        if "error" in error.get("ctx", {}):
            return Problem(where, str(error["ctx"]["error"]))
        return Problem(where, error["msg"], error["type"])

    def _names_at(self, first: str, rest: list[str]) -> list[str]:
        """Names that an object of the arguments may have."""
        if not rest:
            return [parameter.name for parameter in self.parameters]
        found = next((each for each in self.parameters if each.name == first), None)
        return list(getattr(self._annotations[found.python_name], "__annotations__", {})) if found else []


class Vocabulary:
    """The calls of one driver, by their names; those of another vocabulary besides, if it `extends` one."""

    def __init__(self, name: str, extends: Vocabulary | None = None, *, keeps_dialogs: bool = False) -> None:
        """`keeps_dialogs`: a page's dialog stays open for its calls to answer it; else it is dismissed at once, unless
        a step has subscribed to dialogs."""
        self.name = name
        self.extends = extends
        self.keeps_dialogs = keeps_dialogs
        self.calls: dict[str, Call] = {}

    def get(self, name: str) -> Call | None:
        own = self.calls.get(name)
        return own if own is not None or self.extends is None else self.extends.get(name)

    def names(self) -> list[str]:
        """Of all calls."""
        return [*self.calls, *(self.extends.names() if self.extends is not None else ())]

    def call(
        self,
        name: str,
        *,
        on: str | None = None,
        binds: BindingType | None = None,
        may_bind: BindingType | None = None,
        args: Sequence[Any] | Mapping[str, Any] = (),
        ref: str | None = None,
        before: Sequence[Mapping[str, Any]] = (),
        value: Any = ANY,
        error: str | None = None,
        agent: AgentCall | None = None,
    ) -> Callable[[Function], Function]:
        """Declare a call; `on` is by default what its name begins with, `may_bind` binds for a step with `as` only."""

        def declare(function: Function) -> Function:
            self._add(
                Call(
                    name,
                    on or name.partition(".")[0],
                    function,
                    binds or may_bind,
                    binds is None,
                    Example(args, ref, before, value, error),
                    agent,
                )
            )
            return function

        return declare

    def take(self, other: Vocabulary, *names: str) -> None:
        """Have calls that are the same in another vocabulary."""
        for name in names:
            self._add(other.calls[name])

    def include(self, part: Vocabulary) -> None:
        """Have all calls of a part of this vocabulary."""
        self.take(part, *part.calls)

    def _add(self, call: Call) -> None:
        if call.name in self.calls:
            raise ValueError(f"{self.name} declares {call.name} twice")
        self.calls[call.name] = call

    def find(self, name: str, at: str) -> Call:
        """The call. Raises WrongArguments, which names the nearest known ones."""
        found = self.get(name)
        if found is not None:
            return found
        near = difflib.get_close_matches(name[:_SHOWN_NAME], self.names(), n=_NEAREST, cutoff=0.5)
        hint = f"; the nearest are {', '.join(near)}" if near else ""
        message = f"The driver {self.name} has no call {name[:_SHOWN_NAME]!r}{hint}"
        raise WrongArguments([Problem(at, message, "field.unknown")])

    def __iter__(self) -> Iterator[Call]:
        """Its own calls."""
        return iter(self.calls.values())


def snake(name: str) -> str:
    """`waitUntil` as `wait_until`."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()


def pythonic(options: Mapping[str, Any]) -> dict[str, Any]:
    """Declared options by the names of the library for Python."""
    return {snake(name): value for name, value in options.items()}


def _without_titles(schema: Any) -> Any:
    """Titles repeat names, and are in the way of those who read it."""
    if isinstance(schema, dict):
        # A property may be called `title`.
        return {
            name: (
                {key: _without_titles(item) for key, item in value.items()}
                if name in ("properties", "$defs")
                else _without_titles(value)
            )
            for name, value in schema.items()
            if name not in ("title", "description")
        }
    return [_without_titles(item) for item in schema] if isinstance(schema, list) else schema


# Steps

ALIAS = r"^[A-Za-z_][A-Za-z0-9_-]{0,63}$"


@dataclass(frozen=True, slots=True)
class Step:
    """One call of an execution, as it is asked for."""

    call: str
    args: list[Any] | dict[str, Any] | None = field(default=None, repr=False)
    ref: str | None = None
    alias: str | None = None
    timeout_ms: int | None = None
    dry_run: bool = False
    logs: bool = False
    screenshot_on_failure: bool = False


@dataclass(frozen=True, slots=True)
class CheckedStep:
    """A step whose arguments are those of its call, by their names."""

    step: Step
    call: Call
    arguments: dict[str, Any] = field(repr=False)


def checked(vocabulary: Vocabulary, steps: Sequence[Step]) -> list[CheckedStep]:
    """All steps; raises WrongArguments with everything that is wrong in any."""
    found: list[CheckedStep] = []
    problems: list[Problem] = []
    for place, step in enumerate(steps):
        try:
            call = vocabulary.find(step.call, f"steps.{place}.call")
            if step.alias is not None and call.binds is None:
                problems.append(Problem(f"steps.{place}.as", f"{call.name} makes nothing that can be bound"))
            found.append(CheckedStep(step, call, call.arguments(step.args, f"steps.{place}.args")))
        except WrongArguments as error:
            problems += error.problems
    if problems:
        raise WrongArguments(problems)
    return found
