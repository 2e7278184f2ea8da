"""The contract of spaces: spaces, their runtimes, connections, runs, files and AI connections."""

from gateway.contracts.shared import browser_extensions, proxies, vault
from gateway.contracts.spaces import (
    activity,
    agent_context,
    ai_connections,
    artifacts,
    connections,
    events,
    invocations,
    live,
    recordings,
    run_commands,
    runs,
    runtime_files,
    runtimes,
    spaces,
    storage,
    subaccounts,
    tool_calls,
    tools,
    toolsets,
    usage,
)
from gateway.http.contract import Contract

# In the order in which they are documented.
_RESOURCES = (
    ai_connections,
    spaces,
    agent_context,
    storage,
    runtimes,
    connections,
    runtime_files,
    runs,
    events,
    run_commands,
    activity,
    live,
    recordings,
    artifacts,
    invocations,
    tools,
    toolsets,
    tool_calls,
    vault,
    proxies,
    browser_extensions,
    subaccounts,
    usage,
)

CONTRACT = Contract(
    "spaces", tuple(endpoint for resource in _RESOURCES for endpoint in resource.endpoints.listed), idempotent=True
)
