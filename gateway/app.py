"""Puts the parts together; the only place that knows all of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from uuid import UUID

import structlog
from starlette.routing import WebSocketRoute
from starlette.types import ASGIApp

from gateway.agents.processes import Agents
from gateway.attach import discovery, downloads
from gateway.attach import socket as connect
from gateway.automation.workers import Workers
from gateway.contracts import spaces, workspaces
from gateway.contracts.spaces import activity
from gateway.contracts.workspaces import storage
from gateway.core import extras
from gateway.core.closes import ViewerClose
from gateway.core.disk_space import ALWAYS_ROOM, DiskSpace
from gateway.core.errors import ConfigurationError
from gateway.core.shares import OneEach, Turns
from gateway.core.worker_board import Board
from gateway.crypto.download_tokens import DownloadTokens
from gateway.crypto.hops import HopSigner
from gateway.crypto.tokens import TokenIssuer
from gateway.crypto.viewer_tokens import ViewerTokens
from gateway.domain.accounts.access import Access
from gateway.domain.accounts.rate_limits import RateLimits
from gateway.domain.agents.runs import AgentRuns
from gateway.domain.agents.secrets import PageSecrets
from gateway.domain.agents.service import AgentInvocations, Workplace
from gateway.domain.agents.steps import AgentSteps
from gateway.domain.agents.tools import AgentToolsets
from gateway.domain.ai.choice import AiChoices
from gateway.domain.ai.connections import AiConnections
from gateway.domain.ai.providers import ProviderClient
from gateway.domain.ai.usage import ModelUsage
from gateway.domain.attachments import Attachments
from gateway.domain.audit import Audit
from gateway.domain.controllers import Controllers
from gateway.domain.disk_watch import DiskWatch
from gateway.domain.events.run_commands import Commands
from gateway.domain.events.service import Events
from gateway.domain.events.streams import EventStreams
from gateway.domain.execution.service import Executions, StepHelp
from gateway.domain.execution.step_secrets import StepSecrets
from gateway.domain.extensions.service import Extensions
from gateway.domain.files.artifacts import Artifacts
from gateway.domain.files.catalog import Catalog
from gateway.domain.files.service import Files
from gateway.domain.idempotency import Idempotency
from gateway.domain.invocations import InvocationLimits, Invocations
from gateway.domain.leases.service import Leases
from gateway.domain.profiles.service import Profiles
from gateway.domain.profiles.states import ProfileStates
from gateway.domain.proxies import SavedProxies
from gateway.domain.readiness import Readiness
from gateway.domain.recordings import Recordings
from gateway.domain.runtimes.downloads import DownloadStore
from gateway.domain.runtimes.files import RuntimeFiles
from gateway.domain.runtimes.service import SILENT_SECONDS, Host, Recording, Runtimes
from gateway.domain.runtimes.state import RuntimeStates
from gateway.domain.secrets import KeySource, SecretStore
from gateway.domain.spaces import Spaces
from gateway.domain.supervisor import Supervisor
from gateway.domain.tools.calls import ToolCalls
from gateway.domain.tools.service import Tools
from gateway.domain.tools.webhooks import Webhooks
from gateway.domain.vault import Vault, VaultLimits
from gateway.domain.viewers import Viewers
from gateway.egress.outbound import Outbound
from gateway.egress.proxy import EgressProxy
from gateway.http import docs, health, home
from gateway.http.contract import Contract
from gateway.http.dispatch import Contracts, Dispatcher
from gateway.http.middleware import RequestFrame
from gateway.http.peers import PeerClient
from gateway.http.services import Handing, Services
from gateway.launchers.base import Launcher
from gateway.observer.downloads import Downloads
from gateway.observer.egress_failures import EgressFailures
from gateway.observer.masking import Masking
from gateway.observer.observers import BrowserObservers, Watcher
from gateway.observer.pages import Pages
from gateway.observer.recorder import Recorder
from gateway.observer.screencast import ScreencastWatcher
from gateway.relay.relay import Relay
from gateway.schemas.checker import SchemaChecker
from gateway.settings import Settings
from gateway.store.database import Database
from gateway.store.objects import Objects
from gateway.telemetry.exposition import MetricsPage, own_metrics
from gateway.tunnel.large_commands import LargeCommands
from gateway.viewers import live_page, pages, recording_page

_log = structlog.get_logger("gateway.app")

# The rest of the grace is for the server and what it has begun to answer.
_DRAIN_SHARE = 0.8

# In the order in which they are documented.
CONTRACTS = (spaces.CONTRACT, workspaces.CONTRACT)


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway that is put together: what it serves, and what is started and stopped with it."""

    app: ASGIApp
    contracts: Contracts
    services: Services
    supervisor: Supervisor
    providers: ProviderClient
    outbound: Outbound
    relay: Relay
    audit: Audit
    observers: BrowserObservers
    disk_watch: DiskWatch
    id: UUID

    def reached_at(self, url: str) -> None:
        """Set the URL at which processes of this machine reach this gateway: those of executions and of agents."""
        self.services.executions.reached_at(url)
        self.services.agents.runs.reached_at = url

    async def drain(self) -> None:
        """Take nothing new, close sockets, end browsers, write it down; within the grace, or as far as it goes."""
        self.services.event_streams.close()
        self.services.agents.stop_soon()
        self.services.invocations.close()
        try:
            async with asyncio.timeout(self.services.settings.shutdown_grace_seconds * _DRAIN_SHARE):
                self.services.viewers.close_all(ViewerClose.DRAINING)
                await self.services.runtimes.drain()
                await self.services.profiles.saves.saved()
        except TimeoutError:
            _log.error("not all runtimes could be stopped within the grace")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start everything, supervised; at the end stop everything, and write that to the rows."""
        async with (
            self.disk_watch.running(),
            self.audit.running(),
            self.services.events.running(),
            self.services.files.running(),
            self.services.tool_calls.running(),
            self.services.model_usage.running(),
        ):
            await self.services.extensions.open()
            await self.services.profiles.saves.release_left()
            await self.services.agents.runs.agents.start()
            await self.supervisor.start()
            # Once the runs of an earlier process have ended.
            self.services.recordings.start()
            try:
                yield
            finally:
                await self.drain()
                await self.services.agents.close()
                await self.services.agents.runs.agents.stop()
                await self.relay.aclose()
                await self.services.executions.close()
                await self.observers.close()
                await self.services.recordings.close()
                await self.services.profiles.close()
                await self.services.extensions.close()
                await self.services.large_commands.close()
                await self.supervisor.stop()
                await self.providers.aclose()
                await self.services.peers.aclose()


def _watchers(settings: Settings, artifacts: Artifacts, recordings: Recordings) -> list[Watcher]:
    masking = Masking(settings.event_masked_parameters, settings.event_text_characters)
    return [
        Pages(masking, requests=settings.event_requests),
        EgressFailures(masking),
        Downloads(DownloadStore(artifacts), masking, settings.max_uploads),
        ScreencastWatcher(settings),
        Recorder(recordings, masking, settings),
    ]


async def build(
    settings: Settings,
    database: Database,
    keys: KeySource,
    launcher: Launcher,
    gateway_id: UUID,
    watchers: Sequence[Watcher] | None = None,
    contracts: Sequence[Contract] = CONTRACTS,
    board: Board | None = None,
    metrics_page: MetricsPage = own_metrics,
    handing: Handing | None = None,
) -> Gateway:
    """`watchers`: those of the browsers; None for all that there are. `board`, `metrics_page` and `handing` are those
    of the workers of one gateway, if there are several."""
    if settings.recording and not extras.RECORDINGS.installed:
        raise ConfigurationError(f"GATEWAY_RECORDING is on. {extras.RECORDINGS.missing} {extras.RECORDINGS.advice}")
    audit = Audit(
        database,
        gateway_id,
        reads=settings.audit_reads,
        kept=settings.audit_kept_events,
        refusals=settings.audit_refusals_per_second,
        hourly_refusals=settings.audit_refusals_per_hour,
    )
    secrets = SecretStore(keys, audit)
    async with database.begin() as connection:
        pepper = await secrets.pepper(connection)
    issuer = TokenIssuer(pepper)
    outbound = Outbound(EgressProxy(settings))
    providers = ProviderClient(
        settings.openai_base_url,
        settings.anthropic_base_url,
        settings.google_base_url,
        settings.provider_timeout_seconds,
        outbound,
    )
    attachments = Attachments()
    access = Access(database, issuer, audit, gateway_id)
    disk = DiskSpace(settings.data_dir.absolute(), settings.disk_reserve_bytes)
    events = Events(
        database,
        kept=settings.events_kept,
        level=settings.event_level,
        # Another database has a disk of its own.
        space=disk if settings.database_url is None else ALWAYS_ROOM,
    )
    event_streams = EventStreams(database, settings.max_event_streams, settings.shares, settings.events_days)
    objects = await asyncio.to_thread(Objects.of, settings)
    files_disk = DiskSpace(objects.directory, settings.disk_reserve_bytes) if objects.directory else ALWAYS_ROOM
    disks = {"data": disk}
    if objects.directory is not None and not objects.directory.is_relative_to(disk.directory):
        disks["files"] = files_disk
    files = Files(database, objects, settings, audit, events, files_disk)
    extensions = Extensions(database, files, objects, outbound, settings, audit, settings.uid_base, disk)
    profiles = Profiles(
        database,
        secrets,
        ProfileStates(objects, secrets, files_disk, settings.profile_restore_seconds),
        settings,
        audit,
        events,
        extensions,
        gateway_id=gateway_id,
        silent_seconds=SILENT_SECONDS,
    )
    run_artifacts = Artifacts(database, files, audit)
    commands = Commands(database, events)
    recordings = Recordings(database, files, events, settings, gateway_id, disk, board)
    observers = BrowserObservers(_watchers(settings, run_artifacts, recordings) if watchers is None else watchers)
    proxies = SavedProxies(
        database, secrets, outbound, audit, settings.proxy_test_url, settings.proxy_test_timeout_seconds
    )
    living = Runtimes(
        database,
        secrets,
        Host(gateway_id, launcher, attachments, board),
        settings,
        Recording(audit, events, commands, observers),
        profiles,
        proxies,
        extensions,
        space=disk,
    )
    controllers = Controllers(locked=settings.controller_lock)
    leases = Leases(database, issuer, attachments, living, settings, gateway_id, audit, events, commands)
    workers = Workers(settings, settings.own_dir.absolute() / "executions", settings.uid_base)
    vault = Vault(
        database,
        secrets,
        audit,
        VaultLimits(settings.vault_entry_bytes, settings.vault_max_entries, settings.vault_raw_reads),
    )
    schemas = SchemaChecker(settings.schema_check_seconds)
    tool_calls = ToolCalls(
        database,
        audit,
        Webhooks(outbound, vault, settings.tool_max_bytes),
        schemas,
        at_once=settings.tool_calls_at_once,
        record_bytes=settings.tool_record_bytes,
        days=settings.events_days,
    )
    invocations = Invocations(
        database,
        audit,
        events,
        gateway_id,
        InvocationLimits(
            settings.events_days,
            settings.operation_result_bytes,
            settings.operation_wait_seconds,
            settings.operation_max_wait_seconds,
        ),
        dead_seconds=SILENT_SECONDS,
        locked=settings.controller_lock,
    )
    relay = Relay(settings, outbound)
    choices = AiChoices(database, secrets, outbound, settings)
    runtime_files = RuntimeFiles(living, files, run_artifacts, settings, audit, commands, disk)
    runtime_states = RuntimeStates(living, observers, audit, settings.state_timeout_seconds)
    step_secrets = StepSecrets(vault, observers, commands)
    agents = Agents(settings, settings.own_dir.absolute() / "agents", settings.uid_base)
    model_usage = ModelUsage(database, audit, access, settings.usage_days)
    agent_runs = AgentRuns(agents, leases, relay, choices, model_usage, run_artifacts, living)
    agent_toolsets = AgentToolsets(
        database, tool_calls, files, runtime_files, PageSecrets(step_secrets, observers, runtime_states)
    )
    agent_invocations = AgentInvocations(
        database,
        Workplace(living, runtime_files, runtime_states, observers, controllers),
        invocations,
        choices,
        agent_runs,
        agent_toolsets,
        schemas,
        settings,
        audit,
        commands,
    )
    services = Services(
        settings=settings,
        audit=audit,
        access=access,
        rate_limits=RateLimits(settings, board=board),
        ai_connections=AiConnections(database, secrets, providers, outbound, audit),
        spaces=Spaces(database, settings.region, audit, events, living.end, files.move_all),
        runtimes=living,
        leases=leases,
        large_commands=LargeCommands(
            settings.max_held_bytes, settings.large_command_seconds, settings.max_command_values, settings.shares
        ),
        peers=PeerClient(settings.max_discovery_bytes),
        discoveries=OneEach(),
        rewriting=Turns(),
        hops=HopSigner(pepper),
        events=events,
        event_streams=event_streams,
        commands=commands,
        files=files,
        catalog=Catalog(database, files, DownloadTokens(pepper), settings, audit),
        profiles=profiles,
        extensions=extensions,
        artifacts=run_artifacts,
        runtime_files=runtime_files,
        vault=vault,
        runtime_states=runtime_states,
        proxies=proxies,
        tools=Tools(
            database,
            audit,
            outbound,
            schemas,
            max_tools=settings.space_max_tools,
            max_timeout_seconds=settings.tool_max_timeout_seconds,
        ),
        tool_calls=tool_calls,
        model_usage=model_usage,
        viewers=Viewers(
            database, ViewerTokens(pepper), living, settings, gateway_id, audit, commands, observers, controllers
        ),
        recordings=recordings,
        executions=Executions(
            living,
            leases,
            run_artifacts,
            workers,
            settings,
            audit,
            commands,
            invocations,
            vault,
            StepHelp(step_secrets, AgentSteps(agent_invocations)),
        ),
        agents=agent_invocations,
        idempotency=Idempotency(
            database,
            keys,
            audit,
            gateway_id,
            hours=settings.idempotency_hours,
            silent_seconds=SILENT_SECONDS,
            shares=settings.shares,
        ),
        invocations=invocations,
        readiness=Readiness(database, living, disk, sandbox=not settings.unsafe_no_sandbox, board=board),
        metrics_page=metrics_page,
        handing=handing,
    )
    supervisor = Supervisor(
        database,
        living,
        services.leases,
        launcher,
        access,
        event_streams,
        services.idempotency,
        services.invocations,
        gateway_id,
    )
    chosen = Contracts(contracts, settings.contract)
    return Gateway(
        create_app(services, chosen),
        chosen,
        services,
        supervisor,
        providers,
        outbound,
        relay,
        audit,
        observers,
        DiskWatch(disks),
        gateway_id,
    )


def create_app(services: Services, contracts: Contracts) -> ASGIApp:
    others = [
        WebSocketRoute("/v1/connect/{token}", connect.Connect()),
        WebSocketRoute("/v1/connect/{token}/{below:path}", connect.Connect()),
        *connect.PLAIN_ROUTES,
        *discovery.ROUTES,
        *downloads.ROUTES,
        *activity.VIEWER_ROUTES,
        *storage.LINK_ROUTES,
        *pages.ROUTES,
        *live_page.ROUTES,
        *recording_page.ROUTES,
        # None: a gateway that a test or a bench puts together, without a command that serves.
        *health.routes(with_metrics=services.settings.metrics in (None, "api")),
        *docs.routes(contracts),
        *home.routes(),
    ]
    return RequestFrame(Dispatcher(contracts, others), services)
