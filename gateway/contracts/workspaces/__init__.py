"""The contract of workspaces. So far: the updates of an organization."""

from gateway.contracts.workspaces import updates
from gateway.http.contract import Contract

CONTRACT = Contract("workspaces", tuple(updates.endpoints.listed))
