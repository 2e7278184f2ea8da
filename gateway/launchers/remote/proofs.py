"""How a gateway and an agent know each other: the proofs of SCRAM (RFC 5802), by keys that are derived and no password.

The gateways share one key. An agent has a verifier of its own name, made from it: with that it checks a gateway and
proves itself, but it can't speak as a gateway, and nothing of another agent follows from it. Each side gives a nonce,
and each proof is of both, of the agent's name and of what the connection is for, so none serves twice.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from enum import IntEnum

# With the version of all that follows it.
MAGIC = b"GWAGENT1"
NONCE_BYTES = 32
PROOF_BYTES = 32
HELLO_BYTES = len(MAGIC) + 1 + NONCE_BYTES
ANSWER_BYTES = NONCE_BYTES + PROOF_BYTES
MIN_KEY_BYTES = 32


class Purpose(IntEnum):
    """What a connection is for."""

    CONTROL = 1
    DEVTOOLS = 2
    FILE = 3
    EGRESS = 4


class NotProven(Exception):
    """Raised where the other side does not prove what it is; the message says what was wrong."""


@dataclass(frozen=True, slots=True)
class Verifier:
    """What an agent has."""

    name: str
    stored_key: bytes
    server_key: bytes

    @property
    def text(self) -> str:
        return f"{self.name}:{self.stored_key.hex()}:{self.server_key.hex()}"

    @classmethod
    def parse(cls, text: str) -> Verifier:
        """Raises ValueError, without a word of the text."""
        name, *keys = text.strip().split(":")
        if not name or [len(key) for key in keys] != [64, 64]:
            raise ValueError("a verifier is NAME:KEY:KEY, with two keys of 64 hexadecimal digits")
        return cls(name, *map(bytes.fromhex, keys))


def verifier(key: bytes, name: str) -> Verifier:
    """The verifier of the agent of this name, by the key of the gateways."""
    return Verifier(name, hashlib.sha256(_client_key(key, name)).digest(), _server_key(key, name))


class GatewaySide:
    """A gateway's part of one handshake: send `hello`, take the answer, send the proof that it returns."""

    def __init__(self, key: bytes, name: str, purpose: Purpose) -> None:
        self.hello = MAGIC + bytes([purpose]) + secrets.token_bytes(NONCE_BYTES)
        self._name = name
        self._client_key, self._server_key = _client_key(key, name), _server_key(key, name)

    def proof(self, answer: bytes) -> bytes:
        """Raises NotProven."""
        said = _said(self._name, self.hello, answer[:NONCE_BYTES])
        if not hmac.compare_digest(answer[NONCE_BYTES:], _mac(self._server_key, b"agent", said)):
            raise NotProven("it is not the agent of this name")
        stored_key = hashlib.sha256(self._client_key).digest()
        return _xor(self._client_key, _mac(stored_key, b"gateway", said))


class AgentSide:
    """An agent's part of one handshake: take the hello, send `answer`, check the proof."""

    def __init__(self, verifier: Verifier, hello: bytes) -> None:
        """Raises NotProven."""
        if not hello.startswith(MAGIC):
            raise NotProven("it does not speak this version of the agents' protocol")
        try:
            self.purpose = Purpose(hello[len(MAGIC)])
        except ValueError:
            raise NotProven("it is for something that this agent does not know") from None
        nonce = secrets.token_bytes(NONCE_BYTES)
        said = _said(verifier.name, hello, nonce)
        self.answer = nonce + _mac(verifier.server_key, b"agent", said)
        self._stored_key = verifier.stored_key
        self._mask = _mac(verifier.stored_key, b"gateway", said)

    def check(self, proof: bytes) -> None:
        """Raises NotProven."""
        client_key = _xor(proof, self._mask)
        if not hmac.compare_digest(hashlib.sha256(client_key).digest(), self._stored_key):
            raise NotProven("it is not a gateway of this agent")


def _client_key(key: bytes, name: str) -> bytes:
    return _mac(key, b"gateway's key", name.encode())


def _server_key(key: bytes, name: str) -> bytes:
    return _mac(key, b"agent's key", name.encode())


def _said(name: str, hello: bytes, nonce: bytes) -> bytes:
    # Both others have a fixed length.
    return hello + nonce + name.encode()


def _mac(key: bytes, label: bytes, about: bytes) -> bytes:
    return hmac.digest(key, label + b"\0" + about, "sha256")


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(first ^ second for first, second in zip(one, other, strict=True))
