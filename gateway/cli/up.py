"""`gateway up`."""

from __future__ import annotations

import argparse

from gateway.cli.commands import Commands
from gateway.cli.data_dir import make_data_dir
from gateway.cli.output import say
from gateway.cli.own_database import database_of
from gateway.cli.own_keys import with_own_keys
from gateway.core.importing import import_module
from gateway.launchers.local import browsers
from gateway.settings import Settings
from gateway.settings.listening import metrics_place


def add_to(commands: Commands) -> None:
    commands.command("up", up)


def up(loaded: Settings, _: argparse.Namespace) -> int:
    make_data_dir(loaded.data_dir)
    loaded = with_own_keys(loaded, make=True)
    loaded = loaded.model_copy(update={"metrics": metrics_place(loaded, production=False)})
    with database_of(loaded) as (database_url, database_text):
        found = browsers.get(loaded.chromium, say)
        # The server: neither a help nor a refused option needs it.
        code: int = import_module("gateway.cli.serving").up(loaded, database_url, database_text, found)
        return code
