"""Path templates: the ids in them, and which template a path fits.

A parameter is a whole segment, `{id}`, or several of them, `{key:path}`. A segment that is spelled out beats a
parameter, whatever the order of declaration, as OpenAPI says.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID

from pydantic.alias_generators import to_camel

from gateway.core.ids import not_found, parse_id

_PARAMETER = re.compile(r"{(\w+)(:path)?}")
_LONGEST_NAME = 200

T = TypeVar("T")


# Ids in paths


class PathValue(Protocol):
    def read(self, given: str) -> Any:
        """The parameter's value; raises NotFound for text that can't be one."""


@dataclass(frozen=True, slots=True)
class PathId:
    """A parameter that is a UUID. Anything else is an id that nothing has."""

    noun: str

    def read(self, given: str) -> UUID:
        return parse_id(given, self.noun)


@dataclass(frozen=True, slots=True)
class PathName:
    """A parameter that is an id or a name of at most 200 characters; what it names is for the domain to find."""

    noun: str

    def read(self, given: str) -> str:
        if len(given) > _LONGEST_NAME or not given.isprintable():
            raise not_found(self.noun, given)
        return given


class PathReader(Generic[T]):
    """Makes a frozen dataclass of a path's parameters; its fields are annotated with a PathValue:

    @dataclass(frozen=True, slots=True)
    class InSpace:
        id: Annotated[UUID, PathId("space")]

    Raises TypeError where the fields are not the parameters of `template`.
    """

    def __init__(self, kind: type[T], template: str) -> None:
        self._kind = kind
        hints = typing.get_type_hints(kind, include_extras=True)
        self._fields: list[tuple[str, str, PathValue]] = []
        for each in dataclasses.fields(typing.cast(Any, kind)):
            (value,) = typing.get_args(hints[each.name])[1:]
            self._fields.append((each.name, to_camel(each.name), value))
        if sorted(wire for _, wire, _ in self._fields) != sorted(parameters(template)):
            raise TypeError(f"{kind.__name__} does not have the parameters of {template}")

    def read(self, given: Mapping[str, str]) -> T:
        """Raises NotFound."""
        return self._kind(**{name: value.read(given[wire]) for name, wire, value in self._fields})


# Templates


def parameters(template: str) -> list[str]:
    return [name for name, _ in _PARAMETER.findall(template)]


def documented(template: str) -> str:
    """The template as OpenAPI writes it: `{key:path}` is `{key}`."""
    return _PARAMETER.sub(r"{\1}", template)


def shape(template: str) -> str:
    """The template without the parameters' names. Two templates of one shape are the same route."""
    return _PARAMETER.sub("{}", template)


@dataclass(slots=True)
class _Node(Generic[T]):
    spelled: dict[str, _Node[T]] = field(default_factory=dict)
    one: _Node[T] | None = None
    several: _Node[T] | None = None
    end: tuple[T, list[str]] | None = None


class PathTree(Generic[T]):
    """Finds the template that a path fits, in the time of the path's length."""

    def __init__(self) -> None:
        self._root = _Node[T]()

    def add(self, template: str, value: T) -> None:
        """Raises ValueError for a template whose shape is there already, or which can't be read."""
        node = self._root
        for segment in template.split("/"):
            node = self._below(node, segment)
        if node.end is not None:
            raise ValueError(f"{template} is there already")
        node.end = (value, parameters(template))

    def match(self, path: str) -> tuple[T, dict[str, str]] | None:
        """The value of the template, and the path's parameters."""
        given: list[str] = []
        found = _find(self._root, path.split("/"), 0, given)
        return None if found is None else (found[0], dict(zip(found[1], given, strict=True)))

    @staticmethod
    def _below(node: _Node[T], segment: str) -> _Node[T]:
        match = _PARAMETER.fullmatch(segment)
        if match is None:
            if "{" in segment:
                raise ValueError(f"a parameter is a whole segment, and {segment!r} is not")
            return node.spelled.setdefault(segment, _Node())
        if match[2]:
            node.several = node.several or _Node()
            return node.several
        node.one = node.one or _Node()
        return node.one


def _find(node: _Node[T], path: Sequence[str], at: int, given: list[str]) -> tuple[T, list[str]] | None:
    if at == len(path):
        return node.end
    segment = path[at]
    spelled = node.spelled.get(segment)
    if spelled is not None and (found := _find(spelled, path, at + 1, given)) is not None:
        return found
    if node.one is not None and segment:
        given.append(segment)
        if (found := _find(node.one, path, at + 1, given)) is not None:
            return found
        given.pop()
    if node.several is not None and segment:
        # The longest that leaves a segment first, so that `{key:path}/x` takes all but the last x, and then all.
        for end in [*range(len(path) - 1, at, -1), len(path)]:
            given.append("/".join(path[at:end]))
            if (found := _find(node.several, path, end, given)) is not None:
                return found
            given.pop()
    return None
