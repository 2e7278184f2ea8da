"""What is asked, in a fixed order: every operation in its forms, and what is wrong in every way that has an answer.

The gateway has to be fresh and to run with the SETTINGS of running.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.contracts.spaces.golden.exchange import UNKNOWN, Recorder
from tests.contracts.spaces.golden.operations import OPERATIONS, Operation
from tests.support.fake_providers import KEYS, Name

_BOUNDARY = "golden-boundary"
_FORM = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
_PAGE = "data:text/html," + quote("<title>Golden</title><script>console.log('one');console.warn('two')</script>")
_WEBSOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


def play(recorder: Recorder) -> None:
    _probes(recorder)
    _without_a_key(recorder)
    _of_nothing(recorder)
    _other_methods(recorder)
    _wrong_bodies(recorder)
    _wrong_queries(recorder)
    _accounts(recorder)
    _ai_connections(recorder)
    _spaces(recorder)
    _files(recorder)
    _content(recorder)
    _runtimes(recorder)
    _leases(recorder)
    _discovery(recorder)
    _runtime_files(recorder)
    _viewers(recorder)
    _live_run(recorder)
    _subaccount(recorder)
    _foreign(recorder)
    _heads(recorder)
    _recorded_run(recorder)
    _ended_run(recorder)
    _updates(recorder)
    _removals(recorder)


# Without anything there


def _probes(recorder: Recorder) -> None:
    recorder.ask("probe: healthz", "GET", "/healthz", key=None)
    # It names the revision of the database's schema, and new ones come.
    recorder.ask("probe: readyz", "GET", "/readyz", key=None, kept="shape")
    recorder.ask("probe: metrics", "GET", "/metrics", key=None, kept="bytes")
    recorder.ask("page: docs", "GET", "/docs", key=None, kept="bytes")
    recorder.ask("page: docs, its script", "GET", "/docs/start.js", key=None, kept="bytes")
    recorder.ask("page: openapi.json", "GET", "/openapi.json", key=None, kept="none")
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        recorder.ask(f"probe: healthz, {method}", method, "/healthz", key=None)
        recorder.ask(f"page: openapi.json, {method}", method, "/openapi.json", key=None)
    for path in (
        "/",
        "/v1",
        "/v1/",
        "/v2/spaces",
        "/v1/nothing",
        "/healthz/",
        "/docs/",
        "/docs/assets/none.js",
        "//v1/spaces",
    ):
        recorder.ask(f"no route: {path}", "GET", path)
        recorder.ask(f"no route: {path}, POST", "POST", path, json_body={})


def _without_a_key(recorder: Recorder) -> None:
    recorder.save("key:wrong", f"bctrl_{'a' * 12}_{'b' * 43}")
    for operation in OPERATIONS:
        recorder.ask(f"{operation.id}: no key", operation.method, operation.unknown, key=None)
        recorder.ask(f"{operation.id}: wrong key", operation.method, operation.unknown, key="wrong")
    for what, header in {
        "empty": "",
        "no scheme": "{key:org}",
        "Basic": "Basic {key:org}",
        "no token": "Bearer",
        "short": "Bearer bctrl_x",
        "lower case": "bearer {key:org}",
        "two spaces": "Bearer  {key:org}",
        "more behind": "Bearer {key:org}x",
    }.items():
        headers = {"Authorization": header}
        recorder.ask(f"authorization: {what}", "GET", "/v1/spaces", key=None, headers=headers)


def _of_nothing(recorder: Recorder) -> None:
    for operation in OPERATIONS:
        if "{" not in operation.path:
            continue
        ask = _valid(recorder, operation)
        ask(f"{operation.id}: unknown id", operation.unknown)
        ask(f"{operation.id}: malformed id", operation.malformed)
    for spelling in (
        UNKNOWN.upper(),
        UNKNOWN.replace("-", ""),
        f"{{{UNKNOWN}}}",
        f"urn:uuid:{UNKNOWN}",
        "%00",
        "x" * 200,
    ):
        recorder.ask(f"spaces-get: id {spelling}", "GET", f"/v1/spaces/{quote(spelling, safe='%')}")


def _valid(recorder: Recorder, operation: Operation) -> Callable[[str, str], object]:
    def ask(name: str, path: str) -> object:
        if operation.form:
            return recorder.ask(name, operation.method, path, content=_form(file="x"), headers=_FORM)
        return recorder.ask(name, operation.method, path, json_body=operation.valid)

    return ask


def _other_methods(recorder: Recorder) -> None:
    for path in dict.fromkeys(operation.path for operation in OPERATIONS):
        methods = {operation.method for operation in OPERATIONS if operation.path == path}
        unknown = next(operation.unknown for operation in OPERATIONS if operation.path == path)
        for method in sorted({"PUT", "DELETE", "POST"} - methods)[:2]:
            recorder.ask(f"{path}: {method}", method, unknown)
        recorder.ask(f"{path}: with a slash", sorted(methods)[0], f"{unknown}/")
    recorder.ask("/v1/spaces: OPTIONS", "OPTIONS", "/v1/spaces")
    recorder.ask("/v1/spaces: TRACE", "TRACE", "/v1/spaces")
    recorder.ask("/v1/spaces: OPTIONS without a key", "OPTIONS", "/v1/spaces", key=None, headers={"Origin": "http://x"})


def _wrong_bodies(recorder: Recorder) -> None:
    is_json = {"Content-Type": "application/json"}
    for operation in OPERATIONS:
        if operation.valid is None:
            continue

        def ask(what: str, content: str | None, headers: Mapping[str, str], of: Operation = operation) -> None:
            recorder.ask(f"{of.id}: {what}", of.method, of.unknown, content=content, headers=headers)

        ask("no body", None, {})
        ask("empty body", "", is_json)
        ask("broken JSON", '{"a": ', is_json)
        ask("a list", "[]", is_json)
        ask("JSON null", "null", is_json)
        ask("text", "{}", {"Content-Type": "text/plain"})
        for number, wrong in enumerate(operation.wrong, 1):
            body = json.dumps(wrong, separators=(",", ":"))
            ask(f"wrong body {number}", body, is_json)
    recorder.ask("spaces-create: too large", "POST", "/v1/spaces", json_body={"name": "x" * 5000})
    recorder.ask("spaces-create: not UTF-8", "POST", "/v1/spaces", content=b'{"name":"\xff"}', headers=is_json)
    recorder.ask("spaces-create: twice a name", "POST", "/v1/spaces", content='{"nam":1,"nam":2}', headers=is_json)
    recorder.ask("spaces-create: NaN", "POST", "/v1/spaces", content='{"metadata":{"a":NaN}}', headers=is_json)
    recorder.ask("spaces-create: behind the end", "POST", "/v1/spaces", content="{} {}", headers=is_json)
    many = {f"field{number}": number for number in range(101)}
    recorder.ask("spaces-create: many unknown fields", "POST", "/v1/spaces", json_body=many)
    charset = {"Content-Type": "application/json; charset=latin-1"}
    recorder.ask("spaces-create: charset", "POST", "/v1/spaces", content='{"name":""}', headers=charset)


def _wrong_queries(recorder: Recorder) -> None:
    for operation in OPERATIONS:
        for query in operation.queries:
            shown = query[:40]
            recorder.ask(f"{operation.id}: {shown}", operation.method, f"{operation.unknown}?{query}")
    recorder.ask("spaces-list: a query", "GET", "/v1/spaces?unknown=1&limit=x")
    recorder.ask("auth-whoami: a query", "GET", "/v1/auth/whoami?unknown=1")
    recorder.save("org:1", recorder.until("GET", "/v1/auth/whoami", bool)["organizationId"])


# What there is


def _accounts(recorder: Recorder) -> None:
    whole = {
        "name": "Über & Co.",
        "externalId": "customer-1",
        "limits": {"maxActiveRuns": 1, "maxSpaces": 1, "monthlyCreditLimitMicroUsd": 9007199254740991},
        "metadata": {"b": [1, 2.5, None, True], "a": {"deep": "ü"}},
    }
    recorder.ask("subaccounts-list: none", "GET", "/v1/subaccounts")
    recorder.ask("subaccounts-create: whole", "POST", "/v1/subaccounts", json_body=whole, save={"subaccount:1": "id"})
    recorder.ask(
        "subaccounts-create: name alone",
        "POST",
        "/v1/subaccounts",
        json_body={"name": "!"},
        save={"subaccount:2": "id"},
    )
    nulls: dict[str, object] = {"name": "Null", "externalId": None, "metadata": None, "limits": {}}
    recorder.ask("subaccounts-create: nulls", "POST", "/v1/subaccounts", json_body=nulls, save={"subaccount:3": "id"})
    taken = {"name": "Other", "externalId": "customer-1"}
    recorder.ask("subaccounts-create: taken", "POST", "/v1/subaccounts", json_body=taken)
    recorder.ask(
        "subaccounts-update: taken", "PATCH", "/v1/subaccounts/{subaccount:2}", json_body={"externalId": "customer-1"}
    )
    recorder.ask("subaccounts-list: three", "GET", "/v1/subaccounts")
    recorder.ask("subaccounts-get: one", "GET", "/v1/subaccounts/{subaccount:1}")
    second = "/v1/subaccounts/{subaccount:2}"
    recorder.ask("subaccounts-update: nothing", "PATCH", second, json_body={})
    changes = {"name": "Second", "externalId": "customer-2", "limits": {"maxSpaces": 0}, "metadata": {"a": 1}}
    recorder.ask("subaccounts-update: whole", "PATCH", second, json_body=changes)
    recorder.ask("subaccounts-update: nulls", "PATCH", second, json_body={"externalId": None, "metadata": None})
    recorder.ask("subaccounts-update: no limits", "PATCH", second, json_body={"limits": {}})
    keys = "/v1/subaccounts/{subaccount:1}/keys"
    recorder.ask("keys-list: none", "GET", keys)
    saved = {"apikey:1": "apiKey.id", "key:sub": "secret"}
    recorder.ask("keys-create: name alone", "POST", keys, json_body={"name": "main"}, save=saved)
    expiring = {"name": "later", "expiresAt": "2999-01-31T12:00:00+02:00"}
    saved = {"apikey:2": "apiKey.id", "key:later": "secret"}
    recorder.ask("keys-create: expiring", "POST", keys, json_body=expiring, save=saved)
    recorder.ask(
        "keys-create: null", "POST", keys, json_body={"name": "n", "expiresAt": None}, save={"apikey:3": "apiKey.id"}
    )
    recorder.ask("keys-list: three", "GET", keys)
    recorder.ask("keys-revoke: once", "DELETE", keys + "/{apikey:2}")
    recorder.ask("keys-revoke: again", "DELETE", keys + "/{apikey:2}")
    recorder.ask("keys-revoke: unknown", "DELETE", keys + f"/{UNKNOWN}")
    recorder.ask("keys-revoke: of another subaccount", "DELETE", second + "/keys/{apikey:1}")
    recorder.ask("keys-list: one is revoked", "GET", keys)
    recorder.ask("auth-whoami: revoked", "GET", "/v1/auth/whoami", key="later")
    recorder.ask("auth-whoami: organization", "GET", "/v1/auth/whoami")
    recorder.ask("auth-whoami: subaccount", "GET", "/v1/auth/whoami", key="sub")
    third = "/v1/subaccounts/{subaccount:3}"
    saved = {"apikey:4": "apiKey.id", "key:archived": "secret"}
    recorder.ask("keys-create: of the third", "POST", f"{third}/keys", json_body={"name": "x"}, save=saved)
    recorder.ask("subaccounts-archive: once", "POST", f"{third}/archive")
    recorder.ask("subaccounts-archive: again", "POST", f"{third}/archive")
    recorder.ask("keys-create: archived", "POST", f"{third}/keys", json_body={"name": "x"})
    recorder.ask("keys-list: archived", "GET", f"{third}/keys")
    recorder.ask("subaccounts-update: archived", "PATCH", third, json_body={"name": "Still"})
    recorder.ask("auth-whoami: archived", "GET", "/v1/auth/whoami", key="archived")
    recorder.ask("spaces-create: archived", "POST", "/v1/spaces", json_body={"subaccountId": "{subaccount:3}"})


def _ai_connections(recorder: Recorder) -> None:
    root = "/v1/ai-connections"
    whole = {
        "label": "first ü",
        "provider": "openai",
        "apiKey": KEYS["openai"],
        "defaultModel": "model-1",
        "enabled": True,
    }
    recorder.ask("ai-connections-list: none", "GET", root)
    recorder.ask("create: whole", "POST", root, json_body=whole, save={"ai:1": "id"})
    recorder.ask(
        "create: least", "POST", root, json_body={"label": "least", "provider": "anthropic"}, save={"ai:2": "id"}
    )
    disabled = {"label": "off", "provider": "google", "apiKey": "sk-bad", "enabled": False}
    recorder.ask("create: disabled", "POST", root, json_body=disabled, save={"ai:3": "id"})
    others: tuple[Name, ...] = ("anthropic", "google")
    for provider in others:
        body = {"label": provider, "provider": provider, "apiKey": KEYS[provider]}
        recorder.ask(f"create: {provider}", "POST", root, json_body=body, save={f"ai:{provider}": "id"})
        recorder.ask(f"ai-connections-test: {provider}", "POST", f"{root}/{{ai:{provider}}}/test")
    owned = {"label": "owned", "provider": "openai", "apiKey": "sk-bad", "subaccountId": "{subaccount:1}"}
    recorder.ask("create: of a subaccount", "POST", root, json_body=owned, save={"ai:4": "id"})
    archived = {"label": "x", "provider": "openai", "subaccountId": "{subaccount:3}"}
    recorder.ask("create: archived", "POST", root, json_body=archived)
    recorder.ask(
        "create: the same label", "POST", root, json_body={"label": "least", "provider": "openai"}, save={"ai:5": "id"}
    )
    recorder.ask("ai-connections-list: several", "GET", root)
    recorder.ask("ai-connections-list: of a subaccount", "GET", root, key="sub")
    recorder.ask("ai-connections-get: one", "GET", f"{root}/{{ai:1}}")
    recorder.ask("ai-connections-update: nothing", "PATCH", f"{root}/{{ai:2}}", json_body={})
    changes = {"label": "second", "apiKey": KEYS["anthropic"], "defaultModel": "m", "enabled": False}
    recorder.ask("ai-connections-update: whole", "PATCH", f"{root}/{{ai:2}}", json_body=changes)
    recorder.ask(
        "ai-connections-update: nulls", "PATCH", f"{root}/{{ai:2}}", json_body={"apiKey": None, "defaultModel": None}
    )
    for name in ("ai:1", "ai:2", "ai:3", "ai:4"):
        recorder.ask(f"ai-connections-test: {name}", "POST", f"{root}/{{{name}}}/test")
    recorder.ask("ai-connections-delete: once", "DELETE", f"{root}/{{ai:3}}")
    recorder.ask("ai-connections-delete: again", "DELETE", f"{root}/{{ai:3}}")
    recorder.ask("ai-connections-get: deleted", "GET", f"{root}/{{ai:3}}")


def _spaces(recorder: Recorder) -> None:
    root = "/v1/spaces"
    mounts = {
        "storage": {"space": "other"},
        "vault": {"allow": ["a/"], "deny": [], "allowRawReads": False},
        "ai": {
            "allowConnections": ["{ai:1}", "second"],
            "defaults": {"browserUse": {"connection": "second", "model": "m"}, "stagehand": {"connection": "{ai:1}"}},
        },
    }
    whole = {"name": "Whole ü", "region": "eu", "mounts": mounts, "metadata": {"z": 1, "a": {"b": [None]}}}
    recorder.ask("spaces-list: none", "GET", root)
    recorder.ask("spaces-create: whole", "POST", root, json_body=whole, save={"space:1": "id"})
    recorder.ask("spaces-create: nothing given", "POST", root, json_body={}, save={"space:2": "id"})
    nulls = {"metadata": None, "mounts": {"storage": None, "vault": None, "ai": None}}
    recorder.ask("spaces-create: nulls", "POST", root, json_body=nulls, save={"space:3": "id"})
    owned = {"name": "owned", "subaccountId": "{subaccount:1}"}
    recorder.ask("spaces-create: of a subaccount", "POST", root, json_body=owned, save={"space:4": "id"})
    recorder.ask("spaces-create: one too many", "POST", root, json_body=owned)
    recorder.ask("spaces-create: too many by its own key", "POST", root, json_body={}, key="sub")
    lent = {"name": "x", "subaccountId": "{subaccount:2}", "mounts": {"ai": {"allowConnections": ["owned", "{ai:1}"]}}}
    recorder.ask("spaces-create: with a foreign connection", "POST", root, json_body=lent)
    charset = {"Content-Type": "Application/JSON; charset=utf-8"}
    spaced = '{ "name" : "spaced\\u00fc" ,\n "metadata" : { } }'
    recorder.ask("spaces-create: spaced", "POST", root, content=spaced, headers=charset, save={"space:5": "id"})
    recorder.ask("spaces-list: several", "GET", root)
    recorder.ask("spaces-list: of a subaccount", "GET", root, key="sub")
    recorder.ask("spaces-get: whole", "GET", f"{root}/{{space:1}}")
    recorder.ask("spaces-update: nothing", "PATCH", f"{root}/{{space:5}}", json_body={})
    recorder.ask("spaces-update: name", "PATCH", f"{root}/{{space:5}}", json_body={"name": "named"})
    recorder.ask(
        "spaces-update: a mount", "PATCH", f"{root}/{{space:1}}", json_body={"mounts": {"storage": {"space": "x"}}}
    )
    recorder.ask(
        "spaces-update: no mount", "PATCH", f"{root}/{{space:1}}", json_body={"mounts": {"ai": None, "vault": {}}}
    )
    wrong = {"mounts": {"ai": {"defaults": {"stagehand": {"connection": "none"}}}}}
    recorder.ask("spaces-update: no such connection", "PATCH", f"{root}/{{space:1}}", json_body=wrong)


def _form(*, file: str | None, filename: str | None = "a.txt", type_: str | None = None, **fields: str) -> str:
    """A form's text; `file` is the content of its file."""
    parts: list[tuple[str, str | None, str]] = [(f'name="{name}"', None, value) for name, value in fields.items()]
    if file is not None:
        named = 'name="file"' if filename is None else f'name="file"; filename="{filename}"'
        parts.append((named, type_, file))
    lines = ""
    for about, media_type, value in parts:
        typed = "" if media_type is None else f"Content-Type: {media_type}\r\n"
        lines += f"--{_BOUNDARY}\r\nContent-Disposition: form-data; {about}\r\n{typed}\r\n{value}\r\n"
    return f"{lines}--{_BOUNDARY}--\r\n"


