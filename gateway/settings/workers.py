"""How many processes serve, and the settings of each: limits of the machine are divided between them."""

from __future__ import annotations

import math

from gateway.core.cores import usable_cores
from gateway.settings.all import Settings

_CORES_OF_A_WORKER = 4

# Limits of what a process holds or does at once, of which each worker has its part. Runtimes are counted by all of them
# together (core/worker_board.py), and what the database counts, or what is of one runtime, is not divided.
DIVIDED = (
    "audit_kept_events",
    "audit_refusals_per_hour",
    "audit_refusals_per_second",
    "egress_lookups",
    "events_kept",
    "launch_parallel",
    "max_connections",
    "max_event_streams",
    "max_held_bytes",
    "max_sockets",
    "max_starting",
    "max_uploads",
    "max_viewers",
    "max_waiting_launches",
    "warm_browsers",
    "warm_max",
    "warm_min",
)


def number_of_workers(settings: Settings, cores: float | None = None) -> int:
    """`GATEWAY_WORKERS`, or one for each 4 cores, and at least one."""
    if settings.workers is not None:
        return settings.workers
    usable = usable_cores() if cores is None else cores
    return min(64, max(1, int(usable // _CORES_OF_A_WORKER)))


def settings_of_worker(settings: Settings, worker: int, workers: int) -> Settings:
    """Those of one of several workers: its part of each divided limit, rounded up."""
    limits = {name: getattr(settings, name) for name in DIVIDED}
    parts = {name: math.ceil(limit / workers) for name, limit in limits.items() if limit is not None}
    return settings.model_copy(update=parts).as_worker(worker)
