"""Prometheus metrics, named `gateway_<noun>_<unit>`.

Labels of one dimension are created at the start, so that a rate begins at zero. Those of requests are created by the
first request: contract by method by route by status would be tens of thousands.
"""

from __future__ import annotations

from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from gateway.core.ai_providers import PROVIDERS
from gateway.core.closes import Close, ViewerClose
from gateway.core.launch import BrowserName, Failure

# A series `_created` beside each counter would double what is scraped, and Prometheus does not need it.
disable_created_metrics()  # type: ignore[no-untyped-call]

registry = CollectorRegistry()
ProcessCollector(registry=registry)
PlatformCollector(registry=registry)
GCCollector(registry=registry)

worker_restarts = Counter(
    "gateway_worker_restarts", "Workers that ended while the gateway ran, and were started again.", registry=registry
)
runtimes_live = Gauge("gateway_runtimes_live", "Runtimes live on this gateway.", registry=registry)
runtimes_frozen = Gauge(
    "gateway_runtimes_frozen", "Runtimes whose pages are frozen, because nothing uses them.", registry=registry
)
runtimes_ended = Counter("gateway_runtimes_ended", "Runtimes ended, by code.", ["code"], registry=registry)
launches = Histogram(
    "gateway_launch_seconds",
    "Seconds from request to live runtime.",
    buckets=(0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30),
    registry=registry,
)
profile_restores = Histogram(
    "gateway_profile_restore_seconds",
    "Seconds to restore a saved profile into a new browser's directory, as a part of its launch.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=registry,
)
profile_saves = Histogram(
    "gateway_profile_save_seconds",
    "Seconds from the end of a browser until its profile was saved.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30),
    registry=registry,
)
profile_save_failures = Counter(
    "gateway_profile_save_failures_total",
    "Profiles that could not be saved, so that the state before stays.",
    registry=registry,
)
browser_networks = Gauge(
    "gateway_browser_networks", "1 where each browser has a network of its own, else 0.", registry=registry
)
launches_waiting = Gauge(
    "gateway_launches_waiting", "Launches in the queue, because too many are starting.", registry=registry
)
launch_waits = Histogram(
    "gateway_launch_wait_seconds",
    "Seconds that a launch was in the queue.",
    buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
    registry=registry,
)
launches_refused = Counter(
    "gateway_launches_refused",
    "Launches refused because too many were starting, and the queue was full or their wait was over.",
    registry=registry,
)
launch_failures = Counter("gateway_launch_failures", "Launches that failed, by class.", ["class"], registry=registry)
warm_browsers = Gauge(
    "gateway_warm_browsers",
    "Browsers that were launched in advance and are ready, by browser and options.",
    ["browser", "options"],
    registry=registry,
)
warm_claims = Counter(
    "gateway_warm_claims",
    "Launches by where their browser came from: warm, waited (for one that was being launched), or cold.",
    ["outcome"],
    registry=registry,
)
connections_refused = Counter(
    "gateway_connections_refused", "Connections of HTTP clients that were closed at once.", registry=registry
)
sockets_open = Gauge("gateway_sockets_open", "Websockets attached to leases.", registry=registry)
sockets_closed = Counter("gateway_sockets_closed", "Websockets closed, by reason.", ["reason"], registry=registry)
viewers_open = Gauge("gateway_viewers_open", "Websockets of live views.", registry=registry)
viewers_closed = Counter(
    "gateway_viewers_closed", "Websockets of live views closed, by reason.", ["reason"], registry=registry
)
attach_refusals = Counter("gateway_attach_refusals", "Attaches refused, by code.", ["code"], registry=registry)
rate_limited = Counter(
    "gateway_rate_limited",
    "Requests refused for their rate: of an API key, or of an address that failed to show one or showed none.",
    ["reason"],
    registry=registry,
)
egress_refusals = Counter(
    "gateway_egress_refusals", "Requests of pages that the egress proxy refused, by rule.", ["rule"], registry=registry
)
egress_failures = Counter(
    "gateway_egress_failures", "Requests of pages that were allowed and failed, by cause.", ["cause"], registry=registry
)
relay_calls = Counter(
    "gateway_relay_calls",
    "Calls of agents to their models, by provider and outcome: answered, refused (by the gateway), provider_error, or "
    "aborted (by the agent).",
    ["provider", "outcome"],
    registry=registry,
)
relay_tokens = Counter(
    "gateway_relay_tokens",
    "Tokens that agents used, by provider and kind: read or written.",
    ["provider", "kind"],
    registry=registry,
)
attaches = Histogram(
    "gateway_attach_seconds",
    "Seconds from the check of a lease to a socket that is open.",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
    registry=registry,
)
socket_bytes = Counter(
    "gateway_socket_bytes",
    "Bytes that passed through sockets that have ended, by direction.",
    ["direction"],
    registry=registry,
)
commands = Counter("gateway_commands", "Commands of clients, on sockets that have ended.", registry=registry)
uploads = Gauge("gateway_uploads", "Files on their way into storage.", registry=registry)
file_bytes = Counter(
    "gateway_file_bytes", "Bytes of files, by direction: into storage or out of it.", ["direction"], registry=registry
)
disk_free = Gauge(
    "gateway_disk_free_bytes", "Free bytes of the disk that has the data, or the files.", ["disk"], registry=registry
)
disk_step = Gauge(
    "gateway_disk_step",
    "How many uses of the disk have given way, since little of it is free.",
    ["disk"],
    registry=registry,
)
audit_events_written = Counter("gateway_audit_events", "Audit events written.", registry=registry)
audit_events_lost = Counter(
    "gateway_audit_events_lost", "Audit events that could neither be written nor kept.", registry=registry
)
events_written = Counter("gateway_events", "Events of runs and updates written.", registry=registry)
events_dropped = Counter(
    "gateway_events_dropped", "Events of runs and updates that could neither be written nor kept.", registry=registry
)
event_streams_open = Gauge(
    "gateway_event_streams_open", "Streams of events, and waits for one, that are open.", registry=registry
)
recording_bytes = Counter(
    "gateway_recording_bytes", "Bytes of pictures that recordings wrote to the disk.", registry=registry
)
recording_frames_dropped = Counter(
    "gateway_recording_frames_dropped", "Pictures left out of recordings since the disk was slow.", registry=registry
)
recording_encodings = Histogram(
    "gateway_recording_encoding_seconds",
    "Seconds that the video of a recording took to make.",
    buckets=(0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600),
    registry=registry,
)
recordings_failed = Counter("gateway_recordings_failed", "Recordings that failed.", registry=registry)
executions = Counter("gateway_executions", "Executions of steps, by outcome.", ["outcome"], registry=registry)
execution_starts = Histogram(
    "gateway_execution_start_seconds",
    "Seconds that a process for executions took to start; most start before they are needed.",
    buckets=(0.25, 0.5, 1, 2, 5, 10, 30),
    registry=registry,
)
_requests = Histogram(
    "gateway_request_seconds",
    "Seconds to answer API requests, by contract, route and status class.",
    ["contract", "method", "route", "status"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
    registry=registry,
)

# Browser, and whether all other options are the gateway's defaults.
WARM_LABELS = tuple((browser, options) for browser in get_args(BrowserName) for options in ("default", "own"))
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_ENDINGS = (
    "runtime.stopped",
    "runtime.idle_timeout",
    "runtime.max_lifetime",
    "organization.suspended",
    "space.closed",
    "space.deleted",
    "gateway.stopped",
    "browser.exited",
    "browser.killed",
    "browser.crashed",
    "browser.out_of_disk",
    "browser.out_of_memory",
)
_REFUSALS = (
    "connect.origin_refused",
    "connect.unsupported_server",
    "lease.unknown",
    "lease.expired",
    "lease.revoked",
    "runtime.gone",
    "runtime.not_active",
    "runtime.host_unavailable",
    "gateway.max_sockets",
    "lease.max_sockets",
    "limit.auth_failures",
    "browser.unreachable",
    "target.not_found",
    # Refused by the gateway that has the browser, which counts the reason.
    "elsewhere",
    "gateway.draining",
    "database.unavailable",
)
_EGRESS_REFUSALS = (
    "egress.bad_request",
    "egress.denied",
    "egress.foreign_process",
    "egress.gateway",
    "egress.head_too_large",
    "egress.link_local_address",
    "egress.loopback_address",
    "egress.malformed_host",
    "egress.max_connections",
    "egress.metadata",
    "egress.multicast_address",
    "egress.name_not_allowed",
    "egress.own_address",
    "egress.private_address",
    "egress.reserved_address",
    "egress.unreadable_path",
    "egress.url_allowlist",
    "egress.url_blocklist",
)
_EGRESS_FAILURES = (
    "egress.bad_answer",
    "egress.name_not_found",
    "egress.proxy_login",
    "egress.proxy_name_not_found",
    "egress.proxy_protocol",
    "egress.proxy_refused",
    "egress.proxy_timeout",
    "egress.proxy_unreachable",
    "egress.timeout",
    "egress.unreachable",
)

for _code in _ENDINGS:
    runtimes_ended.labels(_code)
for _failure in Failure:
    launch_failures.labels(_failure.value)
for _labels in WARM_LABELS:
    warm_browsers.labels(*_labels)
for _outcome in ("warm", "waited", "cold"):
    warm_claims.labels(_outcome)
for _close in Close:
    sockets_closed.labels(_close.reason)
for _viewer_close in ViewerClose:
    viewers_closed.labels(_viewer_close.reason)
for _code in _REFUSALS:
    attach_refusals.labels(_code)
for _reason in ("key", "address", "anonymous"):
    rate_limited.labels(_reason)
for _code in _EGRESS_REFUSALS:
    egress_refusals.labels(_code)
for _code in _EGRESS_FAILURES:
    egress_failures.labels(_code)
for _direction in ("from_client", "to_client"):
    socket_bytes.labels(_direction)
# That of files has series only where these have a disk of their own.
for _outcome in ("ok", "failed"):
    executions.labels(_outcome)
disk_free.labels("data")
disk_step.labels("data")
for _provider in PROVIDERS:
    for _outcome in ("answered", "provider_error", "refused", "aborted"):
        relay_calls.labels(_provider, _outcome)
    for _kind in ("read", "written"):
        relay_tokens.labels(_provider, _kind)
for _direction in ("in", "out"):
    file_bytes.labels(_direction)


def count_traffic(bytes_from_client: int, bytes_to_client: int, client_commands: int) -> None:
    socket_bytes.labels("from_client").inc(bytes_from_client)
    socket_bytes.labels("to_client").inc(bytes_to_client)
    commands.inc(client_commands)


def observe_request(contract: str, method: str, route: str, status: int, seconds: float) -> None:
    """`contract` and `route` are names and templates that the gateway declares, never what a client sent."""
    known = method if method in _METHODS else "other"
    _requests.labels(contract, known, route, f"{status // 100}xx").observe(seconds)
