"""What the API asks: the services of the domain, put together in app.py."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.api.inside import Inside
from gateway.domain.access import Access
from gateway.domain.ai_connections import AiConnections
from gateway.domain.artifacts import Artifacts
from gateway.domain.audit import Audit
from gateway.domain.commands import Commands
from gateway.domain.event_streams import EventStreams
from gateway.domain.events import Events
from gateway.domain.files import Files
from gateway.domain.leases import Leases
from gateway.domain.rate_limits import RateLimits
from gateway.domain.recordings import Recordings
from gateway.domain.runtime_files import RuntimeFiles
from gateway.domain.runtimes import Runtimes
from gateway.domain.spaces import Spaces
from gateway.domain.viewers import Viewers
from gateway.observer.observers import BrowserObservers
from gateway.settings import Settings
from gateway.store.database import Database
from gateway.tunnel.large import LargeCommands


@dataclass(frozen=True, slots=True)
class Services:
    settings: Settings
    database: Database
    audit: Audit
    access: Access
    rate_limits: RateLimits
    ai_connections: AiConnections
    spaces: Spaces
    runtimes: Runtimes
    leases: Leases
    large_commands: LargeCommands
    inside: Inside
    events: Events
    event_streams: EventStreams
    commands: Commands
    observers: BrowserObservers
    files: Files
    artifacts: Artifacts
    runtime_files: RuntimeFiles
    viewers: Viewers
    recordings: Recordings
