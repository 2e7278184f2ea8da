"""The answer of every DELETE that removes a resource."""

from __future__ import annotations

from typing import ClassVar, Literal
from uuid import UUID

from gateway.contracts.spaces.example_values import SPACE
from gateway.http.models import Answer


class Deleted(Answer):
    """Confirms that a resource was deleted."""

    example: ClassVar = {"id": SPACE, "deleted": True}

    id: UUID
    """Id of what was deleted."""
    deleted: Literal[True]
    """Always true."""
