"""The bases of all models of requests and answers, shared field types, and what models mark as secret."""

from __future__ import annotations

import json
import math
import re
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from itertools import combinations
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
)
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from gateway.core.moments import iso
from gateway.core.secret import MASK, SECRET


class _Model(BaseModel):
    """A model that shows nothing of what is marked `Secret`, neither in `repr` nor in the error of its validation."""

    model_config = ConfigDict(hide_input_in_errors=True)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        secret = _secret_names(type(self))
        return [(name, MASK if name in secret else value) for name, value in super().__repr_args__()]


class Given(_Model):
    """Body, query or headers of a request."""

    def masked(self) -> dict[str, Any]:
        """The given values by their names on the wire, with MASK for each secret."""
        made: dict[str, Any] = masked_body(type(self), self)
        return made


class Body(Given):
    """A request's body: names in camelCase, no coercion, and no unknown field, where the contract is strict.

    `not_served` are fields that the contract has here and this gateway does not serve; they are refused by name.
    `example` is a body that is accepted as it is; the document has it. A form's has the bytes of its file as text.
    """

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=False, validate_by_alias=True, strict=True, extra="forbid"
    )
    not_served: ClassVar[frozenset[str]] = frozenset()
    example: ClassVar[Mapping[str, Any]] = {}


class Query(Given):
    """A request's query. Its values are texts, so they are coerced."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_alias=True, extra="forbid")


def _header_name(name: str) -> str:
    return "-".join(part.capitalize() for part in name.split("_"))


class Headers(Given):
    """Headers that an endpoint reads: `if_match` is `If-Match`. Values are coerced; other headers are ignored."""

    model_config = ConfigDict(alias_generator=_header_name, validate_by_alias=True)


class Answer(_Model):
    """A response's body. A field of `optional()` is sent where it was set; any other one always, its default too.

    `example` is one as the document has it, for the models that endpoints answer with.
    """

    example: ClassVar[Mapping[str, Any]] = {}
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


def optional(alias: str | None = None) -> Any:
    """A field that may be absent but not null; `model_fields_set` has it where it is there.

    `alias` is its name on the wire, where that is not the field's in camelCase.
    """
    return Field(default=None, alias=alias, json_schema_extra=_without_default)


def _without_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


def _is_optional(field: FieldInfo) -> bool:
    return field.json_schema_extra is _without_default


_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def moment_of(given: Any) -> datetime:
    """The time of a text of RFC 3339 and nothing else, since pydantic takes bare seconds too; raises ValueError."""
    try:
        if not isinstance(given, str) or not _RFC_3339.fullmatch(given):
            raise ValueError(given)
        return datetime.fromisoformat(given.upper()).astimezone(UTC)
    except OverflowError:
        # In the first or last hours that there are.
        raise ValueError("must be a date and time that exists in UTC too") from None
    except ValueError:
        raise ValueError("must be a date and time with its offset, such as 2030-01-31T12:00:00Z") from None


# Of a request.
Moment = Annotated[AwareDatetime, BeforeValidator(moment_of)]

Time = Annotated[datetime, PlainSerializer(iso)]


def one_of(*groups: tuple[str, ...], never: Iterable[dict[str, Any]] = ()) -> ConfigDict:
    """The schema's part of a check that exactly one of the groups of fields is given, and nothing that is in `never`.

    Without `oneOf`, which generators take for a choice of types without the model's own fields.
    """
    given = [{"required": list(group)} for group in groups]
    both = [{"allOf": [one, other]} for one, other in combinations(given, 2)]
    wrong: list[Any] = [{"not": {"anyOf": given}}, *both, *never]
    return ConfigDict(json_schema_extra={"not": {"anyOf": wrong}})


class Shown:
    """Keywords for the schema of a type, of a check that is made elsewhere."""

    def __init__(self, **keywords: Any) -> None:
        self._keywords = keywords

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(schema) | self._keywords


class Checked(Shown):
    """A check of a value, after those of its type, and the keywords that say the same in its schema.

    What a pattern can't say has a `format` of ours, which the document explains.
    """

    def __init__(self, check: Callable[[Any], Any], **keywords: Any) -> None:
        super().__init__(**keywords)
        self._check = check

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))


def _whole(value: Any) -> Any:
    """42 for 42.0: to JSON they are one number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


# Of an integer in a body, after its bounds.
WHOLE = BeforeValidator(_whole)


def _storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not contain the character U+0000")
    return text


# Of a list's page, each item has one.
MAX_OBJECT_BYTES = 16 * 1024


def _storable_object(value: dict[str, Any]) -> dict[str, Any]:
    """JSON that the database stores unchanged, of at most MAX_OBJECT_BYTES."""
    size = len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="surrogatepass"))
    if size > MAX_OBJECT_BYTES:
        raise ValueError(f"has {size} bytes as JSON, and may have {MAX_OBJECT_BYTES}")
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
STORABLE = Checked(_storable, pattern=r"^[^\x00]*$")
Text = Annotated[str, STORABLE]
NAME_CHARACTERS = 120
Name = Annotated[str, Field(min_length=1, max_length=NAME_CHARACTERS), STORABLE]
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
    return any(_is_secret(field) for each in models_below(model) for field in each.model_fields.values())


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


