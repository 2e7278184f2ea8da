"""Large commands are reviewed in their own process, within limits of time and memory, and block no other socket."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import pickle
import struct
from collections.abc import AsyncIterator

import psutil
import pytest
import pytest_asyncio

from gateway.core.shares import Shares, Taker
from gateway.tunnel.cdp_messages import Action, InvalidText, review
from gateway.tunnel.large_commands import (
    LARGE,
    MAX_VALUES,
    LargeCommands,
    Overloaded,
    PendingReview,
    TooManyValues,
    has_more_values,
    is_large,
    serve,
)
from tests.support.waiting import until


class RefusesAll:
    """A policy that refuses everything."""

    always_allowed: frozenset[str] = frozenset()

    def check(self, message: dict[str, object]) -> str | None:
        return "it is not allowed here"

    def reads_params(self, method: str) -> bool:
        return False


def command(text: str) -> bytes:
    return json.dumps({"id": 1, "method": "Page.setDocumentContent", "params": {"html": text}}).encode()


@pytest_asyncio.fixture
async def large() -> AsyncIterator[LargeCommands]:
    commands = LargeCommands(held_bytes=1000, seconds=10)
    yield commands
    await commands.close()


def reviewers() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if is_reviewer(child)]


def is_reviewer(process: psutil.Process) -> bool:
    # What browsers of other tests left may be a zombie, which has no command line.
    with contextlib.suppress(psutil.Error):
        return "gateway.tunnel.large_commands" in process.cmdline()
    return False


@pytest.mark.parametrize("policy", [None, RefusesAll()], ids=["no policy", "a policy"])
@pytest.mark.parametrize("payload", [command("x" * LARGE), b"{", b"[]", b'{"id": 1, "method": "Browser.close"}'])
async def test_a_large_command_is_reviewed_like_a_small_one(
    large: LargeCommands, payload: bytes, policy: RefusesAll | None
) -> None:
    assert await large.review(payload, policy) == review(payload, policy)


async def test_invalid_utf_8_is_reported(large: LargeCommands) -> None:
    with pytest.raises(InvalidText):
        await large.review(b"\xff", None)
    assert (await large.review(command("x"), None))[0] is Action.FORWARD


async def test_a_review_does_not_block_the_event_loop(large: LargeCommands) -> None:
    await large.review(command("x"), None)
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    turning = asyncio.create_task(turn())
    # Some million values, which take seconds to read.
    payload = b'{"id": 1, "method": "X.y", "params": {"z": [%b{}]}}' % (b"{}," * 900_000)
    action, _ = await large.review(payload, None)
    turning.cancel()
    assert action is Action.FORWARD
    assert turns > 1000


async def test_a_review_that_times_out_does_not_stop_the_next() -> None:
    large = LargeCommands(held_bytes=1000, seconds=0.3, max_values=10**9)
    payload = b'{"id": 1, "method": "X.y", "params": {"z": [%b{}]}}' % (b"{}," * 10_000_000)
    try:
        with pytest.raises(Overloaded):
            await large.review(payload, None)
        await until(lambda: not reviewers(), "the process is gone")
        large.seconds = 10
        assert (await large.review(command("x"), None))[0] is Action.FORWARD
    finally:
        await large.close()
    assert not reviewers()


async def test_a_reviewer_that_dies_costs_one_command(large: LargeCommands) -> None:
    await large.review(command("x"), None)
    (process,) = reviewers()
    process.kill()
    await until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, "it is dead")
    assert [type(await outcome(large)) for _ in range(2)][1] is tuple


async def test_a_review_that_is_cancelled_leaves_no_response_for_the_next(large: LargeCommands) -> None:
    payload = b'{"id": 1, "method": "X.y", "params": {"z": [%b{}]}}' % (b"{}," * 900_000)
    reviewing = asyncio.create_task(large.review(payload, None))
    await until(lambda: bool(reviewers()), "the review has begun")
    reviewing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reviewing
    assert await large.review(command("x"), RefusesAll()) == review(command("x"), RefusesAll())


async def outcome(large: LargeCommands) -> object:
    try:
        return await large.review(command("x"), None)
    except Overloaded as error:
        return error


async def test_the_reviewer_inherits_no_environment_of_the_gateway(
    large: LargeCommands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_MASTER_KEYS", "k:secret")
    await large.review(command("x"), None)
    (process,) = reviewers()
    assert set(process.environ()) <= {"PATH", "PYTHONPATH", "LC_CTYPE"}


def test_the_reviewer_ends_at_the_end_of_its_input() -> None:
    answers = io.BytesIO()
    serve(io.BytesIO(), answers)
    assert answers.getvalue() == b""


ALL = Shares(caller=1, tenant=1)


def taker_of(name: str) -> Taker:
    """A caller, whose tenant is its first letter."""
    return Taker(name, name[0])


class Holder(PendingReview):
    """A socket that holds nothing more once it is ended, unless it ends for another reason already."""

    def __init__(self, large: LargeCommands, owner: str, ended: list[str], *, is_ending: bool = False) -> None:
        super().__init__(large, taker_of(owner), self._end)
        self._owner = owner
        self._ended = ended
        self._is_ending = is_ending

    def _end(self) -> None:
        self._ended.append(self._owner)
        if not self._is_ending:
            self.count(0)


@pytest.mark.parametrize(
    ("held", "ended"),
    [
        ([("a", 60), ("b", 40)], []),
        ([("a", 60), ("b", 41)], ["a"]),
        ([("a", 60), ("b", 30), ("b", 31)], ["b"]),
        ([("a", 50), ("b", 20), ("b", 20), ("b", 30)], ["b"]),
        ([("a", 101)], ["a"]),
        ([("a", 10), ("b", 200)], ["b"]),
    ],
    ids=["at the limit", "above", "the owner with most, last", "its largest", "alone", "one that is too large"],
)
async def test_above_the_limit_the_owner_who_holds_most_loses_its_largest_socket(
    held: list[tuple[str, int]], ended: list[str]
) -> None:
    large, lost = LargeCommands(held_bytes=100, seconds=1, shares=ALL), list[str]()
    sockets = [(Holder(large, owner, lost), size) for owner, size in held]
    for socket, size in sockets:
        socket.count(size)
    assert lost == ended
    assert large.held <= 100
    for socket, _ in sockets:
        socket.count(0)
    assert large.held == 0


async def test_a_socket_that_ends_already_is_asked_once() -> None:
    large, lost = LargeCommands(held_bytes=100, seconds=1, shares=ALL), list[str]()
    ending, other = Holder(large, "a", lost, is_ending=True), Holder(large, "b", lost)
    ending.count(90)
    other.count(20)
    assert lost == ["a", "b"]
    assert large.held == 90
    ending.count(120)
    ending.count(130)
    assert lost == ["a", "b", "a", "a"]


@pytest.mark.parametrize(
    ("held", "ended"),
    [
        ([("a1", 50), ("a2", 25), ("b1", 25)], []),
        ([("a1", 51)], ["a1"]),
        ([("a1", 20), ("a1", 31)], ["a1"]),
        ([("b1", 20), ("a1", 40), ("a2", 36)], ["a1"]),
        ([("a1", 10), ("a2", 36), ("a2", 10), ("a3", 20)], ["a2"]),
    ],
    ids=["at the shares", "above a caller's", "of two sockets", "above a tenant's", "its caller with most"],
)
async def test_above_a_share_it_is_the_caller_or_tenant_itself_that_loses_a_socket(
    held: list[tuple[str, int]], ended: list[str]
) -> None:
    large, lost = LargeCommands(held_bytes=100, seconds=1), list[str]()
    for owner, size in held:
        Holder(large, owner, lost).count(size)
    assert lost == ended


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"[1,2,3,4]", False),
        (b"[1,2,3,4,5]", True),
        (b'{"a":{"b":[{}]}}', False),
        (b'{"a":{"b":[[{}]]}}', True),
        (rb'["1,2,[{]\",,",2]', False),
        (rb'["1,2,[{]\\",3,4,5,6]', True),
        (b'["[[[[[', True),
    ],
    ids=["at", "over", "containers at", "containers over", "in a text", "behind a text", "an unfinished text"],
)
def test_the_values_of_a_command_are_counted_outside_of_its_texts(payload: bytes, expected: bool) -> None:
    assert has_more_values(payload, 4) is expected


async def test_a_command_of_too_many_values_is_refused_before_it_is_parsed(large: LargeCommands) -> None:
    payload = b'{"id":1,"method":"X.y","params":{"z":[%b{}]}}'
    with pytest.raises(TooManyValues):
        await large.review(payload % (b"{}," * MAX_VALUES), None)
    (process,) = reviewers()
    # Two for each of these, and six more: as many as there may be.
    assert (await large.review(payload % (b"{}," * (MAX_VALUES // 2 - 3)), None))[0] is Action.FORWARD
    assert process.is_running()


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"x" * (LARGE - 1), False),
        (b"x" * LARGE, True),
        (b"{" * 2_000 + b"x" * 3_000, False),
        (b"{" * 2_001 + b"x" * 3_000, True),
        (b"{" * 1_000 + b"[" * 1_001 + b"x" * 3_000, True),
        (b"[" * 4_000, False),
        (b"[" * 4_001, True),
        (b"1," * 50_000, False),
        (b"1," * 50_001, True),
    ],
)
def test_a_command_is_large_by_its_size_or_the_number_of_its_values(payload: bytes, expected: bool) -> None:
    assert is_large(payload) is expected


async def test_commands_of_several_owners_are_reviewed_in_turn(large: LargeCommands) -> None:
    order: list[str] = []

    async def review(owner: str) -> None:
        await large.review(command("x"), None, taker=taker_of(owner))
        order.append(owner)

    first = asyncio.create_task(review("a"))
    await until(lambda: bool(reviewers()), "the first review has begun")
    waiting = [asyncio.create_task(review(owner)) for owner in ("a", "a", "a", "b", "c")]
    await asyncio.gather(first, *waiting)
    assert order == ["a", "a", "b", "c", "a", "a"]


async def test_a_review_that_is_cancelled_while_it_waits_passes_its_turn_on(large: LargeCommands) -> None:
    first = asyncio.create_task(large.review(command("x"), None, taker=taker_of("a")))
    await until(lambda: bool(reviewers()), "the first review has begun")
    waiting = [
        asyncio.create_task(large.review(command("x"), None, taker=taker_of(owner))) for owner in ("b", "b", "c")
    ]
    await asyncio.sleep(0)
    waiting[0].cancel()
    waiting[2].cancel()
    await asyncio.gather(first, *waiting, return_exceptions=True)
    assert [task.cancelled() for task in waiting] == [True, False, True]
    assert (await large.review(command("x"), None))[0] is Action.FORWARD


async def test_a_command_of_some_kib_waits_for_none_of_some_mib(large: LargeCommands) -> None:
    done: list[str] = []

    async def review(name: str, size: int) -> None:
        payload = command("x" * size)
        await large.review(payload + b" " * (size - len(payload)), None, taker=taker_of(name))
        done.append(name)

    # With one process for all, it would be the last.
    await large.review(command("x"), None)
    larger = [asyncio.create_task(review("larger", size)) for size in (64 * 1024 + 1, LARGE, LARGE)]
    await asyncio.sleep(0)
    await review("small", 64 * 1024)
    assert len(reviewers()) == 2
    await asyncio.gather(*larger)
    assert done.index("small") < 3


async def test_a_huge_command_holds_up_no_other_and_its_process_ends(large: LargeCommands) -> None:
    huge = asyncio.create_task(large.review(command("x" * 8 * LARGE), None, taker=taker_of("a")))
    assert (await large.review(command("x"), None, taker=taker_of("b")))[0] is Action.FORWARD
    assert (await huge)[0] is Action.FORWARD
    assert len(reviewers()) == 1


REQUEST = struct.Struct("!QQ")
RESPONSE = struct.Struct("!BQQ")


@pytest.mark.parametrize(
    ("payload", "policy", "kind", "noted"),
    [
        (b'{"id":1,"method":"Page.enable","params":{}}', None, 0, [{"method": "Page.enable"}, None]),
        (
            b'{"id":1,"method":"X.y","sessionId":"A","params":{}}',
            RefusesAll(),
            1,
            [{"method": "X.y", "sessionId": "A"}, "it is not allowed here"],
        ),
        (b"{", None, 1, None),
        (b'{"id":1,"method":"Browser.close"}', None, 2, None),
        (b"\xff", None, 3, None),
    ],
    ids=["forwarded", "refused", "malformed", "leaves", "not UTF-8"],
)
def test_the_process_responds_with_what_to_do_and_what_to_record(
    payload: bytes, policy: RefusesAll | None, kind: int, noted: list[object] | None
) -> None:
    pickled = pickle.dumps(policy)
    responses = io.BytesIO()
    serve(io.BytesIO(REQUEST.pack(len(pickled), len(payload)) + pickled + payload), responses)
    response = responses.getvalue()
    given, noted_length, length = RESPONSE.unpack(response[: RESPONSE.size])
    rest = response[RESPONSE.size :]
    assert (given, len(rest)) == (kind, noted_length + length)
    assert (json.loads(rest[:noted_length]) if noted_length else None) == noted


def test_the_process_responds_that_a_command_has_too_many_values() -> None:
    payload, pickled, responses = b'{"id":1,"method":"X.y"}', pickle.dumps(None), io.BytesIO()
    for most in (2, 1):
        requests = io.BytesIO(REQUEST.pack(len(pickled), len(payload)) + pickled + payload)
        serve(requests, responses, most)
    response = responses.getvalue()
    assert (RESPONSE.unpack(response[: RESPONSE.size])[0], response[-RESPONSE.size :]) == (0, RESPONSE.pack(5, 0, 0))


class Hungry:
    """A policy for which memory runs out."""

    always_allowed: frozenset[str] = frozenset()

    def check(self, message: dict[str, object]) -> str | None:
        raise MemoryError

    def reads_params(self, method: str) -> bool:
        return False


async def test_a_command_that_takes_too_much_memory_is_overloaded(large: LargeCommands) -> None:
    with pytest.raises(Overloaded):
        await large.review(command("x"), Hungry())
    payload, pickled = command("x"), pickle.dumps(Hungry())
    responses = io.BytesIO()
    serve(io.BytesIO(REQUEST.pack(len(pickled), len(payload)) + pickled + payload), responses)
    assert RESPONSE.unpack(responses.getvalue())[0] == 4


async def test_a_reviewed_command_is_recorded_like_a_small_one(large: LargeCommands) -> None:
    noted: list[tuple[dict[str, object], str | None]] = []
    await large.review(command("x"), None, lambda message, refused: noted.append((message, refused)))
    assert noted == [({"method": "Page.setDocumentContent"}, None)]


async def test_a_command_with_half_a_surrogate_pair_is_forwarded_as_it_is(large: LargeCommands) -> None:
    """Also where the record has it: the reviewer must not end by it."""
    noted: list[tuple[dict[str, object], str | None]] = []
    payload = json.dumps({"id": 1, "method": "No.\ud83d", "sessionId": "\ud83d", "params": {"text": "\ud83d"}}).encode()
    reviewed = await large.review(payload, None, lambda message, refused: noted.append((message, refused)))
    assert reviewed == review(payload, None)
    assert reviewed[0] is Action.FORWARD
    replaced = "\N{REPLACEMENT CHARACTER}"
    assert noted == [({"method": f"No.{replaced}", "sessionId": replaced}, None)]
