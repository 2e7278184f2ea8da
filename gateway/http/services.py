"""The services of the domain that handlers call, put together in app.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from gateway.core.shares import OneEach, Turns
from gateway.crypto.hops import HopSigner
from gateway.domain.accounts.access import Access
from gateway.domain.accounts.rate_limits import RateLimits
from gateway.domain.agents.service import AgentInvocations
from gateway.domain.ai.connections import AiConnections
from gateway.domain.ai.usage import ModelUsage
from gateway.domain.audit import Audit
from gateway.domain.events.run_commands import Commands
from gateway.domain.events.service import Events
from gateway.domain.events.streams import EventStreams
from gateway.domain.execution.service import Executions
from gateway.domain.extensions.service import Extensions
from gateway.domain.files.artifacts import Artifacts
from gateway.domain.files.catalog import Catalog
from gateway.domain.files.service import Files
from gateway.domain.idempotency import Idempotency
from gateway.domain.invocations import Invocations
from gateway.domain.leases.service import Leases
from gateway.domain.profiles.service import Profiles
from gateway.domain.proxies import SavedProxies
from gateway.domain.readiness import Readiness
from gateway.domain.recordings import Recordings
from gateway.domain.runtimes.files import RuntimeFiles
from gateway.domain.runtimes.service import Runtimes
from gateway.domain.runtimes.state import RuntimeStates
from gateway.domain.spaces import Spaces
from gateway.domain.tools.calls import ToolCalls
from gateway.domain.tools.service import Tools
from gateway.domain.vault import Vault
from gateway.domain.viewers import Viewers
from gateway.http.peers import PeerClient
from gateway.settings import Settings
from gateway.telemetry.exposition import MetricsPage, own_metrics
from gateway.tunnel.large_commands import LargeCommands


class Handing(Protocol):
    """Hands connections to other workers of this gateway (cli/workers/handing.py)."""

    def to(self, host_url: str) -> Callable[[bytes, int], bool] | None:
        """What sends a connection to the worker that is reached there, if it is one."""


@dataclass(frozen=True, slots=True)
class Services:
    settings: Settings
    audit: Audit
    access: Access
    rate_limits: RateLimits
    ai_connections: AiConnections
    spaces: Spaces
    runtimes: Runtimes
    leases: Leases
    large_commands: LargeCommands
    peers: PeerClient
    # Discovery of each lease's browser, and the rewriting of what browsers answered.
    discoveries: OneEach
    rewriting: Turns
    hops: HopSigner
    events: Events
    event_streams: EventStreams
    commands: Commands
    files: Files
    catalog: Catalog
    profiles: Profiles
    extensions: Extensions
    artifacts: Artifacts
    runtime_files: RuntimeFiles
    vault: Vault
    proxies: SavedProxies
    tools: Tools
    tool_calls: ToolCalls
    model_usage: ModelUsage
    runtime_states: RuntimeStates
    viewers: Viewers
    recordings: Recordings
    executions: Executions
    agents: AgentInvocations
    idempotency: Idempotency
    invocations: Invocations
    readiness: Readiness
    metrics_page: MetricsPage = own_metrics
    # None for a gateway of one process.
    handing: Handing | None = None
