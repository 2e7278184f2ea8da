"""A directory for what a check writes, which is removed after it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gateway.core.errors import ConfigurationError
from gateway.core.unprivileged import grant_search
from gateway.settings import Settings


def nearest(path: Path) -> Path:
    """The path itself, or the nearest directory above it that exists."""
    path = path.absolute()
    return next(directory for directory in (path, *path.parents) if directory.exists())


@contextlib.contextmanager
def scratch(settings: Settings) -> Iterator[str]:
    """In the system's temporary directory, or with a read-only system where the gateway's data is.

    Raises ConfigurationError where neither can be written to.
    """
    try:
        made = tempfile.TemporaryDirectory(prefix="gateway-doctor-", ignore_cleanup_errors=True)
    except OSError:
        try:
            made = tempfile.TemporaryDirectory(
                prefix="gateway-doctor-", dir=nearest(settings.data_dir), ignore_cleanup_errors=True
            )
        except OSError as error:
            raise ConfigurationError(
                "This was not tried, since neither the system's temporary directory nor the data directory can be "
                f"written to ({error.strerror}). Set TMPDIR or GATEWAY_DATA_DIR to a directory that can."
            ) from error
        # A start does that too.
        grant_search(Path(made.name), settings.uid_base)
    with made as name:
        yield name
