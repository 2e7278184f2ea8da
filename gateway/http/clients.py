"""The published clients, and the contract that each speaks, by the User-Agent that it sends."""

from __future__ import annotations

import re
from functools import lru_cache

# Of the Python SDK 0.3.0 only `bctrl.legacy` sends bctrl-python/..., and speaks the older contract.
_CLIENTS = (
    (re.compile(r"bctrl/0\.\d"), "browsers"),
    (re.compile(r"bctrl-python/\d"), "runtimes"),
    (re.compile(r"@bctrl/sdk/\d"), "runtimes"),
    (re.compile(r"BCTRL CLI\b"), "runtimes"),
)


@lru_cache(256)
def contract_of_client(user_agent: str) -> str | None:
    """The name of the contract that a known client speaks; None for any other client."""
    return next((contract for pattern, contract in _CLIENTS if pattern.match(user_agent)), None)
