""".../invocations: work of agents, and all that a caller may come back to: read, waited for, cancelled."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from pydantic import Field, model_validator
from starlette.responses import Response

from gateway.contracts.shared.spelling import fields_below
from gateway.contracts.spaces.ai_connections import ApiKey, Model
from gateway.contracts.spaces.example_values import CREATED, LATER, RUN, RUNTIME, SPACE, STARTED
from gateway.contracts.spaces.runtimes import runtime_ref
from gateway.contracts.spaces.storage import FileName, Path
from gateway.core.errors import host_unavailable
from gateway.core.ids import parse_id
from gateway.domain.agents.request import AgentRequest, FileToStage
from gateway.domain.ai.choice import AiRequest
from gateway.domain.invocations import Invocation as Record
from gateway.http.endpoints import Call, Endpoints
from gateway.http.forwarding import forward, is_forwarded
from gateway.http.models import STORABLE, WHOLE, Answer, Body, Text, Time, one_of, optional
from gateway.http.peers import NoResponse

endpoints = Endpoints("Invocations")

Status = Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled"]

_STATUSES: dict[str, Status] = {
    "pending": "queued",
    "running": "running",
    "completed": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
}


_OPERATIONS: dict[str, Any] = {
    "agent.execute": "agent",
    "page.act": "act",
    "page.observe": "observe",
    "page.extract": "extract",
}
# Of an answer of another gateway.
_FORWARD_SECONDS = 30.0

Count = Annotated[int, Field(ge=1, le=2_000_000_000), WHOLE]
Words = Annotated[str, Field(min_length=1, max_length=20_000), STORABLE]


class InvocationTarget(Body):
    """The page that the agent works on."""

    type: Literal["browser_page"] = optional()
    """Always `browser_page`."""
    page: Literal["active", "new"] = optional()
    """`active`: the page that was used last, by default; `new`: a page of its own."""


class InvocationInput(Body):
    """What the agent is to do. Which of the other fields it takes depends on `provider` and `method`."""

    instruction: Words
    """The task in plain language."""
    max_steps: Count = optional()
    """Steps that the agent may take."""
    variables: dict[str, str] = optional()
    """Stagehand's `act` and `agent`: texts that it types where the instruction says `%name%`; the model sees the names
    alone."""
    selector: Words = optional()
    """Stagehand's `observe` and `extract`: the part of the page to look at."""
    system_prompt: Words = optional()
    """`agent`: added to the instructions of the library."""
    exclude_tools: list[Annotated[Text, Field(max_length=100)]] = optional()
    """`agent`: names of the library's own tools that it does not get."""
    vision: bool = optional()
    """browser-use: whether the model is sent pictures of the page."""


class InvocationFile(Body):
    """A stored file that the runtime gets before the agent begins; `fileId` or `path` says which."""

    model_config = one_of(("fileId",), ("path",))
    example: ClassVar = {"path": "reports/june.csv"}

    file_id: str = optional()
    """Id of the stored file; give it or `path`."""
    path: Path = optional()
    """Path of the stored file in the space; give it or `fileId`."""
    name: FileName = optional()
    """Name of the copy; by default that of the file."""

    @model_validator(mode="after")
    def _said_once(self) -> InvocationFile:
        if ("file_id" in self.model_fields_set) == ("path" in self.model_fields_set):
            raise ValueError("give either fileId or path")
        return self

    def to_domain(self) -> FileToStage:
        return FileToStage(None if self.file_id is None else parse_id(self.file_id, "file"), self.path, self.name)


class InvocationAi(Body):
    """Whose model the agent calls. Without it, the default of the mounts, or else the operator's own key."""

    source: Literal["platform", "saved", "inline"] = optional()
    """The operator's key, a saved AI connection, or `apiKey`."""
    connection: Annotated[Text, Field(min_length=1, max_length=200)] = optional()
    """Id or label of a saved AI connection that the mounts allow."""
    provider: Literal["openai", "anthropic", "google", "openai-compatible"] = optional()
    """Whose key `apiKey` is; or which of the mounts' defaults is meant."""
    model: Model = optional()
    """Name of the model; by default that of the mounts or of the connection."""
    api_key: ApiKey = optional()
    """A key for this invocation alone. It is not stored."""
    base_url: Annotated[Text, Field(min_length=1, max_length=2000)] = optional()
    """Address of an `openai-compatible` server."""

    def to_domain(self) -> AiRequest:
        return AiRequest(self.source, self.connection, self.provider, self.model, self.api_key, self.base_url)


