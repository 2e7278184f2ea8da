"""Every option of the gateway, once: name, type, default and one sentence of help.

An option is an environment variable `GATEWAY_<NAME>` and a flag `--<name>`. Options that hold a secret have no
flag, since a command line can be read by every user of the machine. The table in docs/settings.md is made from here:
`python -m gateway.settings` writes it.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    field_validator,
)
from pydantic.fields import FieldInfo

from gateway.core.errors import ConfigurationError
from gateway.core.hosts import Entry

PREFIX = "GATEWAY_"

# What Kubernetes puts into every pod's environment for a Service called "gateway" or "gateway-<something>".
_KUBERNETES_NAME = re.compile(
    r"GATEWAY_([A-Z0-9_]+_)?(SERVICE_(HOST|PORT(_.+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_KUBERNETES_VALUE = re.compile(r"(tcp|udp|sctp)://")


# What other tools call the credentials of a bucket.
_OF_BUCKETS = {
    "AWS_ACCESS_KEY_ID": "files_access_key",
    "AWS_SECRET_ACCESS_KEY": "files_secret_key",
    "AWS_SESSION_TOKEN": "files_session_token",
}
_FILES_URL = re.compile(
    r"s3://[a-z0-9][a-z0-9.-]+(/[^\s?#@]*)?"
    r"(\?(endpoint=https?://[^\s?#&@]+|region=[a-z0-9-]+)(&(endpoint=https?://[^\s?#&@]+|region=[a-z0-9-]+))?)?"
    r"|file:///[^\s?#]+"
)


def _http_url(value: str) -> str:
    wrong = ValueError("must be an http or https address without user, query and fragment")
    if not re.fullmatch(r"https?://[^/\s?#@]+(/[^\s?#]*)?", value):
        raise wrong
    try:
        parts = urlsplit(value)
        if not parts.hostname or parts.port == 0:
            raise wrong
    except ValueError:  # urlsplit's own, for a bad port or bracket, repeats what it was given
        raise wrong from None
    return value.rstrip("/")


def _origin(value: str) -> str:
    # Extensions have origins of their own scheme, like chrome-extension://<id>.
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d{1,5})?", value):
        raise ValueError("must be scheme://host or scheme://host:port each, as a browser sends it in `Origin`")
    return value


def _frame_ancestor(value: str) -> str:
    if not re.fullmatch(r"[^\s;,\x00-\x20\x7f-\U0010ffff]+", value):
        raise ValueError("must be sources of a Content Security Policy, as `*`, `'self'` or `https://*.example.com`")
    return value


HttpUrl = Annotated[str, AfterValidator(_http_url), WithJsonSchema({"type": "string", "format": "uri"})]
Origin = Annotated[str, AfterValidator(_origin)]
FrameAncestor = Annotated[str, AfterValidator(_frame_ancestor)]


def _secret(default: Any, description: str) -> Any:
    return Field(default, description=description, repr=False, json_schema_extra={"secret": True})


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    # Where it listens
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8787, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    public_url: HttpUrl | None = Field(
        None, description="Address under which clients reach the gateway; leases and links are made from it."
    )
    internal_url: HttpUrl | None = Field(
        None,
        description="Address under which other gateways reach this one; without it host and port are told, or nothing "
        "when it listens on all addresses.",
    )
    trusted_hosts: tuple[str, ...] = Field(
        ("localhost", "127.0.0.1", "[::1]"),
        description="Host names (without port) whose `Host` header may be used in a lease when there is no public URL.",
    )
    forwarded_allow_ips: str = Field(
        "127.0.0.1", description="Addresses of proxies in front whose `X-Forwarded-*` headers are believed."
    )
    allowed_origins: tuple[Origin, ...] = Field(
        (), description="Origins (`scheme://host[:port]`) of web pages that may use leases, besides the gateway's own."
    )

    contract: str = Field(
        "spaces", description="Contract that answers a client that names none, on a path that several contracts have."
    )

    # What it keeps
    data_dir: Path = Field(Path("var"), description="Directory of everything that the gateway keeps on disk.")
    database_url: str | None = _secret(
        None, "PostgreSQL to use (`postgresql://...`); without it `up` starts one of its own in the data directory."
    )
    database_pool_size: int = Field(10, ge=2, le=500, description="Most connections held to the database.")
    master_keys: str | None = _secret(
        None, "Master keys `id:base64[,id:base64...]` of 32 bytes each; the first one writes, the others only read."
    )
    master_keys_file: Path | None = Field(None, description="File with the master keys, one `id:base64` a line.")

    # Browsers
    region: str = Field("local", min_length=1, max_length=120, description="Region that spaces and runtimes report.")
    chromium: Path | None = Field(None, description="Browser binary to use instead of one that is found.")
    unsafe_no_sandbox: bool = Field(False, description="Start browsers without Chromium's sandbox. Unsafe.")
    uid_base: int = Field(
        870000, ge=1000, le=2_000_000_000, description="First user id for browsers and database when started as root."
    )
    uid_count: int = Field(
        10000,
        ge=10,
        le=1_000_000,
        description="How many user ids from the first one on browsers use; the next one makes videos.",
    )
    max_runtimes: int = Field(50, ge=1, le=10000, description="Runtimes that may be live on this gateway at once.")
    max_starting: int = Field(16, ge=1, le=1000, description="Runtimes that may be starting on this gateway at once.")
    subaccount_max_runtimes: int = Field(
        20, ge=1, le=10000, description="Runtimes that one subaccount may have live, unless its limits say less."
    )
    subaccount_max_starting: int = Field(
        8, ge=1, le=1000, description="Runtimes that one subaccount may have starting."
    )
    warm_browsers: int = Field(
        1, ge=0, le=100, description="Browsers launched ahead, so that a runtime without a config is there at once."
    )
    launch_parallel: int = Field(4, ge=1, le=100, description="Browsers launched side by side; further ones wait.")
    launch_timeout_seconds: int = Field(30, ge=1, le=600, description="Seconds a browser has to become ready.")
    driver_launches: int = Field(
        500, ge=1, le=1_000_000, description="Launches after which a fresh Playwright driver takes over."
    )
    runtime_max_processes: int = Field(
        4096,
        ge=64,
        le=4_000_000,
        description="Processes and threads that one runtime may have; needs a user of its own (the gateway is root).",
    )
    runtime_max_files: int = Field(
        16384, ge=256, le=1_000_000, description="Files that each process of a runtime may have open."
    )
    runtime_max_file_bytes: int = Field(
        2 * 1024**3, ge=1024**2, le=1024**5, description="Largest file that a runtime may write, a download too."
    )
    runtime_memory_bytes: int = Field(
        0,
        ge=0,
        le=1024**5,
        description="Memory that one runtime may have; needs control groups that the gateway may write. 0 is no limit.",
    )
    idle_timeout_seconds: int = Field(
        900, ge=10, le=604800, description="A runtime with no attached client and no API action for so long is stopped."
    )
    max_lifetime_seconds: int = Field(86400, ge=60, le=2592000, description="A runtime is stopped at this age.")

    # What pages may reach
    egress_allow: tuple[str, ...] = Field(
        (),
        description="Networks, addresses, names and `*.suffix`, each with or without `:port`, that pages may reach "
        "though they are not public. Metadata services and the gateway's own ports stay refused.",
    )
    egress_deny: tuple[str, ...] = Field(
        (), description="Networks, addresses, names and `*.suffix` that pages may not reach; beats what is allowed."
    )
    egress_timeout_seconds: float = Field(
        15.0, gt=0, le=300, description="Seconds to resolve a name that a page asks for and to connect to its server."
    )
    egress_lookups: int = Field(
        32, ge=4, le=1000, description="Names resolved side by side for all pages; one runtime may have a quarter."
    )
    egress_max_connections: int = Field(
        512, ge=1, le=100_000, description="Connections that one runtime may have open through the egress proxy."
    )
    egress_max_head_bytes: int = Field(
        262_144, ge=1024, le=16_777_216, description="Largest head of a page's plain http request, or of its answer."
    )

    # Leases
    lease_ttl_seconds: int = Field(3600, ge=60, le=7200, description="Life of a lease that does not ask for another.")
    max_message_bytes: int = Field(
        256 * 1024 * 1024, ge=1024, le=1024**3, description="Largest websocket message, either way."
    )
    unrestricted_leases: bool = Field(
        False, description="Whether a lease may be minted with `options.policy` `unrestricted`. Unsafe for strangers."
    )
    max_held_bytes: int = Field(
        1024**3,
        ge=1024,
        le=1024**4,
        description="Bytes of commands that all sockets together may hold because they are not whole or not reviewed.",
    )
    large_command_seconds: float = Field(
        30.0, gt=0, le=600, description="Seconds that the review of a command of 1 MiB or more may take."
    )
    attach_timeout_seconds: float = Field(5.0, gt=0, le=60, description="Seconds a browser has to accept an attach.")
    cdp_unknown: Literal["refuse", "allow"] = Field(
        "refuse", description="What happens to DevTools commands that the policy does not know."
    )

    max_discovery_bytes: int = Field(
        16 * 1024 * 1024,
        ge=1024,
        le=1024**3,
        description="Largest answer of a browser's own HTTP endpoint, or of another gateway, that is passed on.",
    )
    max_sockets: int = Field(10000, ge=1, le=1_000_000, description="Sockets that may be open on this gateway at once.")
    max_sockets_per_lease: int = Field(32, ge=1, le=10000, description="Sockets that one lease may have open at once.")
    ping_interval_seconds: float = Field(
        30.0, gt=0, le=3600, description="Seconds between pings to an attached client."
    )
    ping_timeout_seconds: float = Field(
        30.0, gt=0, le=3600, description="Seconds a client has to answer a ping before its socket is closed."
    )

    # Requests
    request_header_seconds: float = Field(
        10.0, gt=0, le=600, description="Seconds in which the head of a request must be complete."
    )
    max_header_bytes: int = Field(
        64 * 1024, ge=1024, le=1024**2, description="Largest head of a request: its first line and its headers."
    )
    request_body_idle_seconds: float = Field(
        30.0, gt=0, le=3600, description="Seconds without one more byte of a request's body, after which it is cut."
    )
    max_body_bytes: int = Field(1024 * 1024, ge=1024, le=1024**3, description="Largest body of an API request.")
    rate_limit_per_second: float = Field(
        200.0,
        ge=0,
        le=1_000_000,
        description="Requests a second that an API key may send in the long run; 0 is no limit.",
    )
    rate_limit_burst: int = Field(
        400, ge=1, le=1_000_000, description="Requests that an API key may send at once, after a rest."
    )
    auth_failures_per_minute: int = Field(
        120,
        ge=0,
        le=1_000_000,
        description="Requests without a valid API key or lease that an address may send in a minute; past them all of "
        "its requests are refused for a while. 0 is no limit.",
    )
    rate_limit_callers: int = Field(
        10000, ge=1, le=10_000_000, description="API keys, and as many addresses, whose rates are kept in mind at once."
    )
    idempotency_hours: float = Field(
        24.0,
        gt=0,
        le=8760,
        description="Hours for which the answer to a request with an `Idempotency-Key` is kept, to be repeated.",
    )
    openai_base_url: HttpUrl = Field("https://api.openai.com/v1", description="Where OpenAI keys are tested.")
    anthropic_base_url: HttpUrl = Field("https://api.anthropic.com/v1", description="Where Anthropic keys are tested.")
    google_base_url: HttpUrl = Field(
        "https://generativelanguage.googleapis.com/v1beta", description="Where Google keys are tested."
    )
    provider_timeout_seconds: float = Field(10.0, gt=0, le=120, description="Seconds a provider has to answer a test.")

    # The record of runs
    event_level: Literal["off", "lifecycle", "standard", "full"] = Field(
        "standard", description="How much is recorded of a run whose runtime does not say (`config.events`)."
    )
    event_masked_parameters: tuple[str, ...] = Field(
        (),
        description="Names of parameters in addresses whose values are secrets, beside those that are known for it; "
        "they are masked before an address is recorded.",
    )
    event_text_characters: int = Field(
        2048,
        ge=64,
        le=65536,
        description="Longest address, console message or error that is recorded; the rest is cut.",
    )
    events_per_second: int = Field(
        1000,
        ge=1,
        le=100_000,
        description="Events of one type that are recorded of a run in a second; of further ones only the count is.",
    )
    recording: bool = Field(
        False, description="Whether runs are recorded on video where the runtime does not say (`config.recording`)."
    )
    recording_fps: float = Field(
        5.0, ge=0.1, le=60, description="Most pictures a second that a recording takes of the active tab."
    )
    recording_max_bytes: int = Field(
        1024**3,
        ge=64 * 1024,
        le=1024**4,
        description="Bytes of pictures that one recording may have on the gateway's disk; near them it gets coarser.",
    )
    recording_days: float = Field(
        7.0, gt=0, le=3650, description="Days for which a recording is kept after its run has ended."
    )
    recording_encode_seconds: float = Field(
        3600.0, gt=0, le=86400, description="Seconds in which the video of a recording must be made."
    )
    recording_wait_seconds: float = Field(
        3600.0,
        ge=0,
        le=604800,
        description="Seconds after which an unfinished recording fails whose gateway is not heard of.",
    )
    screencast_fps: float = Field(
        15.0, ge=1, le=60, description="Most pictures a second that a browser sends of a tab that somebody looks at."
    )
    screencast_quality: int = Field(70, ge=1, le=100, description="JPEG quality of these pictures.")
    screencast_max_width: int = Field(
        1280, ge=100, le=8192, description="Largest width of these pictures in pixels; larger pages are made smaller."
    )
    screencast_max_height: int = Field(
        1280, ge=100, le=8192, description="Largest height of these pictures in pixels; larger pages are made smaller."
    )
    max_viewers: int = Field(
        500, ge=1, le=100_000, description="Sockets of live views that may be open on this gateway at once."
    )
    max_viewers_per_run: int = Field(
        20, ge=1, le=10_000, description="Sockets of live views that one run may have open at once."
    )
    max_viewer_message_bytes: int = Field(
        256 * 1024, ge=1024, le=1024**3, description="Largest message of a live view's page, pasted text among them."
    )
    viewer_frame_ancestors: tuple[FrameAncestor, ...] = Field(
        ("*",),
        description="Who may show the pages of live views and recordings in a frame, as `frame-ancestors` of a Content "
        "Security Policy; `'none'` is nobody.",
    )
    events_kept: int = Field(
        50_000,
        ge=1,
        le=10_000_000,
        description="Events that are kept in memory while the database is slow or away; of further ones only the count "
        "is.",
    )
    events_days: int = Field(7, ge=1, le=3650, description="Days after which events and commands of runs are deleted.")
    max_event_streams: int = Field(
        1000,
        ge=1,
        le=1_000_000,
        description="Streams of events, and waits for one, that may be open on this gateway at once.",
    )
    event_heartbeat_seconds: float = Field(
        15.0, gt=0, le=3600, description="Seconds without an event after which a stream says that it is still there."
    )

    # Files
    files_url: str | None = Field(
        None,
        description="Where the bytes of files are: `s3://bucket[/prefix][?endpoint=http(s)://...&region=...]`, or "
        "`file:///directory`; without it the directory `files` in the data directory. Several gateways need one that "
        "they share.",
    )
    files_access_key: str | None = _secret(
        None, "Access key of the bucket; without it `AWS_ACCESS_KEY_ID` and the other usual `AWS_*` variables count."
    )
    files_secret_key: str | None = _secret(None, "Secret key of the bucket; else `AWS_SECRET_ACCESS_KEY`.")
    files_session_token: str | None = _secret(
        None, "Session token that goes with the keys, if any; else `AWS_SESSION_TOKEN`."
    )
    max_file_bytes: int = Field(5 * 1024**3, ge=1, le=64 * 1024**3, description="Largest file that is stored.")
    space_max_bytes: int = Field(
        50 * 1024**3, ge=1, le=1024**5, description="Bytes that the files of one space may have together."
    )
    subaccount_max_bytes: int = Field(
        200 * 1024**3, ge=1, le=1024**5, description="Bytes that the files of one subaccount may have together."
    )
    space_max_files: int = Field(100_000, ge=1, le=10_000_000, description="Files that one space may have.")
    max_uploads: int = Field(
        16,
        ge=1,
        le=1000,
        description="Files that may be on their way into storage at once; each takes up to 32 MiB of memory.",
    )
    transfer_seconds: float = Field(
        3600.0,
        gt=0,
        le=86400,
        description="Seconds in which an upload, or a copy into or out of a runtime, is done.",
    )
    runtime_max_staged_bytes: int = Field(
        10 * 1024**3, ge=0, le=1024**5, description="Bytes of files that may be copied into one runtime."
    )
    file_sweep_seconds: float = Field(
        600.0, gt=0, le=86400, description="Seconds between two looks for files that have expired, and for lost bytes."
    )
    file_grace_seconds: float = Field(
        3600.0,
        ge=60,
        le=604800,
        description="Age from which bytes that belong to no file are removed. What is just being written has none yet.",
    )

    # Audit log
    audit_reads: bool = Field(True, description="Whether the audit log tells of reading, too.")
    audit_kept_events: int = Field(
        100_000,
        ge=1,
        le=10_000_000,
        description="Audit events that are kept while the database is away; of further ones only the count is.",
    )
    audit_refusals_per_second: int = Field(
        20,
        ge=1,
        le=10_000,
        description="Different refused keys and leases a second that the audit log tells each by itself; further ones "
        "are told as a count.",
    )

    # Running it
    shutdown_grace_seconds: int = Field(20, ge=1, le=3600, description="Seconds in which a stop must be done.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="`console` for people, `json` for machines; `auto` looks whether it writes to a terminal."
    )

    @field_validator("egress_allow", "egress_deny")
    @classmethod
    def _egress_entries(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for entry in value:
            Entry.parse(entry)
        return value

    @field_validator(
        "trusted_hosts",
        "allowed_origins",
        "egress_allow",
        "egress_deny",
        "event_masked_parameters",
        "viewer_frame_ancestors",
        mode="before",
    )
    @classmethod
    def _split(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return tuple(part.strip().lower() for part in value.split(",") if part.strip())

    @field_validator("database_url")
    @classmethod
    def _postgresql(cls, value: str | None) -> str | None:
        if value is not None and not re.match(r"postgres(ql)?://", value):
            raise ValueError("must begin with postgresql://")
        return value

    @field_validator("files_url")
    @classmethod
    def _storage(cls, value: str | None) -> str | None:
        if value is not None and not _FILES_URL.fullmatch(value):
            raise ValueError("must be s3://bucket[/prefix][?endpoint=http(s)://...&region=...] or file:///directory")
        return value

    @property
    def runtimes_dir(self) -> Path:
        return self.data_dir / "runtimes"


def options() -> dict[str, FieldInfo]:
    """Name in Python -> field, in the order of the documentation."""
    return dict(Settings.model_fields)


def is_secret(field: FieldInfo) -> bool:
    return isinstance(field.json_schema_extra, dict) and bool(field.json_schema_extra.get("secret"))


def variable(name: str) -> str:
    return PREFIX + name.upper()


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def load(environ: Mapping[str, str], flags: Mapping[str, Any]) -> tuple[Settings, list[str]]:
    """Settings from flags, then environment, then defaults; and warnings in words.

    Raises ConfigurationError that lists every option that is wrong. A value that Kubernetes set is passed over.
    """
    values, warnings = _from_environment(environ)
    values.update(flags)
    if values.get("files_url", "").startswith("s3://") and "files_access_key" not in values:
        values.update({name: environ[key] for key, name in _OF_BUCKETS.items() if environ.get(key)})
    try:
        return Settings(**values), warnings
    except ValidationError as error:
        lines = [_complaint(problem["loc"], problem["msg"], problem["input"]) for problem in error.errors()]
        raise ConfigurationError("; ".join(lines)) from None


def _from_environment(environ: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """What the environment sets, by name in Python, and warnings. An empty value counts as none."""
    values: dict[str, str] = {}
    warnings: list[str] = []
    known = {variable(name): name for name in Settings.model_fields}
    for key, value in environ.items():
        if not key.startswith(PREFIX) or _is_kubernetes(key, value, known):
            continue
        if key not in known:
            warnings.append(f"{key} is no option of the gateway; the nearest one is {_nearest(key)}.")
        elif key == "GATEWAY_PORT" and _KUBERNETES_VALUE.match(value):
            warnings.append(f"{key}={value} is what Kubernetes sets for a Service called gateway; it is not used.")
        elif value != "":
            values[known[key]] = value
    return values, warnings


def _is_kubernetes(key: str, value: str, known: Mapping[str, str]) -> bool:
    if key in known:
        return False
    return bool(_KUBERNETES_NAME.fullmatch(key) or (key.endswith("_PORT") and _KUBERNETES_VALUE.match(value)))


def _nearest(key: str) -> str:
    """The option most like an unknown one. Without the prefix, which would make all of them alike."""
    name = key.removeprefix(PREFIX).lower()
    return variable(difflib.get_close_matches(name, Settings.model_fields, n=1, cutoff=0.0)[0])


def _complaint(location: tuple[int | str, ...], message: str, given: Any) -> str:
    """What is wrong with one option. The value is left out where it may hold a secret: in a secret option, in one that
    nobody knows, and in an address with a user or query."""
    name = str(location[0]) if location else "settings"
    field = Settings.model_fields.get(name)
    hidden = field is None or is_secret(field) or (isinstance(given, str) and re.search("[@?#]", given))
    said = message.removeprefix("Value error, ")
    return f"{variable(name)}: {said}" + ("" if hidden else f" (given: {given!r})")


def forget_secrets() -> None:
    """Take secrets out of this process's environment, so that no child inherits them."""
    for name, field in Settings.model_fields.items():
        if is_secret(field):
            os.environ.pop(variable(name), None)
    for key in _OF_BUCKETS:
        os.environ.pop(key, None)


_DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "settings.md"
_DOCUMENT_HEAD = """\
# Settings

This page is written by `python -m gateway.settings` from `gateway/settings/__init__.py`; change that file instead.

A flag beats its environment variable, and that beats the default. An empty variable counts as none. Options that
hold a secret have no flag, since a command line can be read by every user of the machine, and the gateway takes them
out of its environment before it starts anything.

An unknown `GATEWAY_*` variable gets a warning with the nearest known one. What Kubernetes sets by itself for a Service
called `gateway` (`GATEWAY_SERVICE_HOST`, `GATEWAY_PORT=tcp://...` and the like) is passed over.
"""


def markdown_table() -> str:
    """A row for each option, in the order of the class."""
    schemas = Settings.model_json_schema()["properties"]
    rows = ["| Variable | Flag | Value | Default | Meaning |", "| --- | --- | --- | --- | --- |"]
    for name, field in options().items():
        cells = (
            f"`{variable(name)}`",
            "environment only" if is_secret(field) else f"`{flag(name)}`",
            _value_in_words(schemas[name]),
            _default_in_words(field.default),
            (field.description or "").replace("|", "\\|"),
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def document() -> str:
    """The whole of docs/settings.md."""
    return f"{_DOCUMENT_HEAD}\n{markdown_table()}"


def _value_in_words(schema: dict[str, Any]) -> str:
    """Type and range of an option's JSON Schema, for people."""
    for choice in schema.get("anyOf", ()):
        if choice.get("type") != "null":
            return _value_in_words(choice)
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    match schema["type"], schema.get("format"):
        case "boolean", _:
            return "`true` or `false`"
        case "array", _:
            return "list, split by commas"
        case "string", "uri":
            return "http or https address"
        case "string", "path":
            return "path"
        case "string", _:
            return "text" + _range(schema, "minLength", "maxLength", " characters")
        case "integer", _:
            return "whole number" + _range(schema, "minimum", "maximum")
        case _:
            return "number" + _range(schema, "minimum", "maximum")


def _range(schema: dict[str, Any], least: str, most: str, unit: str = "") -> str:
    if "exclusiveMinimum" in schema:
        return f", above {schema['exclusiveMinimum']:g}, at most {schema[most]:g}"
    return f", {schema[least]} to {schema[most]}{unit}" if least in schema else ""


def _default_in_words(default: Any) -> str:
    if default is None or default == ():
        return "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{','.join(default) if isinstance(default, tuple) else default}`"


if __name__ == "__main__":
    _DOCUMENT.write_text(document())
