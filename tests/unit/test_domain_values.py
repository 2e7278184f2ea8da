"""Values of the domain as JSON: every shape comes back as it was, absent apart from empty."""

from __future__ import annotations

import pytest

from gateway.core.limits import Limits
from gateway.core.mounts import AiDefault, AiMount, Mounts, StorageMount, VaultMount
from gateway.core.runtime_config import Fingerprint, NetworkTraffic, Proxy, RuntimeConfig, Viewport

MOUNTS = [
    Mounts(),
    Mounts(storage=StorageMount("a space")),
    Mounts(vault=VaultMount()),
    Mounts(vault=VaultMount((), ("crm/",), allow_raw_reads=False)),
    Mounts(ai=AiMount()),
    Mounts(ai=AiMount(allow_connections=())),
    Mounts(ai=AiMount(("main", "spare"), {"browser_use": AiDefault("main", "a model")}, {})),
    Mounts(ai=AiMount(provider_defaults={"openai-compatible": AiDefault("main")})),
]

CONFIGS = [
    RuntimeConfig(),
    RuntimeConfig(fingerprint=Fingerprint()),
    RuntimeConfig(viewport=Viewport(800, 600), fingerprint=Fingerprint(locale="de")),
    RuntimeConfig(fingerprint=Fingerprint(Viewport(800, 600)), locale="de"),
    RuntimeConfig(network_traffic=NetworkTraffic()),
    RuntimeConfig(network_traffic=NetworkTraffic((), ("*.example.com",))),
    RuntimeConfig(proxy=Proxy("http", "proxy.example", 3128)),
    RuntimeConfig(proxy=Proxy("socks5", "proxy.example", 1080, "user", has_password=True, dns_resolution="proxy")),
    RuntimeConfig(
        browser="chromium",
        timezone="Europe/Berlin",
        user_agent="an agent",
        event_level="full",
        recording=False,
        idle_timeout_seconds=10,
        max_lifetime_seconds=60,
    ),
]


@pytest.mark.parametrize("mounts", MOUNTS)
def test_mounts_come_back_from_json(mounts: Mounts) -> None:
    assert Mounts.from_json(mounts.to_json()) == mounts


@pytest.mark.parametrize("config", CONFIGS)
def test_a_config_comes_back_from_json_and_its_event_level(config: RuntimeConfig) -> None:
    json = config.to_json()
    assert "event_level" not in json
    assert RuntimeConfig.from_json(json, config.event_level) == config


@pytest.mark.parametrize("limits", [Limits(), Limits(max_active_runs=0), Limits(1, 2, 3)])
def test_limits_come_back_from_json(limits: Limits) -> None:
    assert Limits.from_json(limits.to_json()) == limits


def test_absent_values_have_no_entry() -> None:
    assert Mounts(ai=AiMount(allow_connections=())).to_json() == {"ai": {"allow_connections": []}}
    assert RuntimeConfig(recording=False).to_json() == {"recording": False}
    assert Limits(max_spaces=0).to_json() == {"max_spaces": 0}


def test_a_viewport_and_a_locale_are_found_wherever_they_were_given() -> None:
    beside = RuntimeConfig(viewport=Viewport(800, 600), locale="de")
    inside = RuntimeConfig(fingerprint=Fingerprint(Viewport(800, 600), "de"))
    for config in (beside, inside):
        assert (config.any_viewport, config.any_locale) == (Viewport(800, 600), "de")
    assert (RuntimeConfig().any_viewport, RuntimeConfig().any_locale) == (None, None)


def test_connections_of_a_mount_are_named_by_field() -> None:
    defaults = {"stagehand": AiDefault("b", "a model")}
    ai = AiMount(("a",), defaults, {"openai": AiDefault("c")})
    assert list(ai.connections()) == [
        ("ai.allow_connections.0", "a"),
        ("ai.defaults.stagehand.connection", "b"),
        ("ai.provider_defaults.openai.connection", "c"),
    ]


def test_a_config_over_another_one_has_what_it_lacks() -> None:
    base = RuntimeConfig(locale="de-DE", timezone="Europe/Berlin", viewport=Viewport(800, 600), recording=True)
    assert RuntimeConfig().over(base) == base
    own = RuntimeConfig(fingerprint=Fingerprint(Viewport(1024, 768), "fr-FR"), recording=False)
    merged = own.over(base)
    assert (merged.any_viewport, merged.any_locale) == (Viewport(1024, 768), "fr-FR")
    assert (merged.timezone, merged.recording) == ("Europe/Berlin", False)
    merged = RuntimeConfig(locale="it-IT").over(RuntimeConfig(fingerprint=Fingerprint(Viewport(1, 2), "de-DE")))
    assert (merged.any_viewport, merged.any_locale) == (Viewport(1, 2), "it-IT")
    merged = RuntimeConfig(fingerprint=Fingerprint(locale="it-IT")).over(
        RuntimeConfig(fingerprint=Fingerprint(Viewport(1, 2), "de-DE"))
    )
    assert (merged.any_viewport, merged.any_locale) == (Viewport(1, 2), "it-IT")
