"""The command `gateway`, and so `python -m gateway`."""

from __future__ import annotations

from gateway.core.importing import import_module


def main() -> int:
    code: int = import_module("gateway.cli.main").main()
    return code


if __name__ == "__main__":
    raise SystemExit(main())
