"""The command line, run in this process."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

import pytest

from gateway.cli.main import main


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """What it was refused with: one sentence, and no traceback."""
        assert self.code == 1, self
        assert "Traceback" not in self.err
        (line,) = [line for line in self.err.splitlines() if line.startswith("gateway: ")]
        return line.removeprefix("gateway: ")


class Cli:
    """Runs a command in this process, in a thread since it has a loop of its own, with nothing in the environment
    but what a test puts there."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys = capsys
        self._monkeypatch = monkeypatch

    async def __call__(self, *arguments: str, **environment: str) -> Done:
        for name in [name for name in os.environ if name.startswith("GATEWAY_")]:
            self._monkeypatch.delenv(name)
        for name, value in environment.items():
            self._monkeypatch.setenv(name, value)
        self._capsys.readouterr()
        try:
            code = await asyncio.to_thread(main, list(arguments))
        except SystemExit as exit_:  # argparse's own exit
            code = exit_.code if isinstance(exit_.code, int) else 1
        out, err = self._capsys.readouterr()
        return Done(code, out, err)
