"""An endpoint of the API: declared once, and from that routed, checked, answered and documented.

    @endpoints.post("/v1/things/{id}", id="create", summary="Create a thing", status=201)
    async def create(call: Call, at: InThing, body: CreateThing) -> Thing: ...

The function's annotations say what it takes and answers:

- `at`: the path's parameters (paths.py); `query`, `headers`: models of `Query` and `Headers`
- `body`: a model of JSON, which may be left out where the parameter has a default
- `form: Form[Model]` in place of a body: a form with a file in it (forms.py)
- the answer: a model; `Response` for raw bytes; `None` for no content. A plain Response is sent as it is.

How bodies are read and errors written is the contract's (contract.py).
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from types import NoneType
from typing import Any, Protocol
from uuid import UUID

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from gateway.core import steps
from gateway.core.ids import parse_id
from gateway.core.scope import Scope
from gateway.core.shares import Taker
from gateway.domain.accounts.access import Principal
from gateway.http.bodies import BodyRules, has_body
from gateway.http.errors import ErrorShape
from gateway.http.forms import Form
from gateway.http.idempotency import answered_once, idempotency_key, refuse_key_of_form
from gateway.http.models import Answer, Body, Headers, Query, models_in
from gateway.http.paths import PathReader, shape
from gateway.http.public_url import client_address, public_path
from gateway.http.queries import read_query
from gateway.http.services import Services
from gateway.http.validation import validated
from gateway.settings import Settings


@dataclass(frozen=True, slots=True)
class Call:
    """A checked request: who asks, for which path."""

    principal: Principal
    services: Services
    request: Request
    # Headers of the answer, where it is a model.
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def scope(self) -> Scope:
        return self.principal.scope

    @property
    def taker(self) -> Taker:
        """The caller, as one who takes a part of what is shared."""
        return Taker(self.principal.key_id, self.principal.scope)

    def path_id(self, parameter: str, noun: str) -> UUID:
        return parse_id(self.request.path_params[parameter], noun)

    async def owner(self, subaccount_id: str | None) -> Scope:
        """The owner of a new thing: the caller, or a subaccount that an organization's key names."""
        named = None if subaccount_id is None else parse_id(subaccount_id, "subaccount")
        return await self.services.access.owner(self.principal, named)


class ContractRules(Protocol):
    """The parts of a contract (contract.py) that its endpoints need."""

    @property
    def name(self) -> str: ...
    @property
    def bodies(self) -> BodyRules: ...
    @property
    def errors(self) -> ErrorShape: ...
    @property
    def idempotent(self) -> bool: ...


