"""The leases by which processes that carry out steps attach to their browsers: minted, and revoked with the process."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from uuid import UUID

from gateway.core.errors import NotFound, Unavailable
from gateway.core.observation import Observed
from gateway.core.runtime_ref import ById
from gateway.core.scope import Scope
from gateway.domain.leases.service import Leases


@dataclass(frozen=True, slots=True)
class _Lease:
    scope: Scope
    ref: ById
    lease_id: UUID
    token: str = field(repr=False)


class ProcessLeases:
    def __init__(self, leases: Leases, purpose: str) -> None:
        # URL at which processes of this machine reach this gateway; None until it is known.
        self.reached_at: str | None = None
        self._leases = leases
        self._purpose = purpose
        self._minted: dict[UUID, _Lease] = {}

    async def mint(self, observed: Observed) -> str:
        """The address of a new lease for the process of a runtime. Raises Unavailable."""
        if self.reached_at is None:
            raise Unavailable(
                "The process that carries out steps has no connection.", "execute.unavailable", retry_after=1
            )
        ref = ById(observed.runtime_id, observed.space_id)
        lease, token = await self._leases.mint_internal(observed.owner, ref, purpose=self._purpose)
        self._minted[observed.runtime_id] = _Lease(observed.owner, ref, lease.id, token)
        return f"{self.reached_at.replace('http', 'ws', 1)}/v1/connect/{token}"

    def of(self, runtime_id: UUID) -> UUID | None:
        """Id of the lease of a runtime's process, if it has one."""
        minted = self._minted.get(runtime_id)
        return None if minted is None else minted.lease_id

    async def end(self, runtime_id: UUID) -> None:
        """Revoke the lease of a process that has ended."""
        minted = self._minted.pop(runtime_id, None)
        if minted is None:
            return
        # The runtime may be gone by now; its leases have ended with it.
        with contextlib.suppress(NotFound, Unavailable):
            await self._leases.end_internal(minted.scope, minted.ref, minted.lease_id, minted.token)
