"""Artifacts of a runtime of a gateway of this process, as its runs make them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

from gateway.app import Gateway
from gateway.domain.files.artifacts import Artifact
from tests.support.api import Json


async def make_artifact(
    gateway: Gateway, runtime: Json, kind: str = "report", path: str = "report.txt", body: bytes = b"bytes"
) -> Artifact:
    """One of a live runtime; where the path is taken, it has another one."""
    observed = gateway.services.runtimes.observed(UUID(runtime["id"]))
    assert observed is not None

    async def chunks() -> AsyncIterator[bytes]:
        yield body

    name = path.rpartition("/")[2]
    _, made = await gateway.services.artifacts.add(
        observed, chunks(), kind=kind, name=name, path=path, content_type="text/plain"
    )
    return made
