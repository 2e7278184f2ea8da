"""A request that only the gateway which hosts a browser can answer is passed on to it."""

from __future__ import annotations

# A request that has it was passed on once, and is never passed on again.
HOP = "gateway-hop"
