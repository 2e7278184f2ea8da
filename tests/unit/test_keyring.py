from __future__ import annotations

import base64
import os
import re
import stat
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.errors import ConfigurationError
from gateway.core.sealed import SealedSecret, SecretOwner
from gateway.crypto.keyring import DecryptionFailed, KeyRing, create_key_file

OLD, NEW, OTHER = (bytes([byte]) * 32 for byte in (1, 2, 3))
OWNER = SecretOwner("ai_connection.api_key", UUID(int=1), UUID(int=2), UUID(int=3))
SECRET = b"sk-proj-0123456789"

unhurried = settings(deadline=None)  # the machine may have other things to do
uuids = st.none() | st.uuids()
owners = st.builds(SecretOwner, st.text(max_size=30), uuids, uuids, st.uuids())


def encoded(key: bytes) -> str:
    return base64.b64encode(key).decode()


@unhurried
@given(secret=st.binary(max_size=5000), owner=owners, key=st.binary(min_size=32, max_size=32))
def test_a_sealed_secret_opens(secret: bytes, owner: SecretOwner, key: bytes) -> None:
    ring = KeyRing({"a": key})
    sealed = ring.seal(secret, owner)
    assert ring.open(sealed, owner) == secret
    assert sealed.master_key_id == "a"
    assert len(sealed.wrapped_key) == 12 + 32 + 16
    assert len(sealed.ciphertext) == 12 + len(secret) + 16


def test_two_seals_of_one_secret_have_nothing_in_common() -> None:
    ring = KeyRing({"a": OLD})
    one, two = ring.seal(SECRET, OWNER), ring.seal(SECRET, OWNER)
    assert one.ciphertext[:12] != two.ciphertext[:12]
    assert one.ciphertext[12:] != two.ciphertext[12:]
    assert one.wrapped_key != two.wrapped_key
    assert SECRET not in one.ciphertext + one.wrapped_key


def test_the_data_key_of_one_seal_does_not_open_another_of_the_same_row() -> None:
    ring = KeyRing({"a": OLD})
    one, two = ring.seal(SECRET, OWNER), ring.seal(b"another", OWNER)
    with pytest.raises(DecryptionFailed):
        ring.open(replace(one, wrapped_key=two.wrapped_key), OWNER)


@pytest.mark.parametrize(
    "change",
    [
        {"purpose": "other"},
        {"purpose": "ai_connection.api_key|"},
        {"purpose": ""},
        {"organization_id": UUID(int=9)},
        {"organization_id": None},
        {"subaccount_id": UUID(int=9)},
        {"subaccount_id": None},
        {"row_id": UUID(int=9)},
        {"organization_id": OWNER.subaccount_id, "subaccount_id": OWNER.organization_id},
    ],
)
def test_a_row_that_was_moved_does_not_open(change: dict[str, Any]) -> None:
    ring = KeyRing({"a": OLD})
    sealed = ring.seal(SECRET, OWNER)
    moved = replace(OWNER, **change)
    for attempt in (ring.open, ring.rewrap):
        with pytest.raises(
            DecryptionFailed,
            match=r"does not decrypt for its row: it was moved .*, or altered, or the master key 'a' of GATEWAY",
        ) as raised:
            attempt(sealed, moved)
        assert str(moved.row_id) in raised.value.message
        assert raised.value.code == "secret.undecryptable"
        assert raised.value.status == 500


@unhurried
@given(one=owners, two=owners)
def test_no_two_owners_have_the_same_associated_data(one: SecretOwner, two: SecretOwner) -> None:
    assert (one == two) == (one.associated_data() == two.associated_data())


@unhurried
@given(position=st.integers(min_value=0), bit=st.integers(0, 7), part=st.sampled_from(["wrapped_key", "ciphertext"]))
def test_one_bit_altered_anywhere_does_not_open(position: int, bit: int, part: str) -> None:
    ring = KeyRing({"a": OLD})
    sealed = ring.seal(SECRET, OWNER)
    stored = bytearray(getattr(sealed, part))
    stored[position % len(stored)] ^= 1 << bit
    with pytest.raises(DecryptionFailed):
        ring.open(_with(sealed, part, bytes(stored)), OWNER)


