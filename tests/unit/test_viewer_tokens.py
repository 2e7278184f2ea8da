from __future__ import annotations

import base64
import hmac
import time
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.crypto.tokens import api_key_prefix, lease_token_prefix
from gateway.crypto.viewer_tokens import VIEWER_TOKEN, Kind, Viewer, ViewerTokens

PEPPER = bytes(range(32))
TOKENS = ViewerTokens(PEPPER)
VIEWER = Viewer(uuid4(), Kind.LIVE, uuid4(), datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC), input=True)

unhurried = settings(deadline=None)  # the machine may have other things to do


@unhurried
@given(
    st.builds(
        Viewer,
        st.uuids(),
        st.sampled_from(Kind),
        st.uuids(),
        st.integers(0, 4_000_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
        input=st.booleans(),
        activity=st.booleans(),
        follows_clients=st.booleans(),
    )
)
def test_a_token_says_what_was_signed_to_its_own_kind_alone(viewer: Viewer) -> None:
    token = TOKENS.sign(viewer)
    assert VIEWER_TOKEN.fullmatch(token), "it must fit into a URL as it is"
    assert {kind: TOKENS.read(token, kind) for kind in Kind} == dict.fromkeys(Kind) | {viewer.kind: viewer}
    assert api_key_prefix(token) is None
    assert lease_token_prefix(token) is None


def test_not_one_letter_may_differ_and_no_other_pepper_signs() -> None:
    token = TOKENS.sign(VIEWER)
    for at in range(len(token)):
        for letter in "A_z9":
            changed = token[:at] + letter + token[at + 1 :]
            assert (TOKENS.read(changed, Kind.LIVE) is None) == (changed != token)
    for wrong in ("", token[:-1], token + "A", token + "\n", token.removeprefix("view_"), token.swapcase()):
        assert TOKENS.read(wrong, Kind.LIVE) is None
    assert ViewerTokens(bytes(32)).read(token, Kind.LIVE) is None
    assert TOKENS.sign(replace(VIEWER, id=uuid4())) != token


def test_the_key_is_not_the_pepper_and_signatures_are_compared_in_constant_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def watched(one: bytes, two: bytes) -> bool:
        compared.append((one, two))
        return True

    token = TOKENS.sign(VIEWER)
    monkeypatch.setattr(hmac, "compare_digest", watched)
    TOKENS.read(token, Kind.LIVE)
    ((expected, given_),) = compared
    assert len(expected) == 32
    assert expected == given_
    raw = base64.urlsafe_b64decode(token.removeprefix("view_"))
    assert raw.endswith(expected)
    assert expected != hmac.digest(PEPPER, raw.removesuffix(expected), "sha256")


@pytest.mark.parametrize("seconds", [-1, 0, 60])
def test_a_token_expires_by_this_machines_clock(monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    now = VIEWER.expires_at.timestamp() - seconds
    monkeypatch.setattr(time, "time", lambda: now)
    assert VIEWER.seconds_left() == seconds
