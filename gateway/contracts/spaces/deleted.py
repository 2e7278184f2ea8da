"""The answer of every DELETE that removes a resource."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from gateway.http.models import Answer


class Deleted(Answer):
    id: UUID
    deleted: Literal[True]