def _files(recorder: Recorder) -> None:
    root = "/v1/spaces/{space:1}/storage/files"

    def upload(name: str, content: str | bytes, save: str | None = None, headers: Mapping[str, str] = _FORM) -> None:
        saved = {save: "id"} if save else {}
        recorder.ask(f"storage-files-upload: {name}", "POST", root, content=content, headers=headers, save=saved)

    recorder.ask("storage-files-list: none", "GET", root)
    whole = _form(
        file="0123456789", type_="text/plain", name="Zahlen ü.txt", path="b/zahlen.txt", metadata='{"a": {"b": 1}}'
    )
    upload("whole", whole, "file:1")
    upload("file alone", _form(file="alpha"), "file:2")
    upload("path alone", _form(file="{}", path="c/d.json"), "file:3")
    upload("name alone", _form(file="", name="empty.bin"), "file:4")
    upload("unnamed type", _form(file="x", filename="page.html"), "file:5")
    upload("taken path", _form(file="x"))
    upload("no file", _form(file=None, name="x"))
    upload("no name", _form(file="x", filename=None))
    upload("wrong fields", _form(file="x", name="", metadata="[]"))
    upload("metadata is not JSON", _form(file="x", metadata="{"))
    upload("unknown field", _form(file="x", nam="y"))
    upload("absolute path", _form(file="x", path="/etc/passwd"))
    upload("path upwards", _form(file="x", path="a/../b"))
    upload("path with an empty segment", _form(file="x", path="a//b"))
    upload("path with a backslash", _form(file="x", path="a\\b"))
    upload("wrong type", _form(file="x", filename="t", type_="text"))
    upload("repeated field", _form(file="x", name="a").replace("--golden-boundary--\r\n", "") + _form(file="y"))
    upload("cut off", _form(file="x")[:-10])
    upload("malformed", f"--{_BOUNDARY}\r\nno header\r\n\r\nx\r\n--{_BOUNDARY}--\r\n")
    upload("part without a name", f"--{_BOUNDARY}\r\nContent-Disposition: form-data\r\n\r\nx\r\n--{_BOUNDARY}--\r\n")
    upload("too long fields", _form(file="x", metadata="x" * 5000))
    upload("too large file", _form(file="x" * 70000).encode())
    upload("no boundary", "x", headers={"Content-Type": "multipart/form-data"})
    upload("JSON", "{}", headers={"Content-Type": "application/json"})
    upload("no type", "x", headers={})
    saved = {"cursor:files": "nextCursor"}
    recorder.ask("storage-files-list: first page", "GET", f"{root}?limit=2", save=saved)
    recorder.ask("storage-files-list: second page", "GET", f"{root}?limit=200&cursor={{cursor:files}}")
    recorder.ask("storage-files-list: prefix", "GET", f"{root}?prefix=c/")
    recorder.ask("storage-files-list: prefix of none", "GET", f"{root}?prefix=%25")
    recorder.ask("storage-files-list: twice a limit", "GET", f"{root}?limit=1&limit=2")
    recorder.ask("storage-files-get: one", "GET", f"{root}/{{file:1}}")
    recorder.ask("storage-files-get: in another space", "GET", "/v1/spaces/{space:2}/storage/files/{file:1}")


