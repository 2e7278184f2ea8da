"""The answer of every DELETE that removes a resource."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from gateway.http.models import Answer


class Deleted(Answer):
    """Confirms that a resource was deleted."""

    id: UUID
    """Id of what was deleted."""
    deleted: Literal[True]
    """Always true."""
