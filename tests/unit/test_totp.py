"""One-time passwords against the vectors of RFC 6238, and the texts in which seeds are given."""

from __future__ import annotations

import base64

import pytest

from gateway.crypto.totp import TotpSeed

# Appendix B of RFC 6238.
SEEDS = {"SHA1": b"1234567890" * 2, "SHA256": b"1234567890" * 3 + b"12", "SHA512": b"1234567890" * 6 + b"1234"}
CODES = {
    59: {"SHA1": "94287082", "SHA256": "46119246", "SHA512": "90693936"},
    1111111109: {"SHA1": "07081804", "SHA256": "68084774", "SHA512": "25091201"},
    1111111111: {"SHA1": "14050471", "SHA256": "67062674", "SHA512": "99943326"},
    1234567890: {"SHA1": "89005924", "SHA256": "91819424", "SHA512": "93441116"},
    2000000000: {"SHA1": "69279037", "SHA256": "90698825", "SHA512": "38618901"},
    20000000000: {"SHA1": "65353130", "SHA256": "77737706", "SHA512": "47863826"},
}


def base32(secret: bytes) -> str:
    return base64.b32encode(secret).decode()


@pytest.mark.parametrize("algorithm", SEEDS)
def test_codes_are_those_of_the_standard(algorithm: str) -> None:
    address = f"otpauth://totp/A:b?secret={base32(SEEDS[algorithm])}&algorithm={algorithm}&digits=8&issuer=A"
    seed = TotpSeed.parse(address)
    assert {now: seed.code(now) for now in CODES} == {now: codes[algorithm] for now, codes in CODES.items()}


def test_a_plain_seed_is_read_as_people_write_it() -> None:
    plain = base32(SEEDS["SHA1"])
    grouped = " ".join(plain[at : at + 4] for at in range(0, len(plain), 4))
    for text in (plain, plain.lower(), grouped, grouped.replace(" ", "-"), f" {plain}\n"):
        seed = TotpSeed.parse(text)
        assert seed == TotpSeed(SEEDS["SHA1"])
        assert seed.code(59) == "287082"
    assert TotpSeed.parse("JBSWY3DP").secret == TotpSeed.parse("JBSWY3DP======").secret == b"Hello"
    assert len(TotpSeed.parse("JBSWY3DP").code()) == 6


def test_an_address_has_its_own_digits_and_period() -> None:
    seed = TotpSeed.parse("OTPAUTH://TOTP/x?SECRET=jbswy3dpehpk3pxp&digits=7&period=60&algorithm=sha-256")
    assert (seed.algorithm, seed.digits, seed.period) == ("SHA256", 7, 60)
    assert seed.code(59) == seed.code(0) != seed.code(60)
    assert TotpSeed.parse("otpauth://totp/x?secret=JBSWY3DP&algorithm=HmacSHA1") == TotpSeed(b"Hello")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "not base32!",
        "JBSWY3DP1",
        "A",
        "A" * 257,
        "otpauth://hotp/x?secret=JBSWY3DP&counter=1",
        "otpauth://totp/x",
        "otpauth://totp/x?secret=",
        "otpauth://totp/x?secret=JBSWY3DP&secret=JBSWY3DQ",
        "otpauth://totp/x?secret=JBSWY3DP&algorithm=MD5",
        "otpauth://totp/x?secret=JBSWY3DP&digits=5",
        "otpauth://totp/x?secret=JBSWY3DP&digits=x",
        "otpauth://totp/x?secret=JBSWY3DP&period=0",
        "otpauth://totp/x?secret=JBSWY3DP&period=3601",
        "otpauth://totp/x?secret=JBSWY3DP&period=-1",
    ],
)
def test_what_is_no_seed_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(ValueError, match=r"seed|otpauth|algorithm|digits|period") as refused:
        TotpSeed.parse(text)
    assert "JBSWY3DP" not in str(refused.value)
