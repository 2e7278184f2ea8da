"""Which tests `make test` leaves to `make test-all`: those marked `thorough`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def first_of(values: Iterable[Any]) -> list[Any]:
    """Parameters of which the first is always tested, and the others, which take as long, are thorough."""
    first, *others = values
    return [first, *(pytest.param(value, marks=pytest.mark.thorough) for value in others)]
