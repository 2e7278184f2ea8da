"""JSON schemas of models, as generators of clients need them.

A property is described by the docstring below its field. It has no title, since generators name types of their own by
titles, which then collide. A body's property has no default, since generators make such fields required, and send null
where null is the default, which removes things; the description says the default instead.
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import pairwise
from typing import Any, TypeAlias

from pydantic import BaseModel, GetJsonSchemaHandler
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import CoreSchema, core_schema

from gateway.http.models import Body, Query, models_below

Docstrings: TypeAlias = dict[str, str]


class Schemas(GenerateJsonSchema):
    """The `schema_generator` of `models_json_schema` and `model_json_schema`."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        made = super().model_schema(schema)
        model: type[BaseModel] = schema["cls"]
        described = docstrings(model)
        for name, field in model.model_fields.items():
            shown = made["properties"][field.alias or name]
            sentences = [described.get(name, ""), _default(model, field)]
            if any(sentences):
                shown["description"] = " ".join(filter(None, sentences))
            if issubclass(model, Query) and field.default is not None and not field.is_required():
                shown["default"] = field.default
        return made


class SchemaOf:
    """Describes a field that holds JSON by a model that is not its type: `Annotated[dict, SchemaOf(Model)]`."""

    def __init__(self, model: type[BaseModel]) -> None:
        self.model = model

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        # Pydantic would write the schema in place; `components` makes a reference of this.
        return {_SCHEMA_OF: self.model.__name__}


_SCHEMA_OF = "x-schema-of"


def components(models: Iterable[type[BaseModel]], reference: str) -> dict[str, Any]:
    """The schemas of models and of all that they name, by name; `reference` is the form of a reference to a `{model}`.

    Raises ValueError for two models of one name.
    """
    named = {each for model in models for each in models_below(model)}
    named |= {each for model in named for each in _described_by(model)}
    ordered = sorted(named, key=lambda model: model.__name__)
    for one, other in pairwise(ordered):
        if one.__name__ == other.__name__:
            raise ValueError(f"{one.__module__} and {other.__module__} both have a model {one.__name__}")
    _, found = models_json_schema(
        [(model, "validation") for model in ordered], ref_template=reference, schema_generator=Schemas
    )
    definitions: dict[str, Any] = _with_references(found["$defs"], reference)
    return definitions


def _described_by(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for field in model.model_fields.values():
        for mark in field.metadata:
            if isinstance(mark, SchemaOf):
                yield from models_below(mark.model)


def _with_references(schema: Any, reference: str) -> Any:
    if isinstance(schema, list):
        return [_with_references(each, reference) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if _SCHEMA_OF in schema:
        rest = {name: value for name, value in schema.items() if name != _SCHEMA_OF}
        return {"$ref": reference.format(model=schema[_SCHEMA_OF])} | rest
    return {name: _with_references(each, reference) for name, each in schema.items()}


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The schema of one model that has no other in it, such as a query."""
    return model.model_json_schema(schema_generator=Schemas)


def docstrings(model: type[BaseModel]) -> Docstrings:
    """The docstrings of a model's fields, by their names in Python; a field may have that of a base's."""
    found: Docstrings = {}
    for each in reversed(model.__mro__):
        if issubclass(each, BaseModel):
            found |= _in_module(each.__module__).get(each.__qualname__, {})
    return found


@cache
def _in_module(name: str) -> dict[str, Docstrings]:
    """The docstrings of the fields of a module's classes. Pydantic reads the source at import, and once a class."""
    module = sys.modules[name]
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, TypeError):
        # Installed without its sources; the document is right, with fewer words.
        return {}
    return {node.name: _in_class(node) for node in tree.body if isinstance(node, ast.ClassDef)}


def _in_class(node: ast.ClassDef) -> Docstrings:
    found: Docstrings = {}
    for statement, following in zip(node.body, node.body[1:], strict=False):
        match statement, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = inspect.cleandoc(text).replace("\n", " ")
    return found


def _default(model: type[BaseModel], field: FieldInfo) -> str:
    """A sentence with the default of a body's field."""
    is_said = issubclass(model, Body) and not field.is_required() and isinstance(field.default, (str, int))
    return f"Default: {json.dumps(field.default)}." if is_said else ""
