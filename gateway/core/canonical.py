"""Domain values as JSON: snake_case names of fields, and no entry for what is None."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


def to_json(value: Any) -> Any:
    """A frozen dataclass as a dict, without fields that are None; inside it also mappings and tuples."""
    if dataclasses.is_dataclass(value):
        fields = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {name: to_json(content) for name, content in fields if content is not None}
    if isinstance(value, Mapping):
        return {name: to_json(content) for name, content in value.items()}
    if isinstance(value, tuple):
        return [to_json(content) for content in value]
    return value


def texts(value: list[str] | None) -> tuple[str, ...] | None:
    """A list of texts of a JSON document; None where it is absent."""
    return None if value is None else tuple(value)
