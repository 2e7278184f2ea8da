"""Network access of pages."""

from __future__ import annotations

from pydantic import Field, field_validator

from gateway.core.hosts import Entry
from gateway.settings.types import Group, HttpUrl, split


class EgressSettings(Group):
    """Network access of pages."""

    egress_allow: tuple[str, ...] = Field(
        (),
        description="Networks, addresses, names and `*.suffix`, each with or without `:port`, that pages may reach "
        "although they are not public. Metadata services and the gateway's own ports stay refused.",
    )
    egress_deny: tuple[str, ...] = Field(
        (),
        description="Networks, addresses, names and `*.suffix` that pages may not reach; overrides allowed ones.",
    )
    egress_timeout_seconds: float = Field(
        15.0, gt=0, le=300, description="Timeout of resolving a page's host and connecting to it, in seconds."
    )
    egress_lookups: int = Field(
        32, ge=4, le=1000, description="Names resolved concurrently for all pages; one runtime may use a quarter."
    )
    egress_max_connections: int = Field(
        512, ge=1, le=100_000, description="Connections that one runtime may have open through the egress proxy."
    )
    egress_max_head_bytes: int = Field(
        4_194_304,
        ge=1024,
        le=134_217_728,
        description="Maximum size of the head of a page's http request. A URL may have 2 MiB in Chromium; it does not "
        "limit headers. One runtime's connections may hold eight such heads.",
    )

    proxy_test_url: HttpUrl = Field(
        "https://api.ipify.org",
        description="Requested through a saved proxy to test it. It answers with the address of the client as text, "
        "and must be one that pages may reach.",
    )
    proxy_test_timeout_seconds: float = Field(
        15.0, gt=0, le=120, description="Timeout of a test of a saved proxy, in seconds."
    )

    @field_validator("egress_allow", "egress_deny")
    @classmethod
    def _egress_entries(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for entry in value:
            Entry.parse(entry)
        return value

    _split_egress = split("egress_allow", "egress_deny")
