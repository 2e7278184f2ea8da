"""Query parameters, read by their model: what is unknown, or repeated without being a list, is refused."""

from __future__ import annotations

import typing
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel
from starlette.datastructures import QueryParams

from gateway.http.validation import Repeated, validated

# Marks a text whose values are separated by commas: repeating its name means the same.
REPEATABLE = object()

Model = TypeVar("Model", bound=BaseModel)


def read_query(given: QueryParams, model: type[Model]) -> Model:
    """The query; a list is given by repeating its name, or with commas, anything else once. Raises RequestInvalid."""
    all_values: dict[str, list[str]] = {}
    for name, value in given.multi_items():
        all_values.setdefault(name, []).append(value)
    lists, texts = _lists(model), _repeatable_texts(model)
    found: dict[str, Any] = {}
    for name, values in all_values.items():
        if name in lists:
            found[name] = [part.strip() for value in values for part in value.split(",")]
        elif name in texts:
            found[name] = ",".join(values)
        else:
            found[name] = values[0] if len(values) == 1 else Repeated(values)
    return validated(lambda: model.model_validate(found), model, found)


@cache
def _lists(model: type[BaseModel]) -> frozenset[str]:
    """The names on the wire of a query's fields that are lists."""
    fields = model.model_fields.items()
    return frozenset(field.alias or name for name, field in fields if typing.get_origin(field.annotation) is list)


@cache
def _repeatable_texts(model: type[BaseModel]) -> frozenset[str]:
    fields = model.model_fields.items()
    return frozenset(field.alias or name for name, field in fields if REPEATABLE in field.metadata)
