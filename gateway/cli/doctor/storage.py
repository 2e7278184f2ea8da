"""Checks of the storage of files, and of optional parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

from gateway.cli.doctor.findings import Finding, Level
from gateway.core.errors import Unavailable
from gateway.core.extras import Extra
from gateway.core.ids import new_id
from gateway.settings import Settings
from gateway.store.objects import Objects


def files(settings: Settings) -> Iterator[Finding]:
    """Whether a storage that the operator chose can be written, read and cleared; raises what it raises."""
    if settings.files_url is None:
        return

    async def there_and_back() -> None:
        async def one() -> AsyncIterator[bytes]:
            yield b"doctor"

        objects = Objects.of(settings)
        key = f"doctor/{new_id()}"
        await objects.put(key, one())
        read = b"".join([chunk async for chunk in objects.read(key, 0, len(b"doctor"))])
        await objects.remove([key])
        assert read == b"doctor"

    advice = "Look at GATEWAY_FILES_URL, the bucket's name and its credentials; the log above says what failed."
    try:
        asyncio.run(there_and_back())
    except Unavailable as error:
        yield Finding(Level.FAILED, "files", error.message, advice)
    else:
        yield Finding(Level.OK, "files", "Files can be written, read and removed where GATEWAY_FILES_URL says.")


def extra(subject: str, extra: Extra, *, needed: bool) -> Iterator[Finding]:
    """An optional part: `needed` when a start fails without it."""
    if extra.installed:
        yield Finding(Level.OK, subject, f"The extra `{extra.name}` is installed.")
    else:
        yield Finding(Level.FAILED if needed else Level.WARNING, subject, extra.missing, extra.advice)
