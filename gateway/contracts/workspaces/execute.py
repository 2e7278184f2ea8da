"""/v1/workspaces/{id}/execute: structured steps on a runtime."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from pydantic import Field
from starlette.responses import Response

from gateway.contracts.shared.spelling import domain
from gateway.contracts.workspaces.errors import own_code, own_steps
from gateway.contracts.workspaces.example_values import ALIAS as RUNTIME_ALIAS
from gateway.contracts.workspaces.mounts import WorkspaceMounts, narrowing_fields
from gateway.contracts.workspaces.operations import Operation
from gateway.core.errors import host_unavailable
from gateway.core.runtime_ref import ByAlias, ById, RuntimeRef
from gateway.domain.execution.request import ALIAS, ExecutionRequest
from gateway.domain.execution.request import Step as DomainStep
from gateway.domain.execution.results import Executed, KeptFile, StepResult
from gateway.domain.invocations import Invocation
from gateway.http.endpoints import Call, Endpoints
from gateway.http.forwarding import forward, is_forwarded
from gateway.http.models import WHOLE, Answer, Body, Text, optional
from gateway.http.peers import NoResponse
from gateway.http.preferences import responds_async

endpoints = Endpoints("Execution")

# Of an answer of another gateway, beside the time of the execution: for the start of its process.
_BESIDE_SECONDS = 30.0

Milliseconds = Annotated[int, Field(ge=1), WHOLE]
Label = Annotated[Text, Field(min_length=1, max_length=200)]


class StepOptions(Body):
    """How a step is carried out."""

    timeout_ms: Milliseconds = optional()
    """Timeout of the step; by default the gateway's."""
    dry_run: bool = optional()
    """Only check the step."""
    logs: Literal["off", "capture"] = optional()
    """`capture` returns what the page writes to its console meanwhile."""
    script_id: Label = optional()
    """Id of the script that the step belongs to, for the record of the run."""
    script_name: Label = optional()
    """Name of that script."""
    screenshot_on_failure: bool = optional()
    """Whether a step that fails keeps a picture of its page, as an artifact."""


class Step(Body):
    """A call of the runtime's driver. `args` are its arguments, in the library's order or by name."""

    call: Annotated[str, Field(min_length=1, max_length=100)]
    """Name of the call, such as `page.goto`."""
    args: list[Any] | dict[str, Any] = optional()
    """Arguments of the call: in the order of the library, or by their names."""
    ref: Annotated[Text, Field(min_length=1, max_length=100)] = optional()
    """Alias or id of the bound object that the call is about; by default the first page."""
    alias: Annotated[str, Field(pattern=ALIAS, examples=["field"])] = optional("as")
    """Name that the object is bound to that the call returns."""
    options: StepOptions = optional()
    """How the step is carried out."""

    def to_domain(self) -> DomainStep:
        options = self.options or StepOptions()
        return DomainStep(
            self.call,
            self.args,
            self.ref,
            self.alias,
            options.timeout_ms,
            options.dry_run is True,
            options.logs == "capture",
            options.screenshot_on_failure is True,
        )


class Execute(Body):
    """Steps on one runtime of the workspace; they stop at the first that fails."""

    example: ClassVar = {
        "runtime": RUNTIME_ALIAS,
        "steps": [
            {"call": "page.goto", "args": ["https://example.com"]},
            {"call": "page.locator", "args": ["h1"], "as": "heading"},
            {"call": "locator.textContent", "ref": "heading"},
        ],
    }

    runtime: Annotated[Text, Field(min_length=1, max_length=120)]
    """Alias or id of the runtime."""
    steps: Annotated[list[Step], Field(min_length=1)]
    """The steps, in their order."""
    mode: Literal["fail-fast"] = optional()
    """`fail-fast`: stop at the first step that fails."""
    idempotency_key: Annotated[Text, Field(min_length=1, max_length=255)] = optional()
    """A key of the workspace: a further request with it runs nothing, and is answered as the first one."""
    prefer: Literal["sync", "async"] = optional()
    """`async` answers with an operation at once, as the header `Prefer: respond-async` does."""
    mounts: WorkspaceMounts = optional()
    """What this execution alone may use of the runtime's mounts; by default all. They may narrow these and not widen
    them."""

    def to_domain(self, *, is_async: bool) -> ExecutionRequest:
        options = [step.options for step in self.steps if step.options is not None]
        return ExecutionRequest(
            [step.to_domain() for step in self.steps],
            next((each.script_id for each in options if each.script_id is not None), None),
            next((each.script_name for each in options if each.script_name is not None), None),
            self.idempotency_key,
            hashlib.sha256(self.model_dump_json(exclude={"idempotency_key", "prefer"}).encode()).digest(),
            is_async if self.prefer is None else self.prefer == "async",
            domain(self.mounts),
        )


class Binding(Answer):
    """An object that later steps name by `ref`."""

    alias: str
    """The name that it is bound to; its id where the step gave none."""
    id: str
    """Its id; of a page that of its events."""
    type: Literal["page", "context", "handle", "subscription"]
    """What it is."""


