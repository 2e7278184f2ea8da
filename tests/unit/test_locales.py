"""Which locale a browser's Intl has, by the language files beside its binary: as Chromium 156 itself resolves them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.launchers.local import locales

# Some of what Debian's chromium-l10n has.
ALL = ("de", "en-GB", "en-US", "es", "es-419", "fil", "fr", "he", "ja", "nb", "pt-BR", "pt-PT", "sr", "zh-CN", "zh-TW")


def binary(directory: Path, *names: str) -> Path:
    (directory / "locales").mkdir()
    for name in names:
        (directory / "locales" / f"{name}.pak").touch()
    return directory / "chromium"


@pytest.mark.parametrize(
    ("asked", "resolved"),
    [
        *((name, name) for name in ALL),
        ("de-AT", "de"),
        ("de-DE-1996", "de"),
        ("en", "en-US"),
        ("en-PH", "en-US"),
        ("en-AU", "en-GB"),
        ("es-ES", "es"),
        ("es-MX", "es-419"),
        ("fr-CA", "fr"),
        ("iw", "he"),
        ("ja-JP", "ja"),
        ("no", "nb"),
        ("nb-NO", "nb"),
        ("pt", "pt-BR"),
        ("pt-AO", "pt-PT"),
        ("sr-Latn-RS", "sr"),
        ("tl", "fil"),
        ("zh", "zh-CN"),
        ("zh-HK", "zh-TW"),
        ("zh-SG", "zh-CN"),
        ("zh-Hant-TW", "zh-TW"),
    ],
)
def test_with_all_files_intl_follows(tmp_path: Path, asked: str, resolved: str) -> None:
    assert locales.intl_locale(binary(tmp_path, *ALL), asked) == resolved
    assert locales.follows(resolved, asked)


@pytest.mark.parametrize(
    ("asked", "follows"),
    [("en-US", True), ("en", True), ("en-PH", True), ("en-GB", False), ("en-AU", False), ("de", False), ("xx", False)],
)
def test_without_files_intl_stays_american(tmp_path: Path, asked: str, follows: bool) -> None:
    for place in (binary(tmp_path, "en-US"), tmp_path / "elsewhere" / "chromium"):
        resolved = locales.intl_locale(place, asked)
        assert (resolved, locales.follows(resolved, asked)) == ("en-US", follows)


def test_variants_for_a_readers_gender_are_no_locales(tmp_path: Path) -> None:
    assert locales.installed(binary(tmp_path, "de", "de_NEUTER", "en-US")) == ["de", "en-US"]


def test_a_locale_is_asked_for_with_its_language_behind_it() -> None:
    assert [locales.language_variable(name) for name in ("de", "sr-Latn-RS")] == ["de:de", "sr_Latn_RS:sr"]