def model_at(model: type[BaseModel], location: Iterable[str]) -> type[BaseModel] | None:
    """The model of what a body has at `location`, or of the map or list that it is in; None where it has none.

    As in `secret_at`, a part that names no field is passed over.
    """
    for part in location:
        for field in _fields_named([model], part):
            nested = next(iter(models_in(field.annotation)), None)
            if nested is None:
                return None
            model = nested
    return model


def secrets_in(model: type[BaseModel], value: Any) -> Iterator[Any]:
    """The values of secret fields in `value`, which was given for `model`, or for a part of it."""
    if isinstance(value, dict):
        models = models_below(model)
        for name, item in value.items():
            secret = any(map(_is_secret, _fields_named(models, name)))
            yield from [item] if secret else secrets_in(model, item)
    elif isinstance(value, list):
        for item in value:
            yield from secrets_in(model, item)


def masked_body(model: type[BaseModel], given: Any) -> Any:
    """`given` for `model`, or a value of it, with MASK for each secret and for all that may be one in a wrong place.

    A name that a model with secrets does not have may be a misspelled one, or a secret itself, so both it and its value
    are masked. A secret that is null stays null.
    """
    return _replaced([model], _plain(given), lambda field, value: MASK)


def marked_values(model: type[BaseModel], given: Any) -> list[Any]:
    """The secrets of `given`. Of a valid secret that is a model with secrets, those alone; else all that is in it.

    A valid text in the place of such a model names one, and is no secret.
    """
    found: list[Any] = []

    def keep(field: FieldInfo | None, value: Any) -> Any:
        inner = models_in(field.annotation) if field and isinstance(given, BaseModel) else []
        if any(map(contains_secret, inner)) and field:
            if not isinstance(value, str):
                _replaced([field.annotation], value, keep)
        else:
            found.append(value)
        return MASK

    _replaced([model], _plain(given), keep)
    return found


# Is called with a secret's field, where it has one, and its value; returns what stands in its place.
_Hide = Callable[[FieldInfo | None, Any], Any]


def _plain(given: Any) -> Any:
    return given.model_dump(by_alias=True, exclude_unset=True) if isinstance(given, BaseModel) else given


def _replaced(annotations: list[Any], value: Any, hide: _Hide) -> Any:
    """The value of a place with these types, of any shape, with its secrets replaced."""
    models, items, members = _shapes(annotations)
    if isinstance(value, dict) and (models or members):
        return dict(_replaced_member(models, members, name, item, hide) for name, item in value.items())
    if isinstance(value, (list, tuple, set, frozenset)) and items:
        return [_replaced(items, item, hide) for item in value]
    if value is None or isinstance(value, bool) or not any(map(_has_secrets, annotations)):
        return value
    return hide(None, value)


def _replaced_member(
    models: list[type[BaseModel]], members: list[Any], name: Any, value: Any, hide: _Hide
) -> tuple[Any, Any]:
    fields = _fields_named(models, name)
    # What belongs under a key of a map may stand in the place of the map, so that its names stand where keys do.
    misplaced = [] if fields else _fields_named([nested for each in members for nested in models_in(each)], name)
    secret = next(filter(_is_secret, [*fields, *misplaced]), None)
    if secret is not None:
        return name, None if value is None else hide(secret, value)
    if fields:
        return name, _replaced([field.annotation for field in fields], value, hide)
    if any(map(contains_secret, models)):
        return hide(None, name), hide(None, value)
    return name, _replaced(members, value, hide) if members else value


def _shapes(annotations: list[Any]) -> tuple[list[type[BaseModel]], list[Any], list[Any]]:
    """Kinds of these types: models, lists with items of types, and dictionaries with values of types."""
    models: list[type[BaseModel]] = []
    items: list[Any] = []
    members: list[Any] = []
    pending = list(annotations)
    while pending:
        each = pending.pop()
        origin, arguments = typing.get_origin(each), typing.get_args(each)
        if isinstance(each, type) and issubclass(each, BaseModel):
            models.append(each)
        elif origin is Annotated:
            pending.append(arguments[0])
        elif isinstance(origin, type) and issubclass(origin, Mapping):
            members.append(arguments[1])
        elif isinstance(origin, type) and issubclass(origin, Iterable):
            items += arguments
        else:
            pending += arguments
    return models, items, members


def _has_secrets(annotation: Any) -> bool:
    return any(map(contains_secret, models_in(annotation)))


def shown_location(model: type[BaseModel], location: Iterable[str | int]) -> list[str]:
    """`location` as errors show it: without the tags of unions, which are no part of the body; within a secret, keys of
    a dictionary are not shown."""
    shown: list[str] = []
    models, secret, is_tag = {model}, False, False
    for part in location:
        if is_tag:
            is_tag = False
            continue
        fields = _fields_named(models, part)
        is_tag = any(field.discriminator is not None for field in fields)
        shown.append(MASK if secret and not fields and isinstance(part, str) and part != "[key]" else str(part))
        secret = secret or any(map(_is_secret, fields))
        models.update(nested for field in fields for nested in models_in(field.annotation))
    return shown


def _fields_named(models: Iterable[type[BaseModel]], part: Any) -> list[FieldInfo]:
    fields = [(name, field) for model in models for name, field in model.model_fields.items()]
    return [field for name, field in fields if (field.alias or name) == part]


@cache
def models_below(model: type[BaseModel]) -> frozenset[type[BaseModel]]:
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
