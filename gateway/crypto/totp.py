"""Time-based one-time passwords (RFC 6238), from the texts in which seeds are given."""

from __future__ import annotations

import base64
import binascii
import re
import time
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

from cryptography.hazmat.primitives.hashes import SHA1, SHA256, SHA512
from cryptography.hazmat.primitives.twofactor.totp import TOTP

_ALGORITHMS: dict[str, type[SHA1 | SHA256 | SHA512]] = {"SHA1": SHA1, "SHA256": SHA256, "SHA512": SHA512}
_BASE32 = re.compile(r"[A-Z2-7]+=*")
_LONGEST_SEED = 256
_DIGITS = (6, 7, 8)
_LONGEST_PERIOD = 3600


@dataclass(frozen=True, slots=True)
class TotpSeed:
    """`period` is in seconds."""

    secret: bytes = field(repr=False)
    algorithm: str = "SHA1"
    digits: int = 6
    period: int = 30

    @classmethod
    def parse(cls, text: str) -> TotpSeed:
        """From a seed in base32, or an `otpauth://totp/` address. Raises ValueError, whose text has nothing secret."""
        if not text.lower().startswith("otpauth:"):
            return cls(_secret(text))
        address = urlsplit(text)
        if address.netloc.lower() != "totp":
            raise ValueError("an otpauth address is of the kind totp")
        given = parse_qsl(address.query, keep_blank_values=True)
        values = {name.lower(): value for name, value in given}
        if len(values) < len(given):
            raise ValueError("an otpauth address has each parameter once")
        algorithm = values.get("algorithm", "SHA1").upper().replace("-", "").removeprefix("HMAC")
        if algorithm not in _ALGORITHMS:
            raise ValueError("the algorithm is SHA1, SHA256 or SHA512")
        digits, period = _number(values.get("digits", "6")), _number(values.get("period", "30"))
        if digits not in _DIGITS:
            raise ValueError("digits are 6, 7 or 8")
        if not 1 <= period <= _LONGEST_PERIOD:
            raise ValueError(f"the period is 1 to {_LONGEST_PERIOD} seconds")
        return cls(_secret(values.get("secret", "")), algorithm, digits, period)

    def code(self, now: float | None = None) -> str:
        """The code of a Unix time, by default of now."""
        algorithm = _ALGORITHMS[self.algorithm]()
        totp = TOTP(self.secret, self.digits, algorithm, self.period, enforce_key_length=False)
        return totp.generate(int(time.time() if now is None else now)).decode()


def _secret(text: str) -> bytes:
    plain = re.sub(r"[\s-]", "", text).upper()
    if len(plain) > _LONGEST_SEED or not _BASE32.fullmatch(plain):
        raise ValueError("a seed is base32, or an otpauth address with one")
    plain = plain.rstrip("=")
    try:
        return base64.b32decode(plain + "=" * (-len(plain) % 8))
    except binascii.Error:
        raise ValueError("a seed is base32, or an otpauth address with one") from None


def _number(text: str) -> int:
    return int(text) if re.fullmatch("[0-9]{1,5}", text) else 0
