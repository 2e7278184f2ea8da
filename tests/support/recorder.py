"""What the whole suite logs at debug level, searched for every secret that was issued meanwhile.

In this process each record is taken as the gateway's own formatter renders it, and each secret where it is made. Of a
gateway in a process of its own the output is taken, and the secrets from its data directory.
"""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.crypto.keyring import KeyRing
from gateway.crypto.tokens import Token, TokenIssuer, api_key_prefix
from gateway.crypto.viewer_tokens import Viewer, ViewerTokens
from gateway.domain.secrets import SecretStore
from gateway.telemetry import logs
from tests.support.fake_providers import KEYS
from tests.support.gateway_process import ROOT, GatewayProcess

# A piece of a secret of this length, of as many letters, is not in a line by chance.
PIECE = 20
LETTERS = 10

# What a secret that a test alone knows looks like.
SHAPE = re.compile(
    r"bctrl_[A-Za-z0-9]{12}_[A-Za-z0-9_-]{43}|/v1/connect/[A-Za-z0-9]{12}[A-Za-z0-9_-]{43}|view_[A-Za-z0-9_-]{100}"
)
# Printed once at the first start, and not logged.
FIRST_KEY = re.compile(r"^First API key, shown this once .*$", re.MULTILINE)

_RUN = re.compile(rf"[A-Za-z0-9+/=_-]{{{PIECE},}}")


class Recorder:
    """Notes secrets and lines in any order; `findings` are the lines that have a piece of a secret, which is hidden."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.secrets = 0
        self._pieces: set[str] = set()
        self._noted: set[str] = set()

    def note(self, secret: str) -> None:
        if secret in self._noted:
            return
        self._noted.add(secret)
        self.secrets += 1
        self._pieces.update(
            piece
            for start in range(len(secret) - PIECE + 1)
            if len(set(piece := secret[start : start + PIECE])) >= LETTERS
        )

    def take(self, text: str) -> None:
        # Most lines have nothing that could be part of one, and need not be kept.
        self.lines += [line for line in text.splitlines() if _RUN.search(line)]

    def findings(self) -> list[str]:
        found = []
        for line in self.lines:
            shown = SHAPE.sub("<SECRET>", line)
            for run in _RUN.finditer(line):
                for start in range(run.start(), run.end() - PIECE + 1):
                    if (piece := line[start : start + PIECE]) in self._pieces:
                        shown = shown.replace(piece, "<SECRET>")
            if shown != line:
                found.append(shown)
        return found


class _Handler(logging.Handler):
    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def emit(self, record: logging.LogRecord) -> None:
        self._recorder.take(self.format(record))


@contextmanager
def recorded() -> Iterator[Recorder]:
    """Record until the end, which raises AssertionError when something was found. Logging is configured before."""
    recorder = Recorder()
    for key in KEYS.values():
        recorder.note(key)
    root = logging.getLogger()
    handler = _Handler(recorder)
    handler.setFormatter(next(each.formatter for each in root.handlers if isinstance(each, logs.Stderr)))
    root.addHandler(handler)
    with pytest.MonkeyPatch.context() as patch:
        _listen(recorder, patch)
        yield recorder
    root.removeHandler(handler)
    assert recorder.findings() == []


def _noting(recorder: Recorder, make: Callable[[TokenIssuer], Token]) -> Callable[[TokenIssuer], Token]:
    """The same, which notes each secret that it makes."""

    def noted(self: TokenIssuer) -> Token:
        token = make(self)
        recorder.note(token.secret[len(token.prefix) :])
        return token

    return noted


def _listen(recorder: Recorder, patch: pytest.MonkeyPatch) -> None:
    """Hear of each secret where it is made, and of each gateway process when it is over."""
    pepper, put, ring = TokenIssuer.__init__, SecretStore.put, KeyRing.__init__
    sign = ViewerTokens.sign
    close = GatewayProcess.close

    def noted_pepper(self: TokenIssuer, given: bytes) -> None:
        for text in (given.hex(), base64.b64encode(given).decode()):
            recorder.note(text)
        pepper(self, given)

    def noted_sign(self: ViewerTokens, viewer: Viewer) -> str:
        token = sign(self, viewer)
        recorder.note(token[-42:])  # the signature; the part before it is not secret
        return token

    async def noted_put(self: SecretStore, connection: Any, owner: Any, secret: str) -> None:
        recorder.note(secret)
        await put(self, connection, owner, secret)

    def noted_ring(self: KeyRing, keys: dict[str, bytes], *setting: str) -> None:
        for key in keys.values():
            recorder.note(base64.b64encode(key).decode())
        ring(self, keys, *setting)

    def debugged_start(cls: type[GatewayProcess], data_dir: Any, /, *flags: str, **env: str) -> GatewayProcess:
        return cls.start_checkout(ROOT, data_dir, *flags, **({"GATEWAY_LOG_LEVEL": "debug"} | env))

    def recorded_close(self: GatewayProcess) -> None:
        try:
            close(self)
        finally:
            for secret in _kept_in(self.data_dir):
                recorder.note(secret)
            recorder.take(FIRST_KEY.sub("", self.log))

    for name in ("api_key", "lease_token"):
        patch.setattr(TokenIssuer, name, _noting(recorder, getattr(TokenIssuer, name)))
    patch.setattr(TokenIssuer, "__init__", noted_pepper)
    patch.setattr(ViewerTokens, "sign", noted_sign)
    patch.setattr(SecretStore, "put", noted_put)
    patch.setattr(KeyRing, "__init__", noted_ring)
    patch.setattr(GatewayProcess, "start", classmethod(debugged_start))
    patch.setattr(GatewayProcess, "close", recorded_close)


def _kept_in(data_dir: Path) -> list[str]:
    """The secrets that a gateway keeps in files, without their parts that are not secret."""
    texts = [path.read_text() for name in ("api-key", "master-keys") if (path := data_dir / name).exists()]
    return [
        line.removeprefix(api_key_prefix(line) or line.partition(":")[0]).lstrip(":_")
        for line in "".join(texts).splitlines()
    ]