def _content(recorder: Recorder) -> None:
    root = "/v1/spaces/{space:1}/storage/files"
    content = f"{root}/{{file:1}}/content"
    for name in ("file:1", "file:2", "file:3", "file:4", "file:5"):
        recorder.ask(f"storage-files-content: {name}", "GET", f"{root}/{{{name}}}/content")
    for given in (
        *("bytes=0-3", "bytes=4-", "bytes=-2", "bytes=0-99", "bytes=9-9", "BYTES = 1 - 2"),
        *("bytes=10-", "bytes=99-100", "bytes=-0"),
        *("bytes=3-1", "bytes=0-1,3-4", "bytes=x", "items=0-1", "bytes=-"),
    ):
        recorder.ask(f"storage-files-content: {given}", "GET", content, headers={"Range": given})
    for given in ('"{file:1}"', 'W/"{file:1}"', '"x", "{file:1}"', "*", '"x"'):
        recorder.ask(f"storage-files-content: none match {given}", "GET", content, headers={"If-None-Match": given})
    for given in ('"{file:1}"', '"x"'):
        headers = {"Range": "bytes=0-1", "If-Range": given}
        recorder.ask(f"storage-files-content: if range {given}", "GET", content, headers=headers)
    recorder.ask(
        "storage-files-content: range of nothing", "GET", f"{root}/{{file:4}}/content", headers={"Range": "bytes=0-"}
    )
    recorder.ask("storage-files-content: HEAD", "HEAD", content)
    recorder.ask("storage-files-content: HEAD of a range", "HEAD", content, headers={"Range": "bytes=0-1"})