class Artifact(Answer):
    """A file that a step made, which the storage of the workspace keeps."""

    id: UUID
    """Id of the artifact."""
    file_id: UUID
    """Id of the stored file."""
    name: str
    """File name."""
    content_type: str
    """Media type."""
    size_bytes: int = Field(ge=0)
    """Size."""

    @classmethod
    def of(cls, kept: KeptFile) -> Artifact:
        return cls(
            id=kept.artifact_id,
            file_id=kept.file_id,
            name=kept.name,
            content_type=kept.content_type,
            size_bytes=kept.size_bytes,
        )


class LogLine(Answer):
    """A message of the page's console."""

    type: str
    """Its kind, such as `log` or `error`."""
    text: str
    """Its text."""


class StepError(Answer):
    """Why a step failed."""

    code: str
    """Stable code (docs/execute.md)."""
    message: str
    """What happened."""
    details: dict[str, Any]
    """`waitedFor`: what the call was waiting for; `url`: address of the page; further ones depend on the code."""


class ExecutedStep(Answer):
    """A step that succeeded has no `error`; one that failed is the last."""

    ok: bool
    """Whether the step succeeded."""
    call: str
    """Name of the call."""
    value: Any = optional()
    """What the call returned, as JSON (docs/execute.md)."""
    truncated: bool = optional()
    """True where something of the value is missing, since it is too large."""
    binding: Binding = optional()
    """What the step bound."""
    artifact: Artifact = optional()
    """The file that the step made; of a failed one the picture of its page."""
    logs: list[LogLine] = optional()
    """What the page wrote to its console."""
    dry_run: bool = optional()
    """True for a step that was only checked."""
    error: StepError = optional()
    """Why the step failed."""
    duration_ms: float = Field(ge=0)
    """How long the step took."""

    @classmethod
    def of(cls, step: StepResult) -> ExecutedStep:
        result = step.result
        more: dict[str, Any] = {
            name: result[name] for name in ("value", "truncated", "binding", "logs", "error") if name in result
        }
        if "dryRun" in result:
            more["dry_run"] = result["dryRun"]
        if "error" in more:
            more["error"] = {**more["error"], "code": own_code(more["error"]["code"])}
        if step.file is not None:
            more["artifact"] = Artifact.of(step.file)
        return cls(ok=step.ok, call=result["call"], duration_ms=result["durationMs"], **more)


class ExecuteResult(Answer):
    """The steps that were carried out: all, or those up to the first that failed. An execution that takes long, or that
    prefers `async`, answers its `operation` instead."""

    example: ClassVar = {
        "mode": "fail-fast",
        "steps": [
            {
                "ok": True,
                "call": "page.goto",
                "value": {"$type": "response", "url": "https://example.com/", "status": 200, "ok": True},
                "durationMs": 212.4,
            },
            {
                "ok": True,
                "call": "page.locator",
                "binding": {"alias": "heading", "id": "8f14e45f-ceea-467f-9d8c-2b1d3c4e5f60", "type": "handle"},
                "durationMs": 0.4,
            },
            {"ok": True, "call": "locator.textContent", "value": "Example Domain", "durationMs": 5.9},
        ],
    }

    mode: Literal["fail-fast"] = optional()
    """As it was asked for."""
    steps: list[ExecutedStep] = optional()
    """One result for each step that was carried out."""
    operation: Operation = optional()
    """The operation to come back to."""

    @classmethod
    def of(cls, executed: Executed | Invocation) -> ExecuteResult:
        if isinstance(executed, Executed):
            return cls(mode=executed.mode, steps=[ExecutedStep.of(step) for step in executed.steps])
        if executed.is_live or not isinstance(executed.result, dict) or executed.status == "cancelled":
            return cls(operation=Operation.of(executed))
        return cls.model_validate(own_steps(executed.result))


@endpoints.post(
    "/v1/workspaces/{id}/execute",
    id="workspaces-execute",
    summary="Execute steps on a runtime",
    errors=(404, 409, 429, 503),
)
async def execute(call: Call, body: Execute) -> ExecuteResult | Response:
    """Carry out steps in their order, and stop at the first that fails: its `ok` is false, and the status is 200.

    With `prefer: "async"`, or if it takes long, the answer is an `operation`.
    """
    ref: RuntimeRef = ByAlias(body.runtime, call.path_id("id", "workspace"))
    if call.services.runtimes.live_here(call.scope, ref) is None:
        space_id, runtime_id = await call.services.runtimes.resolve(call.scope, ref)
        ref = ById(runtime_id, space_id)
        if (answer := await _elsewhere(call, ref)) is not None:
            return answer
    request = body.to_domain(is_async=responds_async(call.request.headers.getlist("prefer")))
    with narrowing_fields():
        return ExecuteResult.of(await call.services.executions.run(call.scope, ref, request))


async def _elsewhere(call: Call, ref: ById) -> Response | None:
    """The answer of the gateway that has the browser, where that is another one."""
    if is_forwarded(call.request) or call.services.runtimes.hosts(ref.runtime_id):
        return None
    host_url = await call.services.runtimes.elsewhere(call.scope, ref)
    if host_url is None:
        return None
    settings = call.services.settings
    seconds = settings.execute_answer_seconds + settings.execute_wait_seconds + _BESIDE_SECONDS
    try:
        return await forward(call.request, call.services, host_url, seconds=seconds)
    except NoResponse as error:
        raise host_unavailable("runtime", error) from error
