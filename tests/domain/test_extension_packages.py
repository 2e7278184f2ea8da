"""Packages of extensions: what is accepted, and each reason why one is not."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.extensions.packages import Package, PackageInvalid, PackageLimits, read_package
from gateway.domain.extensions.permissions import ALLOWED, REFUSED
from tests.support.extension_packages import (
    WORKING,
    chromium_id,
    crx2,
    crx3,
    ec_key,
    manifest,
    public,
    rsa_key,
    working,
    zip_of,
)

LIMITS = PackageLimits(unpacked=2 * 1024 * 1024, files=50, ratio=20)


def read(content: bytes, into: Path | None = None, limits: PackageLimits = LIMITS) -> Package:
    return read_package(io.BytesIO(content), limits, into)


def refused(content: bytes, limits: PackageLimits = LIMITS) -> dict[str, Any]:
    """The details of the refusal, whose message must say which part it is about."""
    with pytest.raises(PackageInvalid) as caught:
        read(content, limits=limits)
    error = caught.value
    assert error.code == "browser_extension.invalid_package"
    assert error.details["part"] in error.message
    return error.details


def part_and_rule(content: bytes, limits: PackageLimits = LIMITS) -> tuple[str, str]:
    details = refused(content, limits)
    return details["part"], details["rule"]


def with_file(name: str, content: str | bytes = b"x", **about: Any) -> bytes:
    """A package with one more file, whose entry has these attributes."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("manifest.json", manifest())
        entry = zipfile.ZipInfo("placeholder")
        entry.filename = name
        for attribute, value in about.items():
            setattr(entry, attribute, value)
        archive.writestr(entry, content)
    return made.getvalue()


# What is accepted


@pytest.mark.parametrize(
    ("pack", "key"),
    [
        (crx2, lambda _: public(rsa_key())),
        (crx3, lambda _: public(rsa_key())),
        (lambda content: crx3(content, ec_key()), lambda _: public(ec_key())),
        (lambda content: crx3(content, rsa_key(), ec_key()), lambda _: public(rsa_key())),
        (lambda content: content, lambda content: hashlib.sha256(content).digest()),
    ],
    ids=["crx 2", "crx 3", "crx 3 with an elliptic curve", "crx 3 signed twice", "zip"],
)
def test_a_good_package_is_unpacked(
    tmp_path: Path, pack: Callable[[bytes], bytes], key: Callable[[bytes], bytes]
) -> None:
    content = pack(working(update_url="https://updates.example"))
    found = read(content, tmp_path)
    # The manifest as it was packed counts.
    with zipfile.ZipFile(io.BytesIO(working(update_url="https://updates.example"))) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    assert found == Package(
        "Marker", "1.2.3", chromium_id(key(content)), hashlib.sha256(content).hexdigest(), len(content), unpacked
    )
    assert read(content) == found
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert written == set(WORKING)
    assert (tmp_path / "worker.js").read_text() == WORKING["worker.js"]
    shown = json.loads((tmp_path / "manifest.json").read_text())
    assert "update_url" not in shown
    assert shown.items() >= json.loads(WORKING["manifest.json"]).items()


def test_the_key_of_a_manifest_makes_the_id(tmp_path: Path) -> None:
    key = public(rsa_key())
    content = working(key=base64.b64encode(key).decode())
    assert read(content, tmp_path).chromium_id == chromium_id(key)
    assert json.loads((tmp_path / "manifest.json").read_text())["key"] == base64.b64encode(key).decode()
    pem = "-----BEGIN PUBLIC KEY-----\n" + base64.encodebytes(key).decode() + "-----END PUBLIC KEY-----"
    assert read(working(key=pem)).chromium_id == chromium_id(key)
    # The signature of a .crx counts more.
    assert read(crx3(content, rsa_key(1))).chromium_id == chromium_id(public(rsa_key(1)))


