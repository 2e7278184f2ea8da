"""What steps came to: their results, and their files, which are kept as artifacts of the run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from gateway.core.errors import GatewayError
from gateway.core.ids import new_id
from gateway.core.observation import Observed
from gateway.domain.files.artifacts import Artifacts


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A file of a step, as an artifact of the run."""

    artifact_id: UUID
    file_id: UUID
    name: str
    content_type: str
    size_bytes: int


@dataclass(slots=True)
class StepResult:
    """`result` is what the process reported (docs/execute.md); `file` is what became of its bytes."""

    result: dict[str, Any]
    file: KeptFile | None = None

    @property
    def ok(self) -> bool:
        return self.result["ok"] is True

    def to_json(self) -> dict[str, Any]:
        """As the API answers it."""
        if self.file is None:
            return self.result
        file = self.file
        about = {"id": str(file.artifact_id), "fileId": str(file.file_id), "name": file.name}
        return {
            **self.result,
            "artifact": {**about, "contentType": file.content_type, "sizeBytes": file.size_bytes},
        }


@dataclass(frozen=True, slots=True)
class Executed:
    """The steps that were carried out: all, or those up to the first that failed."""

    steps: list[StepResult] = field(default_factory=list)
    mode: Literal["fail-fast"] = "fail-fast"

    @property
    def failed(self) -> StepResult | None:
        """The step that failed, if one did."""
        return next((step for step in self.steps if not step.ok), None)

    def to_json(self) -> dict[str, Any]:
        """As the API answers it."""
        return {"mode": self.mode, "steps": [step.to_json() for step in self.steps]}


async def keep(
    artifacts: Artifacts, observed: Observed, result: dict[str, Any], content: bytes, operation_id: UUID | None
) -> KeptFile | None:
    """Keep the bytes of a step, if it has any, as an artifact; a step whose file can't be kept has failed."""
    if not content:
        return None
    about = result.pop("file", {"kind": "screenshot", "name": "failure.png", "contentType": "image/png"})
    stem, _, extension = about["name"].rpartition(".")
    name = f"{stem}-{new_id().hex[-8:]}.{extension}"

    async def chunks() -> AsyncIterator[bytes]:
        yield content

    try:
        file, artifact = await artifacts.add(
            observed,
            chunks(),
            kind=about["kind"],
            name=name,
            path=f"{about['kind']}s/{name}",
            content_type=about["contentType"],
            operation_id=operation_id,
        )
    except GatewayError as error:
        if result["ok"]:
            result["ok"] = False
            result["error"] = {"code": error.code, "message": error.message, "details": error.details}
        return None
    return KeptFile(artifact.id, file.id, name, about["contentType"], len(content))
