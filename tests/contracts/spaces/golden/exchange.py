"""One request and its answer, as the golden file has them: to the byte, with values that change masked in place."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx

from tests.support.waiting import wait_until

# How a body is recorded: as it is; as one text for people; the names and types that its JSON has, where a browser, a
# clock or the machine fills it; only that there is one; not at all.
Kept = Literal["text", "wording", "shape", "bytes", "none"]

# `Date` changes, and the server's own framing of a body is not the contract's.
_NOT_RECORDED = {"date", "transfer-encoding", "connection", "keep-alive"}
# What nearly every answer has, so that a line only says where it is otherwise.
_USUAL = {"content-length": "<of the body>", "content-type": "application/json", "x-request-id": "<uuid>"}
_PLACEHOLDER = re.compile(r"\{([a-z]+:[a-z0-9-]+)\}")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
# A string of JSON behind a name whose value is a sentence for people.
_WORDING = re.compile(r'"(error|message|advice)":("(?:[^"\\]|\\.)*")')
_CURSOR = re.compile(r'(?<="nextCursor":")[A-Za-z0-9_=-]{20,}(?=")')

# An id that nothing has.
UNKNOWN = "00000000-0000-7000-8000-000000000000"

# In this order. A time keeps its form: milliseconds and Z in bodies, any precision inside of a cursor.
_MASKS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"bctrl_[A-Za-z0-9]{12}_[A-Za-z0-9_-]{20,}"), "<api-key>"),
    (re.compile(r"bctrl_[A-Za-z0-9]{12}(?![A-Za-z0-9])"), "<key-prefix>"),
    (re.compile(r"(?<=/v1/connect/)[A-Za-z0-9_.-]{24,}"), "<token>"),
    (re.compile(r"(?<=/v1/viewers/live/)[A-Za-z0-9_.-]{24,}"), "<token>"),
    (re.compile(r"(?<=/v1/viewers/recording/)[A-Za-z0-9_.-]{24,}"), "<token>"),
    (re.compile(r"(?<=/v1/viewers/activity/)[A-Za-z0-9_.-]{24,}"), "<token>"),
    # When a key was last used is written now and then, so it may be there or not.
    (re.compile(r'(?<="lastUsedAt":)(null|"[^"]*")'), "<time or null>"),
    (re.compile(r"20[0-8]\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"), "<time>"),
    # Where the data directory is.
    (re.compile(r"(?<=[\"'])/(?!v1/)[^\s\"']*?/runtimes(?=/)"), "<data>/runtimes"),
    # What a clock or a network counts.
    (re.compile(r'(?<="durationMs":)\d+'), "<n>"),
    (re.compile(r'(?<="bytesSent":)\d+'), "<n>"),
    (re.compile(r'(?<="bytesReceived":)\d+'), "<n>"),
    (re.compile(r'(?<="refused":)\d+'), "<n>"),
    (re.compile(r'(?<="bytesToClient":)\d+'), "<n>"),
    # Events of the browser come between those of the gateway as they happen, and all are counted.
    (re.compile(r'(?<="sequence":)\d+'), "<n>"),
    (re.compile(r'(?<="nextCursor":")\d+(?=")'), "<n>"),
    (re.compile(r'(?<="cursor":")\d+(?=")'), "<n>"),
    (re.compile(r"(?m)^id: \d+$"), "id: <n>"),
    # Of the browser: which one the machine has, targets, its version and that of its parts.
    (re.compile(r'(?<="browser":)"(headless-shell|chromium)"'), '"<browser>"'),
    (re.compile(r'(?<="Browser": ")[^"]*'), "<browser>"),
    (re.compile(r'(?<="User-Agent": ")[^"]*'), "<user agent>"),
    # A page that is not loaded yet has none.
    (re.compile(r'(?<="title": ")[^"]*'), "<title>"),
    (re.compile(r"\b(?!0{8})[0-9A-F]{32}\b"), "<target>"),
    (re.compile(r"\b\d+\.\d+\.\d+\.\d+(?= |\"|$)"), "<version>"),
    (re.compile(r"@[0-9a-f]{40}"), "@<revision>"),
    (re.compile(r'(?<="V8-Version": ")[^"]*'), "<version>"),
)


@dataclass(frozen=True, slots=True)
class Exchange:
    """As a line of the golden file has it. `wording` are the sentences that the body had, in its order."""

    name: str
    request: str
    status: int
    headers: Mapping[str, str]
    body: str
    wording: tuple[str, ...]
    given: str | None = None

    def line(self) -> str:
        fields: dict[str, Any] = {"name": self.name, "request": self.request}
        if self.given is not None:
            fields["given"] = self.given
        fields |= {"status": self.status, "headers": self.headers, "body": self.body}
        if self.wording:
            fields["wording"] = self.wording
        return json.dumps(fields, ensure_ascii=False)

    @classmethod
    def read(cls, line: str) -> Exchange:
        fields = json.loads(line)
        return cls(**{**fields, "wording": tuple(fields.get("wording", ()))})


class Recorder:
    """Asks a gateway and keeps each exchange.

    A request names what earlier answers brought as `{space:1}`: `save` says where in the answer such a value is.
    """

    def __init__(self, base_url: str, api_key: str) -> None:
        self.exchanges: list[Exchange] = []
        self._names: set[str] = set()
        self._values: dict[str, str] = {"key:org": api_key, "id:unknown": UNKNOWN}
        self.host = urlsplit(base_url).netloc
        self._client = httpx.Client(base_url=base_url, timeout=120)
        # The recorded answers should depend on the gateway, not on what this client is used to send.
        self._client.headers.clear()

    def close(self) -> None:
        self._client.close()

    def value(self, name: str) -> str:
        return self._values[name]

    def ask(
        self,
        name: str,
        method: str,
        path: str,
        *,
        json_body: Any = None,
        content: str | bytes | None = None,
        headers: Mapping[str, str] | None = None,
        key: str | None = "org",
        save: Mapping[str, str] | None = None,
        kept: Kept = "text",
        frames: int | None = None,
    ) -> Any:
        """The answer's JSON, if it is that. With `frames` a stream is read up to so many server-sent frames."""
        assert name not in self._names, f"there are two exchanges {name!r}"
        self._names.add(name)
        text = json.dumps(json_body, separators=(",", ":")) if json_body is not None else content
        response = self._send(method, path, text, json_body is not None, headers or {}, key)
        try:
            raw = self._read(response, frames)
        finally:
            response.close()
        parsed = _parsed(response, raw)
        for saved, place in (save or {}).items():
            try:
                self._values[saved] = _at(parsed, place)
            except (LookupError, TypeError):
                raise AssertionError(f"{name}: no {place} in the answer {response.status_code} {raw!r}") from None
        self._keep(name, method, path, text, response, raw, kept, headers or {}, key)
        return parsed

    def until(
        self, method: str, path: str, done: Callable[[Any], bool], *, json_body: Any = None, seconds: float = 60
    ) -> Any:
        """Asks, unrecorded, until the answer is as it should be, and returns it."""
        text = json.dumps(json_body) if json_body is not None else None
        found: Any = None

        def is_done() -> bool:
            nonlocal found
            response = self._send(method, path, text, json_body is not None, {}, "org")
            try:
                found = _parsed(response, self._read(response, None))
            finally:
                response.close()
            return done(found)

        try:
            wait_until(is_done, f"{method} {path} answers as it should", seconds, between_looks=0.05)
        except AssertionError as error:
            error.add_note(f"It stayed at {found}")
            raise
        return found

    def save(self, name: str, value: str) -> None:
        self._values[name] = value

    def _send(
        self,
        method: str,
        path: str,
        text: str | bytes | None,
        is_json: bool,
        headers: Mapping[str, str],
        key: str | None,
    ) -> httpx.Response:
        sent = {"Host": self.host}
        if key is not None:
            sent["Authorization"] = f"Bearer {self._values[f'key:{key}']}"
        if is_json:
            sent["Content-Type"] = "application/json"
        sent |= {name: self._filled(value) for name, value in headers.items()}
        body = self._filled(text) if isinstance(text, str) else text
        request = self._client.build_request(method, self._filled(path), headers=sent, content=body)
        return self._client.send(request, stream=True)

    @staticmethod
    def _read(response: httpx.Response, frames: int | None) -> bytes:
        raw = b""
        for chunk in response.iter_raw():
            raw += chunk
            if frames is not None and raw.count(b"\n\n") >= frames:
                return b"\n\n".join(raw.split(b"\n\n")[:frames]) + b"\n\n"
        return raw

    def _keep(
        self,
        name: str,
        method: str,
        path: str,
        text: str | bytes | None,
        response: httpx.Response,
        raw: bytes,
        kept: Kept,
        headers: Mapping[str, str],
        key: str | None,
    ) -> None:
        request = f"{method} {_template(path)}"
        notes = [f"{header}: {value}" for header, value in headers.items()]
        if key != "org":
            notes.append("without a key" if key is None else f"with the key of {key}")
        given = None if text is None else text if isinstance(text, str) else f"{len(text)} bytes"
        body, wording = self._body(raw, kept)
        self.exchanges.append(
            Exchange(
                name=name,
                request=" | ".join([request, *map(_template, notes)]),
                given=None if given is None else _template(given),
                status=response.status_code,
                headers=self._headers(response, raw, kept),
                body=body,
                wording=wording,
            )
        )

    def _headers(self, response: httpx.Response, raw: bytes, kept: Kept) -> dict[str, str]:
        """All that matter and are not as usual, sorted by name; a length that is right is only recorded as that."""
        found: dict[str, str] = {}
        for name, value in sorted(response.headers.multi_items()):
            if name in _NOT_RECORDED:
                continue
            if name == "x-request-id":
                value = "<uuid>" if _UUID.fullmatch(value) else value
            elif name == "content-length" and value == str(len(raw)):
                value = "<of the body>" if raw else value
            elif name == "content-length" and (response.request.method == "HEAD" or kept in ("bytes", "shape")):
                value = "<n>"
            found[name] = f"{found[name]}, {value}" if name in found else self._masked(value)
        missing = {name: "<absent>" for name in _USUAL if name not in found}
        return {name: value for name, value in (found | missing).items() if _USUAL.get(name) != value}

    def _body(self, raw: bytes, kept: Kept) -> tuple[str, tuple[str, ...]]:
        if kept == "none":
            return "", ()
        if kept == "bytes":
            return "<bytes>" if raw else "", ()
        if kept == "shape":
            return json.dumps(_shape(json.loads(raw))), ()
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            return f"<{len(raw)} bytes: {raw[:32]!r}>", ()
        if kept == "wording":
            return "<wording>", (self._masked(text),)
        text = self._masked(text)
        wording = tuple(json.loads(match[2]) for match in _WORDING.finditer(text))
        return _WORDING.sub(r'"\1":"<wording>"', text), wording

    def _masked(self, text: str) -> str:
        text = _CURSOR.sub(lambda match: self._cursor(match[0]), text)
        text = text.replace(self.host, "<host>")
        for name, value in sorted(self._values.items(), key=lambda item: -len(item[1])):
            if not name.startswith("cursor:") and len(value) >= 8:
                text = text.replace(value, f"<{name}>")
                if _UUID.fullmatch(value) and value != UNKNOWN:
                    # What names are made from where none is given.
                    text = text.replace(value[-8:], f"<{name}, its end>")
        text = _UUID.sub("<uuid>", text)
        for pattern, placeholder in _MASKS:
            text = pattern.sub(placeholder, text)
        return text

    def _cursor(self, value: str) -> str:
        """What a cursor of a list has in it, which must stay as it is for those that clients hold."""
        try:
            inside = base64.b64decode(value, b"-_", validate=True).decode()
        except (ValueError, binascii.Error):
            return value
        inside = re.sub(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00", "<time>", inside)
        return f"<cursor of {inside}>"

    def _filled(self, text: str) -> str:
        return _PLACEHOLDER.sub(lambda match: self._values[match[1]], text)


def _template(text: str) -> str:
    return _PLACEHOLDER.sub(r"<\1>", text)


def _parsed(response: httpx.Response, raw: bytes) -> Any:
    """None where it is not JSON: a browser sends plain text under the media type of JSON, too."""
    try:
        return json.loads(raw) if response.headers.get("content-type", "").startswith("application/json") else None
    except ValueError:
        return None


def _shape(value: Any) -> Any:
    """The names and types of a JSON value; a list is the different shapes that it has."""
    if isinstance(value, dict):
        return {name: _shape(item) for name, item in value.items()}
    if isinstance(value, list):
        return [json.loads(shape) for shape in sorted({json.dumps(_shape(item)) for item in value})]
    return type(value).__name__


def _at(parsed: Any, place: str) -> str:
    """The value at `a.0.b`; of an address, with `#` behind it, the last part, and with `#-1` the one before."""
    place, is_address, back = place.partition("#")
    for part in place.split("."):
        parsed = parsed[int(part)] if isinstance(parsed, list) else parsed[part]
    if is_address:
        return str(parsed).split("/")[-1 + int(back or 0)]
    return str(parsed)
