"""Records actions of commands in the audit log, as done by the operator."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

from gateway.core.scope import Scope
from gateway.domain import audit
from gateway.domain.audit import Audit
from gateway.store.database import Database


@contextlib.asynccontextmanager
async def audited(database: Database, organization: Scope | None) -> AsyncIterator[Audit]:
    """Records the actions in the block as the operator's; they are in the audit log when it ends."""
    log = Audit(database)
    with audit.acting(replace(audit.OPERATOR, scope=organization)):
        try:
            yield log
        finally:
            await log.write()
