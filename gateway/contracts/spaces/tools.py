"""/v1/spaces/{id}/tools: tools that agents of a space are given."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import Field, model_validator

from gateway.contracts.spaces.deleted import Deleted
from gateway.contracts.spaces.example_values import CREATED, SPACE
from gateway.domain.tools import execution as values
from gateway.domain.tools.calls import ToolResult
from gateway.domain.tools.service import Tool as Record
from gateway.domain.tools.service import ToolChanges, ToolRequest
from gateway.domain.vault import KEY_CHARACTERS
from gateway.http.cursors import Listing, WholeListQuery, following_page
from gateway.http.endpoints import Call, Endpoints
from gateway.http.models import STORABLE, WHOLE, Answer, Body, Checked, Metadata, Time, optional
from gateway.http.schemas import SchemaOf

endpoints = Endpoints("Tools")

_ROOT = "/v1/spaces/{id}/tools"
TOOL = "01a22630-9f31-7a4e-8c11-2b3c4d5e6f14"
CALL = "01a22630-a052-7b19-9d20-3c4d5e6f7a15"
_TIMEOUT_MS = 10_000
_OWN_HEADERS = frozenset(("host", "content-length", "transfer-encoding", "connection"))

ToolName = Annotated[str, Field(min_length=1, max_length=64, pattern="^[a-z_][a-z0-9_-]*$")]
Description = Annotated[str, Field(max_length=2000), STORABLE]
VaultKey = Annotated[str, Field(min_length=1, max_length=KEY_CHARACTERS), STORABLE]


def _web_address(text: str) -> str:
    """An address of http or https with a host, without a login and a fragment."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("must be an address such as https://tools.example/search") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or not text.isascii():
        raise ValueError("must be an address of http or https, such as https://tools.example/search")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must have no login; use `auth` with a secret of the vault")
    if parts.fragment or not text.isprintable() or " " in text:
        raise ValueError("must have no spaces, control characters or fragment")
    return text


class ToolAuth(Body):
    """How the tool's server knows the gateway. The secret is a key of the vault, within the space's mounts."""

    type: Literal["none", "bearer", "basic", "header"]
    """`bearer` sends the secret's value as `Authorization: Bearer`, `basic` its username and password, `header` its
    value in the header that `header` names; `none` sends nothing."""
    secret_id: VaultKey = optional()
    """Key of the secret in the vault; for all types but `none`."""
    header: Annotated[str, Field(min_length=1, max_length=100, pattern="^[A-Za-z0-9-]+$")] = optional()
    """Name of the header; for the type `header`."""

    @model_validator(mode="after")
    def _fits(self) -> ToolAuth:
        if (self.type == "none") == ("secret_id" in self.model_fields_set):
            raise ValueError("secretId belongs to the types bearer, basic and header, which need it")
        if (self.type == "header") != ("header" in self.model_fields_set):
            raise ValueError("header belongs to the type header, which needs it")
        if self.header is not None and self.header.lower() in _OWN_HEADERS:
            raise ValueError("header must not be one that the request itself needs")
        return self


class ToolExecution(Body):
    """How the tool is carried out: by a POST of JSON to a server of yours."""

    type: Literal["webhook"]
    """The only kind that there is."""
    url: Annotated[str, Field(min_length=1, max_length=2048), Checked(_web_address, format="uri")]
    """Where the request is sent. It is shown, so secrets do not belong into it."""
    timeout_ms: Annotated[int, Field(ge=1, le=600_000), WHOLE] = _TIMEOUT_MS
    """How long an answer may take, in milliseconds; 60000 at most, where the operator has not set another limit."""
    auth: ToolAuth = optional()
    """How the server knows the gateway; by default nothing is sent."""
    signing_secret_id: VaultKey = optional()
    """Key of a secret in the vault; with it, requests have a `webhook-signature` as Standard Webhooks describe it."""

    def to_domain(self) -> values.Webhook:
        given = self.auth
        auth = values.Auth() if given is None else values.Auth(given.type, given.secret_id, given.header)
        return values.Webhook(self.url, self.timeout_ms, auth, self.signing_secret_id)


