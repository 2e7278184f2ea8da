"""The command `gateway`, and so `python -m gateway`."""

from __future__ import annotations

import sys

from gateway.core.importing import import_module


def main() -> int:
    if sys.argv[1:2] == ["agent"]:
        # Beside each browser of a cluster: it must be small, and start at once.
        started: int = import_module("gateway.cli.agent").main(sys.argv[2:])
        return started
    code: int = import_module("gateway.cli.main").main()
    return code


if __name__ == "__main__":
    raise SystemExit(main())
