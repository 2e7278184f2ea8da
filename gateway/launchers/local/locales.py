"""Which locale a browser's `Intl` has: Chromium only takes one whose language file is beside its binary.

On Linux it asks for the language in the environment, not on its command line, and resolves it as
`l10n_util::CheckAndResolveLocale` does (https://source.chromium.org/chromium/chromium/src/+/main:ui/base/l10n/).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

# What Chromium has wherever it finds no file of the language.
DEFAULT = "en-US"

# Debian's package of the files, for the browsers of its other packages.
PACKAGE = "chromium-l10n"

_FILES = {"en": "en-US", "iw": "he", "no": "nb", "pt": "pt-BR", "tl": "fil", "zh": "zh-CN"}


def language_variable(locale: str) -> str:
    """The value of LANGUAGE that asks for a locale such as `de-AT`, then for its language."""
    return f"{locale.replace('-', '_')}:{locale.partition('-')[0]}"


def installed(binary: Path) -> list[str]:
    """Locales that have a file, sorted; without the variants for a reader's gender."""
    return sorted(file.stem for file in (binary.parent / "locales").glob("*.pak") if "_" not in file.stem)


def intl_locale(binary: Path, locale: str) -> str:
    """The locale of `Intl` in a browser that is asked for `locale`."""
    directory = binary.parent / "locales"
    return next((name for name in _candidates(locale) if (directory / f"{name}.pak").exists()), DEFAULT)


def follows(resolved: str, locale: str) -> bool:
    """Whether `resolved` is what an ordinary Chromium has, with all of its files, where `locale` is asked for."""
    return resolved != DEFAULT or DEFAULT in list(_candidates(locale))[:2]


def _candidates(locale: str) -> Iterator[str]:
    yield locale
    language, _, region = locale.partition("-")
    if region:
        yield from _of_region(language, region)
    yield _FILES.get(language, language)


def _of_region(language: str, region: str) -> Iterator[str]:
    match language:
        case "es" if region != "ES":
            yield "es-419"
        case "zh":
            yield "zh-TW" if region in ("HK", "MO") or region.startswith("Hant") else "zh-CN"
        case "pt" if region != "BR":
            yield "pt-PT"
        case "en":
            yield "en-US" if region in ("LR", "PH") else "en-GB"


def warning(binary: Path, locale: str) -> str | None:
    """What a browser that is asked for a locale does not do."""
    resolved = intl_locale(binary, locale)
    # Elsewhere than on Linux, browsers have all files.
    if sys.platform != "linux" or follows(resolved, locale):
        return None
    return f"Intl stays {resolved}: the browser has no language file for {locale}."
