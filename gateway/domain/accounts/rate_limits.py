"""Rates of API keys, and of addresses that fail to authenticate. In memory, separate for each gateway, whose workers
share it."""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import lru_cache
from uuid import UUID

from gateway.core.errors import LimitReached, Unauthorized
from gateway.core.shared_times import SharedTimes
from gateway.core.worker_board import Board
from gateway.settings import RequestSettings
from gateway.telemetry import metrics

_MINUTE = 60.0
# Requests without a credential that come at once: as many as in this time.
_ANONYMOUS_BURST_SECONDS = 10
# Larger than the rounding errors of summed intervals, too short to matter.
_ROUNDING_SECONDS = 1e-7


class Buckets:
    """A token bucket for each caller: `burst` at once, and then one each 1 / `per_second` seconds.

    Of a bucket only the moment is kept at which it will be full. At most `maximum` are kept: full ones go first, since
    dropping them changes nothing, then the one that was longest not used.
    """

    def __init__(self, per_second: float, burst: int, maximum: int, now: Callable[[], float] = time.monotonic) -> None:
        self._interval = 1 / per_second
        self._slack = (burst - 1) * self._interval
        self._maximum = maximum
        self._now = now
        self._full_at: OrderedDict[Hashable, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, caller: Hashable) -> float:
        """Take a token if there is one; else the seconds until there is."""
        now = self._now()
        full_at = self._full_at.get(caller)
        if full_at is not None and (wait := full_at - now - self._slack) > _ROUNDING_SECONDS:
            # One that asks too often is in use, and must not lose its bucket by that.
            self._full_at.move_to_end(caller)
            return wait
        self._charge(caller, now, full_at)
        return 0.0

    def left(self, caller: Hashable) -> tuple[int, float]:
        """The tokens that the caller has, and the seconds until all are back; at 0 tokens, until there is one."""
        filling = max(0.0, self._full_at.get(caller, 0.0) - self._now())
        left = math.floor((self._slack + self._interval - filling + _ROUNDING_SECONDS) / self._interval)
        return (left, filling) if left > 0 else (0, filling - self._slack)

    def _charge(self, caller: Hashable, now: float, full_at: float | None) -> None:
        if full_at is None:
            self._make_room(now)
            self._full_at[caller] = now + self._interval
            return
        self._full_at[caller] = (full_at if full_at > now else now) + self._interval
        self._full_at.move_to_end(caller)

    def _make_room(self, now: float) -> None:
        """Two at a time, so that what is idle goes faster than anything comes, and no call takes long."""
        for _ in range(2):
            oldest = next(iter(self._full_at), None)
            if oldest is None or (self._full_at[oldest] > now and len(self._full_at) < self._maximum):
                return
            del self._full_at[oldest]


