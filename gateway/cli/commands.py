"""How a command is declared: its name, its help and the function that runs it, with every option of the gateway."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from gateway import __version__, settings
from gateway.settings import Settings

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
            epilog=self._options.epilog,
            allow_abbrev=False,
        )
        made.set_defaults(run=run)
        return made

    def group(self, name: str, text: str) -> Any:
        """A command that has commands, such as `gateway keys`."""
        parser = self._top.add_parser(name, help=text)
        return parser.add_subparsers(title="commands", required=True, metavar="COMMAND")


def _options() -> argparse.ArgumentParser:
    """A flag for each option of the gateway that is not a secret."""
    options = argparse.ArgumentParser(add_help=False)
    group = options.add_argument_group("options, each also an environment variable")
    for name, field in settings.options().items():
        if settings.is_secret(field):
            continue
        help_text = f"{field.description} [{settings.variable(name)}]".replace("%", "%%")
        if field.annotation is bool:
            # An option that is on by default has a flag that turns it off.
            action = argparse.BooleanOptionalAction if field.default else "store_true"
            group.add_argument(settings.flag(name), dest=name, action=action, default=None, help=help_text)
        else:
            group.add_argument(settings.flag(name), dest=name, metavar="VALUE", help=help_text)
    secret = [settings.variable(name) for name, field in settings.options().items() if settings.is_secret(field)]
    options.epilog = f"Environment only, because other users can read a command line: {', '.join(secret)}."
    return options
