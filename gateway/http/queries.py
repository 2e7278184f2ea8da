"""Query parameters, read by their model: what is not known is refused, as in bodies."""

from __future__ import annotations

import typing
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel
from starlette.datastructures import QueryParams

from gateway.http.validation import validated

Model = TypeVar("Model", bound=BaseModel)


def read_query(given: QueryParams, model: type[Model]) -> Model:
    """The query; a list is given by repeating its name, or with commas. Raises RequestInvalid."""
    found: dict[str, Any] = dict(given)
    for name in _lists(model) & found.keys():
        found[name] = [part.strip() for value in given.getlist(name) for part in value.split(",")]
    return validated(lambda: model.model_validate(found), model, found)


@cache
def _lists(model: type[BaseModel]) -> frozenset[str]:
    """The names on the wire of a query's fields that are lists."""
    fields = model.model_fields.items()
    return frozenset(field.alias or name for name, field in fields if typing.get_origin(field.annotation) is list)
