"""The steps of a request, which its log line at level `debug` has."""

from __future__ import annotations

import asyncio
import json

from bench.steps import read, report
from gateway.core import steps
from tests.support.waiting import for_a_while


def test_without_a_trace_nothing_is_kept() -> None:
    steps.done("before")
    with steps.beside("beside"), steps.traced() as taken:
        pass
    assert taken.ms == {}


async def test_each_step_has_the_time_since_the_one_before_and_those_beside_have_their_own() -> None:
    async def other() -> None:
        with steps.beside("other"):
            await for_a_while(0.02)

    with steps.traced() as taken:
        beside = asyncio.create_task(other())
        steps.done("first")
        await beside
        steps.done("second")
        steps.done("third")
    steps.done("after")
    assert list(taken.ms) == ["first", "other", "second", "third"]
    assert taken.ms["second"] >= taken.ms["other"] > taken.ms["first"]


def test_the_bench_reads_steps_out_of_a_log() -> None:
    create = {"event": "steps of a request", "method": "POST", "route": "/v1/spaces/{id}/runtimes"}
    lines = [
        "Listening on http://127.0.0.1:1",
        *(json.dumps({**create, "ms": {"authenticate": 1.0 * number, "answer": 2.0}}) for number in (1, 2, 3)),
        json.dumps({"event": "steps of a request", "method": "GET", "route": "/v1/spaces", "ms": {"answer": 1.0}}),
        json.dumps({"event": "steps of an end", "ms": {"write row": 4.0}}),
    ]
    found = read("\n".join(lines))
    assert found == {
        "create": {"authenticate": [1.0, 2.0, 3.0], "answer": [2.0, 2.0, 2.0]},
        "behind a stop": {"write row": [4.0]},
    }
    assert "| create        | authenticate | 3    | 2.0    | 3.0    |" in report(found)