@pytest.mark.parametrize("part", ["wrapped_key", "ciphertext"])
def test_every_byte_counts_and_none_may_be_missing(part: str) -> None:
    ring = KeyRing({"a": OLD})
    sealed = ring.seal(SECRET, OWNER)
    whole: bytes = getattr(sealed, part)
    wrong = [whole[:length] for length in range(len(whole))] + [whole + b"\0", b"\0" + whole, whole[1:]]
    wrong += [whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :] for at in range(len(whole))]
    for stored in wrong:
        with pytest.raises(DecryptionFailed):
            ring.open(_with(sealed, part, stored), OWNER)


def test_the_other_key_under_the_same_id_does_not_open() -> None:
    sealed = KeyRing({"a": OLD}).seal(SECRET, OWNER)
    with pytest.raises(DecryptionFailed) as raised:
        KeyRing.parse(f"a:{encoded(OTHER)}", "GATEWAY_MASTER_KEYS_FILE").open(sealed, OWNER)
    assert raised.value.message.endswith(
        "or altered, or the master key 'a' of GATEWAY_MASTER_KEYS_FILE is not the one that encrypted it."
    )


def test_an_altered_text_under_the_right_key_is_not_blamed_on_the_key() -> None:
    sealed = KeyRing({"a": OLD}).seal(SECRET, OWNER)
    with pytest.raises(DecryptionFailed, match=r"or altered\.$"):
        KeyRing({"a": OLD}).open(_with(sealed, "ciphertext", sealed.ciphertext[:-1]), OWNER)


def test_an_unknown_master_key_is_named_and_so_are_the_known() -> None:
    sealed = KeyRing({"2023": OLD}).seal(SECRET, OWNER)
    ring = KeyRing({"2024": NEW, "2025": OTHER})
    for attempt in (ring.open, ring.rewrap):
        with pytest.raises(DecryptionFailed) as raised:
            attempt(sealed, OWNER)
        assert "'2023', which is not given; known are 2024, 2025 of GATEWAY_MASTER_KEYS." in raised.value.message


@unhurried
@given(secret=st.binary(max_size=200), owner=owners)
def test_a_rewrapped_secret_is_the_same_and_needs_the_old_key_no_longer(secret: bytes, owner: SecretOwner) -> None:
    sealed = KeyRing({"old": OLD}).seal(secret, owner)
    both = KeyRing.parse(f"new:{encoded(NEW)},old:{encoded(OLD)}")
    assert both.writing_id == "new"
    assert both.open(sealed, owner) == secret
    rewrapped = both.rewrap(sealed, owner)
    assert rewrapped.master_key_id == "new"
    assert rewrapped.ciphertext == sealed.ciphertext
    assert rewrapped.wrapped_key != sealed.wrapped_key
    assert KeyRing({"new": NEW}).open(rewrapped, owner) == secret
    with pytest.raises(DecryptionFailed):
        KeyRing({"old": OLD}).open(rewrapped, owner)


def test_the_first_key_writes_whatever_the_order_of_the_ids() -> None:
    ring = KeyRing.parse(f"z:{encoded(NEW)}\na:{encoded(OLD)}\n")
    assert ring.key_ids == ["z", "a"]
    assert ring.seal(SECRET, OWNER).master_key_id == "z"


@pytest.mark.parametrize("separator", [",", "\n", " , ", "\r\n", ",\n,"])
def test_entries_are_split_by_commas_or_lines(separator: str) -> None:
    text = separator.join([f"a:{encoded(OLD)}", f"b:{encoded(NEW)}"])
    assert KeyRing.parse(f"\n{text}{separator}").key_ids == ["a", "b"]


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ("{key}", "Master key 2 must be `id:base64`"),
        (":{key}", "Master key 2 must be `id:base64`"),
        ("{key}:main", "Master key 2 must be `id:base64`"),
        ("a/b:{key}", "Master key 2 must be `id:base64`"),
        ("ключ:{key}", "Master key 2 must be `id:base64`"),
        (f"{'a' * 65}:{{key}}", "Master key 2 must be `id:base64`"),
        ("\ufeffb:{key}", "Master key 2 must be `id:base64`"),
        ("{hex}:main", "Master key 2 has 3 bytes; it must have 32."),
        ("{urlsafe}:main", "Master key 2 has 3 bytes; it must have 32."),
        ("{urlsafe}:{urlsafe}", "Master key 2 is not valid base64."),
        ("b:{key}{key}", "Master key 2 is not valid base64."),
        ("b:{hex}", "Master key 2 has 48 bytes; it must have 32."),
        ("b:{urlsafe}", "Master key 2 is not valid base64."),
        ("b:{key}é", "Master key 2 is not valid base64."),
        ("b: {key}", "Master key 2 has 0 bytes; it must have 32."),
        ("b:!{key}", "Master key 2 is not valid base64."),
        ("first:{key}", "Master key 2 has an id that was given before."),
    ],
)
def test_a_wrong_entry_is_named_by_its_position_and_never_shown(wrong: str, expected: str) -> None:
    secret = os.urandom(32)
    forms = {
        "key": encoded(secret),
        "hex": secret.hex(),
        "urlsafe": base64.urlsafe_b64encode(secret).decode().strip("="),
    }
    with pytest.raises(ConfigurationError) as raised:
        KeyRing.parse(f"first:{encoded(OTHER)}\n{wrong.format(**forms)}")
    assert raised.value.message.startswith(expected)
    for form in (*forms.values(), encoded(OTHER)):
        assert not any(form[start : start + 8] in raised.value.message for start in range(len(form) - 7))