class CreateTool(Body):
    """A new tool."""

    example: ClassVar = {
        "name": "find_order",
        "description": "Finds an order by its number.",
        "execution": {"type": "webhook", "url": "http://192.0.9.9:8080/orders", "auth": {"type": "none"}},
        "inputSchema": {"type": "object", "properties": {"number": {"type": "string"}}, "required": ["number"]},
        "outputSchema": {"type": "object"},
    }

    name: ToolName
    """Name, unique within the space, as agents know it."""
    execution: ToolExecution
    """How the tool is carried out."""
    input_schema: Metadata
    """JSON Schema of the input, of up to 16384 bytes. References lead to parts of the schema itself."""
    output_schema: Metadata
    """JSON Schema of the output, of up to 16384 bytes."""
    description: Description | None = None
    """What it does, for agents."""
    enabled: bool = True
    """Whether it may be called."""
    metadata: Metadata | None = None
    """Any JSON object of yours, of up to 16384 bytes, returned as it is."""


class UpdateTool(Body):
    """What is given is changed, for later calls."""

    example: ClassVar = {"enabled": False}

    name: ToolName = optional()
    """New name."""
    execution: ToolExecution = optional()
    """New way to carry it out, in place of the whole one before."""
    input_schema: Metadata = optional()
    """New JSON Schema of the input."""
    output_schema: Metadata = optional()
    """New JSON Schema of the output."""
    description: Description | None = None
    """New description; null removes it."""
    enabled: bool = optional()
    """Whether it may be called."""
    metadata: Metadata | None = None
    """New metadata; null removes it."""


class TestTool(Body):
    """One call of the tool."""

    example: ClassVar = {"input": {"number": "A-17"}}

    input: Any = None
    """What the tool is given; it must fit the tool's input schema."""


class Tool(Answer):
    """A tool of a space."""

    example: ClassVar = {
        "id": TOOL,
        "spaceId": SPACE,
        "name": "find_order",
        "description": "Finds an order by its number.",
        "enabled": True,
        "execution": {
            "type": "webhook",
            "url": "https://tools.example/orders",
            "timeoutMs": 10000,
            "auth": {"type": "bearer", "secretId": "prod/tools"},
        },
        "inputSchema": {"type": "object", "properties": {"number": {"type": "string"}}, "required": ["number"]},
        "outputSchema": {"type": "object"},
        "metadata": None,
        "createdAt": CREATED,
        "updatedAt": CREATED,
    }

    id: UUID
    """Id of the tool."""
    space_id: UUID
    """Its space."""
    name: str
    """Name, unique within the space."""
    description: str | None
    """What it does, for agents."""
    enabled: bool
    """Whether it may be called."""
    execution: Annotated[dict[str, Any], SchemaOf(ToolExecution)]
    """How the tool is carried out, as it was given, with what was left out."""
    input_schema: dict[str, Any]
    """JSON Schema of the input."""
    output_schema: dict[str, Any]
    """JSON Schema of the output."""
    metadata: dict[str, Any] | None
    """What was given at its creation."""
    created_at: Time
    """When it was created."""
    updated_at: Time
    """When it was last changed."""

    @classmethod
    def of(cls, record: Record) -> Tool:
        return cls(
            id=record.id,
            space_id=record.space_id,
            name=record.name,
            description=record.description,
            enabled=record.enabled,
            execution=_spelled(values.Webhook.from_json(record.execution)),
            input_schema=record.input_schema,
            output_schema=record.output_schema,
            metadata=record.metadata,
            created_at=record.created_at,
            updated_at=record.updated_at,
        )


class ToolList(Answer):
    """Tools of a space."""

    example: ClassVar = {"tools": [Tool.example]}

    tools: list[Tool]
    """Tools, oldest first."""
    next_cursor: str = optional()
    """The `cursor` of the next page; absent if there is none."""


class ToolError(Answer):
    """Why a call of a tool failed."""

    code: str
    """Stable code, such as `tool.timeout`."""
    message: str
    """The cause in one sentence for people."""
    details: dict[str, Any] = optional()
    """More about it; the fields depend on the code."""


