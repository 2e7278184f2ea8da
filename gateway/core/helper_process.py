"""A process of the gateway's own code that does for it what may take long, or all memory: one exchange at a time.

It runs `python -m MODULE`, reads requests from its stdin, and ends with that. It is started by the first exchange, and
by the first one after its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator


def bare_environment() -> dict[str, str]:
    """The places of programs and modules, and no setting or secret of the gateway's."""
    return {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}


class HelperProcess:
    """One such process at a time; its user lets one exchange follow the other."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._command = (sys.executable, "-m", module, *arguments)
        self._process: asyncio.subprocess.Process | None = None

    @contextlib.asynccontextmanager
    async def exchange(self) -> AsyncIterator[tuple[asyncio.StreamWriter, asyncio.StreamReader]]:
        """Write a request, and read its response whole. The process is killed where that fails or is cancelled: an
        unread response must not be taken for that of the next request. Raises OSError where it can't be started."""
        try:
            process = self._process
            if process is None or process.returncode is not None:
                process = self._process = await asyncio.create_subprocess_exec(
                    *self._command,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    env=bare_environment(),
                    start_new_session=True,
                )
            assert process.stdin is not None
            assert process.stdout is not None
            yield process.stdin, process.stdout
        except BaseException:
            await self.end()
            raise

    async def end(self) -> None:
        """Kill it, if it is running."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        # Without a limit: it was killed, and on a busy machine its end may take seconds.
        await process.wait()
