"""A short run of the fuzzer, so that it stays in working order; `python -m tests.support.fuzz` runs it without end."""

from __future__ import annotations

import os
import random

import pytest

from gateway.tunnel import cdp_messages as commands
from gateway.websocket import frames
from tests.support import fuzz

SECONDS = float(os.environ.get("GATEWAY_TEST_FUZZ_SECONDS", "2"))


@pytest.mark.parametrize("what", fuzz.PURE)
def test_mutated_bytes_are_read_as_the_specification_says(what: str) -> None:
    fuzzer = fuzz.Fuzzer(random.randrange(2**32))
    fuzzer.pure(what, SECONDS)
    assert fuzzer.cases > 0


async def test_a_live_gateway_survives_malformed_input() -> None:
    cases = await fuzz.run(random.randrange(2**32), SECONDS, ["upgrade"], SECONDS, print)
    assert cases["upgrade"] >= fuzz.BATCH


def test_the_fuzzer_finds_a_fault_of_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    # A ceiling that is off by one, which only lengths at the bound show.
    monkeypatch.setattr(fuzz, "MessageReader", lambda max_size: frames.MessageReader(max_size + 1))
    with pytest.raises(AssertionError, match=r"fuzz_reader, seed 1, case \d+"):
        fuzz.Fuzzer(1).pure("frames", 30)


def test_the_fuzzer_finds_a_fault_of_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    # A check that lets a command pass as it came.
    def careless(payload: bytes, policy: commands.Policy | None) -> tuple[commands.Action, bytes]:
        action, out = commands.review(payload, policy)
        return (action, bytes(payload)) if action is commands.Action.FORWARD else (action, out)

    monkeypatch.setattr(fuzz, "review", careless)
    with pytest.raises(AssertionError, match=r"fuzz_commands, seed 1, case \d+"):
        fuzz.Fuzzer(1).pure("commands", 30)
