"""Packages of extensions, good and bad."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
from collections.abc import Mapping
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

MANIFEST: dict[str, Any] = {"manifest_version": 3, "name": "Marker", "version": "1.2.3"}

# A mark in each page, by a content script, and an answer of the service worker.
WORKING: dict[str, str] = {
    "manifest.json": json.dumps(
        MANIFEST
        | {
            "permissions": ["storage", "scripting", "tabs"],
            "host_permissions": ["http://*/*"],
            "background": {"service_worker": "worker.js"},
            "content_scripts": [{"matches": ["http://*/*"], "js": ["scripts/mark.js"], "run_at": "document_end"}],
        }
    ),
    "worker.js": (
        "chrome.runtime.onMessage.addListener((asked, sender, answer) => {\n"
        "  chrome.storage.local.set({asked}).then(() => chrome.storage.local.get('asked'))\n"
        "    .then((kept) => answer(`${kept.asked} from ${chrome.runtime.id}`));\n"
        "  return true;\n});\n"
    ),
    "scripts/mark.js": (
        "document.documentElement.dataset.marked = 'yes';\n"
        "chrome.runtime.sendMessage('hello').then((said) => { document.documentElement.dataset.said = said; });\n"
    ),
}


def manifest(**changes: Any) -> bytes:
    return json.dumps(MANIFEST | changes).encode()


def zip_of(files: Mapping[str, str | bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return made.getvalue()


def working(**changes: Any) -> bytes:
    """The zip of an extension that works, with changes to its manifest."""
    return zip_of({**WORKING, "manifest.json": json.dumps(json.loads(WORKING["manifest.json"]) | changes)})


@cache
def rsa_key(number: int = 0) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@cache
def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def public(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def chromium_id(key: bytes) -> str:
    return "".join("abcdefghijklmnop"[int(digit, 16)] for digit in hashlib.sha256(key).hexdigest()[:32])


def crx2(content: bytes, key: rsa.RSAPrivateKey | None = None) -> bytes:
    key = key or rsa_key()
    signature = key.sign(content, padding.PKCS1v15(), hashes.SHA1())
    header = struct.pack("<4sIII", b"Cr24", 2, len(public(key)), len(signature))
    return header + public(key) + signature + content


def _member(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*made, value])


def crx3(
    content: bytes,
    *keys: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
    crx_id: bytes | None = None,
    spoiled: int | None = None,
) -> bytes:
    """Signed by each of the keys, the first of which is the developer's; `spoiled` is the one whose signature is of
    something else."""
    keys = keys or (rsa_key(),)
    own = hashlib.sha256(public(keys[0])).digest()[:16] if crx_id is None else crx_id
    signed = _member(1, own)
    header = b""
    for index, key in enumerate(keys):
        content_signed = b"CRX3 SignedData\x00" + struct.pack("<I", len(signed)) + signed + content
        if index == spoiled:
            content_signed += b"x"
        if isinstance(key, rsa.RSAPrivateKey):
            signature = key.sign(content_signed, padding.PKCS1v15(), hashes.SHA256())
        else:
            signature = key.sign(content_signed, ec.ECDSA(hashes.SHA256()))
        number = 2 if isinstance(key, rsa.RSAPrivateKey) else 3
        header += _member(number, _member(1, public(key)) + _member(2, signature))
    header += _member(10000, signed)
    return struct.pack("<4sII", b"Cr24", 3, len(header)) + header + content
