"""The contract of workspaces."""

from gateway.contracts.shared import browser_extensions, proxies, vault
from gateway.contracts.workspaces import (
    ai_credentials,
    artifacts,
    browser_profiles,
    embeds,
    execute,
    operations,
    runtime_events,
    runtime_help,
    runtime_state,
    runtimes,
    storage,
    updates,
    workspaces,
)
from gateway.contracts.workspaces.errors import ERRORS
from gateway.http.contract import Contract

# In the order in which they are documented.
_RESOURCES = (
    workspaces,
    runtimes,
    execute,
    runtime_state,
    runtime_help,
    runtime_events,
    embeds,
    browser_profiles,
    browser_extensions,
    operations,
    storage,
    artifacts,
    vault,
    proxies,
    ai_credentials,
    updates,
)

CONTRACT = Contract(
    "workspaces",
    tuple(endpoint for resource in _RESOURCES for endpoint in resource.endpoints.listed),
    errors=ERRORS,
)
