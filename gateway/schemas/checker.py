"""JSON Schemas that callers give: whether they are schemas, and whether values fit them.

A short schema can take minutes to validate a short value, in one call of the library that nothing can interrupt. So a
separate process does it, one check at a time and tenants in turn, and is killed when a check takes too long.

The process is `python -m gateway.schemas.worker`. The first check starts it; it ends with its stdin. Only the processor
time of a check counts: on a busy machine a short check, or the start of the process, may take many times as long.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import orjson
import structlog

from gateway.core import json_text
from gateway.core.helper_process import HelperProcess
from gateway.core.shares import Taker, Turns
from gateway.schemas import worker
from gateway.schemas.worker import LENGTH

__all__ = ["CheckTooSlow", "InvalidSchema", "Problem", "SchemaChecker"]

_log = structlog.get_logger("gateway.schemas")

_RESPONSE_BYTES = 64 * 1024
# What a busy machine may take for a second of processor time, and for a start; beyond that the process hangs.
_BUSY_TIMES = 20
_START_SECONDS = 60.0


class InvalidSchema(Exception):
    """Raised for what is no JSON Schema; says why."""


class CheckTooSlow(Exception):
    """Raised where a check takes more time or memory than there is for it."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Where a value does not fit, as names and indexes with dots (empty for the whole), and why, without the value."""

    field: str
    message: str


class SchemaChecker:
    """Checks schemas and values; `seconds` is the processor time for one check."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._turns = Turns()
        self._process = HelperProcess(worker.__name__, str(seconds))

    async def check(self, schema: dict[str, Any], taker: Taker) -> None:
        """Raises InvalidSchema, CheckTooSlow."""
        await self._answer([schema], taker)

    async def problems(self, schema: dict[str, Any], value: Any, taker: Taker) -> list[Problem]:
        """What is wrong with a value, five problems at most; empty where it fits.

        Raises InvalidSchema, CheckTooSlow.
        """
        return await self._answer([schema, value], taker)

    async def _answer(self, request: list[Any], taker: Taker) -> list[Problem]:
        text = json_text.dumps(request)
        async with self._turns.turn(taker):
            try:
                async with (
                    asyncio.timeout(_START_SECONDS + self._seconds * _BUSY_TIMES),
                    self._process.exchange() as (requests, responses),
                ):
                    requests.write(LENGTH.pack(len(text)) + text)
                    await requests.drain()
                    (length,) = LENGTH.unpack(await responses.readexactly(LENGTH.size))
                    if length > _RESPONSE_BYTES:
                        raise OSError("the response is too long")
                    answer: dict[str, Any] = orjson.loads(await responses.readexactly(length))
            except (TimeoutError, OSError, asyncio.IncompleteReadError) as error:
                _log.warning("a JSON Schema could not be checked in time", bytes=len(text), why=type(error).__name__)
                raise CheckTooSlow from None
        if "invalid" in answer:
            raise InvalidSchema(answer["invalid"])
        return [Problem(*each) for each in answer["problems"]]

    async def close(self) -> None:
        await self._process.end()
