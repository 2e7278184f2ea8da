"""The user agent and client hints of an ordinary Chromium, against what released versions sent."""

from __future__ import annotations

import pytest

from gateway.launchers.local import user_agent


@pytest.mark.parametrize(
    ("version", "brands"),
    [
        ("120.0.6099.109", [("Not_A Brand", "8"), ("Chromium", "120")]),
        ("131.0.6778.85", [("Chromium", "131"), ("Not_A Brand", "24")]),
        ("156.0.8078.108", [("Not:A-Brand", "8"), ("Chromium", "156")]),
    ],
)
def test_brands_are_those_of_the_version(version: str, brands: list[tuple[str, str]]) -> None:
    wanted = user_agent.override(version)
    hints = wanted["userAgentMetadata"]
    assert [(brand["brand"], brand["version"]) for brand in hints["brands"]] == brands
    full = [(name, version if name == "Chromium" else f"{shown}.0.0.0") for name, shown in brands]
    assert [(brand["brand"], brand["version"]) for brand in hints["fullVersionList"]] == full
    assert f" Chrome/{version.partition('.')[0]}.0.0.0 Safari/537.36" in wanted["userAgent"]
    assert "Headless" not in str(wanted)
