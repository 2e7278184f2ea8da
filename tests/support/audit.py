"""What is in the audit log."""

from __future__ import annotations

import json

from gateway.domain import audit_reading
from gateway.domain.audit import Audit
from gateway.store.database import Database
from tests.support.api import Json


async def log(database: Database, audit: Audit | None = None, page_size: int = 1000) -> list[Json]:
    """All that is in the log; of `audit` also what waits."""
    if audit is not None:
        await audit.write()
    return [json.loads(line) async for lines in audit_reading.export(database, page_size=page_size) for line in lines]


def only(events: list[Json], action: str) -> Json:
    (found,) = [event for event in events if event["action"] == action]
    return found
