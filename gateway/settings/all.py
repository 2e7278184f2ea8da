"""All options of the gateway, in groups."""

from __future__ import annotations

from gateway.settings.agents import AgentSettings
from gateway.settings.audit import AuditSettings
from gateway.settings.browsers import BrowserSettings
from gateway.settings.data import DataSettings
from gateway.settings.egress import EgressSettings
from gateway.settings.events import EventSettings
from gateway.settings.execution import ExecutionSettings
from gateway.settings.extensions import ExtensionSettings
from gateway.settings.files import FileSettings
from gateway.settings.invocations import InvocationSettings
from gateway.settings.leases import LeaseSettings
from gateway.settings.listening import ListeningSettings
from gateway.settings.operations import OperationSettings
from gateway.settings.process import ProcessSettings
from gateway.settings.profiles import ProfileSettings
from gateway.settings.providers import ProviderSettings
from gateway.settings.recordings import RecordingSettings
from gateway.settings.relay import RelaySettings
from gateway.settings.requests import RequestSettings
from gateway.settings.shares import ShareSettings
from gateway.settings.tools import ToolSettings
from gateway.settings.types import Group
from gateway.settings.vault import VaultSettings
from gateway.settings.viewers import ViewerSettings


class Settings(
    ListeningSettings,
    RequestSettings,
    LeaseSettings,
    ProviderSettings,
    RelaySettings,
    ViewerSettings,
    RecordingSettings,
    ExecutionSettings,
    AgentSettings,
    ProfileSettings,
    ExtensionSettings,
    EgressSettings,
    AuditSettings,
    OperationSettings,
    VaultSettings,
    ToolSettings,
    InvocationSettings,
    ProcessSettings,
):
    """Every option. Groups that others include (data, browsers, events, shares) are part of those."""


# By title, in the order of the documentation.
GROUPS: dict[str, type[Group]] = {
    "Listening": ListeningSettings,
    "Data": DataSettings,
    "Browsers and runtimes": BrowserSettings,
    "Egress": EgressSettings,
    "Leases": LeaseSettings,
    "Requests": RequestSettings,
    "Shares": ShareSettings,
    "AI providers": ProviderSettings,
    "Relay to models": RelaySettings,
    "The record of runs": EventSettings,
    "Operations": OperationSettings,
    "Vault": VaultSettings,
    "Tools": ToolSettings,
    "Recordings": RecordingSettings,
    "Viewers": ViewerSettings,
    "Executions": ExecutionSettings,
    "Agents": AgentSettings,
    "Invocations of agents": InvocationSettings,
    "Files": FileSettings,
    "Browser profiles": ProfileSettings,
    "Browser extensions": ExtensionSettings,
    "Audit log": AuditSettings,
    "Process": ProcessSettings,
}
