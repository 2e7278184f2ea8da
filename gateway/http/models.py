"""What bodies are made of: the base of all models, and field types that are shared."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema
from pydantic.alias_generators import to_camel


class Body(BaseModel):
    """A request's body: names in camelCase, no coercion, and no field that is not known.

    `not_served` are fields that the contract has here and this gateway has not; they are refused by name.
    """

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=False, validate_by_alias=True, strict=True, extra="forbid"
    )
    not_served: ClassVar[frozenset[str]] = frozenset()


class Query(BaseModel):
    """A request's query. Its values are texts, so they are coerced."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_alias=True, extra="forbid")


class Answer(BaseModel):
    """A response's body."""

    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, serialize_by_alias=True)


def iso(moment: datetime) -> str:
    """ISO 8601 in UTC with milliseconds and `Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def optional() -> Any:
    """A field that may be absent but not null; `model_fields_set` tells whether it is there."""

    def without_default(schema: dict[str, Any]) -> None:
        schema.pop("default", None)

    return Field(default=None, json_schema_extra=without_default)


Time = Annotated[datetime, PlainSerializer(iso)]

# Some pages of the contract type a time as a plain string; the text is the same.
UntypedTime = Annotated[datetime, PlainSerializer(iso), WithJsonSchema({"type": "string"})]


def _storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not contain the character U+0000")
    return text


def _storable_object(value: dict[str, Any]) -> dict[str, Any]:
    """JSON that the database takes back unchanged."""
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


# Comes after the lengths of a text: those that follow a validator are told in other words, of items.
STORABLE = AfterValidator(_storable)
Text = Annotated[str, STORABLE]
Name = Annotated[str, Field(min_length=1, max_length=120), STORABLE]
Metadata = Annotated[dict[str, Any], AfterValidator(_storable_object)]
