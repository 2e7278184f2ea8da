"""An endpoint of the API: declared once, and from that routed, checked, answered and documented.

    @endpoints.post("/v1/things/{id}", id="create", summary="Create a thing")
    async def create(call: Call, body: CreateThing) -> Thing: ...

The types of `body`, `query` and of the answer are read from the function's annotations. In place of a body there may be
`form: Form[Model]`, a form with a file in it (forms.py). A function that returns a plain Response answers raw bytes.
"""

from __future__ import annotations

import difflib
import inspect
import math
import typing
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar
from uuid import UUID

from pydantic import BaseModel, ValidationError
from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.core.errors import PayloadTooLarge, RequestInvalid, UnsupportedMediaType
from gateway.core.ids import not_found, parse_id
from gateway.core.scope import Scope
from gateway.domain.accounts.access import Principal
from gateway.http.forms import Form
from gateway.http.models import Body
from gateway.http.public_url import client_address
from gateway.http.services import Services

_SHOWN_VALUE = 100
_SHOWN_ERRORS = 100
# A proxy's URL may hold its password, and so may what was put into its place.
_SECRET_FIELDS = {"apiKey", "proxy"}


@dataclass(frozen=True, slots=True)
class Call:
    """A checked request: who asks, for which path."""

    principal: Principal
    services: Services
    request: Request

    @property
    def scope(self) -> Scope:
        return self.principal.scope

    def path_id(self, parameter: str, noun: str) -> UUID:
        return parse_id(self.request.path_params[parameter], noun)

    async def owner(self, subaccount_id: str | None) -> Scope:
        """Whose a new thing is: the caller's, or a subaccount's that an organization's key names."""
        if subaccount_id is None:
            return self.scope
        parsed = parse_id(subaccount_id, "subaccount")
        if self.principal.is_organization:
            return await self.services.access.scope_of_subaccount(self.scope, parsed)
        if parsed != self.scope.subaccount_id:
            raise not_found("subaccount", subaccount_id)
        return self.scope


Model = TypeVar("Model", bound=BaseModel)

