"""Domain values as JSON: snake_case names of fields, and no entry for what is None."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any


def to_json(value: Any) -> Any:
    """A frozen dataclass as a dict, without fields that are None; inside it also mappings and tuples."""
    if (names := _fields(value.__class__)) is not None:
        return {name: to_json(content) for name in names if (content := getattr(value, name)) is not None}
    if isinstance(value, Mapping):
        return {name: to_json(content) for name, content in value.items()}
    if isinstance(value, tuple):
        return [to_json(content) for content in value]
    return value


@functools.cache
def _fields(kind: type) -> tuple[str, ...] | None:
    """The names of a dataclass's fields, which each read of a runtime needs; None for other types."""
    return tuple(field.name for field in dataclasses.fields(kind)) if dataclasses.is_dataclass(kind) else None


def texts(value: list[str] | None) -> tuple[str, ...] | None:
    """A list of texts of a JSON document; None where it is absent."""
    return None if value is None else tuple(value)
