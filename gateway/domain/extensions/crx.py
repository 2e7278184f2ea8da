"""The header of a .crx package (versions 2 and 3), whose signature is verified: it says whose extension it is.

A .crx is a zip behind a header with the public key of its developer and a signature of the zip. The format is that of
Chromium's components/crx_file; the key makes the extension's id.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from gateway.domain.extensions.refusals import PackageInvalid

MAGIC = b"Cr24"
_SIGNED = b"CRX3 SignedData\x00"
_CHUNK_BYTES = 1024 * 1024
# Chromium's tools write some 1.5 KiB.
_MAX_HEADER_BYTES = 64 * 1024
_MAX_PROOFS = 8
_RSA_BITS = range(1024, 8193)
# Of a protobuf message: fields of CrxFileHeader, AsymmetricKeyProof and SignedData.
_RSA_PROOFS, _ECDSA_PROOFS, _SIGNED_HEADER = 2, 3, 10000
_KEY, _SIGNATURE = 1, 2
_CRX_ID = 1
_ID_BYTES = 16


@dataclass(frozen=True, slots=True)
class CrxHeader:
    """`zip_at` is where the zip begins, and `public_key` is the developer's (DER)."""

    zip_at: int
    public_key: bytes


@dataclass(slots=True)
class _Proof:
    """A signature by the holder of a key, both as they are in the header."""

    algorithm: str
    key: bytes = b""
    signature: bytes = field(default=b"", repr=False)


def extension_id(key: bytes) -> str:
    """The id that Chromium gives the extension of a key: 32 letters from `a` to `p`."""
    return "".join(chr(ord("a") + int(digit, 16)) for digit in hashlib.sha256(key).digest()[:_ID_BYTES].hex())


def read_header(file: BinaryIO) -> CrxHeader:
    """The header of a package that begins with MAGIC; raises PackageInvalid unless its signature is right."""
    file.seek(len(MAGIC))
    (version,) = struct.unpack("<I", _exactly(file, 4))
    if version == 2:
        return _version_2(file)
    if version == 3:
        return _version_3(file)
    raise _wrong("format", f"it is of version {version}; versions 2 and 3 are accepted")


def _version_2(file: BinaryIO) -> CrxHeader:
    key_bytes, signature_bytes = struct.unpack("<II", _exactly(file, 8))
    _check_length(key_bytes + signature_bytes)
    proof = _Proof("rsa", _exactly(file, key_bytes), _exactly(file, signature_bytes))
    # The format of 2009 has no other hash. Who makes a second zip of one SHA-1 has made both.
    sha1 = hashes.SHA1()  # noqa: S303 - see above
    _verify(proof, _digest(file, sha1), sha1)
    return CrxHeader(16 + key_bytes + signature_bytes, proof.key)


def _version_3(file: BinaryIO) -> CrxHeader:
    (length,) = struct.unpack("<I", _exactly(file, 4))
    _check_length(length)
    signed, proofs = b"", list[_Proof]()
    for number, value in _fields(_exactly(file, length)):
        if number in (_RSA_PROOFS, _ECDSA_PROOFS):
            members = dict(_fields(value))
            algorithm = "rsa" if number == _RSA_PROOFS else "ecdsa"
            proofs.append(_Proof(algorithm, members.get(_KEY, b""), members.get(_SIGNATURE, b"")))
        elif number == _SIGNED_HEADER:
            signed = value
    if len(proofs) > _MAX_PROOFS:
        raise _wrong("signature", f"it has {len(proofs)} signatures; at most {_MAX_PROOFS} are accepted")
    wanted = dict(_fields(signed)).get(_CRX_ID, b"")
    own = next((proof for proof in proofs if hashlib.sha256(proof.key).digest()[:_ID_BYTES] == wanted), None)
    if own is None:
        raise _wrong("signature", "none of its signatures is by the key of the extension's id; pack it again")
    digest = _digest(file, hashes.SHA256(), _SIGNED + struct.pack("<I", len(signed)) + signed)
    for proof in proofs:
        _verify(proof, digest, hashes.SHA256())
    return CrxHeader(12 + length, own.key)


def _digest(file: BinaryIO, algorithm: hashes.HashAlgorithm, before: bytes = b"") -> bytes:
    """Of `before` and the rest of the file."""
    digest = hashes.Hash(algorithm)
    digest.update(before)
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.finalize()


def _verify(proof: _Proof, digest: bytes, algorithm: hashes.HashAlgorithm) -> None:
    try:
        key = serialization.load_der_public_key(proof.key)
        prehashed = utils.Prehashed(algorithm)
        if proof.algorithm == "rsa" and isinstance(key, rsa.RSAPublicKey) and key.key_size in _RSA_BITS:
            key.verify(proof.signature, digest, padding.PKCS1v15(), prehashed)
        elif proof.algorithm == "ecdsa" and isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(proof.signature, digest, ec.ECDSA(prehashed))
        else:
            raise _wrong("signature", f"its public key is not one for {proof.algorithm.upper()} of a usual size")
    except InvalidSignature:
        raise _wrong("signature", "its signature does not match its content; pack it again, or get it again") from None
    except (ValueError, UnsupportedAlgorithm):
        raise _wrong("signature", "its public key can't be read; pack it again, or get it again") from None


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Numbers and contents of the fields of a protobuf message that have bytes; others are skipped."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            if at >= len(message) or shift > 63:
                raise _malformed()
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value

    skip: dict[int, Callable[[], int]] = {0: lambda: varint() * 0, 1: lambda: 8, 5: lambda: 4}
    while at < len(message):
        tag = varint()
        kind = tag & 7
        if kind == 2:
            length = varint()
            if length > len(message) - at:
                raise _malformed()
            yield tag >> 3, message[at : at + length]
            at += length
        elif kind in skip:
            at += skip[kind]()
        else:
            raise _malformed()


def _exactly(file: BinaryIO, length: int) -> bytes:
    found = file.read(length)
    if len(found) != length:
        raise _malformed()
    return found


def _check_length(length: int) -> None:
    if length > _MAX_HEADER_BYTES:
        raise _wrong("format", f"it has {length} bytes; at most {_MAX_HEADER_BYTES} are accepted")


def _malformed() -> PackageInvalid:
    return _wrong("format", "it ends too early, or is not one of a .crx file of version 2 or 3")


def _wrong(rule: str, message: str) -> PackageInvalid:
    return PackageInvalid("the header of the .crx file", rule, message)
