"""The first answers of a browser that starts: what it is, and where its DevTools are. It gets its cookies then."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog

from gateway.core import steps
from gateway.core.launch import LaunchedExtension
from gateway.launchers import failures
from gateway.launchers.local import extensions, processes
from gateway.launchers.local.launch_process import CommandRefused, LaunchProcess, PipeClosed

_log = structlog.get_logger("gateway.launchers")

# Of a command that sets cookies: a pipe, which holds 64 KiB, takes it at once.
_COOKIE_BYTES = 32 * 1024
_PORT_POLL_SECONDS = 0.002


async def ready(
    process: LaunchProcess,
    port_file: Path,
    seconds: float,
    cookies: Sequence[dict[str, Any]] = (),
    launched: Sequence[LaunchedExtension] = (),
) -> tuple[str, int, str]:
    """The browser's product, and port and path of its DevTools, once it has a page and these cookies (parameters of
    Storage.setCookies) and has loaded these extensions; raises LaunchFailed."""
    try:
        async with asyncio.timeout(seconds):
            try:
                # Both wait in the pipe until the browser reads them, which saves the way back and forth in between.
                version = process.send("Browser.getVersion")
                # Clients expect the first page that a browser opens with; started with a pipe, it opens none.
                page = process.send("Target.createTarget", url="about:blank")
                product: str = (await process.result(version))["product"]
                steps.done("browser answers")
                await process.result(page)
                steps.done("first page")
                await _set_cookies(process, cookies)
                if launched:
                    await extensions.load(process, launched)
                    steps.done("extensions")
                return product, *await _port_of(port_file, process)
            except PipeClosed as error:
                raise failures.classify_exit(process.printed(), await _exit_status(process)) from error
    except TimeoutError as error:
        raise failures.classify_timeout(process.printed(), seconds) from error


async def _set_cookies(process: LaunchProcess, cookies: Sequence[dict[str, Any]]) -> None:
    """Set cookies in several commands, each of which the browser takes as a whole or refuses; one that it refuses by
    itself is left out. Raises PipeClosed."""
    batch: list[dict[str, Any]] = []
    size = 0
    for cookie in cookies:
        length = len(json.dumps(cookie))
        if batch and size + length > _COOKIE_BYTES:
            await _set_batch(process, batch)
            batch, size = [], 0
        batch.append(cookie)
        size += length
    if batch:
        await _set_batch(process, batch)


async def _set_batch(process: LaunchProcess, cookies: list[dict[str, Any]]) -> None:
    try:
        await process.command("Storage.setCookies", cookies=cookies)
    except CommandRefused:
        if len(cookies) == 1:
            _log.warning("a cookie of a profile is refused by its browser")
            return
        for cookie in cookies:
            await _set_batch(process, [cookie])


async def _port_of(file: Path, process: LaunchProcess) -> tuple[int, str]:
    """Port and path of the browser's DevTools, once it has written both; raises PipeClosed when it ends before."""
    while not (content := _read_port_file(file)):
        if processes.exit_status(process.pid) is not None:
            raise PipeClosed
        await asyncio.sleep(_PORT_POLL_SECONDS)
    return content


async def _exit_status(process: LaunchProcess) -> int:
    ended = asyncio.Event()
    watch = processes.ProcessWatch(process.pid, ended.set)
    try:
        await ended.wait()
    finally:
        watch.close()
    status = processes.exit_status(process.pid)
    assert status is not None
    return status


def _read_port_file(path: Path) -> tuple[int, str] | None:
    """Port and path that the browser wrote, or None as long as it has not written both."""
    try:
        port, _, rest = path.read_text().partition("\n")
    except FileNotFoundError:
        return None
    return (int(port), rest.strip()) if rest else None
