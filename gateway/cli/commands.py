"""How a command is declared: its name, its help and the function that runs it.

Every option of the gateway is a flag of every command. There are too many for each command's help, which shows the
command's own; `gateway options` lists the others.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Callable
from typing import Any

from gateway import __version__, settings
from gateway.cli.output import flush
from gateway.core.importing import import_module
from gateway.settings import Settings

# The help of a command shows its own options, and no other.
_OWN = re.compile(r"(?<![\w-])--[\w-]+")

Run = Callable[[Settings, argparse.Namespace], int]

# Each command with its line in the help. The module of the same name adds it, and is imported only to run it.
COMMANDS = {
    "up": "Install what is missing, and serve: for one machine.",
    "serve": "Serve with a given database and given master keys: for production.",
    "migrate": "Bring the database's schema up to date.",
    "doctor": "Check browser, sandbox, database, keys and ports, and give advice.",
    "orgs": "Organizations, which see nothing of each other.",
    "keys": "API keys of organizations and their subaccounts.",
    "secrets": "Stored secrets.",
    "audit": "The audit log.",
    "options": "List every option of the gateway: its flag, its environment variable, its meaning.",
}


class Commands:
    """The commands of `gateway`: the names of all, and the options of the one that is run, which its module adds."""

    def __init__(self) -> None:
        self.parser = argparse.ArgumentParser(
            prog="gateway", description="A self-hosted gateway to real Chromium browsers."
        )
        self.parser.add_argument("--version", action="version", version=__version__)
        self._top = self.parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
        self._options = _options()

    def command(self, name: str, run: Run) -> argparse.ArgumentParser:
        """The command, which `run` carries out and returns the exit code of."""
        return self.add(name, COMMANDS[name], run, to=self._top)

    def group(self, name: str) -> Any:
        """A command that has commands, such as `gateway keys`."""
        parser = self._top.add_parser(name, help=COMMANDS[name])
        return parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(self, name: str, text: str, run: Run, *, to: Any) -> argparse.ArgumentParser:
        """A command of the group `to`, as `command` makes them."""
        made: argparse.ArgumentParser = to.add_parser(
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
        arguments = sys.argv[1:] if arguments is None else arguments
        chosen = next((argument for argument in arguments if not argument.startswith("-")), None)
        for name, text in COMMANDS.items():
            if name == chosen:
                import_module(f"gateway.cli.{name}").add_to(self)
            else:
                self._top.add_parser(name, help=text)
        try:
            parsed, unknown = self.parser.parse_known_args(arguments)
        except SystemExit:
            # A help or a version was printed.
            flush()
            raise
        for argument in unknown:
            self.parser.error(_unknown(argument, _OWN.findall(parsed.parser.format_help())))
        return parsed


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
