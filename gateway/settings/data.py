"""Storage of the gateway: data directory, database, master keys."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Self

from pydantic import Field, PrivateAttr, field_validator

from gateway.settings.types import Group, secret


class DataSettings(Group):
    """Storage of the gateway: data directory, database, master keys."""

    # Which worker of this gateway has these settings (settings/workers.py).
    _worker: int = PrivateAttr(default=0)

    data_dir: Path = Field(Path("var"), description="Directory of all of the gateway's files.")
    disk_reserve_bytes: int = Field(
        512 * 1024**2,
        ge=0,
        le=1024**5,
        description="Free space of the disk below which recordings end; below 3/4 of it no file is stored and no "
        "runtime starts, below 1/2 the largest runtime ends, below 1/4 events of pages are dropped. 0 turns it off.",
    )
    database_url: str | None = secret(
        None, "PostgreSQL to use (`postgresql://...`); without it `up` starts one of its own in the data directory."
    )
    database_pool_size: int = Field(10, ge=2, le=500, description="Size of the database's connection pool.")
    master_keys: str | None = secret(
        None,
        "Master keys `id:base64[,id:base64...]` of 32 bytes each; the first one encrypts, the others only decrypt.",
    )
    master_keys_file: Path | None = Field(None, description="File with the master keys, one `id:base64` a line.")

    @field_validator("database_url")
    @classmethod
    def _postgresql(cls, value: str | None) -> str | None:
        if value is not None and not re.match(r"postgres(ql)?://", value):
            raise ValueError("must begin with postgresql://")
        return value

    def as_worker(self, worker: int) -> Self:
        """A copy for one of several workers, which has a directory of its own."""
        copy = self.model_copy()
        copy._worker = worker  # noqa: SLF001 - of the same class
        return copy

    @property
    def own_dir(self) -> Path:
        """Directory of what one worker has for itself: the data directory itself, of the first one."""
        return self.data_dir / "workers" / str(self._worker) if self._worker else self.data_dir

    @property
    def runtimes_dir(self) -> Path:
        """Directory below which each runtime has one of its own."""
        return self.own_dir / "runtimes"