# Runtimes


def _runtimes(recorder: Recorder) -> None:
    root = "/v1/spaces/{space:1}/runtimes"
    whole = {
        "type": "browser",
        "kind": "browser",
        "name": "Whole ü",
        "metadata": {"b": 1, "a": None},
        "config": {
            "viewport": {"width": 800, "height": 600},
            "fingerprint": {"locale": "de-DE"},
            "timezone": "Europe/Berlin",
            "userAgent": "Golden/1.0",
            "networkTraffic": {"urlAllowlist": ["*.example.com"], "urlBlocklist": []},
            "events": "lifecycle",
            "recording": False,
            "idleTimeoutSeconds": 600,
            "maxLifetimeSeconds": 3600,
        },
    }
    proxied = {
        "config": {
            "proxy": {"url": "http://user:hidden@proxy.example:3128", "dnsResolution": "proxy"},
            "events": "standard",
            "recording": True,
        }
    }
    recorder.ask("runtimes-list: none", "GET", root)
    recorder.ask(
        "runtimes-create: whole", "POST", root, json_body=whole, save={"runtime:1": "id", "run:1": "activeRunId"}
    )
    recorder.ask(
        "runtimes-create: nothing given", "POST", root, json_body={}, save={"runtime:2": "id", "run:2": "activeRunId"}
    )
    recorder.ask(
        "runtimes-create: proxy", "POST", root, json_body=proxied, save={"runtime:3": "id", "run:3": "activeRunId"}
    )
    recorder.ask("runtimes-get: one", "GET", f"{root}/{{runtime:1}}")
    recorder.ask("runtimes-get: in another space", "GET", "/v1/spaces/{space:2}/runtimes/{runtime:1}")
    recorder.ask("runtimes-list: three", "GET", root)
    recorder.ask("runtimes-runs: live", "GET", f"{root}/{{runtime:1}}/runs")
    recorder.ask("runs-get: live", "GET", "/v1/runs/{run:1}")
    recorder.ask("runtimes-stop: one", "POST", f"{root}/{{runtime:2}}/stop")
    recorder.ask("runtimes-stop: again", "POST", f"{root}/{{runtime:2}}/stop")
    recorder.ask("runtimes-get: stopped", "GET", f"{root}/{{runtime:2}}")
    recorder.ask(
        "runtimes-connections-create: stopped",
        "POST",
        f"{root}/{{runtime:2}}/connections",
        json_body={"protocol": "cdp"},
    )
    recorder.ask("runtimes-connections-list: stopped", "GET", f"{root}/{{runtime:2}}/connections")
    recorder.ask("runs-live: stopped", "POST", "/v1/runs/{run:2}/live", json_body={})
    recorder.ask("runs-recording: not recorded", "POST", "/v1/runs/{run:2}/recording", json_body={})
    recorder.ask("runs-get: stopped", "GET", "/v1/runs/{run:2}")
    saved = {"cursor:runs": "nextCursor"}
    recorder.ask("runs-list: first page", "GET", "/v1/runs?limit=1", save=saved)
    recorder.ask("runs-list: second page", "GET", "/v1/runs?cursor={cursor:runs}")
    for status in ("active", "stopped", "failed"):
        recorder.ask(f"runs-list: {status}", "GET", f"/v1/runs?status={status}")
        recorder.ask(f"runtimes-runs: {status}", "GET", f"{root}/{{runtime:2}}/runs?status={status}&limit=1")