class CreateInvocation(Body):
    """Work for an agent. `method` says what it does; `operation` is the older name of it."""

    model_config = one_of(("method",), ("operation",))
    example: ClassVar = {
        "provider": "stagehand",
        "method": "agent",
        "input": {"instruction": "Find the cheapest red shoe.", "maxSteps": 10},
        "outputSchema": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "price": {"type": "number"}},
            "required": ["name", "price"],
        },
    }

    provider: Literal["stagehand", "browser-use", "browserUse"]
    """The agent; `browserUse` is the same as `browser-use`."""
    method: Literal["agent", "act", "observe", "extract"] = optional()
    """`agent` carries out a task in steps; `act`, `observe` and `extract` are single calls of Stagehand."""
    operation: Literal["agent.execute", "page.act", "page.observe", "page.extract"] = optional()
    """In place of `method`."""
    target: InvocationTarget = optional()
    """The page to work on; the active one by default."""
    input: InvocationInput
    """What is to be done."""
    files: Annotated[list[InvocationFile], Field(max_length=20)] = optional()
    """Stored files that the runtime gets first."""
    output_schema: dict[str, Any] = optional()
    """JSON Schema that the final answer of `agent` and `extract` must fit."""
    ai: InvocationAi = optional()
    """Whose model the agent calls."""
    toolset: Annotated[Text, Field(min_length=1, max_length=64)] = optional()
    """Id or name of a toolset of the space, whose tools the agent gets."""
    max_tokens: Count = optional()
    """Tokens of the model that it may use."""
    timeout_ms: Count = optional()
    """How long it may work, without the time in the queue, in milliseconds."""
    screenshots: bool = optional()
    """Whether a picture of each step is kept as an artifact."""

    @model_validator(mode="after")
    def _said_once(self) -> CreateInvocation:
        if ("method" in self.model_fields_set) == ("operation" in self.model_fields_set):
            raise ValueError("give either method or operation")
        return self

    def to_domain(self) -> AgentRequest:
        options = self.input.model_dump(by_alias=True, exclude={"instruction", "max_steps"}, exclude_unset=True)
        return AgentRequest(
            "stagehand" if self.provider == "stagehand" else "browser-use",
            self.method if self.method is not None else _OPERATIONS[self.operation],
            self.input.instruction,
            options,
            (self.target and self.target.page) or "active",
            tuple(file.to_domain() for file in self.files or ()),
            self.output_schema,
            AiRequest() if self.ai is None else self.ai.to_domain(),
            self.toolset,
            self.input.max_steps,
            self.max_tokens,
            self.timeout_ms,
            self.screenshots is True,
        )


class InvocationUsage(Answer):
    """What an agent has used of its model, as the gateway counted it."""

    calls: int = Field(ge=0)
    """Calls to the model."""
    input_tokens: int = Field(ge=0)
    """Tokens that the model read."""
    output_tokens: int = Field(ge=0)
    """Tokens that it wrote."""
    cached_tokens: int = Field(ge=0)
    """Of those that it read, the ones that the provider had kept."""
    estimated_calls: int = Field(ge=0)
    """Calls whose provider reported no tokens; they are estimated."""


class WaitForInvocation(Body):
    """How long to wait."""

    example: ClassVar = {"timeoutMs": 5000}

    timeout_ms: Annotated[int, Field(ge=0, le=3_600_000), WHOLE] = optional()
    """How long to wait, in milliseconds; 0 looks once. 30000 by default and 120000 at most, where the operator has not
    set other limits."""


class InvocationError(Answer):
    """Why an invocation did not succeed."""

    code: str
    """Stable code, such as `gateway.lost`."""
    message: str
    """The cause in one sentence for people."""
    details: dict[str, Any] = optional()
    """More about it; the fields depend on the code."""


