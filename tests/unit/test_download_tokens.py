from __future__ import annotations

import base64
import hashlib
import hmac
import struct
import time
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from gateway.crypto.download_tokens import DOWNLOAD_TOKEN, DownloadLink, DownloadTokens
from gateway.crypto.tokens import api_key_prefix, lease_token_prefix
from gateway.crypto.viewer_tokens import Kind, ViewerTokens

PEPPER = bytes(range(32))
TOKENS = DownloadTokens(PEPPER)
LINK = DownloadLink(uuid4(), uuid4(), datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC))


def test_a_token_has_what_was_signed_and_is_of_no_other_kind() -> None:
    token = TOKENS.sign(LINK)
    assert DOWNLOAD_TOKEN.fullmatch(token)
    assert TOKENS.read(token) == LINK
    assert api_key_prefix(token) is None
    assert lease_token_prefix(token) is None
    # The keys differ, so that a token of one kind with the prefix of the other is refused.
    renamed = token.replace("file_", "view_", 1)
    assert [ViewerTokens(PEPPER).read(each, kind) for each in (token, renamed) for kind in Kind] == [None] * 6


def test_no_letter_may_differ_and_no_other_pepper_signs() -> None:
    token = TOKENS.sign(LINK)
    for at in range(len(token)):
        for letter in "A_z9":
            changed = token[:at] + letter + token[at + 1 :]
            assert (TOKENS.read(changed) is None) == (changed != token)
    for wrong in ("", token[:-1], token + "A", token + "\n", token.removeprefix("file_")):
        assert TOKENS.read(wrong) is None
    assert DownloadTokens(bytes(32)).read(token) is None


def test_a_version_that_is_not_known_is_refused() -> None:
    body = struct.pack(">BHQ16s16s", 2, 0, 2_000_000_000, LINK.file_id.bytes, LINK.id.bytes)
    key = hmac.digest(PEPPER, b"gateway download tokens", hashlib.sha256)
    signed = body + hmac.digest(key, body, hashlib.sha256)
    assert TOKENS.read("file_" + base64.urlsafe_b64encode(signed).decode()) is None


@pytest.mark.parametrize("seconds", [-1, 0, 60])
def test_it_expires_by_this_machines_clock(monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    now = LINK.expires_at.timestamp() - seconds
    monkeypatch.setattr(time, "time", lambda: now)
    assert LINK.seconds_left() == seconds
