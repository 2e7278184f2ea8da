"""The browsers that a runtime can have."""

from __future__ import annotations

from typing import Any

from gateway.core.launch import BrowserName
from tests.support.tiers import first_of

KINDS: tuple[BrowserName, ...] = ("headless-shell", "chromium")
# As parameters. Most of what full Chromium shows, the headless shell shows too, which is the default.
EACH_KIND: list[Any] = first_of(KINDS)