class SharedBuckets:
    """The same in memory that all workers of a gateway share."""

    def __init__(
        self, per_second: float, burst: int, full_at: SharedTimes, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval = 1 / per_second
        self._slack = (burst - 1) * self._interval
        self._now = now
        self._full_at = full_at

    def take(self, caller: Hashable) -> float:
        """As `Buckets.take`."""
        now = self._now()
        full_at = self._full_at.get(caller) or now
        if (wait := full_at - now - self._slack) > _ROUNDING_SECONDS:
            return wait
        self._full_at.put(caller, max(full_at, now) + self._interval)
        return 0.0

    def left(self, caller: Hashable) -> tuple[int, float]:
        """As `Buckets.left`."""
        filling = max(0.0, (self._full_at.get(caller) or 0.0) - self._now())
        left = math.floor((self._slack + self._interval - filling + _ROUNDING_SECONDS) / self._interval)
        return (left, filling) if left > 0 else (0, filling - self._slack)


class RateLimits:
    """The limits of one gateway. A limit of 0 is none."""

    def __init__(
        self, settings: RequestSettings, now: Callable[[], float] = time.monotonic, board: Board | None = None
    ) -> None:
        """`board` is what the workers of this gateway share, if there are several."""
        self._per_second = settings.rate_limit_per_second
        self._burst = settings.rate_limit_burst
        self._failures_per_minute = settings.auth_failures_per_minute
        self._anonymous_per_second = settings.address_requests_per_second
        self._anonymous_burst = max(1, math.ceil(self._anonymous_per_second * _ANONYMOUS_BURST_SECONDS))

        def buckets(per_second: float, burst: int, shared: SharedTimes | None) -> Buckets | SharedBuckets | None:
            if not per_second:
                return None
            if shared is not None:
                return SharedBuckets(per_second, burst, shared, now)
            return Buckets(per_second, burst, settings.rate_limit_callers, now)

        keys = anonymous = failures = None
        if board is not None:
            keys, anonymous, failures = board.key_rates, board.anonymous_rates, board.failure_rates
        self._keys = buckets(self._per_second, self._burst, keys)
        self._anonymous = buckets(self._anonymous_per_second, self._anonymous_burst, anonymous)
        self._failures = buckets(self._failures_per_minute / _MINUTE, self._failures_per_minute, failures)

    @property
    def quota(self) -> tuple[int, float] | None:
        """How many requests of an API key are let through in how many seconds; None without a limit."""
        return (self._burst, self._burst / self._per_second) if self._keys is not None else None

    def left(self, key_id: UUID) -> tuple[int, float]:
        """How many of them are left, and the seconds until all are, or at 0 until one is."""
        assert self._keys is not None
        return self._keys.left(key_id.int)

    def take(self, key_id: UUID) -> None:
        """Count a request of an API key; raises LimitReached."""
        # The number, since the id itself takes longer to hash.
        if self._keys is not None and (wait := self._keys.take(key_id.int)):
            metrics.rate_limited.labels("key").inc()
            raise LimitReached(
                f"This API key may send {self._per_second:g} requests a second, and {self._burst} at once.",
                "limit.rate",
                details={"limit": self._per_second, "windowSeconds": 1, "burst": self._burst},
                retry_after=math.ceil(wait),
            )

    def take_anonymous(self, address: str) -> None:
        """Count a request without any credential; raises LimitReached."""
        if self._anonymous is None or not (wait := self._anonymous.take(network(address))):
            return
        metrics.rate_limited.labels("anonymous").inc()
        raise LimitReached(
            f"An address may send {self._anonymous_per_second:g} requests without a credential a second.",
            "limit.address_rate",
            details={"limit": self._anonymous_per_second, "windowSeconds": 1, "burst": self._anonymous_burst},
            retry_after=math.ceil(wait),
        )

    def checking(self, address: str) -> _Check:
        """Around the check of a credential from `address`: a failure counts, and raises LimitReached instead when there
        were too many.

        A valid credential is never refused because of failures of others at the same address: behind one address
        may be a whole office, or all clients of a proxy that the operator forgot to name. Keys and tokens have 256 bits
        and are not found by guessing, however often; what is limited is the noise.
        """
        return _Check(self, address)

    def fail(self, address: str) -> None:
        """Count a failure; raises LimitReached."""
        if self._failures is None or not (wait := self._failures.take(network(address))):
            return
        metrics.rate_limited.labels("address").inc()
        raise LimitReached(
            f"Too many requests without a valid credential came from this address; it may send "
            f"{self._failures_per_minute} a minute.",
            "limit.auth_failures",
            details={"limit": self._failures_per_minute, "windowSeconds": int(_MINUTE)},
            retry_after=math.ceil(wait),
        )


class _Check:
    """Result of `RateLimits.checking`; a class, since a generator would take four times as long."""

    __slots__ = ("_address", "_limits")

    def __init__(self, limits: RateLimits, address: str) -> None:
        self._limits = limits
        self._address = address

    def __enter__(self) -> None:
        """Every caller is checked."""

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, Unauthorized):
            self._limits.fail(self._address)


@lru_cache(maxsize=1024)
def network(address: str) -> str:
    """The key of an address: an IPv4 address itself, and of IPv6 its /64, in which one host may take any."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        # A unix socket, or what a proxy made up.
        return address
    if parsed.version == 4:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))
