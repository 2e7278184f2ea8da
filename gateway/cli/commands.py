"""How a command is declared: its name, its help and the function that runs it.

Every option of the gateway is a flag of every command. There are too many for each command's help, which shows the
command's own; `gateway options` lists the others.
"""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Callable
from typing import Any

from gateway import __version__, settings
from gateway.cli.output import flush
from gateway.settings import Settings

# The help of a command shows its own options, and no other.
_OWN = re.compile(r"(?<![\w-])--[\w-]+")

Run = Callable[[Settings, argparse.Namespace], int]


class Commands:
    """The commands of `gateway`. Each module of gateway/cli adds its own."""

    def __init__(self) -> None:
        self.parser = argparse.ArgumentParser(
            prog="gateway", description="A self-hosted gateway to real Chromium browsers."
        )
        self.parser.add_argument("--version", action="version", version=__version__)
        self._top = self.parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
        self._options = _options()

    def add(self, name: str, text: str, run: Run, *, to: Any = None) -> argparse.ArgumentParser:
        """A command that `run` carries out and returns the exit code of; `to` is the group that it belongs to."""
        made: argparse.ArgumentParser = (to or self._top).add_parser(
            # Without abbreviations: --master-keys would be one of --master-keys-file, and be taken with the keys.
            name,
            help=text,
            description=text,
            parents=[self._options],
            epilog="Every option of the gateway is accepted too, as a flag or a variable: see `gateway options`.",
            allow_abbrev=False,
        )
        made.set_defaults(run=run, parser=made)
        return made

    def parse(self, arguments: list[str] | None) -> argparse.Namespace:
        """The command with its arguments. Exits with 2 for wrong usage, and never repeats a value."""
        try:
            parsed, unknown = self.parser.parse_known_args(arguments)
        except SystemExit:
            # A help or a version was printed.
            flush()
            raise
        for argument in unknown:
            self.parser.error(_unknown(argument, _OWN.findall(parsed.parser.format_help())))
        return parsed

    def group(self, name: str, text: str) -> Any:
        """A command that has commands, such as `gateway keys`."""
        parser = self._top.add_parser(name, help=text)
        return parser.add_subparsers(title="commands", required=True, metavar="COMMAND")


def _options() -> argparse.ArgumentParser:
    """A flag for each option of the gateway that is not a secret, in no help and no usage."""
    options = argparse.ArgumentParser(add_help=False)
    for name, field in settings.options().items():
        if settings.is_secret(field):
            continue
        if field.annotation is bool:
            # An option that is on by default has a flag that turns it off.
            action = argparse.BooleanOptionalAction if field.default else "store_true"
            options.add_argument(settings.flag(name), dest=name, action=action, default=None, help=argparse.SUPPRESS)
        else:
            options.add_argument(settings.flag(name), dest=name, metavar="VALUE", help=argparse.SUPPRESS)
    return options


def _unknown(argument: str, own: list[str]) -> str:
    """What is wrong with an argument; `own` are the options of the command itself."""
    name = argument.partition("=")[0]
    if not name.startswith("--"):
        return "too many arguments"
    known = {settings.flag(name): field for name, field in settings.options().items()}
    if name in known:
        variable = settings.variable(name.removeprefix("--").replace("-", "_"))
        return f"{name} would show a secret to other users of the machine; set {variable} in the environment"
    nearest = difflib.get_close_matches(name, [*own, *known], 1)
    advice = f"; the nearest one is {nearest[0]}" if nearest else ""
    return f"{name} is not an option{advice}"
