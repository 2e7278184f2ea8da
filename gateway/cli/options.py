"""`gateway options`: every option of the gateway."""

from __future__ import annotations

import argparse
import textwrap

from gateway import settings
from gateway.cli.commands import Commands
from gateway.cli.output import say
from gateway.settings import Settings

_WIDTH = 100


def add_to(commands: Commands) -> None:
    commands.command("options", show)


def show(_: Settings, __: argparse.Namespace) -> int:
    for title, group in settings.GROUPS.items():
        say(f"{title}:")
        for name, field in settings.own_options(group).items():
            flag = "environment only" if settings.is_secret(field) else _flag(name, field.annotation, field.default)
            say(f"  {settings.variable(name)}  {flag}")
            say(textwrap.fill(field.description or "", _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6))
        say("")
    say("Defaults and ranges are in docs/settings.md. Options that hold a secret have no flag, because other users can")
    say("read a command line.")
    return 0


def _flag(name: str, annotation: object, default: object) -> str:
    flag = settings.flag(name)
    if annotation is not bool:
        return f"{flag} VALUE"
    return f"{flag}, --no-{flag.removeprefix('--')}" if default else flag