def _leases(recorder: Recorder) -> None:
    root = "/v1/spaces/{space:1}/runtimes/{runtime:1}/connections"
    saved = {"connection:1": "id", "token:1": "endpoint.url#"}
    recorder.ask("runtimes-connections-list: none", "GET", root)
    recorder.ask("runtimes-connections-create: least", "POST", root, json_body={"protocol": "cdp"}, save=saved)
    whole = {"protocol": "cdp", "ttlSeconds": 7200, "options": {"policy": "standard", "mine": [1]}}
    saved = {"connection:2": "id", "token:2": "endpoint.url#"}
    recorder.ask("runtimes-connections-create: whole", "POST", root, json_body=whole, save=saved)
    untrusted = {"Host": "evil.example"}
    recorder.ask(
        "runtimes-connections-create: untrusted host", "POST", root, json_body={"protocol": "cdp"}, headers=untrusted
    )
    recorder.ask("runtimes-connections-get: unused", "GET", f"{root}/{{connection:1}}")
    _attach(recorder)
    used = f"{root}/{{connection:1}}"
    recorder.until("GET", used, lambda lease: lease["usage"]["commands"] > 0)
    recorder.ask("runtimes-connections-get: used", "GET", used)
    recorder.ask("runtimes-connections-list: two", "GET", root)
    recorder.ask("runtimes-connections-delete: once", "DELETE", f"{root}/{{connection:2}}")
    recorder.ask("runtimes-connections-delete: again", "DELETE", f"{root}/{{connection:2}}")
    recorder.ask("runtimes-connections-get: revoked", "GET", f"{root}/{{connection:2}}")
    recorder.ask("lease: plain", "GET", "/v1/connect/{token:1}", key=None)
    recorder.ask("lease: plain with a slash", "GET", "/v1/connect/{token:1}/", key=None)
    recorder.ask("lease: plain below", "GET", "/v1/connect/{token:1}/devtools/browser/x", key=None)
    recorder.ask("lease: plain page", "GET", "/v1/connect/{token:1}/devtools/page/x", key=None)
    recorder.ask("lease: plain POST", "POST", "/v1/connect/{token:1}", key=None)
    recorder.ask("lease: plain HEAD", "HEAD", "/v1/connect/{token:1}", key=None)
    recorder.ask("lease: plain unknown", "GET", "/v1/connect/unknown", key=None)
    recorder.ask("lease: nothing below", "GET", "/v1/connect/{token:1}/nothing", key=None)
    for name, path in {
        "unknown": "unknown",
        "revoked": "{token:2}",
        "nothing below": "{token:1}/nothing",
        "unknown page": "{token:1}/devtools/page/00000000000000000000000000000000",
        "unknown browser": f"{{token:1}}/devtools/browser/{UNKNOWN}",
    }.items():
        recorder.ask(f"lease: socket, {name}", "GET", f"/v1/connect/{path}", headers=_WEBSOCKET, key=None)
    foreign = {**_WEBSOCKET, "Origin": "http://evil.example"}
    recorder.ask("lease: socket, foreign page", "GET", "/v1/connect/{token:1}", headers=foreign, key=None)
    recorder.ask("no route: socket", "GET", "/v1/spaces", headers=_WEBSOCKET)


def _attach(recorder: Recorder) -> None:
    """A client that attaches, asks one thing that it may and one that it may not, and detaches."""
    with connect(f"ws://{recorder.host}/v1/connect/{recorder.value('token:1')}", max_size=None) as socket:
        for number, method in enumerate(("Browser.getVersion", "Browser.crash"), 1):
            socket.send(json.dumps({"id": number, "method": method}))
            while json.loads(socket.recv(timeout=30)).get("id") != number:
                continue
    try:
        socket.recv(timeout=30)
    except ConnectionClosed:
        return


def _discovery(recorder: Recorder) -> None:
    root = "/v1/connect/{token:1}/json"

    def ask(name: str, method: str, path: str, **more: object) -> object:
        return recorder.ask(f"discovery: {name}", method, path, key=None, **more)  # type: ignore[arg-type]

    ask("version", "GET", f"{root}/version")
    ask("version with a slash", "GET", f"{root}/version/")
    ask("version, HEAD", "HEAD", f"{root}/version")
    ask("version, POST", "POST", f"{root}/version")
    ask("protocol", "GET", f"{root}/protocol", kept="bytes")
    ask("new", "PUT", f"{root}/new?{_PAGE}", save={"page:1": "id"})
    ask("new, GET", "GET", f"{root}/new?about:blank")
    ask("new, refused", "PUT", f"{root}/new?file:///etc/passwd")
    ask("list", "GET", f"{root}/list")
    ask("json", "GET", root, kept="bytes")
    ask("json with a slash", "GET", f"{root}/", kept="bytes")
    ask("activate", "GET", f"{root}/activate/{{page:1}}", kept="bytes")
    ask("activate, unknown", "GET", f"{root}/activate/00000000000000000000000000000000")
    ask("activate, malformed", "GET", f"{root}/activate/a.b")
    ask("close", "GET", f"{root}/close/{{page:1}}", kept="bytes")
    ask("close, unknown", "GET", f"{root}/close/00000000000000000000000000000000")
    ask("nothing", "GET", f"{root}/nothing")
    ask("unknown lease", "GET", "/v1/connect/unknown/json/version")
    ask("revoked lease", "GET", "/v1/connect/{token:2}/json/version")
    ask("foreign page", "GET", f"{root}/version", headers={"Origin": "http://evil.example"})
    ask("untrusted host", "GET", f"{root}/version", headers={"Host": "evil.example"})


def _runtime_files(recorder: Recorder) -> None:
    root = "/v1/spaces/{space:1}/runtimes/{runtime:1}/files"

    def stage(name: str, /, **body: object) -> None:
        recorder.ask(f"runtimes-files-stage: {name}", "POST", f"{root}/stage", json_body=body)

    def collect(name: str, save: Mapping[str, str] | None = None, /, **body: object) -> None:
        recorder.ask(f"runtimes-files-collect: {name}", "POST", f"{root}/collect", json_body=body, save=save)

    stage("by id", fileId="{file:1}")
    stage("again", fileId="{file:1}")
    stage("by path", path="a.txt", name="other.txt")
    stage("to a place", fileId="{file:2}", runtimePath="deep/er/a.txt")
    stage("to a taken place", fileId="{file:2}", runtimePath="deep/er/a.txt")
    stage("outside", fileId="{file:2}", runtimePath="../a.txt")
    stage("absolute", fileId="{file:2}", runtimePath="/etc/a.txt")
    stage("no such file", fileId=UNKNOWN)
    stage("malformed file id", fileId="x")
    stage("no such path", path="none.txt")
    stage("wrong path", path="../x")
    collect("least", {"file:6": "id"}, path="other.txt")
    whole = {"kind": "report", "name": "Report.txt"}
    collect(
        "whole",
        {"file:7": "id", "artifact:1": "artifact.id"},
        path="deep/er/a.txt",
        storagePath="out/report.txt",
        artifact=whole,
    )
    collect(
        "artifact of defaults",
        {"file:8": "id", "artifact:2": "artifact.id"},
        path="other.txt",
        storagePath="out/two.txt",
        artifact={},
    )
    collect("taken path", path="other.txt")
    collect("no such file", path="none.txt")
    collect("a directory", path="deep")
    collect("outside", path="../../etc/passwd")
    collect("wrong storage path", path="other.txt", storagePath="/x")
    stopped = "/v1/spaces/{space:1}/runtimes/{runtime:2}/files"
    recorder.ask("runtimes-files-stage: stopped", "POST", f"{stopped}/stage", json_body={"fileId": "{file:1}"})
    recorder.ask("runtimes-files-collect: stopped", "POST", f"{stopped}/collect", json_body={"path": "a.txt"})
    of_run, of_space = "/v1/runs/{run:1}/artifacts", "/v1/spaces/{space:1}/artifacts"
    for name, path in (("runs-artifacts", of_run), ("spaces-artifacts", of_space)):
        saved = {f"cursor:{name}": "nextCursor"}
        recorder.ask(f"{name}: all", "GET", path)
        recorder.ask(f"{name}: first page", "GET", f"{path}?limit=1", save=saved)
        recorder.ask(f"{name}: second page", "GET", f"{path}?limit=1&cursor={{cursor:{name}}}")
        recorder.ask(f"{name}: a kind", "GET", f"{path}?kind=report")
        recorder.ask(f"{name}: kinds", "GET", f"{path}?kind=report,collected&kind=x")
        recorder.ask(f"{name}: none", "GET", f"{path}?kind=download")
        recorder.ask(f"{name}: untrusted host", "GET", path, headers={"Host": "evil.example"})
    recorder.ask("spaces-artifacts: of a runtime", "GET", f"{of_space}?runtimeId={{runtime:1}}")
    recorder.ask("spaces-artifacts: of another runtime", "GET", f"{of_space}?runtimeId={{runtime:2}}")