class ToolTested(Answer):
    """What became of one call: `output` where `ok` is true, `error` otherwise."""

    example: ClassVar = {"ok": True, "output": {"number": "A-17", "total": 42}, "latency": 182, "toolCallId": CALL}

    ok: bool
    """Whether the tool answered with an output that fits its schema."""
    output: Any = optional()
    """What the tool answered; absent where it failed."""
    error: ToolError = optional()
    """Why it failed; absent where it did not."""
    latency: int
    """Milliseconds of the whole call."""
    tool_call_id: UUID
    """The record of the call."""

    @classmethod
    def of(cls, result: ToolResult) -> ToolTested:
        made = cls(ok=result.failure is None, latency=result.latency_ms, tool_call_id=result.record.id)
        if result.failure is None:
            made.output = result.output
        else:
            details = {"details": result.failure.details} if result.failure.details else {}
            made.error = ToolError(code=result.failure.code, message=result.failure.message, **details)
        return made


@endpoints.post(_ROOT, id="tools-create", summary="Create a tool", errors=(404, 409), creates=True)
async def create(call: Call, body: CreateTool) -> Tool:
    """Make a tool that agents of the space may be given by toolsets."""
    request = ToolRequest(
        body.name,
        body.execution.to_domain(),
        body.input_schema,
        body.output_schema,
        body.description,
        body.enabled,
        body.metadata,
    )
    space_id = call.path_id("id", "space")
    return Tool.of(await call.services.tools.create(call.scope, call.taker, space_id, request))


@endpoints.get(_ROOT, id="tools-list", summary="List tools", errors=(404,))
async def listed(call: Call, query: WholeListQuery) -> ToolList:
    """All tools of the space, oldest first."""
    space_id = call.path_id("id", "space")
    listing = Listing("tools", query, space_id)
    found = await call.services.tools.listed(call.scope, space_id, query.part(listing))
    page, following = following_page(found, query, listing)
    return ToolList(tools=[Tool.of(record) for record in page], **following)


@endpoints.get(f"{_ROOT}/{{toolId}}", id="tools-get", summary="Get a tool", errors=(404,))
async def get(call: Call) -> Tool:
    space_id, tool_id = call.path_id("id", "space"), call.path_id("toolId", "tool")
    return Tool.of(await call.services.tools.get(call.scope, space_id, tool_id))


@endpoints.patch(f"{_ROOT}/{{toolId}}", id="tools-update", summary="Update a tool", errors=(404, 409))
async def update(call: Call, body: UpdateTool) -> Tool:
    """Change what is given. Later calls are made as it is then; records of earlier ones stay."""
    changes: ToolChanges = {name: getattr(body, name) for name in body.model_fields_set}  # type: ignore[assignment]
    if body.execution is not None:
        changes["execution"] = body.execution.to_domain()
    space_id, tool_id = call.path_id("id", "space"), call.path_id("toolId", "tool")
    return Tool.of(await call.services.tools.change(call.scope, call.taker, space_id, tool_id, **changes))


@endpoints.delete(f"{_ROOT}/{{toolId}}", id="tools-delete", summary="Delete a tool", errors=(404,))
async def delete(call: Call) -> Deleted:
    """Delete the tool. Toolsets that have it lose it; records of its calls stay."""
    space_id, tool_id = call.path_id("id", "space"), call.path_id("toolId", "tool")
    await call.services.tools.remove(call.scope, space_id, tool_id)
    return Deleted(id=tool_id, deleted=True)


@endpoints.post(f"{_ROOT}/{{toolId}}/test", id="tools-test", summary="Test a tool", errors=(404,))
async def test(call: Call, body: TestTool) -> ToolTested:
    """Call the tool once, without an agent. The answer is 200 also where the tool fails; then `ok` is false."""
    space_id, tool_id = call.path_id("id", "space"), call.path_id("toolId", "tool")
    return ToolTested.of(await call.services.tool_calls.test(call.scope, call.taker, space_id, tool_id, body.input))


def _spelled(webhook: values.Webhook) -> dict[str, Any]:
    auth = {"type": webhook.auth.type, "secretId": webhook.auth.secret, "header": webhook.auth.header}
    spelled = {
        "type": "webhook",
        "url": webhook.url,
        "timeoutMs": webhook.timeout_ms,
        "auth": {name: value for name, value in auth.items() if value is not None},
        "signingSecretId": webhook.signing_secret,
    }
    return {name: value for name, value in spelled.items() if value is not None}
