from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.crypto.tokens import API_KEY, LEASE_TOKEN, Token, TokenIssuer, api_key_prefix, lease_token_prefix

PEPPER = bytes(range(32))
ISSUER = TokenIssuer(PEPPER)
MANY = 2000

unhurried = settings(deadline=None)  # the machine may have other things to do
KINDS = [
    pytest.param(ISSUER.api_key, "bctrl_", "_", api_key_prefix, 62, id="api-key"),
    pytest.param(ISSUER.lease_token, "", "", lease_token_prefix, 55, id="lease-token"),
]
kinds = pytest.mark.parametrize(("make", "start", "joint", "prefix_of", "length"), KINDS)
Make = Callable[[], Token]
PrefixOf = Callable[[str], str | None]


@kinds
def test_the_shape(make: Make, start: str, joint: str, prefix_of: PrefixOf, length: int) -> None:
    for _ in range(100):
        token = make()
        assert len(token.secret) == length
        assert re.fullmatch(start + "[A-Za-z0-9]{12}", token.prefix)
        assert token.secret.startswith(token.prefix + joint)
        assert prefix_of(token.secret) == token.prefix
        assert re.fullmatch("[A-Za-z0-9_-]+", token.secret), "it must fit into a URL as it is"


@kinds
def test_the_secret_is_256_bits_of_the_systems_randomness(
    make: Make, start: str, joint: str, prefix_of: PrefixOf, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def watched(size: int) -> str:
        asked.append(size)
        return token_urlsafe(size)

    token_urlsafe = secrets.token_urlsafe
    monkeypatch.setattr(secrets, "token_urlsafe", watched)
    token = make()
    assert asked == [32]
    assert len(base64.urlsafe_b64decode(token.secret[len(token.prefix + joint) :] + "=")) == 32


@kinds
def test_no_two_are_alike_and_every_letter_occurs(
    make: Make, start: str, joint: str, prefix_of: PrefixOf, length: int
) -> None:
    made = [make() for _ in range(MANY)]
    assert len({token.prefix for token in made}) == MANY
    assert len({token.secret[len(token.prefix) :] for token in made}) == MANY
    assert len({token.digest for token in made}) == MANY
    for column in zip(*(token.secret[-43:-1] for token in made), strict=True):
        assert len(set(column)) > 54, "in 2000 draws of 64 letters, no place leaves ten of them out"


def test_the_digest_is_hmac_sha256_under_the_pepper() -> None:
    token = ISSUER.lease_token()
    assert token.digest == hmac.new(PEPPER, token.secret.encode(), hashlib.sha256).digest()
    assert token.digest == ISSUER.digest(token.secret)
    assert token.digest != TokenIssuer(bytes(32)).digest(token.secret)


@kinds
def test_only_the_whole_secret_matches(make: Make, start: str, joint: str, prefix_of: PrefixOf, length: int) -> None:
    token = make()
    assert ISSUER.matches(token.secret, token.digest)
    assert not TokenIssuer(bytes(32)).matches(token.secret, token.digest)
    wrong = [token.secret[:-1], token.secret + "A", token.secret.swapcase(), token.prefix, "", make().secret]
    wrong += [
        token.secret[:at] + ("A" if token.secret[at] != "A" else "B") + token.secret[at + 1 :] for at in range(length)
    ]
    assert not any(ISSUER.matches(secret, token.digest) for secret in wrong)
    assert not any(ISSUER.matches(token.secret, digest) for digest in (b"", token.digest[:-1], token.digest + b"\0"))


def test_digests_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def watched(one: bytes, two: bytes) -> bool:
        compared.append((one, two))
        return True

    token = ISSUER.api_key()
    monkeypatch.setattr(hmac, "compare_digest", watched)
    assert ISSUER.matches(token.secret, token.digest)
    assert compared == [(token.digest, token.digest)]


@unhurried
@given(st.text(max_size=80) | st.from_regex(API_KEY, fullmatch=True) | st.from_regex(LEASE_TOKEN, fullmatch=True))
def test_a_text_is_an_api_key_or_a_lease_token_or_neither(text: str) -> None:
    key, lease = api_key_prefix(text), lease_token_prefix(text)
    assert key is None or lease is None
    assert (key is not None) == bool(re.fullmatch(r"bctrl_[A-Za-z0-9]{12}_[A-Za-z0-9_-]{43}", text))
    assert (lease is not None) == bool(re.fullmatch(r"[A-Za-z0-9]{12}[A-Za-z0-9_-]{43}", text))
    ISSUER.digest(text)


@pytest.mark.parametrize(
    "change",
    [
        lambda secret: secret + "\n",
        lambda secret: " " + secret,
        lambda secret: secret + "=",
        lambda secret: secret[:-1] + "é",
        lambda secret: secret[:-1] + "\u0661",  # a digit to `str.isdigit`, not to us
        lambda secret: secret[:-1],
        lambda secret: secret + "A",
        lambda secret: secret + "\0",
    ],
)
def test_a_text_that_resembles_a_token_is_not_a_token(change: Callable[[str], str]) -> None:
    assert api_key_prefix(change(ISSUER.api_key().secret)) is None
    assert lease_token_prefix(change(ISSUER.lease_token().secret)) is None