def _viewers(recorder: Recorder) -> None:
    live, recording = "/v1/runs/{run:1}/live", "/v1/runs/{run:1}/recording"
    recorder.ask("runs-live: least", "POST", live, json_body={}, save={"viewer:1": "iframeUrl#"})
    whole = {"control": "input", "components": ["activity"], "expiresInSeconds": 60}
    saved = {"viewer:2": "iframeUrl#", "viewer:3": "activityStreamUrl#-1"}
    recorder.ask("runs-live: whole", "POST", live, json_body=whole, save=saved)
    recorder.ask("runs-live: untrusted host", "POST", live, json_body={}, headers={"Host": "evil.example"})
    whole = {"components": ["activity"], "expiresInSeconds": 60}
    recorder.ask("runs-recording: whole", "POST", recording, json_body=whole, save={"viewer:4": "iframeUrl#"})
    recorder.ask("viewer: live", "GET", "/v1/viewers/live/{viewer:1}", key=None, kept="bytes")
    recorder.ask("viewer: live, unknown", "GET", "/v1/viewers/live/unknown", key=None, kept="wording")
    recorder.ask("viewer: live, POST", "POST", "/v1/viewers/live/{viewer:1}", key=None)
    recorder.ask("viewer: live, of another kind", "GET", "/v1/viewers/live/{viewer:4}", key=None, kept="wording")
    recorder.ask("viewer: recording", "GET", "/v1/viewers/recording/{viewer:4}", key=None, kept="bytes")
    recorder.ask("viewer: recording, unknown", "GET", "/v1/viewers/recording/unknown", key=None, kept="wording")
    for below in (
        "state",
        "frames",
        "frames/0",
        "frames/x",
        "frames?from=x",
        "video",
        "activity?after=x",
        "activity?after=9999",
    ):
        recorder.ask(f"viewer: recording, {below}", "GET", f"/v1/viewers/recording/{{viewer:4}}/{below}", key=None)
        recorder.ask(f"viewer: recording, unknown {below}", "GET", f"/v1/viewers/recording/unknown/{below}", key=None)
    recorder.ask(
        "viewer: recording, activity", "GET", "/v1/viewers/recording/{viewer:4}/activity", key=None, kept="shape"
    )
    recorder.ask("viewer: activity", "GET", "/v1/viewers/activity/{viewer:3}/stream", key=None, frames=2)
    recorder.ask("viewer: activity, unknown", "GET", "/v1/viewers/activity/unknown/stream", key=None)
    for name in ("live.css", "live.js", "none.css", "live.html"):
        recorder.ask(f"viewer: asset {name}", "GET", f"/v1/viewers/assets/{name}", key=None, kept="bytes")
    recorder.ask("viewer: socket, unknown", "GET", "/v1/viewers/live/unknown/socket", headers=_WEBSOCKET, key=None)
    foreign = {**_WEBSOCKET, "Origin": "http://evil.example"}
    path = "/v1/viewers/live/{viewer:1}/socket"
    recorder.ask("viewer: socket, foreign page", "GET", path, headers=foreign, key=None)


# Records of runs. What the browser does comes between what the API does as it happens, so lists are filtered such that
# only one of both is in them.


def _until_written(recorder: Recorder, run: str, command: str) -> None:
    """Events are written a moment after what they are of; this waits for the last one that the API caused."""

    def is_last(found: Any) -> bool:
        return [event["data"]["name"] for event in found["events"]] == [command]

    recorder.until("GET", f"/v1/runs/{run}/events?type=tool.command&order=desc&limit=1", is_last)


