"""Every DevTools command that the policy knows, with its parameters, as Chromium lists them (`/json/protocol`).

The list is known_commands.json, written by tools/known_commands.py. A test compares it with the browser's own list, so
that no command or parameter of a new Chromium passes unseen: a reviewer decides for each one, and refuses or
checks it in policy.py if it can do more than a lease may.
"""

from __future__ import annotations

from importlib import resources

import orjson

# Method -> names of its parameters.
KNOWN: dict[str, tuple[str, ...]] = {
    method: tuple(parameters)
    for method, parameters in orjson.loads(
        resources.files("gateway.tunnel").joinpath("known_commands.json").read_bytes()
    )["commands"].items()
}
