"""The contract of workspaces: workspaces, browser profiles, operations, and the updates of an organization."""

from gateway.contracts.workspaces import browser_profiles, operations, updates, workspaces
from gateway.contracts.workspaces.errors import ERRORS
from gateway.http.contract import Contract

# In the order in which they are documented.
_RESOURCES = (workspaces, browser_profiles, operations, updates)

CONTRACT = Contract(
    "workspaces",
    tuple(endpoint for resource in _RESOURCES for endpoint in resource.endpoints.listed),
    errors=ERRORS,
)