def _live_run(recorder: Recorder) -> None:
    events = "/v1/runs/{run:1}/events"
    _until_written(recorder, "{run:1}", "recording.create")
    recorder.until("GET", f"{events}?pageId={{page:1}}&type=page.closed", lambda found: len(found["events"]) == 1)
    for category in ("tool", "artifact", "connection"):
        recorder.ask(f"runs-events: {category}", "GET", f"{events}?category={category}&limit=1000")
    recorder.ask("runs-events: lifecycle", "GET", f"{events}?type=runtime.lifecycle")
    recorder.ask("runs-events: two types", "GET", f"{events}?type=connection.opened,connection.closed&limit=1")
    recorder.ask("runs-events: types repeated", "GET", f"{events}?type=connection.opened&type=connection.closed")
    saved = {"cursor:events": "nextCursor"}
    recorder.ask("runs-events: first page", "GET", f"{events}?category=tool&limit=1", save=saved)
    recorder.ask("runs-events: second page", "GET", f"{events}?category=tool&limit=1&cursor={{cursor:events}}")
    recorder.ask("runs-events: newest first", "GET", f"{events}?category=artifact&order=desc")
    recorder.ask("runs-events: behind the end", "GET", f"{events}?cursor=999999999999999999")
    recorder.ask("runs-events: cursor too long", "GET", f"{events}?cursor=1000000000000000000")
    recorder.ask("runs-events: of a connection", "GET", f"{events}?connectionId={{connection:1}}")
    recorder.ask("runs-events: of no connection", "GET", f"{events}?connectionId={UNKNOWN}")
    recorder.ask("runs-events: type of another category", "GET", f"{events}?type=page.created&category=tool")
    recorder.ask("runs-events: of the page", "GET", f"{events}?pageId={{page:1}}&type=page.created")
    recorder.ask("runs-events: HEAD", "HEAD", events)

    wait = "/v1/runs/{run:1}/events/wait"
    recorder.ask(
        "runs-events-wait: at once", "POST", wait, json_body={"after": "0", "eventTypes": ["runtime.lifecycle"]}
    )
    whole = {"after": "0", "category": "connection", "connectionId": "{connection:1}", "timeoutMs": 1000}
    recorder.ask("runs-events-wait: whole", "POST", wait, json_body=whole)
    late = {"eventTypes": ["page.crash"], "pageId": "none", "timeoutMs": 50}
    recorder.ask("runs-events-wait: timeout", "POST", wait, json_body=late)
    recorder.ask(
        "runs-events-wait: no time", "POST", wait, json_body={"after": None, "category": "tool", "timeoutMs": 0}
    )
    recorder.ask("runs-events-wait: wrong cursor", "POST", wait, json_body={"after": "x", "timeoutMs": 0})

    stream = f"{events}/stream"
    recorder.ask("runs-events-stream: two", "GET", f"{stream}?category=tool&limit=2")
    recorder.ask("runs-events-stream: going on", "GET", f"{stream}?category=tool&limit=1&cursor={{cursor:events}}")
    resumed = {"Last-Event-ID": "{cursor:events}"}
    recorder.ask("runs-events-stream: resumed", "GET", f"{stream}?category=tool&limit=1&cursor=0", headers=resumed)
    recorder.ask("runs-events-stream: wrong id", "GET", stream, headers={"Last-Event-ID": "x"})
    recorder.ask("runs-events-stream: open", "GET", f"{stream}?type=runtime.lifecycle", frames=2)
    recorder.ask("runs-events-stream: HEAD", "HEAD", stream)

    activity = "/v1/runs/{run:1}/activity"
    recorder.ask("activity-list: tool", "GET", f"{activity}?categories=tool&limit=1000")
    recorder.ask("activity-list: two categories", "GET", f"{activity}?categories=artifact,connection")
    recorder.ask("activity-list: categories repeated", "GET", f"{activity}?categories=artifact&categories=connection")
    recorder.ask("activity-list: warnings", "GET", f"{activity}?level=warning&categories=tool")
    recorder.ask("activity-list: errors", "GET", f"{activity}?level=error")
    saved = {"cursor:activity": "nextCursor"}
    recorder.ask("activity-list: first page", "GET", f"{activity}?categories=tool&limit=1", save=saved)
    recorder.ask("activity-list: second page", "GET", f"{activity}?categories=tool&limit=1&cursor={{cursor:activity}}")
    recorder.ask("activity-stream: two", "GET", f"{activity}/stream?categories=tool&limit=2")
    recorder.ask("activity-stream: open", "GET", f"{activity}/stream?categories=artifact", frames=2)
    recorder.ask("activity-stream: HEAD", "HEAD", f"{activity}/stream")


# Of whom it is


def _subaccount(recorder: Recorder) -> None:
    """What a subaccount's key may do, and what not."""
    root = "/v1/subaccounts"
    recorder.ask("subaccounts-list: own", "GET", root, key="sub")
    recorder.ask("subaccounts-get: own", "GET", f"{root}/{{subaccount:1}}", key="sub")
    recorder.ask("subaccounts-create: own", "POST", root, json_body={"name": "x"}, key="sub")
    recorder.ask("keys-list: own", "GET", f"{root}/{{subaccount:1}}/keys", key="sub")
    for name in ("subaccount:1", "subaccount:2"):
        path = f"{root}/{{{name}}}"
        recorder.ask(f"subaccounts-update: by {name}", "PATCH", path, json_body={"name": "x"}, key="sub")
        recorder.ask(f"subaccounts-archive: by {name}", "POST", f"{path}/archive", key="sub")
        recorder.ask(f"keys-create: by {name}", "POST", f"{path}/keys", json_body={"name": "x"}, key="sub")
        recorder.ask(f"keys-revoke: by {name}", "DELETE", f"{path}/keys/{{apikey:1}}", key="sub")
    owned = {"label": "mine", "provider": "openai", "subaccountId": "{subaccount:1}"}
    recorder.ask(
        "create: by a subaccount", "POST", "/v1/ai-connections", json_body=owned, key="sub", save={"ai:6": "id"}
    )
    recorder.ask(
        "create: for another subaccount",
        "POST",
        "/v1/ai-connections",
        json_body={"label": "mine", "provider": "openai", "subaccountId": "{subaccount:2}"},
        key="sub",
    )
    space = "/v1/spaces/{space:4}"
    recorder.ask("spaces-get: own", "GET", space, key="sub")
    mounts = {"ai": {"allowConnections": ["owned", "first ü"]}}
    recorder.ask(
        "spaces-update: a connection of the organization", "PATCH", space, json_body={"mounts": mounts}, key="sub"
    )
    saved = {"runtime:4": "id", "run:4": "activeRunId"}
    quiet = {"config": {"events": "off"}}
    recorder.ask("runtimes-create: own", "POST", f"{space}/runtimes", json_body=quiet, key="sub", save=saved)
    recorder.ask("runtimes-create: one too many", "POST", f"{space}/runtimes", json_body={}, key="sub")
    recorder.ask("runs-list: own", "GET", "/v1/runs", key="sub")
    recorder.ask("runs-events: off", "GET", "/v1/runs/{run:4}/events", key="sub")
    recorder.ask("commands-list: own", "GET", "/v1/runs/{run:4}/commands", key="sub")
    recorder.ask("runtimes-stop: own", "POST", f"{space}/runtimes/{{runtime:4}}/stop", key="sub")


def _foreign(recorder: Recorder) -> None:
    """A subaccount's key finds nothing of the organization."""
    ids = {
        "/v1/ai-connections/{id}": "{ai:1}",
        "/v1/spaces/{id}": "{space:1}",
        "{fileId}": "{file:1}",
        "{runtimeId}": "{runtime:1}",
        "{connectionId}": "{connection:1}",
        "/v1/runs/{id}": "{run:1}",
        "/v1/subaccounts/{id}": "{subaccount:2}",
        "{keyId}": "{apikey:4}",
    }
    for operation in OPERATIONS:
        if "{" not in operation.path:
            continue
        path = operation.path
        for place, name in ids.items():
            path = path.replace(place, place.replace("{id}", name) if "{id}" in place else name)
        if operation.form:
            recorder.ask(f"{operation.id}: foreign", "POST", path, content=_form(file="x"), headers=_FORM, key="sub")
            continue
        recorder.ask(f"{operation.id}: foreign", operation.method, path, json_body=operation.valid, key="sub")


def _heads(recorder: Recorder) -> None:
    for name, path in {
        "healthz": "/healthz",
        "docs": "/docs",
        "spaces-list": "/v1/spaces",
        "spaces-get": "/v1/spaces/{space:1}",
        "spaces-get, unknown": f"/v1/spaces/{UNKNOWN}",
        "ai-connections-get": "/v1/ai-connections/{ai:1}",
        "runtimes-get": "/v1/spaces/{space:1}/runtimes/{runtime:1}",
        "runs-get": "/v1/runs/{run:1}",
        "no route": "/v1/nothing",
        "no HEAD": "/v1/spaces/{space:1}/runtimes/{runtime:1}/stop",
    }.items():
        recorder.ask(f"HEAD: {name}", "HEAD", path)
    recorder.ask("HEAD: no key", "HEAD", "/v1/spaces", key=None)


