"""`RateLimit` and `RateLimit-Policy` of each answer to an API key (draft-ietf-httpapi-ratelimit-headers-10).

RateLimit-Policy: "key";q=400;w=2      400 requests of a key in 2 seconds
RateLimit: "key";r=399;t=1             399 are left now, and all of them in 1 second
"""

from __future__ import annotations

import math
from uuid import UUID

from gateway.domain.accounts.rate_limits import RateLimits
from gateway.http.security_headers import Header


class RateLimitHeaders:
    """The headers by the limits of one gateway; none where they are turned off."""

    def __init__(self, limits: RateLimits) -> None:
        self._limits = limits
        self._policy: Header | None = None
        if limits.quota is not None:
            requests, seconds = limits.quota
            # In whole seconds, so that a client that keeps to it is never refused.
            self._policy = (b"ratelimit-policy", b'"key";q=%d;w=%d' % (requests, math.ceil(seconds)))

    def of(self, key_id: UUID | None) -> tuple[Header, ...]:
        """The headers of an answer now; none without a key."""
        if key_id is None or self._policy is None:
            return ()
        left, seconds = self._limits.left(key_id)
        return self._policy, (b"ratelimit", b'"key";r=%d;t=%d' % (left, math.ceil(seconds)))
