"""What differs between recorded exchanges and those of now, and how it is shown."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.contracts.spaces.golden.exchange import Exchange

EXCHANGES = Path(__file__).with_name("exchanges.jsonl")


@dataclass(frozen=True, slots=True)
class Differences:
    """`wrong` fail a comparison; `wording` are other sentences for people, and `added` what OpenAPI has more."""

    wrong: tuple[str, ...] = ()
    wording: tuple[str, ...] = ()
    added: tuple[str, ...] = ()

    def joined(self, other: Differences) -> Differences:
        return Differences(self.wrong + other.wrong, self.wording + other.wording, self.added + other.added)

    def fails(self, *, strict: bool) -> bool:
        return bool(self.wrong or (strict and (self.wording or self.added)))

    def report(self, *, strict: bool = False) -> str:
        lines = [*self.wrong]
        if strict:
            lines += [*self.wording, *self.added]
        counts = (
            f"{len(self.wrong)} differences, {len(self.wording)} of wording, {len(self.added)} additions to OpenAPI"
        )
        return "\n".join([*lines, counts])


def recorded() -> list[Exchange]:
    return [Exchange.read(line) for line in EXCHANGES.read_text().splitlines()]


def write(exchanges: Sequence[Exchange]) -> None:
    EXCHANGES.write_text("".join(f"{exchange.line()}\n" for exchange in exchanges))


def compare(before: Sequence[Exchange], now: Sequence[Exchange]) -> Differences:
    """By name, so that one exchange more or less does not move all those behind it."""
    known, found = {item.name: item for item in before}, {item.name: item for item in now}
    wrong = [f"{name}: is no longer sent" for name in known if name not in found]
    wrong += [f"{name}: is not recorded" for name in found if name not in known]
    wording = []
    for name in known.keys() & found.keys():
        wrong += _differing(known[name], found[name])
        if known[name].wording != found[name].wording:
            wording.append(_diff(f"{name}: wording", known[name].wording, found[name].wording))
    return Differences(tuple(sorted(wrong)), tuple(sorted(wording)))


def _differing(before: Exchange, now: Exchange) -> Iterator[str]:
    for what in ("request", "given", "status", "body"):
        old, new = getattr(before, what), getattr(now, what)
        if old != new:
            yield _diff(f"{before.name}: {what}", _lines(old), _lines(new))
    # An answer may gain a header.
    known = {name: value for name, value in now.headers.items() if name in before.headers}
    if before.headers != known:
        headers = ([f"{name}: {value}" for name, value in sorted(found.items())] for found in (before.headers, known))
        yield _diff(f"{before.name}: headers", *headers)


def _lines(value: object) -> list[str]:
    """A body without breaks is shown a field a line."""
    return str(value).replace(',"', ',\n"').splitlines()


def _diff(title: str, before: Sequence[str], now: Sequence[str]) -> str:
    lines = difflib.unified_diff(before, now, "recorded", "now", lineterm="", n=1)
    return "\n".join([title, *(f"    {line}" for line in lines)])
