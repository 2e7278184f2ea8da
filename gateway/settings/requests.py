"""Contract, limits and rates of API requests."""

from __future__ import annotations

from pydantic import Field

from gateway.settings.shares import ShareSettings
from gateway.settings.types import Origin, split


class RequestSettings(ShareSettings):
    """Contract, limits and rates of API requests."""

    contract: str = Field(
        "spaces", description="Contract that serves a request that selects none, on a path that several contracts have."
    )
    cors_origins: tuple[Origin, ...] = Field(
        (), description="Origins (`scheme://host[:port]`) of web pages that may call the API; empty means none."
    )
    max_connections: int = Field(
        10_000,
        ge=1,
        le=1_000_000,
        description="Connections of HTTP clients that may be open at once, but at most for half of the files that the "
        "process may have open. Websockets have limits of their own.",
    )
    request_header_seconds: float = Field(10.0, gt=0, le=600, description="Timeout of a request's head, in seconds.")
    max_header_bytes: int = Field(
        64 * 1024, ge=1024, le=1024**2, description="Maximum size of a request's head: request line and headers."
    )
    request_body_idle_seconds: float = Field(
        30.0, gt=0, le=3600, description="Timeout of a request's body without a further byte, in seconds."
    )
    response_idle_seconds: float = Field(
        60.0,
        gt=0,
        le=3600,
        description="Timeout of a client that does not read its answer, after which it is disconnected, in seconds.",
    )
    min_bytes_per_second: int = Field(
        1024,
        ge=0,
        le=1024**3,
        description="Least rate of a request's body and of reading an answer, over each period of their timeouts; 0 "
        "means that any progress is enough.",
    )
    max_body_bytes: int = Field(
        1024 * 1024, ge=1024, le=1024**3, description="Maximum size of the body of an API request."
    )
    max_body_values: int = Field(
        10_000,
        ge=100,
        le=10_000_000,
        description="Maximum number of values (members, items, objects and lists) in the JSON of an API request, "
        "since the check of each takes time.",
    )
    rate_limit_per_second: float = Field(
        200.0,
        ge=0,
        le=1_000_000,
        description="Sustained rate of requests per second of an API key; 0 means no limit.",
    )
    rate_limit_burst: int = Field(
        400, ge=1, le=1_000_000, description="Burst of requests of an API key above the sustained rate."
    )
    auth_failures_per_minute: int = Field(
        120,
        ge=0,
        le=1_000_000,
        description="Requests without a valid API key or lease that an address may send in a minute; above that all of "
        "its requests are refused for a while. 0 means no limit.",
    )
    address_requests_per_second: float = Field(
        100.0,
        ge=0,
        le=1_000_000,
        description="Sustained rate of requests per second without any credential from an address, and ten times as "
        "many at once after a rest; 0 means no limit.",
    )
    rate_limit_callers: int = Field(
        10000, ge=1, le=10_000_000, description="API keys, and as many addresses, whose rates are tracked at once."
    )
    idempotency_hours: float = Field(
        24.0,
        gt=0,
        le=8760,
        description="Hours for which the answer to a request with an `Idempotency-Key` is kept, to be repeated.",
    )

    _split_requests = split("cors_origins")