def test_a_name_may_be_one_of_the_messages() -> None:
    messages: str | bytes = json.dumps({"appname": {"message": "Markierer\u0000\n"}, "other": 3})
    files: dict[str, str | bytes] = {
        "manifest.json": manifest(name="__MSG_appName__", default_locale="de"),
        "_locales/de/messages.json": messages,
    }
    assert read(zip_of(files)).name == "Markierer"
    assert read(zip_of(files | {"_locales/de/messages.json": "{}"})).name == "__MSG_appName__"
    assert read(zip_of({"manifest.json": manifest(name="x" * 1000)})).name == "x" * 120


def test_a_manifest_may_have_comments_and_a_mark_of_its_encoding() -> None:
    text = b'\xef\xbb\xbf{"manifest_version": 3, // three\n "name": "a // \\" /* b */", /* c */ "version": "1"}'
    assert read(zip_of({"manifest.json": text})).name == 'a // " /* b */'


def test_what_is_about_the_package_is_left_out(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "_metadata/verified_contents.json": "x",
        "__MACOSX/._a": "x",
        "_locales/": "",
        "empty/": "",
    }
    read(zip_of({"manifest.json": manifest()} | files), tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["manifest.json"]


# Signatures


def test_a_signature_must_be_of_the_content() -> None:
    header = "the header of the .crx file"
    for made in (crx2(working()), crx3(working()), crx3(working(), ec_key())):
        assert read(made)
        # A byte of the zip: the time of its last entry.
        at = made.rindex(b"PK\x01\x02") + 12
        assert part_and_rule(made[:at] + bytes([made[at] ^ 1]) + made[at + 1 :]) == (header, "signature")
    for made in (
        crx3(working(), rsa_key(), ec_key(), spoiled=1),
        crx3(working(), crx_id=b"0" * 16),
        crx3(working(), *[rsa_key()] * 9),
        struct.pack("<4sIII", b"Cr24", 2, len(public(ec_key())), 8) + public(ec_key()) + bytes(8) + working(),
        crx2(working()).replace(public(rsa_key())[:20], b"\0" * 20, 1),
    ):
        assert part_and_rule(made) == (header, "signature")


def test_a_header_must_be_whole() -> None:
    header = "the header of the .crx file"
    whole = crx3(working())
    for made in (
        b"Cr24",
        struct.pack("<4sI", b"Cr24", 4) + working(),
        struct.pack("<4sII", b"Cr24", 3, 70_000) + bytes(80_000),
        struct.pack("<4sIII", b"Cr24", 2, 2**31, 2**31),
        *(whole[:length] for length in range(4, 200, 13)),
        struct.pack("<4sII", b"Cr24", 3, 20) + b"\xff" * 20 + working(),
        struct.pack("<4sII", b"Cr24", 3, 2) + b"\x07\x01" + working(),
    ):
        assert part_and_rule(made) == (header, "format")
    for made in (b"", b"PK", b"<!doctype html>", b"\x7fELF"):
        assert part_and_rule(made) == ("file", "format")


# Entries of the zip


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("../evil.js", "path"),
        ("a/../../evil.js", "path"),
        ("./a.js", "path"),
        ("a//b.js", "path"),
        ("/etc/passwd", "path"),
        ("C:/evil.js", "path"),
        ("c:evil.js", "path"),
        ("a\\b.js", "path"),
        ("a\nb.js", "path"),
        ("a\x00b.js", "path"),
        ("a\x7fb.js", "path"),
        ("a" * 256, "path"),
        ("/".join(["a" * 200] * 6), "path"),
        ("_private.js", "path"),
        ("_other/a.js", "path"),
        ("//", "path"),
        ("MANIFEST.json", "duplicate"),
        ("manifest.json/a", "duplicate"),
        ("manifest.json", "duplicate"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_path_stays_within_the_package(tmp_path: Path, name: str, rule: str) -> None:
    found = refused(with_file(name))
    assert found["rule"] == rule
    assert found["part"][:5] == (name if name.isprintable() else repr(name)[1:-1])[:5]


def test_the_longest_paths_are_accepted() -> None:
    longest = "/".join(["a" * 255] * 3 + ["b" * 231, ""])[:-1]
    assert len(longest) == 999
    assert read(with_file("x" + longest[1:]))
    assert read(with_file("é" * 127 + "a"))
    assert part_and_rule(with_file(longest + "bb"))[1] == "path"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_path_is_there_once() -> None:
    def rules(*names: str) -> str:
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as archive:
            archive.writestr("manifest.json", manifest())
            for name in names:
                archive.writestr(name, b"")
        try:
            read(made.getvalue())
        except PackageInvalid as error:
            return str(error.details["rule"])
        return "accepted"

    assert rules("a/", "a/b", "a/c/", "a/c/d") == "accepted"
    for names in (
        ("a/b", "A/c"),
        ("a", "a/b"),
        ("a/b", "a"),
        ("a", "a/"),
        ("a/", "a/"),
        ("Straße", "STRASSE"),
        ("e\u0301", "\u00e9"),
    ):
        assert (names, rules(*names)) == (names, "duplicate")


def test_only_plain_files_are_accepted() -> None:
    link, device, fifo = 0o120777, 0o020666, 0o010666
    for mode in (link, device, fifo):
        assert part_and_rule(with_file("a", external_attr=mode << 16)) == ("a", "kind")
    assert part_and_rule(with_file("a/", external_attr=0o100644 << 16)) == ("a/", "kind")
    assert part_and_rule(with_file("a/", content=b"x")) == ("a/", "kind")
    assert read(with_file("a", external_attr=0o100755 << 16))


def test_other_ways_of_packing_are_refused() -> None:
    assert part_and_rule(with_file("a", compress_type=zipfile.ZIP_LZMA)) == ("a", "compression")
    assert part_and_rule(with_file("a", compress_type=zipfile.ZIP_BZIP2)) == ("a", "compression")
    packed = bytearray(with_file("secret.js"))
    at = packed.rindex(b"PK\x01\x02")
    packed[at + 8] |= 1
    assert part_and_rule(bytes(packed)) == ("secret.js", "encrypted")
    # A name of another code page, as old programs write it.
    plain = bytearray(with_file("é.js"))
    at = plain.rindex(b"PK\x01\x02")
    plain[at + 9] &= ~0x08 & 0xFF
    assert refused(bytes(plain))["rule"] == "path"


def test_a_checksum_must_be_right() -> None:
    packed = bytearray(with_file("a.js", b"abcdef"))
    packed[packed.index(b"abcdef")] ^= 1
    assert part_and_rule(bytes(packed)) == ("a.js", "content")
    assert part_and_rule(working()[:-30]) == ("file", "format")


# Limits


def test_the_size_of_what_is_unpacked_is_limited() -> None:
    noise = b"".join(hashlib.sha256(bytes([number])).digest() for number in range(200))
    made = zip_of({"manifest.json": manifest(), "a": noise})
    size = len(manifest()) + len(noise)
    assert read(made, limits=PackageLimits(size, 2, 20)).unpacked_bytes == size
    assert part_and_rule(made, PackageLimits(size - 1, 2, 20)) == ("file", "unpacked_size")
    assert part_and_rule(made, PackageLimits(size, 1, 20)) == ("file", "files")


def test_a_size_that_an_entry_does_not_state_counts() -> None:
    """The directory of the zip says that a bomb is small."""
    made = bytearray(zip_of({"manifest.json": manifest(), "bomb": bytes(1_000_000)}))
    at = made.rindex(b"PK\x01\x02")
    made[at + 24 : at + 28] = struct.pack("<I", 100)
    assert part_and_rule(bytes(made)) == ("bomb", "content")


def test_a_bomb_is_refused_by_its_ratio() -> None:
    bomb = zip_of({"manifest.json": manifest(), "a": bytes(1_500_000)})
    limits = PackageLimits(2_000_000, 10, 100)
    assert part_and_rule(bomb, limits) == ("file", "ratio")
    assert read(bomb, limits=PackageLimits(2_000_000, 10, 1100))
    # A small one may have any ratio.
    assert read(zip_of({"manifest.json": manifest(), "a": bytes(900_000)}), limits=limits)


def test_the_directory_of_a_zip_is_limited() -> None:
    """Reading it takes memory before anything of it is known."""
    many = zip_of({"manifest.json": manifest(), **{f"{number:0900}"[-250:]: b"" for number in range(2000)}})
    assert part_and_rule(many) == ("file", "files")


# Manifests


@pytest.mark.parametrize(
    ("changes", "part", "rule"),
    [
        ({"manifest_version": 2}, "manifest_version", "manifest"),
        ({"manifest_version": "3"}, "manifest_version", "manifest"),
        ({"manifest_version": True}, "manifest_version", "manifest"),
        ({"version": "1.0-beta"}, "version", "manifest"),
        ({"version": "1.2.3.4.5"}, "version", "manifest"),
        ({"version": 1}, "version", "manifest"),
        ({"name": ""}, "name", "manifest"),
        ({"name": 7}, "name", "manifest"),
        ({"key": "no base64!"}, "key", "manifest"),
        ({"key": ""}, "key", "manifest"),
        ({"app": {}}, "app", "manifest"),
        ({"theme": {}}, "theme", "manifest"),
        ({"permissions": "tabs"}, "permissions", "manifest"),
        ({"permissions": [{"a": 1, "b": 2}]}, "permissions[0]", "manifest"),
        ({"permissions": ["tabs", "debugger"]}, "permissions[1]", "permission"),
        ({"permissions": [{"fileSystem": ["write"]}]}, "permissions[0]", "permission"),
        ({"permissions": ["invented"]}, "permissions[0]", "permission"),
        ({"optional_permissions": ["proxy"]}, "optional_permissions[0]", "permission"),
        ({"host_permissions": ["file:///*"]}, "host_permissions[0]", "permission"),
        ({"host_permissions": ["chrome://*/*"]}, "host_permissions[0]", "permission"),
        ({"optional_host_permissions": ["FILE:///*"]}, "optional_host_permissions[0]", "permission"),
        ({"content_scripts": [{"matches": ["file:///*"]}]}, "content_scripts[0].matches[0]", "permission"),
        ({"content_scripts": [{"matches": [], "js": ["no.js"]}]}, "content_scripts[0].js[0]", "missing_file"),
        ({"background": {"service_worker": "no.js"}}, "background.service_worker", "missing_file"),
        ({"background": {"service_worker": 1}}, "background.service_worker", "manifest"),
        ({"declarative_net_request": []}, "declarative_net_request", "manifest"),
        ({"default_locale": "xx"}, "default_locale", "missing_file"),
        ({"default_locale": "../.."}, "default_locale", "manifest"),
        (
            {"declarative_net_request": {"rule_resources": [{"id": "a", "enabled": True, "path": "rules.json"}]}},
            "declarative_net_request.rule_resources",
            "manifest",
        ),
    ],
)
def test_a_manifest_is_checked(changes: dict[str, Any], part: str, rule: str) -> None:
    assert part_and_rule(zip_of({"manifest.json": manifest(**changes)})) == (f"manifest.json: {part}", rule)


def test_a_package_has_a_manifest() -> None:
    for files, rule in (
        ({"inner/manifest.json": manifest()}, "manifest"),
        ({"manifest.json": b"{"}, "manifest"),
        ({"manifest.json": b"[]"}, "manifest"),
        ({"manifest.json": b'"\xff"'}, "manifest"),
        ({"manifest.json": b"[" * 100_000}, "manifest"),
        ({"manifest.json": b'{"a":' * 300 + b"1" + b"}" * 300}, "manifest"),
        ({"manifest.json": b'{"a": 1}'}, "manifest"),
        ({"manifest.json": b" " * (1024 * 1024 + 1)}, "size"),
    ):
        part, found = part_and_rule(zip_of(files, zipfile.ZIP_STORED))
        assert (part.split(":")[0], found) == ("manifest.json", rule)


@pytest.mark.parametrize("permission", sorted(REFUSED))
def test_what_can_not_be_contained_is_refused_by_its_name(permission: str) -> None:
    details = refused(zip_of({"manifest.json": manifest(permissions=[permission])}))
    assert details["permission"] == permission


def test_what_an_ordinary_extension_asks_for_is_accepted() -> None:
    assert not ALLOWED & REFUSED.keys()
    hosts = ["<all_urls>", "*://*/*", "https://shop.example/*"]
    asked = manifest(permissions=sorted(ALLOWED) + hosts, host_permissions=hosts)
    assert read(zip_of({"manifest.json": asked})).name == "Marker"


def test_comments_that_never_end_take_no_time() -> None:
    """Each would be read to the end of the file, for each of them."""
    for text in (b"/*" * 500_000, b'"' + b'\\"' * 500_000 + b"\\", b"//" * 500_000):
        assert refused(zip_of({"manifest.json": text}, zipfile.ZIP_STORED))["rule"] == "manifest"


# Anything else


_GOOD = [working(), crx2(working()), crx3(working()), crx3(working(), ec_key())]


@settings(max_examples=300)
@given(
    st.sampled_from(_GOOD),
    st.lists(st.tuples(st.integers(0, 5000), st.one_of(st.binary(max_size=8), st.none())), min_size=1, max_size=5),
)
def test_a_damaged_package_is_refused_or_read(content: bytes, changes: list[tuple[int, bytes | None]]) -> None:
    """Bytes are replaced, or all from a place on is cut off. Nothing but the one error comes of it."""
    made = bytearray(content)
    for place, replacement in changes:
        at = place % (len(made) + 1)
        if replacement is None:
            del made[at:]
        else:
            made[at : at + len(replacement)] = replacement
    _only_clean_errors(bytes(made))


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_bytes_are_refused(content: bytes) -> None:
    for beginning in (b"", b"PK\x03\x04", b"Cr24\x03\0\0\0", b"Cr24\x02\0\0\0"):
        _only_clean_errors(beginning + content)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_FIELDS = [
    "manifest_version",
    "name",
    "version",
    "default_locale",
    "key",
    "background",
    "content_scripts",
    "declarative_net_request",
    "permissions",
    "host_permissions",
]


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(_FIELDS), _JSON, max_size=4), _JSON)
def test_a_manifest_of_any_shape_is_refused_or_read(changes: dict[str, Any], messages: Any) -> None:
    files: dict[str, str | bytes] = {"manifest.json": manifest(**changes)}
    for locale in ("en", "0"):
        files[f"_locales/{locale}/messages.json"] = json.dumps(messages)
    _only_clean_errors(zip_of(files))


@settings(max_examples=200)
@given(st.lists(st.text(min_size=1, max_size=12), max_size=4))
def test_names_of_any_letters_are_refused_or_stay_within_the_package(names: list[str]) -> None:
    made = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(made, "w") as archive:
            archive.writestr("manifest.json", manifest())
            for name in names:
                entry = zipfile.ZipInfo("x")
                entry.filename = name.encode(errors="ignore").decode()
                archive.writestr(entry, b"x")
    _only_clean_errors(made.getvalue())


def _only_clean_errors(content: bytes) -> None:
    try:
        found = read(content)
    except PackageInvalid as error:
        shown = json.dumps(error.details) + error.message
    else:
        assert len(found.chromium_id) == 32
        assert 1 <= len(found.name) <= 120
        shown = found.name
    assert shown.isprintable()
