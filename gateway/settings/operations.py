"""Operations: what they keep, and waits for them."""

from __future__ import annotations

from pydantic import Field

from gateway.settings.types import Group


class OperationSettings(Group):
    """Operations: what they keep, and waits for them."""

    operation_result_bytes: int = Field(
        1024**2,
        ge=1024,
        le=64 * 1024**2,
        description="Maximum size of the result of an operation as JSON; of a larger one only the size is kept.",
    )
    operation_wait_seconds: int = Field(
        30, ge=1, le=3600, description="Seconds that a wait for an operation takes at most, where the request has none."
    )
    operation_max_wait_seconds: int = Field(
        120, ge=1, le=3600, description="Maximum of seconds that a request may wait for an operation."
    )
