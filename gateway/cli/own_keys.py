"""The master key of the data directory, where no other is given."""

from __future__ import annotations

from gateway.cli.output import say
from gateway.crypto.keyring import create_key_file
from gateway.settings import Settings


def with_own_keys(loaded: Settings, *, make: bool = False) -> Settings:
    """With the master key of the data directory, where no other is given. The first `up` makes it, and says so;
    another command must not, since what it would write then, a gateway with its own key could not read."""
    if loaded.master_keys is not None or loaded.master_keys_file is not None:
        return loaded
    file = loaded.data_dir / "master-keys"
    if not file.exists():
        if not make:
            return loaded
        create_key_file(file)
        say(f"Made a master key in {file}; without it the stored provider keys can't be read, so keep a copy.")
    return loaded.model_copy(update={"master_keys_file": file})
