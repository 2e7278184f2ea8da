"""The operations of the spaces generation, and for each the requests that are wrong in a way of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# As the recorder fills it in.
UNKNOWN = "{id:unknown}"


@dataclass(frozen=True, slots=True)
class Operation:
    """`valid` is a body that is right, `wrong` are bodies and `queries` are queries that are refused."""

    id: str
    method: str
    path: str
    valid: Any = None
    wrong: tuple[Any, ...] = ()
    queries: tuple[str, ...] = ()
    form: bool = False

    @property
    def unknown(self) -> str:
        """The path with ids that nothing has."""
        return _filled(self.path, UNKNOWN)

    @property
    def malformed(self) -> str:
        """The path with what is no id."""
        return _filled(self.path, "no-id")


def _filled(path: str, value: str) -> str:
    return "/".join(value if part.startswith("{") else part for part in path.split("/"))


_PAGE = ("limit=0", "limit=201", "limit=x", "cursor=x", "cursor=eHg", "cursor=", "unknown=1")
_LONG_PAGE = ("limit=0", "limit=1001", "cursor=x", "cursor=-1", "unknown=1")
_FILTER = ("type=unknown.type", "type=", "type=page.created,x", "category=tools", "pageId=", "connectionId=x")
_RUNTIME = "/v1/spaces/{id}/runtimes/{runtimeId}"
_LONG = "x" * 201


OPERATIONS = (
    Operation(
        "create",
        "POST",
        "/v1/ai-connections",
        {"label": "x", "provider": "openai"},
        (
            {},
            {"label": 1, "provider": "other", "apiKey": 1, "defaultModel": 1, "enabled": "yes", "subaccountId": 1},
            {"label": "", "provider": None, "apiKey": "", "defaultModel": "", "enabled": None, "subaccountId": None},
            {"label": _LONG, "provider": "OpenAI", "apiKey": None, "defaultModel": None, "enabled": 1},
            {"label": "a\u0000b", "provider": "openai", "apiKey": "a\u0000b", "apikey": "x", "unknown": {"a": [1]}},
            {"label": "x", "provider": "openai", "subaccountId": "no-id"},
            {"label": "x", "provider": "openai", "subaccountId": UNKNOWN},
        ),
    ),
    Operation("ai-connections-list", "GET", "/v1/ai-connections"),
    Operation("ai-connections-get", "GET", "/v1/ai-connections/{id}"),
    Operation(
        "ai-connections-update",
        "PATCH",
        "/v1/ai-connections/{id}",
        {"label": "y"},
        (
            {"label": None, "enabled": None},
            {"label": "", "apiKey": "", "defaultModel": 7, "enabled": 0},
            {"provider": "openai", "subaccountId": "x"},
        ),
    ),
    Operation("ai-connections-delete", "DELETE", "/v1/ai-connections/{id}"),
    Operation("ai-connections-test", "POST", "/v1/ai-connections/{id}/test"),
    Operation(
        "spaces-create",
        "POST",
        "/v1/spaces",
        {},
        (
            {"name": "", "region": "", "mounts": None, "metadata": [], "subaccountId": None},
            {"name": 1, "region": 2, "mounts": [], "metadata": "x", "subaccountId": 3},
            {"name": "x" * 121, "nmae": "x", "mounts": {"proxies": [], "valt": {}}},
            {"mounts": {"storage": {}, "vault": {"allow": [""], "deny": "x", "allowRawReads": "no"}, "ai": 1}},
            {"mounts": {"ai": {"allowConnections": [1, ""], "defaults": {"stagehand": {}, "browserUse": {"x": 1}}}}},
            {"mounts": {"ai": {"allowConnections": ["none"], "defaults": {"stagehand": {"connection": "none"}}}}},
            {"metadata": {"a": "b\u0000"}},
            {"subaccountId": UNKNOWN},
        ),
    ),
    Operation("spaces-list", "GET", "/v1/spaces"),
    Operation("spaces-get", "GET", "/v1/spaces/{id}"),
    Operation(
        "spaces-update",
        "PATCH",
        "/v1/spaces/{id}",
        {"name": "x"},
        ({"name": None, "mounts": None}, {"name": "", "metadata": {}, "region": "x"}, {"mounts": {"storage": "x"}}),
    ),
    Operation("spaces-delete", "DELETE", "/v1/spaces/{id}"),
    Operation("storage-files-upload", "POST", "/v1/spaces/{id}/storage/files", form=True),
    Operation(
        "storage-files-list",
        "GET",
        "/v1/spaces/{id}/storage/files",
        queries=(*_PAGE, f"prefix={'x' * 4097}", "prefix=%00"),
    ),
    Operation("storage-files-get", "GET", "/v1/spaces/{id}/storage/files/{fileId}"),
    Operation("storage-files-delete", "DELETE", "/v1/spaces/{id}/storage/files/{fileId}"),
    Operation("storage-files-content", "GET", "/v1/spaces/{id}/storage/files/{fileId}/content"),
    Operation(
        "runtimes-create",
        "POST",
        "/v1/spaces/{id}/runtimes",
        {},
        (
            {"type": "desktop", "kind": "x", "name": "", "metadata": [], "config": None, "profile": {}},
            {"type": None, "kind": None, "name": None, "metadata": {"a": "\u0000"}, "config": []},
            {
                "config": {
                    "browser": "firefox",
                    "viewport": {"width": 99, "height": 8193},
                    "locale": "d",
                    "timezone": "X",
                }
            },
            {
                "config": {
                    "viewport": {"width": 1.5},
                    "locale": "de_DE",
                    "timezone": 1,
                    "userAgent": "",
                    "events": "all",
                }
            },
            {"config": {"userAgent": "a\nb", "recording": "yes", "idleTimeoutSeconds": 9, "maxLifetimeSeconds": 59}},
            {"config": {"idleTimeoutSeconds": 604801, "maxLifetimeSeconds": 2592001, "recording": None}},
            {"config": {"maxLifetimeSeconds": 86401}},
            {
                "config": {
                    "viewport": {"width": 800, "height": 600},
                    "fingerprint": {"viewport": {"width": 1, "height": 1}},
                }
            },
            {"config": {"locale": "de", "fingerprint": {"locale": "en"}}},
            {
                "config": {
                    "profile": {},
                    "stealth": True,
                    "extensionIds": [],
                    "vieport": 1,
                    "fingerprint": {"os": "x", "oss": 1},
                }
            },
            {"config": {"proxy": "saved", "networkTraffic": {"saver": True, "urlAllowlist": ["", "http://["]}}},
            {"config": {"proxy": {"url": "ftp://user:hidden@proxy.example"}}},
            {"config": {"proxy": {"url": "http://user:hidden@proxy.example", "host": "x"}}},
            {"config": {"proxy": {"protocol": "http", "host": "proxy.example", "port": 0, "password": "hidden"}}},
            {"config": {"proxy": {"protocol": "http", "host": "proxy.example", "port": 1, "password": "hidden"}}},
            {"config": {"proxy": {"protocol": "http", "host": "proxy.example", "port": 1, "username": "a:b"}}},
            {"config": {"proxy": {"protocol": "https", "host": "", "port": "1", "dnsResolution": "x", "extra": 1}}},
            {"config": {"networkTraffic": {"urlBlocklist": "x", "blockAds": True, "urlBlockList": []}}},
        ),
    ),
    Operation("runtimes-list", "GET", "/v1/spaces/{id}/runtimes"),
    Operation("runtimes-get", "GET", _RUNTIME),
    Operation("runtimes-stop", "POST", f"{_RUNTIME}/stop"),
    Operation("runtimes-runs", "GET", f"{_RUNTIME}/runs", queries=(*_PAGE, "status=ended")),
    Operation(
        "runtimes-connections-create",
        "POST",
        f"{_RUNTIME}/connections",
        {"protocol": "cdp"},
        (
            {},
            {"protocol": "cua", "ttlSeconds": 59, "options": None},
            {"protocol": None, "ttlSeconds": 7201, "options": []},
            {"protocol": "cdp", "ttlSeconds": "60", "options": {"policy": "loose"}, "ttl": 60},
            {"protocol": "cdp", "ttlSeconds": None},
            {"protocol": "cdp", "options": {"policy": "unrestricted"}},
        ),
    ),
    Operation("runtimes-connections-list", "GET", f"{_RUNTIME}/connections"),
    Operation("runtimes-connections-get", "GET", f"{_RUNTIME}/connections/{{connectionId}}"),
    Operation("runtimes-connections-delete", "DELETE", f"{_RUNTIME}/connections/{{connectionId}}"),
    Operation(
        "runtimes-files-stage",
        "POST",
        f"{_RUNTIME}/files/stage",
        {"path": "x"},
        (
            {},
            {"fileId": "x", "path": "y"},
            {"fileId": "x", "name": "a", "runtimePath": "b"},
            {"fileId": 1, "path": None, "name": "", "runtimePath": "", "nam": 1},
        ),
    ),
    Operation(
        "runtimes-files-collect",
        "POST",
        f"{_RUNTIME}/files/collect",
        {"path": "x"},
        (
            {},
            {"path": "", "storagePath": 1, "artifact": None},
            {"path": None, "storagePath": None, "artifact": {"kind": "No Kind", "name": "", "x": 1}},
            {"path": "a\u0000b", "fileId": "x"},
        ),
    ),
    Operation("runs-list", "GET", "/v1/runs", queries=(*_PAGE, "status=ended", "status=")),
    Operation("runs-get", "GET", "/v1/runs/{id}"),
    Operation("runs-events", "GET", "/v1/runs/{id}/events", queries=(*_LONG_PAGE, *_FILTER, "order=up")),
    Operation(
        "runs-events-wait",
        "POST",
        "/v1/runs/{id}/events/wait",
        {},
        (
            {"eventTypes": ["unknown.type"], "category": "x", "pageId": "", "connectionId": "x", "after": 1},
            {"eventTypes": None, "category": None, "pageId": None, "connectionId": None, "timeoutMs": None},
            {"eventTypes": "page.created", "timeoutMs": 120001, "contextId": "x", "types": []},
            {"timeoutMs": -1, "after": True},
        ),
    ),
    Operation("runs-events-stream", "GET", "/v1/runs/{id}/events/stream", queries=("limit=0", "cursor=x", *_FILTER)),
    Operation(
        "commands-list",
        "GET",
        "/v1/runs/{id}/commands",
        queries=(*_PAGE, "order=up", "status=active", "executionMode=x", "include=output", "include=input,x"),
    ),
    Operation(
        "activity-list",
        "GET",
        "/v1/runs/{id}/activity",
        queries=(*_LONG_PAGE, "categories=x", "categories=tool,", "level=debug"),
    ),
    Operation(
        "activity-stream",
        "GET",
        "/v1/runs/{id}/activity/stream",
        queries=("limit=0", "categories=x", "level=debug", "type=x"),
    ),
    Operation(
        "runs-live",
        "POST",
        "/v1/runs/{id}/live",
        {},
        (
            {"control": "full", "components": ["x"], "expiresInSeconds": 0},
            {"control": None, "components": ["activity", "activity"], "expiresInSeconds": 1.5, "ttl": 1},
            {"components": None, "expiresInSeconds": 10**9},
        ),
    ),
    Operation(
        "runs-recording",
        "POST",
        "/v1/runs/{id}/recording",
        {},
        ({"components": ["x"], "expiresInSeconds": 0, "control": "none"}, {"components": "activity"}),
    ),
    Operation(
        "runs-artifacts", "GET", "/v1/runs/{id}/artifacts", queries=(*_PAGE, "kind=", "kind=a,,b", "runtimeId=x")
    ),
    Operation("spaces-artifacts", "GET", "/v1/spaces/{id}/artifacts", queries=(*_PAGE, "kind=", "runtimeId=x")),
    Operation(
        "subaccounts-create",
        "POST",
        "/v1/subaccounts",
        {"name": "x"},
        (
            {},
            {"name": "", "externalId": "", "limits": None, "metadata": []},
            {"name": _LONG, "externalId": 1, "limits": {"maxSpaces": -1, "maxActiveRuns": 2**53, "maxRuns": 1}},
            {"name": None, "limits": {"maxSpaces": "1", "monthlyCreditLimitMicroUsd": 1.5}, "slug": "x"},
        ),
    ),
    Operation("subaccounts-list", "GET", "/v1/subaccounts"),
    Operation("subaccounts-get", "GET", "/v1/subaccounts/{id}"),
    Operation(
        "subaccounts-update",
        "PATCH",
        "/v1/subaccounts/{id}",
        {"name": "x"},
        ({"name": None, "limits": None, "metadata": 1}, {"name": "", "externalId": "", "status": "archived"}),
    ),
    Operation("subaccounts-archive", "POST", "/v1/subaccounts/{id}/archive"),
    Operation(
        "keys-create",
        "POST",
        "/v1/subaccounts/{id}/keys",
        {"name": "x"},
        (
            {},
            {"name": "", "expiresAt": "2020-01-01T00:00:00Z"},
            {"name": None, "expiresAt": "2999-01-01T00:00:00", "scope": "x"},
            {"name": 1, "expiresAt": 32503680000},
            {"name": "x", "expiresAt": "32503680000"},
        ),
    ),
    Operation("keys-list", "GET", "/v1/subaccounts/{id}/keys"),
    Operation("keys-revoke", "DELETE", "/v1/subaccounts/{id}/keys/{keyId}"),
    Operation("auth-whoami", "GET", "/v1/auth/whoami"),
    Operation("updates-stream", "GET", "/v1/updates/stream", queries=("limit=0", "cursor=x", "unknown=1")),
    Operation("updates-short-stream", "GET", "/v1/updates", queries=("limit=x", "cursor=")),
)
