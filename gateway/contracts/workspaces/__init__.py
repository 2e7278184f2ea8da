"""The contract of workspaces: workspaces, and the updates of an organization."""

from gateway.contracts.workspaces import updates, workspaces
from gateway.contracts.workspaces.errors import ERRORS
from gateway.http.contract import Contract

# In the order in which they are documented.
_RESOURCES = (workspaces, updates)

CONTRACT = Contract(
    "workspaces",
    tuple(endpoint for resource in _RESOURCES for endpoint in resource.endpoints.listed),
    errors=ERRORS,
)
