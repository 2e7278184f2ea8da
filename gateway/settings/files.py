"""Where files are stored, and their limits."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from gateway.settings.data import DataSettings
from gateway.settings.shares import ShareSettings
from gateway.settings.types import secret

_FILES_URL = re.compile(
    r"s3://[a-z0-9][a-z0-9.-]+(/[^\s?#@]*)?"
    r"(\?(endpoint=https?://[^\s?#&@]+|region=[a-z0-9-]+)(&(endpoint=https?://[^\s?#&@]+|region=[a-z0-9-]+))?)?"
    r"|file:///[^\s?#]+"
)


class FileSettings(DataSettings, ShareSettings):
    """Where files are stored, and their limits."""

    files_url: str | None = Field(
        None,
        description="Where the bytes of files are: `s3://bucket[/prefix][?endpoint=http(s)://...&region=...]`, or "
        "`file:///directory`; without it the directory `files` in the data directory. Several gateways need a shared "
        "one.",
    )
    files_access_key: str | None = secret(
        None, "Access key of the bucket; the default is `AWS_ACCESS_KEY_ID` and the other usual `AWS_*` variables."
    )
    files_secret_key: str | None = secret(None, "Secret key of the bucket; the default is `AWS_SECRET_ACCESS_KEY`.")
    files_session_token: str | None = secret(
        None, "Session token that goes with the keys, if any; the default is `AWS_SESSION_TOKEN`."
    )
    max_file_bytes: int = Field(5 * 1024**3, ge=1, le=64 * 1024**3, description="Maximum size of a stored file.")
    space_max_bytes: int = Field(50 * 1024**3, ge=1, le=1024**5, description="Total size of the files of one space.")
    subaccount_max_bytes: int = Field(
        200 * 1024**3, ge=1, le=1024**5, description="Total size of the files of one subaccount."
    )
    space_max_files: int = Field(100_000, ge=1, le=10_000_000, description="Files that one space may have.")
    max_uploads: int = Field(
        16,
        ge=1,
        le=1000,
        description="Concurrent transfers into storage; each takes up to 32 MiB of memory.",
    )
    transfer_seconds: float = Field(
        3600.0,
        gt=0,
        le=86400,
        description="Timeout of an upload, or of a copy into or out of a runtime, in seconds.",
    )
    download_link_max_seconds: int = Field(
        86400,
        ge=1,
        le=604800,
        description="Maximum lifetime of a download link, in seconds. A link can't be revoked, except by deleting the "
        "object.",
    )
    runtime_max_staged_bytes: int = Field(
        10 * 1024**3, ge=0, le=1024**5, description="Total size of the files that may be copied into one runtime."
    )
    file_sweep_seconds: float = Field(
        600.0, gt=0, le=86400, description="Seconds between two sweeps of expired files and orphaned bytes."
    )
    file_grace_seconds: float = Field(
        3600.0,
        ge=60,
        le=604800,
        description="Age at which bytes without a file are removed; an upload in progress has no file yet.",
    )

    @field_validator("files_url")
    @classmethod
    def _storage(cls, value: str | None) -> str | None:
        if value is not None and not _FILES_URL.fullmatch(value):
            raise ValueError("must be s3://bucket[/prefix][?endpoint=http(s)://...&region=...] or file:///directory")
        return value
