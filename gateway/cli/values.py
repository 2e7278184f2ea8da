"""Values of arguments."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime

from gateway.domain.audit_reading import Head


def head(text: str) -> Head:
    try:
        return Head.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text[:100]!r} {error}") from None


def time(text: str) -> datetime:
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 2027-01-31T00:00:00Z") from None
    if parsed.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} has no zone; end it with Z or an offset such as +01:00")
    return parsed


def future_time(text: str) -> datetime:
    parsed = time(text)
    if parsed <= datetime.now(UTC):
        raise argparse.ArgumentTypeError(f"{text!r} is not in the future")
    return parsed
