"""`gateway serve`."""

from __future__ import annotations

import argparse

from gateway.cli.commands import Commands
from gateway.cli.data_dir import make_data_dir
from gateway.core.errors import ConfigurationError
from gateway.core.importing import import_module
from gateway.domain.secrets import KeySource
from gateway.launchers.local import browsers
from gateway.settings import Settings
from gateway.settings.listening import metrics_place


def add_to(commands: Commands) -> None:
    commands.command("serve", serve)


def serve(loaded: Settings, _: argparse.Namespace) -> int:
    loaded = loaded.model_copy(update={"metrics": metrics_place(loaded, production=True)})
    if loaded.database_url is None:
        raise ConfigurationError("`gateway serve` needs GATEWAY_DATABASE_URL; `gateway up` brings its own database.")
    keys = KeySource.of(loaded)
    make_data_dir(loaded.data_dir, 0o777)
    found = browsers.find(loaded.chromium)
    if found is None:
        raise ConfigurationError("There is no browser; `gateway doctor` says what to do.")
    # The server: neither a help nor a refused option needs it.
    code: int = import_module("gateway.cli.serving").serve(loaded, loaded.database_url, keys, found)
    return code