Handler = Callable[..., Awaitable[Answer | Response | None]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    method: str
    path: str
    operation_id: str
    summary: str
    description: str
    tag: str
    handler: Handler
    # The status of success.
    status: int
    at: PathReader[Any] | None
    query: type[BaseModel] | None
    headers: type[Headers] | None
    body: type[Body] | None
    # Whether a request without a body is read as `{}`: the handler has a default for it.
    body_is_optional: bool
    form: type[Body] | None
    # None for raw bytes, and for no content.
    answer: type[Answer] | None
    errors: tuple[int, ...]
    # Whether it answers with server-sent events, each with an `answer`.
    streams: bool
    # Whether it makes what its path with the answer's `id` behind it then gets.
    creates: bool

    @property
    def is_raw(self) -> bool:
        """Whether it answers bytes, whole or a range of them."""
        return self.answer is None and self.status != 204

    async def respond(self, request: Request, rules: ContractRules) -> Response:
        """The answer; raises GatewayError."""
        services: Services = request.app.state.services
        with services.rate_limits.checking(client_address(request)):
            principal = await services.access.authenticate(request.headers.get("authorization"))
        request.scope["state"]["key_id"] = principal.key_id
        if request.scope["state"].get("hop") is None:
            # Where another gateway or worker forwarded it, that one has counted it.
            services.rate_limits.take(principal.key_id)
        steps.done("authenticate")
        call = Call(principal, services, request)
        key = idempotency_key(request) if rules.idempotent else None
        if key is None:
            return await self._run(call, rules.bodies)
        if self.form is not None:
            raise refuse_key_of_form()
        return await answered_once(
            request,
            key,
            services.idempotency,
            lambda: self._run(call, rules.bodies),
            principal=principal.key_id,
            contract=rules.name,
            errors=rules.errors,
            max_body_bytes=services.settings.max_body_bytes,
        )

    async def _run(self, call: Call, rules: BodyRules) -> Response:
        arguments = await self._arguments(call.request, rules, call.services.settings)
        steps.done("read request")
        answer = await self.handler(call, **arguments)
        if isinstance(answer, Response):
            return answer
        if answer is None:
            return Response(status_code=self.status)
        response = Response(answer.json_bytes(), self.status, media_type="application/json")
        response.headers.update(call.headers)
        if self.creates:
            made: Any = answer
            response.headers["Location"] = f"{public_path(call.request, call.services.settings)}/{made.id}"
        return response

    async def _arguments(self, request: Request, rules: BodyRules, settings: Settings) -> dict[str, Any]:
        """Arguments of the handler. Ids come last: a wrong field is reported before a missing resource."""
        found: dict[str, Any] = {}
        if self.query is not None or request.scope["query_string"]:
            read = read_query(request.query_params, self.query or _NoQuery)
            if self.query is not None:
                found["query"] = read
        if self.headers is not None:
            headers = self.headers
            given = {name: request.headers[name] for name in _names(headers) if name in request.headers}
            found["headers"] = validated(lambda: headers.model_validate(given), headers, given)
        most = settings.max_body_bytes, settings.max_body_values
        if self.body is not None:
            found["body"] = rules.parse(await rules.read(request, *most, optional=self.body_is_optional), self.body)
        elif self.form is None and self.method != "GET" and has_body(request):
            rules.parse(await rules.read(request, *most, optional=True), _NoBody)
        if self.form is not None:
            form = self.form
            found["form"] = Form(
                request,
                form,
                settings.max_body_bytes,
                lambda given: validated(lambda: form.model_validate(given), form, given),
            )
        if self.at is not None:
            found["at"] = self.at.read(request.path_params)
        return found


class Endpoints:
    """The endpoints of one resource; `tag` groups them in the documentation."""

    def __init__(self, tag: str) -> None:
        self._tag = tag
        self.listed: list[Endpoint] = []

    def get(self, path: str, **about: Any) -> Callable[[Handler], Handler]:
        return self._declare("GET", path, **about)

    def post(self, path: str, **about: Any) -> Callable[[Handler], Handler]:
        return self._declare("POST", path, **about)

    def put(self, path: str, **about: Any) -> Callable[[Handler], Handler]:
        return self._declare("PUT", path, **about)

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
        status: int | None = None,
        errors: tuple[int, ...] = (),
        streams: bool = False,
        creates: bool = False,
    ) -> Callable[[Handler], Handler]:
        """`status` is 200 where it is not given, and 204 for a handler that returns None."""

        def declare(handler: Handler) -> Handler:
            types = typing.get_type_hints(handler)
            answers = models_in(types["return"])
            forms = typing.get_args(types.get("form"))
            default = 204 if types["return"] is NoneType else 200
            self.listed.append(
                Endpoint(
                    method=method,
                    path=path,
                    operation_id=id,
                    summary=summary,
                    description=inspect.cleandoc(handler.__doc__ or ""),
                    tag=self._tag,
                    handler=handler,
                    status=status or default,
                    at=PathReader(types["at"], path) if "at" in types else None,
                    query=types.get("query"),
                    headers=types.get("headers"),
                    body=types.get("body"),
                    body_is_optional="body" in types
                    and inspect.signature(handler).parameters["body"].default is not inspect.Parameter.empty,
                    form=forms[0] if forms else None,
                    answer=typing.cast(type[Answer], answers[0]) if answers else None,
                    errors=errors,
                    streams=streams,
                    creates=creates,
                )
            )
            return handler

        return declare


class _NoQuery(Query):
    """Of an endpoint without parameters: what is not known is refused everywhere."""


class _NoBody(Body):
    """Of an endpoint without a body: one that has fields is refused, since nothing would come of them."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A path, and the endpoint of each of its methods."""

    path: str
    methods: dict[str, Endpoint]

    @property
    def allowed(self) -> list[str]:
        """The methods, HEAD among them where there is a GET."""
        return sorted({*self.methods, *(["HEAD"] if "GET" in self.methods else [])})


class DuplicateEndpoint(ValueError):
    """Raised at the start for two endpoints of one route, since one of them would never be called."""


def resources(endpoints: Iterable[Endpoint]) -> list[Resource]:
    """The endpoints by their paths; raises DuplicateEndpoint.

    Paths that differ in nothing but their parameters' names are one route, and have to be spelled alike.
    """
    found: dict[str, Resource] = {}
    for endpoint in endpoints:
        resource = found.setdefault(shape(endpoint.path), Resource(endpoint.path, {}))
        if endpoint.method in resource.methods:
            other = resource.methods[endpoint.method]
            raise DuplicateEndpoint(
                f"{endpoint.method} {endpoint.path} ({endpoint.operation_id}) is {other.path} ({other.operation_id})"
            )
        if resource.path != endpoint.path:
            raise DuplicateEndpoint(f"{endpoint.path} and {resource.path} are one route; spell them alike")
        resource.methods[endpoint.method] = endpoint
    return list(found.values())


@cache
def _names(model: type[BaseModel]) -> tuple[str, ...]:
    return tuple(field.alias or name for name, field in model.model_fields.items())
