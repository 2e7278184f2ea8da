"""`gateway doctor`: checks everything that a gateway needs on this machine, and gives advice."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from gateway.cli.commands import Commands
from gateway.cli.doctor.checks import run
from gateway.cli.doctor.findings import Finding, Level, exit_code, render
from gateway.cli.output import accept_json, say, say_json
from gateway.settings import Settings

__all__ = ["Finding", "Level", "add_to", "exit_code", "render", "run"]


def add_to(commands: Commands) -> None:
    accept_json(commands.command("doctor", _doctor))


def _doctor(loaded: Settings, parsed: argparse.Namespace) -> int:
    findings = run(loaded, embedded=loaded.database_url is None)
    if parsed.json:
        say_json([asdict(finding) for finding in findings])
    else:
        say(render(findings))
    return exit_code(findings)