@unhurried
@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=100))
def test_any_text_is_a_ring_or_a_configuration_error(text: str) -> None:
    with pytest.raises(ConfigurationError):
        KeyRing.parse(text)


@pytest.mark.parametrize("text", ["", " \n", ",,"])
def test_a_ring_without_keys_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="The master key is missing"):
        KeyRing.parse(text)


def test_nothing_that_is_printed_of_a_ring_has_its_keys() -> None:
    ring = KeyRing({"a": OLD})
    for form in (encoded(OLD), OLD.hex(), repr(OLD)):
        assert form not in repr(ring) + str(vars(ring))


def test_a_key_file_is_its_owners_alone_and_makes_a_ring(tmp_path: Path) -> None:
    path = tmp_path / "master-keys"
    before = os.umask(0)
    try:
        create_key_file(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().startswith("main:")
    ring = KeyRing.parse(path.read_text())
    assert ring.open(ring.seal(SECRET, OWNER), OWNER) == SECRET
    other = tmp_path / "other"
    create_key_file(other)
    assert other.read_text() != path.read_text()


def test_the_documented_command_makes_a_key_file(tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "operating.md").read_text()
    ((command, file),) = re.findall(r"^(\(umask .* > ([\w-]+)\))$", page, re.MULTILINE)
    subprocess.run(["sh", "-euc", command], cwd=tmp_path, check=True, timeout=30)
    assert KeyRing.parse((tmp_path / file).read_text()).key_ids == ["main"]
    assert stat.S_IMODE((tmp_path / file).stat().st_mode) == 0o600


def test_a_key_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "master-keys"
    create_key_file(path)
    written = path.read_text()
    target = tmp_path / "target"
    link = tmp_path / "link"
    link.symlink_to(target)
    for existing in (path, link):
        with pytest.raises(FileExistsError):
            create_key_file(existing)
    assert path.read_text() == written
    assert not target.exists()


def test_a_key_file_that_could_not_be_written_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    path = tmp_path / "master-keys"
    with pytest.raises(OSError, match="No space left"):
        create_key_file(path)
    assert not path.exists()


def test_rows_of_different_tenants_never_open_for_each_other() -> None:
    ring = KeyRing({"a": OLD})
    rows = [
        SecretOwner("p", organization, subaccount, uuid4())
        for organization in (uuid4(), None)
        for subaccount in (uuid4(), None)
    ]
    sealed = {owner: ring.seal(str(owner.row_id).encode(), owner) for owner in rows}
    for owner in rows:
        for other in rows:
            if owner == other:
                assert ring.open(sealed[owner], other) == str(owner.row_id).encode()
            else:
                with pytest.raises(DecryptionFailed):
                    ring.open(sealed[owner], other)


def _with(sealed: SealedSecret, part: str, stored: bytes) -> SealedSecret:
    return replace(sealed, wrapped_key=stored) if part == "wrapped_key" else replace(sealed, ciphertext=stored)


def test_the_associated_data_of_what_is_stored_never_changes() -> None:
    """Or what earlier versions stored would not open any more."""
    ids = [f"00000000-0000-0000-0000-00000000000{number}" for number in (1, 2, 3)]
    assert OWNER.associated_data() == f"ai_connection.api_key|{ids[0]}|{ids[1]}|{ids[2]}".encode()
    without = SecretOwner("pepper", None, None, UUID(int=3))
    assert without.associated_data() == f"pepper|-|-|{ids[2]}".encode()
