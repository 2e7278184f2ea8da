"""Signatures of forwarded requests: what they state is believed once, for one request, for a while."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from gateway.crypto.hops import Hop, HopRefused, HopSigner, Target

PEPPER = bytes(range(32))
TARGET = Target("GET", "/v1/connect/tokené/json/list", b"a=1")


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def other(clock: Clock) -> HopSigner:
    """Another gateway of the database."""
    return HopSigner(PEPPER, clock=clock)


@pytest.fixture
def here(clock: Clock) -> HopSigner:
    return HopSigner(PEPPER, seconds=60, clock=clock)


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::1", "fe80::1%eth0", ""])
def test_a_signed_hop_is_read_as_it_was_stated(here: HopSigner, other: HopSigner, address: str) -> None:
    assert here.read(other.sign(Hop(address), TARGET), TARGET) == Hop(address)


@pytest.mark.parametrize(
    "target",
    [
        replace(TARGET, method="POST"),
        replace(TARGET, path="/v1/connect/other/json/list"),
        replace(TARGET, query=b"a=2"),
        Target("GET", "/v1/connect/tokené/json/list\na=1"),
    ],
)
def test_a_hop_is_of_one_request(here: HopSigner, other: HopSigner, target: Target) -> None:
    with pytest.raises(HopRefused, match="for this request"):
        here.read(other.sign(Hop("192.0.2.7"), TARGET), target)


def test_a_hop_is_believed_once(here: HopSigner, other: HopSigner) -> None:
    signed = other.sign(Hop("192.0.2.7"), TARGET)
    here.read(signed, TARGET)
    with pytest.raises(HopRefused, match="used before"):
        here.read(signed, TARGET)
    # A second request of the same content is signed separately.
    here.read(other.sign(Hop("192.0.2.7"), TARGET), TARGET)


@pytest.mark.parametrize(("seconds", "is_valid"), [(-61, False), (-60, True), (60, True), (61, False)])
def test_a_hop_expires(here: HopSigner, other: HopSigner, clock: Clock, seconds: float, is_valid: bool) -> None:
    signed = other.sign(Hop(""), TARGET)
    clock.now += seconds
    if is_valid:
        here.read(signed, TARGET)
    else:
        with pytest.raises(HopRefused, match="clocks of both"):
            here.read(signed, TARGET)


def test_a_replay_is_refused_up_to_the_end_of_its_signature(here: HopSigner, other: HopSigner, clock: Clock) -> None:
    clock.now += 60
    signed = other.sign(Hop(""), TARGET)
    clock.now -= 60
    here.read(signed, TARGET)
    # Others come meanwhile, and are forgotten once they are too old to be valid.
    for _ in range(119):
        clock.now += 1
        here.read(other.sign(Hop(""), TARGET), TARGET)
    with pytest.raises(HopRefused, match="used before"):
        here.read(signed, TARGET)
    clock.now += 2
    with pytest.raises(HopRefused, match="clocks of both"):
        here.read(signed, TARGET)
    clock.now += 300
    here.read(other.sign(Hop(""), TARGET), TARGET)


@pytest.mark.parametrize(
    "forged",
    [
        lambda signed: "1",
        lambda signed: "",
        lambda signed: signed + " ",
        lambda signed: signed.replace("192.0.2.7", "192.0.2.8"),
        lambda signed: signed[:-1] + ("0" if signed[-1] != "0" else "1"),
        lambda signed: signed.replace("1;", "2;", 1),
        lambda signed: HopSigner(bytes(32)).sign(Hop("192.0.2.7"), TARGET),
    ],
)
def test_a_forged_hop_is_refused(here: HopSigner, other: HopSigner, forged: Callable[[str], str]) -> None:
    with pytest.raises(HopRefused):
        here.read(forged(other.sign(Hop("192.0.2.7"), TARGET)), TARGET)