# After the end


def _recorded_run(recorder: Recorder) -> None:
    """A run with everything that is recorded of pages, while it lives and once its video is made."""
    runtime, recording = "/v1/spaces/{space:1}/runtimes/{runtime:3}", "/v1/runs/{run:3}/recording"
    saved = {"connection:3": "id", "token:3": "endpoint.url#"}
    recorder.ask(
        "runtimes-connections-create: recorded",
        "POST",
        f"{runtime}/connections",
        json_body={"protocol": "cdp"},
        save=saved,
    )
    recorder.ask(
        "discovery: new page that is recorded",
        "PUT",
        f"/v1/connect/{{token:3}}/json/new?{_PAGE}",
        key=None,
        save={"page:2": "id"},
    )
    seen = {"after": "0", "eventTypes": ["console.message"], "pageId": "{page:2}", "timeoutMs": 30000}
    recorder.ask("runs-events-wait: console", "POST", "/v1/runs/{run:3}/events/wait", json_body=seen)
    recorder.until(
        "GET",
        "/v1/runs/{run:3}/events?type=console.message&pageId={page:2}",
        lambda found: len(found["events"]) == 2,
    )
    events = "/v1/runs/{run:3}/events?pageId={page:2}"
    recorder.ask("runs-events: console", "GET", f"{events}&type=console.message")
    recorder.ask("runs-recording: live", "POST", recording, json_body={}, save={"viewer:5": "iframeUrl#"})
    state = "/v1/viewers/recording/{viewer:5}/state"
    recorder.ask("viewer: recording, state while live", "GET", state, key=None)
    recorder.until(
        "GET", "/v1/viewers/recording/{viewer:5}/frames", lambda found: found is not None and bool(found.get("frames"))
    )
    recorder.ask("runtimes-stop: recorded", "POST", f"{runtime}/stop")
    recorder.until("GET", state, lambda found: found["status"] in ("ready", "failed"))
    ready = {"components": ["activity"]}
    recorder.ask("runs-recording: ready", "POST", recording, json_body=ready, save={"viewer:6": "iframeUrl#"})
    viewer = "/v1/viewers/recording/{viewer:6}"
    recorder.ask("viewer: recording, state of a ready one", "GET", f"{viewer}/state", key=None, kept="shape")
    recorder.ask("viewer: recording, the video", "GET", f"{viewer}/video", key=None, kept="bytes")
    recorder.ask("viewer: recording, the video, HEAD", "HEAD", f"{viewer}/video", key=None, kept="bytes")
    recorder.ask("runs-events: recording", "GET", "/v1/runs/{run:3}/events?type=runtime.lifecycle")


def _ended_run(recorder: Recorder) -> None:
    run = "/v1/runs/{run:1}"
    recorder.ask("runtimes-stop: whole", "POST", "/v1/spaces/{space:1}/runtimes/{runtime:1}/stop")
    _until_written(recorder, "{run:1}", "runtimes.stop")
    recorder.ask("runs-get: ended", "GET", run)
    recorder.ask("runs-events-stream: ended", "GET", f"{run}/events/stream?type=runtime.lifecycle")
    recorder.ask("activity-stream: ended", "GET", f"{run}/activity/stream?categories=artifact")
    after = {"Last-Event-ID": "999999"}
    recorder.ask("runs-events-stream: all is read", "GET", f"{run}/events/stream", headers=after)
    recorder.ask("activity-stream: all is read", "GET", f"{run}/activity/stream?cursor=999999")
    recorder.ask("runs-events-wait: ended", "POST", f"{run}/events/wait", json_body={"timeoutMs": 0})
    commands = f"{run}/commands"
    recorder.ask("commands-list: all", "GET", f"{commands}?limit=200")
    recorder.ask("commands-list: with input", "GET", f"{commands}?include=input&limit=200")
    recorder.ask("commands-list: first page", "GET", f"{commands}?limit=1", save={"cursor:commands": "nextCursor"})
    recorder.ask("commands-list: second page", "GET", f"{commands}?limit=1&cursor={{cursor:commands}}")
    recorder.ask("commands-list: newest first", "GET", f"{commands}?limit=2&order=desc&include=input&include=input")
    recorder.ask("commands-list: failed", "GET", f"{commands}?status=failed")
    recorder.ask("commands-list: durable", "GET", f"{commands}?executionMode=durable")
    recorder.ask("lease: socket, ended", "GET", "/v1/connect/{token:1}", headers=_WEBSOCKET, key=None)
    recorder.ask("discovery: ended", "GET", "/v1/connect/{token:1}/json/version", key=None)
    recorder.ask("viewer: live, ended", "GET", "/v1/viewers/live/{viewer:1}", key=None, kept="wording")
    recorder.ask("viewer: activity, ended", "GET", "/v1/viewers/activity/{viewer:3}/stream", key=None, frames=2)
    connection = "/v1/spaces/{space:1}/runtimes/{runtime:1}/connections/{connection:1}"
    recorder.ask("runtimes-connections-get: ended", "GET", connection)
    recorder.ask("runtimes-connections-delete: ended", "DELETE", connection)


def _updates(recorder: Recorder) -> None:
    for path in ("/v1/updates/stream", "/v1/updates"):
        recorder.ask(f"{path}: from the first on", "GET", f"{path}?cursor=0&limit=12")
        recorder.ask(f"{path}: resumed", "GET", f"{path}?limit=1", headers={"Last-Event-ID": "1"})
        recorder.ask(f"{path}: from now on", "GET", path, frames=1)
        recorder.ask(f"{path}: of a subaccount", "GET", f"{path}?cursor=0&limit=2", key="sub")
        recorder.ask(f"{path}: HEAD", "HEAD", path)


def _removals(recorder: Recorder) -> None:
    files = "/v1/spaces/{space:1}/storage/files"
    recorder.ask("storage-files-delete: once", "DELETE", f"{files}/{{file:7}}")
    recorder.ask("storage-files-delete: again", "DELETE", f"{files}/{{file:7}}")
    recorder.ask("storage-files-content: deleted", "GET", f"{files}/{{file:7}}/content")
    recorder.ask("runs-artifacts: one is deleted", "GET", "/v1/runs/{run:1}/artifacts")
    recorder.ask("spaces-delete: once", "DELETE", "/v1/spaces/{space:1}")
    recorder.ask("spaces-delete: again", "DELETE", "/v1/spaces/{space:1}")
    gone: Sequence[tuple[str, str]] = (
        ("runs-get", "/v1/runs/{run:1}"),
        ("runs-events", "/v1/runs/{run:1}/events"),
        ("runtimes-list", "/v1/spaces/{space:1}/runtimes"),
        ("storage-files-list", files),
        ("spaces-list", "/v1/spaces"),
        ("runs-list", "/v1/runs"),
    )
    for name, path in gone:
        recorder.ask(f"{name}: of a deleted space", "GET", path)
