"""Faults of a request, as one error that lists every wrong field and repeats no secret."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from gateway.core.errors import RequestInvalid, shown
from gateway.core.secret import SHORTEST_PART, remember, texts_in
from gateway.http.models import Body, contains_secret, marked_values, model_at, secret_at, secrets_in, shown_location

_MALFORMED = "request.malformed"
_SHOWN_NAME = 100
_SHOWN_ERRORS = 100
_SUMMARIZED_ERRORS = 5
# In place of what the parser found at some character.
_MUST_BE = {"uuid_parsing": "must be a UUID, such as 01a22630-950e-76e0-91cf-50dc641c9805"}

Model = TypeVar("Model", bound=BaseModel)


class Repeated(tuple[str, ...]):
    """The values of a query parameter that may be given once. No type of a parameter takes it."""

    __slots__ = ()


def validated(validate: Callable[[], Model], model: type[Model], given: bytes | dict[str, Any]) -> Model:
    """Result of `validate` for a body (`given` in JSON), form, query or headers; raises RequestInvalid.

    What the model marks as secret is masked in the rest of the request's log lines and records.
    """
    try:
        made = validate()
    except ValidationError as error:
        refusal = invalid(error, model)
        if contains_secret(model) and refusal.code != _MALFORMED:
            remember(marked_values(model, json.loads(given) if isinstance(given, bytes) else given))
        raise refusal from None
    if contains_secret(model):
        remember(marked_values(model, made))
    return made


def invalid(error: ValidationError, model: type[BaseModel]) -> RequestInvalid:
    """The error for what `model` refused: 400 request.invalid, or request.malformed for text that is not JSON."""
    problems = error.errors(include_url=False)
    if problems[0]["type"] == "json_invalid":
        return RequestInvalid(f"The body is not valid JSON: {problems[0]['ctx']['error']}.", _MALFORMED)
    errors = [_problem(dict(problem), model) for problem in problems[:_SHOWN_ERRORS]]
    summary = "; ".join(f"{entry['field'] or 'body'}: {entry['message']}" for entry in errors[:_SUMMARIZED_ERRORS])
    more = f" (and {len(problems) - _SUMMARIZED_ERRORS} more)" if len(problems) > _SUMMARIZED_ERRORS else ""
    omitted = {"omitted": len(problems) - len(errors)} if len(problems) > len(errors) else {}
    return RequestInvalid(f"The request is not valid: {summary}{more}", details={"errors": errors, **omitted})


def _problem(problem: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """One wrong field: its name, what was given, what would be right."""
    location = [str(part) for part in problem["loc"]]
    # An unknown name is shown wherever it stands: it is what has to be mended.
    known = problem["loc"][:-1] if problem["type"] == "extra_forbidden" else problem["loc"]
    field = ".".join([*shown_location(model, known), *location[len(known) :]])
    entry: dict[str, Any] = {"field": field, "message": problem["msg"], "code": problem["type"]}
    value = problem["input"]
    secret = secret_at(model, location)
    if problem["type"] == "extra_forbidden":
        entry |= _unknown(location[-1], model_at(model, location[:-1]))
    elif problem["type"] == "missing":
        entry["code"] = "field.missing"
        entry["message"] = "This field is required"
    elif location and not secret and not isinstance(value, Repeated) and _is_shown(model, location, value):
        entry["value"] = shown(value)
    if "error" in problem.get("ctx", {}):
        entry["message"] = _MUST_BE.get(problem["type"], str(problem["ctx"]["error"]))
        entry["code"] = "field.invalid"
    elif problem["type"] == "string_pattern_mismatch":
        entry["message"] += _such_as(location[-1], model_at(model, location[:-1]))
    if isinstance(value, Repeated) and problem["type"] != "extra_forbidden":
        entry |= {"code": "field.repeated", "message": "This parameter is given more than once"}
    if _repeats(entry["message"], [value] if secret else list(secrets_in(model, value))):
        entry["message"] = "is not valid"
    return entry


def _such_as(name: str, model: type[BaseModel] | None) -> str:
    """An example of a field that has one."""
    fields = model.model_fields.items() if model is not None else ()
    examples = next((field.examples for key, field in fields if name in (key, field.alias)), None)
    return f", such as {examples[0]}" if examples else ""


def _is_shown(model: type[BaseModel], location: list[str], value: Any) -> bool:
    """Whether to repeat what was given; not where it stands in the place of an object with secrets, and may be one."""
    if isinstance(value, (dict, list)):
        return False
    place = model_at(model, location)
    return value is None or isinstance(value, bool) or place is None or not contains_secret(place)


def _repeats(message: str, secrets: list[Any]) -> bool:
    """Whether a validator put a secret into its message."""
    return any(len(text) >= SHORTEST_PART and text in message for text in texts_in(secrets, names=False))


def _unknown(name: str, model: type[BaseModel] | None) -> dict[str, str]:
    """Message about a field that `model` does not have."""
    if model is None:
        return {"code": "field.unknown", "message": "There is no such field"}
    if issubclass(model, Body) and name in model.not_served:
        return {"code": "field.not_served", "message": "The contract has this field, but it is not served yet"}
    names = [field.alias or name for name, field in model.model_fields.items()]
    nearest = difflib.get_close_matches(name[:_SHOWN_NAME], names, n=1)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    return {"code": "field.unknown", "message": f"There is no such field{hint}"}
