"""Which contract answers a request, since several have endpoints on the same paths. In this order:

1. `BCTRL-Version`, whose values each belong to one contract
2. `Gateway-Contract`, a contract's name
3. a known client's User-Agent (clients.py), where its contract has the path
4. the only contract that has the path
5. the default one, `GATEWAY_CONTRACT`

The two headers are explicit: what their contract does not have is not found, even if another contract has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Router
from starlette.types import Receive, Scope, Send

from gateway.core.errors import ConfigurationError, GatewayError, RequestInvalid
from gateway.domain.audit import Action
from gateway.http.clients import contract_of_client
from gateway.http.contract import Claim, Contract
from gateway.http.endpoints import Endpoint, Resource
from gateway.http.errors import ErrorShape
from gateway.http.paths import PathTree, shape
from gateway.http.services import Services

# Names a contract; gateways send it to each other with what they forward.
CONTRACT_HEADER = "gateway-contract"
_VERSION = b"bctrl-version"
_NAME = CONTRACT_HEADER.encode()
_AGENT = b"user-agent"
_SHOWN = 100

# The audit log has every 403, and hosts that are not trusted. What a lease does, and refused keys, are noted anyway.
_NOTED_TOO = frozenset(("request.host_untrusted",))
_NOTED_ELSEWHERE = frozenset(("target.address_refused", "organization.suspended"))

_VARY = (b"vary", b"BCTRL-Version, Gateway-Contract, User-Agent")

Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Choice:
    """The contract that answers a request, and its endpoints of the path, if it has the path.

    `headers` are added to the answer. `refusal` is what is wrong with the headers that name a contract.
    """

    contract: Contract
    resource: Resource | None = None
    parameters: dict[str, str] = field(default_factory=dict)
    headers: tuple[tuple[bytes, bytes], ...] = ()
    refusal: GatewayError | None = None


class Contracts:
    """The contracts that are served. Raises ConfigurationError for a default that is not among them."""

    def __init__(self, served: Sequence[Contract], default: str) -> None:
        self.served = tuple(served)
        self._by_name = {contract.name: contract for contract in served}
        self._by_version = {version: contract for contract in served for version in contract.versions}
        if default not in self._by_name:
            names = ", ".join(self._by_name)
            raise ConfigurationError(f"GATEWAY_CONTRACT is {default!r}; the contracts that are served are {names}.")
        self.default = self._by_name[default]
        self._trees = {contract.name: _tree(contract) for contract in served}

    def choose(self, path: str, headers: Headers) -> Choice:
        """The contract for a request to `path`."""
        found = {name: match for name, tree in self._trees.items() if (match := tree.match(path)) is not None}
        refusal = None
        try:
            contract = self._chosen(self._claim(headers), list(found))
        except GatewayError as error:
            contract, refusal = self._chosen(None, list(found)), error
        resource, parameters = found.get(contract.name, (None, {}))
        shared = (_VARY, (b"x-gateway-contract", contract.name.encode())) if len(found) > 1 else ()
        return Choice(contract, resource, parameters, shared, refusal)

    def errors_of(self, headers: Headers) -> ErrorShape:
        """The shape of an error for a request of which no more than the headers is known."""
        return self.choose("", headers).contract.errors

    def unclaimed(self) -> list[tuple[Contract, list[Endpoint]]]:
        """The endpoints that answer where no contract is claimed: the default's, and those on paths of one contract."""
        first = [self.default, *(contract for contract in self.served if contract is not self.default)]
        return [(each, [endpoint for endpoint in each.endpoints if self._is_first(each, endpoint)]) for each in first]

    def _is_first(self, contract: Contract, endpoint: Endpoint) -> bool:
        path = shape(endpoint.path)
        others = (tree for name, tree in self._trees.items() if name != contract.name)
        return contract is self.default or all(tree.match(path) is None for tree in others)

    def _claim(self, headers: Headers) -> Claim | None:
        """Raises RequestInvalid for a version or name that is not served."""
        version = name = agent = None
        for header, value in headers:
            if header == _VERSION:
                version = value.decode("latin-1").strip()
            elif header == _NAME:
                name = value.decode("latin-1").strip()
            elif header == _AGENT:
                agent = value.decode("latin-1")
        if version is not None:
            if version not in self._by_version:
                raise _not_served("BCTRL-Version", version, "request.version_unsupported", sorted(self._by_version))
            return Claim(self._by_version[version], explicit=True)
        if name is not None:
            if name not in self._by_name:
                raise _not_served("Gateway-Contract", name, "request.contract_unsupported", list(self._by_name))
            return Claim(self._by_name[name], explicit=True)
        spoken = None if agent is None else contract_of_client(agent)
        return Claim(self._by_name[spoken], explicit=False) if spoken in self._by_name else None

    def _chosen(self, claim: Claim | None, having: list[str]) -> Contract:
        """The contract, of those whose names are in `having` where the claim does not say it."""
        if claim is not None and (claim.explicit or not having or claim.contract.name in having):
            return claim.contract
        return self._by_name[having[0]] if len(having) == 1 else self.default


class Dispatcher:
    """The ASGI application of all contracts; `others` are the routes of no contract, such as probes and websockets."""

    def __init__(self, contracts: Contracts, others: Sequence[BaseRoute] = ()) -> None:
        self.contracts = contracts
        self._others = Router(others, redirect_slashes=False, default=self._unmatched)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the contract that was chosen (`scope["state"]["choice"]`). Raises GatewayError, HTTPException."""
        choice: Choice = scope["state"]["choice"]
        resource = choice.resource
        if scope["type"] != "http" or resource is None:
            await self._others(scope, receive, send)
            return
        scope["route"] = resource
        scope["path_params"] = choice.parameters
        if choice.refusal is not None:
            raise choice.refusal
        endpoint = resource.methods.get("GET" if scope["method"] == "HEAD" else scope["method"])
        if endpoint is None:
            raise HTTPException(405, headers={"Allow": ", ".join(resource.allowed)})
        response = await endpoint.respond(Request(scope, receive, send), choice.contract)
        await response(scope, receive, send)

    async def _unmatched(self, scope: Scope, receive: Receive, send: Send) -> None:
        choice: Choice = scope["state"]["choice"]
        if scope["type"] == "http" and choice.refusal is not None:
            raise choice.refusal
        await self._others.not_found(scope, receive, send)


def _tree(contract: Contract) -> PathTree[Resource]:
    tree = PathTree[Resource]()
    for resource in contract.resources:
        tree.add(resource.path, resource)
    return tree


def _not_served(header: str, given: str, code: str, served: list[str]) -> RequestInvalid:
    shown = given[:_SHOWN]
    instead = f"served: {', '.join(served)}" if served else "none is; leave the header out"
    return RequestInvalid(
        f"The {header} {shown!r} is not served; {instead}.", code, details={"given": shown, "served": served}
    )


def error_response(error: GatewayError, scope: Scope) -> Response:
    """The error as the request's contract writes it. What was forbidden is in the audit log."""
    state = scope["state"]
    choice: Choice = state["choice"]
    if (error.status == 403 and error.code not in _NOTED_ELSEWHERE) or error.code in _NOTED_TOO:
        services: Services = scope["app"].state.services
        services.audit.refused(Action.REQUEST_REFUSED, error)
    return choice.contract.errors.response(error, state["request_id"])
