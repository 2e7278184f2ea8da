"""Mounts narrow downwards: workspace, runtime, one execution."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.core.errors import Forbidden
from gateway.core.mounts import Mounts, VaultMount, effective, narrowed

STORAGE = {"storage": {"space": "shared"}}
VAULT = {"vault": {"allow": ["crm/", "erp/"], "deny": ["crm/root"], "allow_raw_reads": True}}
AI = {
    "ai": {
        "allow_connections": ["a", "b"],
        "defaults": {"stagehand": {"connection": "a", "model": "m"}},
        "provider_defaults": {"openai": {"connection": "a"}},
    }
}
PROXIES = {"proxies": {"allow": ["berlin", "bern"]}}
FREE: dict[str, Any] = {"vault": {"allow_raw_reads": True}, "ai": {}}


def mounts(json: dict[str, Any]) -> Mounts:
    return Mounts.from_json(json)


@pytest.mark.parametrize(
    ("outer", "inner", "found"),
    [
        # Nothing is given, so all is inherited.
        ({}, {}, {}),
        ({**STORAGE, **VAULT, **AI}, {}, {**STORAGE, **VAULT, **AI}),
        (VAULT, {"vault": {}}, VAULT),
        (AI, {"ai": {}}, AI),
        # Storage is the same or none.
        (STORAGE, STORAGE, STORAGE),
        # Prefixes below allowed ones, the same ones too; without a list around them, any.
        (VAULT, {"vault": {"allow": ["crm/a", "erp/"]}}, {"vault": {**VAULT["vault"], "allow": ["crm/a", "erp/"]}}),
        (VAULT, {"vault": {"allow": []}}, {"vault": {**VAULT["vault"], "allow": []}}),
        (FREE, {"vault": {"allow": ["x"]}}, {"vault": {"allow": ["x"], "allow_raw_reads": True}, "ai": {}}),
        # Deny only grows.
        (VAULT, {"vault": {"deny": ["erp/x", "crm/root"]}},
         {"vault": {**VAULT["vault"], "deny": ["crm/root", "erp/x"]}}),
        (VAULT, {"vault": {"deny": []}}, VAULT),
        # Raw reads only go.
        (VAULT, {"vault": {"allow_raw_reads": True}}, VAULT),
        (VAULT, {"vault": {"allow_raw_reads": False}}, {"vault": {**VAULT["vault"], "allow_raw_reads": False}}),
        ({"vault": {}}, {"vault": {"allow_raw_reads": False}}, {"vault": {"allow_raw_reads": False}}),
        # A part of the connections; what is not among them is no default either.
        (AI, {"ai": {"allow_connections": ["b"]}},
         {"ai": {"allow_connections": ["b"], "defaults": {}, "provider_defaults": {}}}),
        (FREE, {"ai": {"allow_connections": ["x"], "provider_defaults": {"openai": {"connection": "x"}}}},
         {"vault": FREE["vault"],
          "ai": {"allow_connections": ["x"], "provider_defaults": {"openai": {"connection": "x"}}}}),
        # Saved proxies: every one without a mount, and a part of those that are allowed around it.
        ({}, PROXIES, PROXIES),
        ({"proxies": {}}, PROXIES, PROXIES),
        (PROXIES, {"proxies": {}}, PROXIES),
        (PROXIES, {"proxies": {"allow": ["berlin"]}}, {"proxies": {"allow": ["berlin"]}}),
        (PROXIES, {"proxies": {"allow": []}}, {"proxies": {"allow": []}}),
        # Defaults inside the allowed ones.
        (AI, {"ai": {"provider_defaults": {"google": {"connection": "b"}}}},
         {"ai": {**AI["ai"], "provider_defaults": {"openai": {"connection": "a"}, "google": {"connection": "b"}}}}),
        (AI, {"ai": {"defaults": {"stagehand": {"connection": "b"}}}},
         {"ai": {**AI["ai"], "defaults": {"stagehand": {"connection": "b"}}}}),
    ],
)  # fmt: skip
def test_what_may_be_used_within_narrower_mounts(
    outer: dict[str, Any], inner: dict[str, Any], found: dict[str, Any]
) -> None:
    assert narrowed(mounts(outer), mounts(inner)).to_json() == found
    assert effective(mounts(outer), mounts(inner)).to_json() == found


@pytest.mark.parametrize(
    ("outer", "inner", "fields", "left"),
    [
        ({}, STORAGE, {"storage.space": "shared"}, {}),
        (STORAGE, {"storage": {"space": "other"}}, {"storage.space": "other"}, STORAGE),
        ({}, {"vault": {}}, {"vault": None}, {}),
        ({}, {"ai": {"allow_connections": []}}, {"ai": None}, {}),
        (VAULT, {"vault": {"allow": ["crm/a", "crm", "hr/", ""]}},
         {"vault.allow.1": "crm", "vault.allow.2": "hr/", "vault.allow.3": ""},
         {"vault": {**VAULT["vault"], "allow": ["crm/a"]}}),
        # A prefix is a key or what is below it: `production` is not below `prod`.
        ({"vault": {"allow": ["prod"]}}, {"vault": {"allow": ["prod", "prod/", "prod/a", "production"]}},
         {"vault.allow.3": "production"}, {"vault": {"allow": ["prod", "prod/", "prod/a"]}}),
        ({"vault": {"allow": []}}, {"vault": {"allow": ["a"]}}, {"vault.allow.0": "a"}, {"vault": {"allow": []}}),
        ({"vault": {}}, {"vault": {"allow_raw_reads": True}}, {"vault.allow_raw_reads": True},
         {"vault": {"allow_raw_reads": False}}),
        ({"vault": {"allow_raw_reads": False}}, {"vault": {"allow_raw_reads": True}}, {"vault.allow_raw_reads": True},
         {"vault": {"allow_raw_reads": False}}),
        (AI, {"ai": {"allow_connections": ["b", "c"]}}, {"ai.allow_connections.1": "c"},
         {"ai": {"allow_connections": ["b"], "defaults": {}, "provider_defaults": {}}}),
        (AI, {"ai": {"defaults": {"browser_use": {"connection": "c"}}}}, {"ai.defaults.browser_use.connection": "c"},
         AI),
        # One that the same mounts do not allow.
        (AI, {"ai": {"allow_connections": ["b"], "provider_defaults": {"openai": {"connection": "a"}}}},
         {"ai.provider_defaults.openai.connection": "a"},
         {"ai": {"allow_connections": ["b"], "defaults": {}, "provider_defaults": {}}}),
        (PROXIES, {"proxies": {"allow": ["bern", "paris"]}}, {"proxies.allow.1": "paris"},
         {"proxies": {"allow": ["bern"]}}),
        ({"proxies": {"allow": []}}, {"proxies": {"allow": ["bern"]}}, {"proxies.allow.0": "bern"},
         {"proxies": {"allow": []}}),
        # All of them at once.
        (VAULT, {**STORAGE, "ai": {}, "vault": {"allow": ["x"]}},
         {"vault.allow.0": "x", "ai": None, "storage.space": "shared"}, {"vault": {**VAULT["vault"], "allow": []}}),
    ],
)  # fmt: skip
def test_what_would_allow_more_is_refused_by_its_name(
    outer: dict[str, Any], inner: dict[str, Any], fields: dict[str, Any], left: dict[str, Any]
) -> None:
    with pytest.raises(Forbidden) as refusal:
        narrowed(mounts(outer), mounts(inner))
    assert refusal.value.code == "mounts.widened"
    assert {each["field"]: each.get("value") for each in refusal.value.details["errors"]} == fields
    assert {each["code"] for each in refusal.value.details["errors"]} == {"mounts.widened"}
    assert all(field in refusal.value.message for field in fields)
    # Where the outer mounts were wider once.
    assert effective(mounts(outer), mounts(inner)).to_json() == left


def test_mounts_that_narrow_nothing_are_all_of_them() -> None:
    assert effective(mounts(VAULT), None) == mounts(VAULT)


def test_a_saved_proxy_is_allowed_by_its_id_or_its_name() -> None:
    assert [mounts(PROXIES).allows_proxy(*names) for names in (("id", "bern"), ("bern", "x"), ("id", "x"))] == [
        True,
        True,
        False,
    ]
    assert mounts({}).allows_proxy("id", "x")
    assert mounts({"proxies": {}}).allows_proxy("id", "x")
    assert not mounts({"proxies": {"allow": []}}).allows_proxy("id", "x")


@pytest.mark.parametrize(
    ("vault", "key", "allowed"),
    [
        (VaultMount(), "any", True),
        (VaultMount(()), "any", False),
        (VaultMount(("crm/",)), "crm/a", True),
        (VaultMount(("crm/",)), "crm", False),
        (VaultMount(("crm",)), "crm", True),
        (VaultMount(("crm",)), "crm/a", True),
        (VaultMount(("crm",)), "crma", False),
        (VaultMount(("crm/",), ("crm/root",)), "crm/root/a", False),
        (VaultMount(None, ("crm/",)), "crm/a", False),
        (VaultMount(None, ("crm/",)), "erp/a", True),
    ],
)
def test_deny_beats_allow(vault: VaultMount, key: str, allowed: bool) -> None:
    assert vault.allows(key) is allowed
