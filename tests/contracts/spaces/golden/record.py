"""Records the answers of a gateway, or compares them with those that are recorded.

python -m tests.contracts.spaces.golden.record [--checkout DIR | --base-url URL --api-key KEY] [--write] [--strict]
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.contracts.spaces.golden import comparison, openapi, scenario
from tests.contracts.spaces.golden.exchange import Recorder
from tests.contracts.spaces.golden.running import Running, running_gateway
from tests.support.gateway_process import ROOT


@contextlib.contextmanager
def played(gateway: Running) -> Iterator[Recorder]:
    """The whole scenario, played on a gateway."""
    recorder = Recorder(gateway.base_url, gateway.api_key)
    try:
        scenario.play(recorder)
        yield recorder
    finally:
        recorder.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkout", type=Path, default=ROOT, help="start the gateway of this checkout; default: this")
    parser.add_argument("--base-url", help="ask this gateway, which must be fresh and have the settings of running.py")
    parser.add_argument("--api-key", help="a key of its organization")
    parser.add_argument(
        "--strict", action="store_true", help="fail for other wording and for what OpenAPI has more too"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--write", action="store_true", help="replace what is recorded")
    what.add_argument("--compare", action="store_true", help="compare with what is recorded (the default)")
    given = parser.parse_args()
    if (given.base_url is None) != (given.api_key is None):
        parser.error("--base-url and --api-key go together")
    started = (
        running_gateway(given.checkout.resolve())
        if given.base_url is None
        else contextlib.nullcontext(Running(given.base_url.rstrip("/"), given.api_key))
    )
    with started as gateway, played(gateway) as recorder:
        document = openapi.document(gateway.base_url)
    if given.write:
        comparison.write(recorder.exchanges)
        openapi.write(document)
        print(f"{len(recorder.exchanges)} exchanges written")
        return 0
    found = comparison.compare(comparison.recorded(), recorder.exchanges)
    found = found.joined(openapi.compare(openapi.recorded(), document))
    print(found.report(strict=given.strict))
    return int(found.fails(strict=given.strict))


if __name__ == "__main__":
    sys.exit(main())
