"""The bases of all models of requests and answers, shared field types, and what models mark as secret."""

from __future__ import annotations

import math
import typing
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo

from gateway.core.secret import SECRET


class Given(BaseModel):
    """What a request has: its body, query or headers. What is marked `Secret` is left out of `repr`."""

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        secret = _secret_names(type(self))
        return [(name, "***" if name in secret else value) for name, value in super().__repr_args__()]


class Body(Given):
    """A request's body: names in camelCase, no coercion, and no unknown field, where the contract is strict.

    `not_served` are fields that the contract has here and this gateway does not serve; they are refused by name.
    """

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=False, validate_by_alias=True, strict=True, extra="forbid"
    )
    not_served: ClassVar[frozenset[str]] = frozenset()


class Query(Given):
    """A request's query. Its values are texts, so they are coerced."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_alias=True, extra="forbid")


def _header_name(name: str) -> str:
    return "-".join(part.capitalize() for part in name.split("_"))


class Headers(Given):
    """Headers that an endpoint reads: `if_match` is `If-Match`. Values are coerced; other headers are ignored."""

    model_config = ConfigDict(alias_generator=_header_name, validate_by_alias=True)


class Answer(BaseModel):
    """A response's body. A field of `optional()` is sent where it was set; any other one always, its default too."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, serialize_by_alias=True)
    _sent: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        fields = cls.model_fields.items()
        cls._sent = frozenset(name for name, field in fields if not field.is_required() and not _is_optional(field))

    def model_post_init(self, context: Any, /) -> None:
        # Answers are written without the fields that are unset; a default counts as set.
        if self._sent:
            self.__pydantic_fields_set__.update(self._sent)

    def json_bytes(self) -> bytes:
        return self.model_dump_json(exclude_unset=True).encode()


def iso(moment: datetime) -> str:
    """ISO 8601 in UTC with milliseconds and `Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def optional() -> Any:
    """A field that may be absent but not null; `model_fields_set` has it where it is there."""
    return Field(default=None, json_schema_extra=_without_default)


def _without_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


def _is_optional(field: FieldInfo) -> bool:
    return field.json_schema_extra is _without_default


Time = Annotated[datetime, PlainSerializer(iso)]

# Some schemas of the contract have a time as a plain string; the text is the same.
UntypedTime = Annotated[datetime, PlainSerializer(iso), WithJsonSchema({"type": "string"})]


def _storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not contain the character U+0000")
    return text


def _storable_object(value: dict[str, Any]) -> dict[str, Any]:
    """JSON that the database stores unchanged."""
    pending: list[Any] = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            _storable(item)
        elif isinstance(item, float) and not math.isfinite(item):
            raise ValueError("must not contain NaN or infinite numbers")
        elif isinstance(item, dict):
            pending += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            pending += item
    return value


# After the lengths of a text: pydantic words the errors of lengths that follow a validator differently.
STORABLE = AfterValidator(_storable)
Text = Annotated[str, STORABLE]
Name = Annotated[str, Field(min_length=1, max_length=120), STORABLE]
Metadata = Annotated[dict[str, Any], AfterValidator(_storable_object)]


# What a model marks as secret


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that a type names: itself, or those of its union, list, dictionary, ..."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in typing.get_args(annotation) for model in models_in(argument)]


@cache
def contains_secret(model: type[BaseModel]) -> bool:
    """Whether a field of the model, or of a model in it, is secret."""
    return any(_is_secret(field) for each in _models_below(model) for field in each.model_fields.values())


def secret_at(model: type[BaseModel], location: Iterable[str]) -> bool:
    """Whether what a body has at `location` (names on the wire, indexes, tags of unions) is secret or inside a secret.

    A part that names no field is passed over, so that more may count as secret than is marked, and never less.
    """
    models = {model}
    for part in location:
        for field in _fields_named(models, part):
            if _is_secret(field):
                return True
            models.update(models_in(field.annotation))
    return False


def secrets_in(model: type[BaseModel], value: Any) -> Iterator[Any]:
    """The values of secret fields in `value`, which was given for `model`, or for a part of it."""
    if isinstance(value, dict):
        models = _models_below(model)
        for name, item in value.items():
            secret = any(map(_is_secret, _fields_named(models, name)))
            yield from [item] if secret else secrets_in(model, item)
    elif isinstance(value, list):
        for item in value:
            yield from secrets_in(model, item)


def _fields_named(models: Iterable[type[BaseModel]], part: Any) -> list[FieldInfo]:
    fields = [(name, field) for model in models for name, field in model.model_fields.items()]
    return [field for name, field in fields if (field.alias or name) == part]


@cache
def _models_below(model: type[BaseModel]) -> frozenset[type[BaseModel]]:
    """The model, and all that its fields have."""
    found: set[type[BaseModel]] = set()
    pending = [model]
    while pending:
        each = pending.pop()
        if each not in found:
            found.add(each)
            pending += [nested for field in each.model_fields.values() for nested in models_in(field.annotation)]
    return frozenset(found)


def _is_secret(field: FieldInfo) -> bool:
    return SECRET in field.metadata or _marked(field.annotation)


def _marked(annotation: Any) -> bool:
    return SECRET in getattr(annotation, "__metadata__", ()) or any(map(_marked, typing.get_args(annotation)))


@cache
def _secret_names(model: type[BaseModel]) -> frozenset[str]:
    return frozenset(name for name, field in model.model_fields.items() if _is_secret(field))
