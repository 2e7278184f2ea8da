"""A contract: one generation of the API, with its endpoints, bodies and errors. Several share their paths."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.http.bodies import STRICT, BodyRules
from gateway.http.endpoints import Endpoint, Resource, resources
from gateway.http.errors import FLAT, ErrorShape

__all__ = ["BodyRules", "Claim", "Contract"]


@dataclass(frozen=True, slots=True)
class Contract:
    """`versions` are the values of BCTRL-Version that claim it. Raises DuplicateEndpoint.

    `idempotent`: writes take an Idempotency-Key. `title` and `version` are those of the OpenAPI document.
    """

    name: str
    endpoints: tuple[Endpoint, ...]
    title: str = "bctrl API"
    version: str = "1.0.0"
    versions: frozenset[str] = frozenset()
    errors: ErrorShape = FLAT
    bodies: BodyRules = STRICT
    idempotent: bool = False
    resources: tuple[Resource, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "resources", tuple(resources(self.endpoints)))


@dataclass(frozen=True, slots=True)
class Claim:
    """Which contract a request asks for. An explicit claim, by a header, never falls through to another contract."""

    contract: Contract
    explicit: bool