class Invocation(Answer):
    """Work with a runtime that a caller may come back to."""

    example: ClassVar = {
        "id": "01a22630-9d11-7b02-8a3e-5f0c1d2e3f21",
        "spaceId": SPACE,
        "runtimeId": RUNTIME,
        "runId": RUN,
        "provider": "playwright",
        "method": "execute",
        "executionMode": "durable",
        "status": "succeeded",
        "result": {"mode": "fail-fast", "steps": []},
        "error": None,
        "createdAt": CREATED,
        "startedAt": STARTED,
        "finishedAt": LATER,
    }

    id: UUID
    """Id of the invocation."""
    space_id: UUID
    """The space of its runtime."""
    runtime_id: UUID
    """Its runtime."""
    run_id: UUID | None
    """The run that it is part of; null if none."""
    provider: str
    """What interprets it: a driver or an agent."""
    method: str
    """What it does."""
    execution_mode: Literal["inline", "durable"]
    """`inline` was begun by a request that waited for it; `durable` outlives the request."""
    status: Status
    """`queued`, `running`, `cancelling`, `succeeded`, `failed` or `cancelled`; the last three are final."""
    result: Any
    """Its result; null while it runs, and where there is none or it was too large to be kept."""
    error: InvocationError | None
    """Why it did not succeed; null otherwise."""
    usage: InvocationUsage = optional()
    """What an agent used of its model; absent before its end, and where there is no agent."""
    created_at: Time
    """When it was created."""
    started_at: Time | None
    """When it began; null before."""
    finished_at: Time | None
    """When it ended; null before."""

    @classmethod
    def of(cls, record: Record) -> Invocation:
        is_cancelling = record.is_live and record.cancel_wanted_at is not None
        return cls(
            id=record.id,
            space_id=record.space_id,
            runtime_id=record.runtime_id,
            run_id=record.run_id,
            provider=record.provider,
            method=record.method,
            execution_mode=record.execution_mode,
            status="cancelling" if is_cancelling else _STATUSES[record.status],
            result=record.result,
            error=_error(record),
            **({} if record.usage is None else {"usage": InvocationUsage.model_validate(record.usage)}),
            created_at=record.created_at,
            started_at=record.started_at,
            finished_at=record.finished_at,
        )


class AwaitedInvocation(Answer):
    """An invocation, and whether it ended in time."""

    example: ClassVar = {"invocation": Invocation.example, "waitStatus": "completed", "timedOut": False}

    invocation: Invocation
    """The invocation as it is now."""
    wait_status: Literal["completed", "timeout"]
    """`completed` where it has ended, `timeout` where it has not."""
    timed_out: bool
    """Whether it has not ended yet."""


_DEFAULT_WAIT = WaitForInvocation()


@endpoints.post(
    "/v1/spaces/{id}/runtimes/{runtimeId}/invocations",
    id="runtimes-invocations-create",
    summary="Start work of an agent",
    status=202,
    errors=(403, 404, 409, 429, 501, 503),
)
async def create(call: Call, body: CreateInvocation) -> Invocation | Response:
    """The answer comes at once; wait for the invocation to know what became of it.

    An invocation has the runtime for itself: 409 `runtime.controller_busy` where a connection or a live view with input
    is open, or another invocation has not ended.
    """
    ref = runtime_ref(call)
    if not is_forwarded(call.request) and call.services.runtimes.live_here(call.scope, ref) is None:
        host_url = await call.services.runtimes.elsewhere(call.scope, ref)
        if host_url is not None:
            try:
                return await forward(call.request, call.services, host_url, seconds=_FORWARD_SECONDS)
            except NoResponse as error:
                raise host_unavailable("runtime", error) from error
    request = body.to_domain()
    with fields_below("", _field):
        return Invocation.of(await call.services.agents.create(call.scope, call.taker, ref, request))


@endpoints.get("/v1/invocations/{id}", id="invocations-get", summary="Get an invocation", errors=(404,))
async def get(call: Call) -> Invocation:
    return Invocation.of(await call.services.invocations.get(call.scope, call.path_id("id", "invocation")))


@endpoints.post("/v1/invocations/{id}/wait", id="invocations-wait", summary="Wait for an invocation", errors=(404,))
async def wait(call: Call, body: WaitForInvocation = _DEFAULT_WAIT) -> AwaitedInvocation:
    """The invocation as soon as it has ended, or as it is after `timeoutMs`."""
    invocation_id = call.path_id("id", "invocation")
    seconds = call.services.invocations.wait_seconds(body.timeout_ms)
    with call.services.event_streams.open(call.taker):
        found = await call.services.invocations.wait(call.scope, invocation_id, seconds)
    return AwaitedInvocation(
        invocation=Invocation.of(found),
        wait_status="timeout" if found.is_live else "completed",
        timed_out=found.is_live,
    )


@endpoints.post("/v1/invocations/{id}/cancel", id="invocations-cancel", summary="Cancel an invocation", errors=(404,))
async def cancel(call: Call) -> Invocation:
    """Request a cancellation. It is `cancelled` a moment later, or ended before; wait for it to know."""
    return Invocation.of(await call.services.invocations.cancel(call.scope, call.path_id("id", "invocation")))


def _error(record: Record) -> InvocationError | None:
    if record.error_code is None and record.error_message is None:
        return None
    details = {} if record.error_details is None else {"details": record.error_details}
    return InvocationError(code=record.error_code or "internal.error", message=record.error_message or "", **details)


def _field(name: str) -> str:
    """A field of the domain's as the body has it: those of the choice of a model are below `ai`."""
    return _AI_FIELDS.get(name, name)


_AI_FIELDS = {"api_key": "ai.apiKey", "base_url": "ai.baseUrl", "provider": "ai.provider", "model": "ai.model"}
