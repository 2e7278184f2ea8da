"""The data directory, before anything is written into it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from gateway.core.errors import ConfigurationError


def make_data_dir(data_dir: Path, mode: int = 0o700) -> None:
    """Make it with `mode` where it is missing. Raises ConfigurationError where it can't be written to."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=mode)
        with tempfile.TemporaryFile(dir=data_dir):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"The data directory {data_dir} can't be written to ({error.strerror}). "
            "Give another one in GATEWAY_DATA_DIR."
        ) from error