# An answer that came from elsewhere is a whole response.
Handler = Callable[..., Awaitable[BaseModel | Response]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    method: str
    path: str
    operation_id: str
    summary: str
    description: str
    tag: str
    handler: Handler
    body: type[BaseModel] | None
    form: type[Body] | None
    query: type[BaseModel] | None
    # None for raw bytes.
    answer: type[BaseModel] | None
    errors: tuple[int, ...]
    # Whether it answers with server-sent events, each with an `answer`.
    streams: bool

    async def respond(self, request: Request) -> Response:
        services: Services = request.app.state.services
        with services.rate_limits.checking(client_address(request)):
            principal = await services.access.authenticate(request.headers.get("authorization"))
        services.rate_limits.take(principal.key_id)
        arguments: dict[str, Any] = {}
        if self.query is not None:
            arguments["query"] = _validated(
                self.query.model_validate, _given(request.query_params, self.query), self.query
            )
        if self.body is not None:
            raw = await read_json(request, services.settings.max_body_bytes)
            arguments["body"] = _validated(self.body.model_validate_json, raw, self.body)
        if self.form is not None:
            arguments["form"] = Form(request, self.form, services.settings.max_body_bytes, self._read_form)
        answer = await self.handler(Call(principal, services, request), **arguments)
        if isinstance(answer, Response):
            return answer
        return Response(answer.model_dump_json(exclude_unset=True), media_type="application/json")

    def _read_form(self, given: dict[str, Any]) -> Body:
        assert self.form is not None
        return _validated(self.form.model_validate, given, self.form)


class Endpoints:
    """The endpoints of one resource; `tag` groups them in the documentation."""

    def __init__(self, tag: str) -> None:
        self._tag = tag
        self.listed: list[Endpoint] = []

    def get(self, path: str, **about: Any) -> Callable[[Handler], Handler]:
        return self._declare("GET", path, **about)

    def post(self, path: str, **about: Any) -> Callable[[Handler], Handler]:
        return self._declare("POST", path, **about)

    def patch(self, path: str, **about: Any) -> Callable[[Handler], Handler]:
        return self._declare("PATCH", path, **about)

    def delete(self, path: str, **about: Any) -> Callable[[Handler], Handler]:
        return self._declare("DELETE", path, **about)

    def _declare(
        self,
        method: str,
        path: str,
        *,
        id: str,  # noqa: A002  (as OpenAPI's operationId)
        summary: str,
        errors: tuple[int, ...] = (),
        streams: bool = False,
    ) -> Callable[[Handler], Handler]:
        def declare(handler: Handler) -> Handler:
            types = typing.get_type_hints(handler)
            answers = _models_in(types["return"])
            forms = typing.get_args(types.get("form"))
            self.listed.append(
                Endpoint(
                    method=method,
                    path=path,
                    operation_id=id,
                    summary=summary,
                    description=inspect.cleandoc(handler.__doc__ or ""),
                    tag=self._tag,
                    handler=handler,
                    body=types.get("body"),
                    form=forms[0] if forms else None,
                    query=types.get("query"),
                    answer=answers[0] if answers else None,
                    errors=errors,
                    streams=streams,
                )
            )
            return handler

        return declare


def routes(endpoints: list[Endpoint]) -> list[Route]:
    """One route a path, so that a method that it has not is answered with those that it has."""
    by_path: dict[str, dict[str, Endpoint]] = {}
    for endpoint in endpoints:
        by_path.setdefault(endpoint.path, {})[endpoint.method] = endpoint
    return [Route(path, _dispatch(methods), methods=list(methods)) for path, methods in by_path.items()]


def _dispatch(methods: dict[str, Endpoint]) -> Callable[[Request], Awaitable[Response]]:
    async def dispatch(request: Request) -> Response:
        return await methods["GET" if request.method == "HEAD" else request.method].respond(request)

    return dispatch


async def read_json(request: Request, limit: int) -> bytes:
    """The body's bytes; raises UnsupportedMediaType, PayloadTooLarge."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise UnsupportedMediaType(
            f"The body must be application/json, not {media_type or 'of no stated type'}.",
            details={"given": media_type or None, "expected": "application/json"},
        )
    return await read_body(request, limit)


async def read_body(request: Request, limit: int) -> bytes:
    """The body's bytes, of any media type, as often as they are asked for; raises PayloadTooLarge."""
    state = request.scope["state"]
    if "body" in state:
        read: bytes = state["body"]
        return read
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise _too_large(limit)
    parts = bytearray()
    try:
        async for part in request.stream():
            parts += part
            if len(parts) > limit:
                raise _too_large(limit)
    except ClientDisconnect:
        raise RequestInvalid("The client went away before the body's end.", "request.incomplete") from None
    state["body"] = bytes(parts)
    return bytes(parts)


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The body is larger than {limit} bytes.", details={"limit": limit})


def invalid_field(field: str, message: str, value: str) -> RequestInvalid:
    """What is told of one wrong field that no model could judge."""
    return RequestInvalid(
        f"The request is not valid: {field}: {message}.",
        details={"errors": [{"field": field, "message": message, "value": _shown(value), "code": "field.invalid"}]},
    )


def _given(query: QueryParams, model: type[BaseModel]) -> dict[str, Any]:
    """A query as its model reads it: what may be several is given several times, or with commas."""
    given: dict[str, Any] = dict(query)
    for name in _lists(model) & given.keys():
        given[name] = [part.strip() for value in query.getlist(name) for part in value.split(",")]
    return given


@cache
def _lists(model: type[BaseModel]) -> frozenset[str]:
    """Fields of a query, by their names on the wire, that may be several."""
    fields = model.model_fields.items()
    return frozenset(field.alias or name for name, field in fields if typing.get_origin(field.annotation) is list)


def _validated(validate: Callable[[Any], Model], given: Any, model: type[Model]) -> Model:
    try:
        return validate(given)
    except ValidationError as error:
        raise _invalid(error, model) from None


def _invalid(error: ValidationError, model: type[BaseModel]) -> RequestInvalid:
    problems = error.errors(include_url=False)
    if problems[0]["type"] == "json_invalid":
        return RequestInvalid(f"The body is not valid JSON: {problems[0]['ctx']['error']}.", "request.malformed")
    errors = [_problem(dict(problem), model) for problem in problems[:_SHOWN_ERRORS]]
    summary = "; ".join(f"{entry['field'] or 'body'}: {entry['message']}" for entry in errors[:5])
    more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
    omitted = {"omitted": len(problems) - len(errors)} if len(problems) > len(errors) else {}
    return RequestInvalid(f"The request is not valid: {summary}{more}", details={"errors": errors, **omitted})


def _problem(problem: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """One wrong field: its name, what was given, what would be right. A secret is not repeated."""
    location = [str(part) for part in problem["loc"]]
    entry: dict[str, Any] = {"field": ".".join(location), "message": problem["msg"], "code": problem["type"]}
    value = problem["input"]
    if problem["type"] == "extra_forbidden":
        entry |= _unknown(location[-1], _model_at(model, location[:-1]))
    elif problem["type"] == "missing":
        entry["code"] = "field.missing"
        entry["message"] = "This field is required"
    elif location and not isinstance(value, (dict, list)) and not _SECRET_FIELDS & set(location):
        entry["value"] = _shown(value)
    if "error" in problem.get("ctx", {}):
        entry["message"] = str(problem["ctx"]["error"])
        entry["code"] = "field.invalid"
    return entry


def _unknown(name: str, model: type[BaseModel] | None) -> dict[str, str]:
    """What to say of a field that `model` has not."""
    if model is None:
        return {"code": "field.unknown", "message": "There is no such field"}
    if issubclass(model, Body) and name in model.not_served:
        return {"code": "field.not_served", "message": "The contract has this field, but it is not served yet"}
    names = [field.alias or name for name, field in model.model_fields.items()]
    nearest = difflib.get_close_matches(name[:_SHOWN_VALUE], names, n=1)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    return {"code": "field.unknown", "message": f"There is no such field{hint}"}


def _shown(value: Any) -> Any:
    """A wrong value as it is repeated: short, and always JSON, which knows no NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value[:_SHOWN_VALUE] if isinstance(value, str) else value


def _model_at(model: type[BaseModel], path: list[str]) -> type[BaseModel] | None:
    """The model of what a body has at `path`, whose parts are names on the wire."""
    for part in path:
        field = next((field for name, field in model.model_fields.items() if (field.alias or name) == part), None)
        nested = next((type_ for type_ in _models_in(field.annotation)), None) if field else None
        if nested is None:
            return None
        model = nested
    return model


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in typing.get_args(annotation) for model in _models_in(argument)]
