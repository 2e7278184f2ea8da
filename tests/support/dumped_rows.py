"""What the dumps of released schemas contain: a few rows in every table, as gateways of those releases wrote them."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from gateway.core.sealed import SecretOwner
from gateway.crypto.keyring import KeyRing
from gateway.crypto.tokens import TokenIssuer

# These open nothing but the dumps.
MASTER_KEYS = "dumps:ZHVtcHMgb2YgcmVsZWFzZWQgc2NoZW1hcyBpbiB0ZXM="
PEPPER = b"the pepper of dumps of schemas.."
API_KEY = "bctrl_abcdefghijkl_" + "a-key-of-the-organization-".ljust(43, "0")
SUBACCOUNT_KEY = "bctrl_mnopqrstuvwx_" + "a-key-of-the-subaccount-".ljust(43, "0")
PROVIDER_KEY = "sk-ant-a-key-of-a-provider"


def _id(number: int) -> UUID:
    return UUID(f"01900000-0000-7000-8000-{number:012}")


ORGANIZATION, SUBACCOUNT, ARCHIVED = _id(1), _id(2), _id(3)
AI_CONNECTION, SPACE, THEIR_SPACE, GATEWAY = _id(7), _id(10), _id(11), _id(12)
STOPPED, FAILED, STOPPED_RUN, FAILED_RUN = _id(20), _id(21), _id(30), _id(31)
LEASE, SOCKET, FILE, ARTIFACT, COMMAND = _id(40), _id(41), _id(50), _id(52), _id(60)

MOUNTS: dict[str, Any] = {
    "ai": {"allowConnections": ["main", str(AI_CONNECTION)], "defaults": {"stagehand": {"connection": "main"}}},
    "vault": {"allow": ["crm/"], "allowRawReads": False},
    "storage": {"space": str(SPACE)},
}
CONFIG: dict[str, Any] = {
    "browser": "chromium",
    "fingerprint": {"viewport": {"width": 1280, "height": 720}, "locale": "de-DE"},
    "timezone": "Europe/Berlin",
    "userAgent": "an agent",
    "proxy": {
        "protocol": "http",
        "host": "proxy.example",
        "port": 3128,
        "username": "user",
        "hasPassword": True,
        "dnsResolution": "local",
    },
    "networkTraffic": {"urlAllowlist": ["*.example.com"]},
    "idleTimeoutSeconds": 900,
    "maxLifetimeSeconds": 3600,
}
RECORDED_CONFIG: dict[str, Any] = {"events": "full", "recording": True, "viewport": {"width": 800, "height": 600}}
LIMITS: dict[str, Any] = {"maxActiveRuns": 2, "maxSpaces": 3, "monthlyCreditLimitMicroUsd": 5_000_000}
METADATA: dict[str, Any] = {"team": "é", "nested": {"a": [1, None, True]}}

CREATED = datetime(2026, 10, 1, 8, 0, 0, 123456, UTC)
ENDED = datetime(2026, 10, 1, 9, 0, 0, 654321, UTC)
# After any time at which a test runs: what is older than retention would be removed.
FUTURE = datetime(2099, 1, 1, tzinfo=UTC)

_OWN = {"organization_id": ORGANIZATION, "subaccount_id": None, "created_at": CREATED}
_THEIRS = {**_OWN, "subaccount_id": SUBACCOUNT}
_UPDATED = {"updated_at": CREATED}
_STOP = {"status": "stopped", "end_code": "runtime.stopped", "end_message": "It was stopped by a request."}
_CRASH = {"status": "failed", "end_code": "browser.crashed", "end_message": "The browser ended by itself."}
_RUNTIME = {
    "gateway_id": GATEWAY,
    "region": "local",
    "desired": "stopped",
    "browser_name": "chromium",
    "browser_version": "151.0.1.2",
    "idle_timeout_seconds": 900,
    "max_lifetime_seconds": 3600,
    "last_active_at": ENDED,
    "ended_at": ENDED,
    **_UPDATED,
}
_RUN = {
    "started_at": CREATED,
    "finished_at": ENDED,
    "egress_bytes_sent@0003": 12,
    "egress_bytes_received@0003": 345,
    "egress_refused@0003": 1,
}
_EVENT = {"stream_id": STOPPED_RUN, "category": "runtime", "in_activity": True, "time": CREATED}

_ISSUER = TokenIssuer(PEPPER)


def rows(revision: str) -> list[tuple[str, dict[str, Any]]]:
    """Tables and the columns of their rows at this revision, in an order that foreign keys allow. A column that came
    later than its table is named `column@revision` here."""
    found = []
    for since, table, columns in _ROWS:
        if since <= revision:
            named = ((*name.partition("@"), value) for name, value in columns.items())
            found.append((table, {name: value for name, _, added, value in named if not added or added <= revision}))
    return found


def _secret(owner: SecretOwner, secret: bytes) -> tuple[str, str, dict[str, Any]]:
    sealed = KeyRing.parse(MASTER_KEYS).seal(secret, owner)
    values = {
        "id": owner.row_id,
        "organization_id": owner.organization_id,
        "subaccount_id": owner.subaccount_id,
        "purpose": owner.purpose,
        "master_key_id": sealed.master_key_id,
        "wrapped_key": sealed.wrapped_key,
        "ciphertext": sealed.ciphertext,
        "created_at": CREATED,
        **_UPDATED,
    }
    return ("0001", "secrets", values)


def _audit_events(count: int) -> list[tuple[str, str, dict[str, Any]]]:
    """Events of the audit log as release 0.1 hashed them."""
    previous = bytes(32)
    found = []
    for sequence in range(1, count + 1):
        entry = {
            "sequence": sequence,
            "id": str(_id(100 + sequence)),
            "time": "2026-10-01T08:00:00.123456Z",
            "organizationId": str(ORGANIZATION),
            "subaccountId": None,
            "actor": "operator",
            "action": "api_key.created",
            "objectKind": "api_key",
            "objectId": str(_id(4)),
            "outcome": "ok",
            "address": None,
            "requestId": None,
            "gatewayId": str(GATEWAY),
            "details": {"prefix": "bctrl_é"},
            "previousHash": previous.hex(),
        }
        plain = json.dumps(entry, sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(plain.encode()).digest()
        columns = {
            "sequence": sequence,
            "id": UUID(str(entry["id"])),
            "time": CREATED,
            "organization_id": ORGANIZATION,
            "actor": "operator",
            "action": "api_key.created",
            "object_kind": "api_key",
            "object_id": _id(4),
            "outcome": "ok",
            "gateway_id": GATEWAY,
            "details": entry["details"],
            "previous_hash": previous,
            "hash": digest,
        }
        found.append(("0004", "audit_events", columns))
        previous = digest
    return found


_ROWS: list[tuple[str, str, dict[str, Any]]] = [
    ("0001", "organizations", {"id": ORGANIZATION, "name": "default", "created_at": CREATED}),
    (
        "0001",
        "subaccounts",
        {
            "id": SUBACCOUNT,
            "organization_id": ORGANIZATION,
            "name": "a customer",
            "slug": "a-customer-00000002",
            "external_id": "c-1",
            "status": "active",
            "limits": LIMITS,
            "metadata": METADATA,
            "created_at": CREATED,
            **_UPDATED,
        },
    ),
    (
        "0001",
        "subaccounts",
        {
            "id": ARCHIVED,
            "organization_id": ORGANIZATION,
            "name": "gone",
            "slug": "gone-00000003",
            "limits": {},
            "status": "archived",
            "archived_at": ENDED,
            "created_at": ENDED,
            "updated_at": ENDED,
        },
    ),
    (
        "0001",
        "api_keys",
        {"id": _id(4), **_OWN, "name": "first", "prefix": API_KEY[:18], "digest": _ISSUER.digest(API_KEY)},
    ),
    (
        "0001",
        "api_keys",
        {
            "id": _id(5),
            **_THEIRS,
            "name": "customer's",
            "prefix": SUBACCOUNT_KEY[:18],
            "expires_at": FUTURE,
            "digest": _ISSUER.digest(SUBACCOUNT_KEY),
        },
    ),
    ("0001", "api_keys", {"id": _id(6), **_OWN, "prefix": "bctrl_revokedkey00", "digest": b"-", "revoked_at": ENDED}),
    _secret(SecretOwner("pepper", None, None, UUID(int=0)), PEPPER),
    _secret(SecretOwner("ai_connection.api_key", ORGANIZATION, None, AI_CONNECTION), PROVIDER_KEY.encode()),
    (
        "0001",
        "ai_connections",
        {
            "id": AI_CONNECTION,
            **_OWN,
            **_UPDATED,
            "label": "main",
            "provider": "anthropic",
            "enabled": True,
            "default_model": "a-model",
        },
    ),
    (
        "0001",
        "ai_connections",
        {"id": _id(8), **_THEIRS, **_UPDATED, "label": "own", "provider": "openai", "enabled": False},
    ),
    (
        "0001",
        "spaces",
        {
            "id": SPACE,
            **_OWN,
            **_UPDATED,
            "name": "a space",
            "region": "local",
            "mounts": MOUNTS,
            "metadata": METADATA,
        },
    ),
    (
        "0001",
        "spaces",
        {"id": THEIR_SPACE, **_THEIRS, **_UPDATED, "name": "their space", "region": "local", "mounts": {}},
    ),
    (
        "0001",
        "gateways",
        {
            "id": GATEWAY,
            "version": "0.1.0",
            "started_at": CREATED,
            "heartbeat_at": ENDED,
            "internal_url@0002": "http://gateway-1:8787",
        },
    ),
    (
        "0001",
        "runtimes",
        {
            "id": STOPPED,
            **_OWN,
            **_RUNTIME,
            **_STOP,
            "space_id": SPACE,
            "name": "done",
            "config": CONFIG,
            "metadata": METADATA,
        },
    ),
    (
        "0001",
        "runtimes",
        {
            "id": FAILED,
            **_THEIRS,
            **_RUNTIME,
            **_CRASH,
            "space_id": THEIR_SPACE,
            "name": "crashed",
            "config": RECORDED_CONFIG,
        },
    ),
    ("0001", "runs", {"id": STOPPED_RUN, **_OWN, **_RUN, **_STOP, "space_id": SPACE, "runtime_id": STOPPED}),
    ("0001", "runs", {"id": FAILED_RUN, **_THEIRS, **_RUN, **_CRASH, "space_id": THEIR_SPACE, "runtime_id": FAILED}),
    (
        "0001",
        "leases",
        {
            "id": LEASE,
            **_OWN,
            "space_id": SPACE,
            "runtime_id": STOPPED,
            "run_id": STOPPED_RUN,
            "protocol": "cdp",
            "options": {"policy": "standard"},
            "prefix": "abcdefABCDEF",
            "digest": b"-",
            "expires_at": ENDED,
            "closed_at": ENDED,
            "attaches@0002": 1,
            "first_attached_at@0002": CREATED,
            "last_active_at@0002": ENDED,
            "bytes_from_client@0002": 10,
            "bytes_to_client@0002": 20,
            "commands@0002": 3,
        },
    ),
    (
        "0002",
        "lease_sockets",
        {
            "id": SOCKET,
            "lease_id": LEASE,
            "gateway_id": GATEWAY,
            "opened_at": CREATED,
            "ended_at": ENDED,
            "close_code": 1000,
            "close_reason": "client_closed",
            "bytes_from_client": 10,
            "bytes_to_client": 20,
            "commands": 3,
        },
    ),
    *_audit_events(3),
    ("0005", "event_counters", {"stream_id": STOPPED_RUN, "last": 2, "oldest": FUTURE}),
    (
        "0005",
        "events",
        {"sequence": 1, "id": _id(70), **_EVENT, "type": "runtime.lifecycle", "data": {"status": "started"}},
    ),
    (
        "0005",
        "events",
        {
            "sequence": 2,
            "id": _id(71),
            **_EVENT,
            "type": "navigation",
            "category": "browser",
            "page_id": "P",
            "data": {"url": "https://example.com/", "pageId": "P"},
        },
    ),
    (
        "0005",
        "run_commands",
        {
            "id": COMMAND,
            "run_id": STOPPED_RUN,
            "name": "files.stage",
            "execution_mode": "inline",
            "status": "failed",
            "actor": str(_id(4)),
            "input": {"fileId": str(FILE)},
            "error_code": "file.not_found",
            "error_message": "There is no file.",
            "finished_at": FUTURE,
            "created_at": FUTURE,
        },
    ),
    (
        "0005",
        "files",
        {
            "id": FILE,
            **_OWN,
            "space_id": SPACE,
            "name": "a.txt",
            "path": "runs/a.txt",
            "size_bytes": 5,
            "path_digest": hashlib.sha256(b"runs/a.txt").digest(),
            "content_type": "text/plain",
            "object_key": f"{SPACE}/{FILE}",
            "metadata": METADATA,
            "expires_at": FUTURE,
        },
    ),
    (
        "0005",
        "artifacts",
        {
            "id": ARTIFACT,
            **_OWN,
            "space_id": SPACE,
            "runtime_id": STOPPED,
            "run_id": STOPPED_RUN,
            "file_id": FILE,
            "kind": "download",
            "name": "a.txt",
            "page_id": "P",
        },
    ),
    (
        "0005",
        "recordings",
        {
            "run_id": FAILED_RUN,
            "gateway_id": GATEWAY,
            "status": "failed",
            "attempts": 3,
            "tabs": [],
            "error_code": "recording.encoding",
            "error_message": "The video could not be made.",
            "expires_at": FUTURE,
            "created_at": CREATED,
            **_UPDATED,
        },
    ),
]
