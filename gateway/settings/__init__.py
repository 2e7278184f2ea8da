"""Every option of the gateway, once: name, type, default and one sentence of help, in one module a group.

An option is an environment variable `GATEWAY_<NAME>` and a flag `--<name>`. Options that hold a secret have no
flag, because every user of the machine can read a command line. `make docs` writes docs/settings.md from here.
"""

from gateway.settings.agents import AgentSettings
from gateway.settings.all import GROUPS, Settings
from gateway.settings.audit import AuditSettings
from gateway.settings.browsers import BrowserSettings
from gateway.settings.data import DataSettings
from gateway.settings.egress import EgressSettings
from gateway.settings.events import EventSettings
from gateway.settings.execution import ExecutionSettings
from gateway.settings.extensions import ExtensionSettings
from gateway.settings.files import FileSettings
from gateway.settings.leases import LeaseSettings
from gateway.settings.listening import ListeningSettings
from gateway.settings.load import (
    PREFIX,
    flag,
    forget_secrets,
    is_secret,
    load,
    options,
    own_options,
    passwords_in,
    secrets_of,
    variable,
)
from gateway.settings.process import ProcessSettings
from gateway.settings.profiles import ProfileSettings
from gateway.settings.providers import ProviderSettings
from gateway.settings.recordings import RecordingSettings
from gateway.settings.relay import RelaySettings
from gateway.settings.requests import RequestSettings
from gateway.settings.shares import ShareSettings
from gateway.settings.viewers import ViewerSettings

__all__ = [
    "GROUPS",
    "PREFIX",
    "AgentSettings",
    "AuditSettings",
    "BrowserSettings",
    "DataSettings",
    "EgressSettings",
    "EventSettings",
    "ExecutionSettings",
    "ExtensionSettings",
    "FileSettings",
    "LeaseSettings",
    "ListeningSettings",
    "ProcessSettings",
    "ProfileSettings",
    "ProviderSettings",
    "RecordingSettings",
    "RelaySettings",
    "RequestSettings",
    "Settings",
    "ShareSettings",
    "ViewerSettings",
    "flag",
    "forget_secrets",
    "is_secret",
    "load",
    "options",
    "own_options",
    "passwords_in",
    "secrets_of",
    "variable",
]
