"""The manifest of an extension: what of it is checked, and as what it is written for the browser.

The browser reads the manifest that is written here, and not the one of the package: so both have read the same.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from gateway.domain.extensions.permissions import why_refused
from gateway.domain.extensions.refusals import PackageInvalid

MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 1024 * 1024
MAX_NAME_LENGTH = 120

# Chromium allows comments. A text, which may have what looks like one, is kept. Each alternative matches whatever
# follows its beginning, so that nothing is read twice.
_COMMENT = re.compile(rb'("(?:[^"\\]|\\.)*+(?:"|\\?\Z))|//[^\n]*|/\*.*?(?:\*/|\Z)', re.DOTALL)
_BOM = b"\xef\xbb\xbf"
_MESSAGE = re.compile(r"__MSG_([A-Za-z0-9_@]+)__")
_PERMISSIONS = ("permissions", "optional_permissions", "host_permissions", "optional_host_permissions")
# What the browser would do with a package that is not this one, or that a page of the gateway's browser is not for.
_LEFT_OUT = ("update_url", "key", "differential_fingerprint")
_REFUSED_KEYS = {
    "app": "an app is not an extension; the browser loads extensions only",
    "theme": "a theme is not an extension; the browser loads extensions only",
    "chrome_settings_overrides": "settings of the browser are the gateway's; leave it out",
    "input_components": "the browser has no input methods; leave it out",
    "nacl_modules": "the browser has no Native Client; leave it out",
}
_MAX_KEY_BYTES = 16 * 1024

_VERSION = re.compile(r"(0|[1-9][0-9]{0,4})(\.(0|[1-9][0-9]{0,4})){0,3}")
_LOCALE = re.compile(r"[A-Za-z0-9_-]{1,35}")
_MAX_TEXT_LENGTH = 1000


class Manifest:
    """A manifest that is accepted as far as it can be without the other files (`check_files`)."""

    def __init__(self, content: bytes) -> None:
        """Raises PackageInvalid."""
        self._given = _parsed(content)
        for field, message in _REFUSED_KEYS.items():
            if field in self._given:
                raise _wrong(field, "manifest", message)
        kind = self._given.get("manifest_version")
        # To Python, 3.0 is the same number.
        if kind != 3 or not isinstance(kind, int):
            older = "the browser does not load extensions of version 2 and before any more"
            raise _wrong("manifest_version", "manifest", f"must be 3; {older}")
        self._name = _text(self._given.get("name"), "name")
        version = self._given.get("version")
        if not isinstance(version, str) or not _VERSION.fullmatch(version):
            message = "must be one to four numbers up to 99999, separated by dots, as 1.4.0"
            raise _wrong("version", "manifest", message)
        self.version = version
        self._locale = self._given.get("default_locale")
        if self._locale is not None and not (isinstance(self._locale, str) and _LOCALE.fullmatch(self._locale)):
            raise _wrong("default_locale", "manifest", "must be the name of a directory below _locales, as en")
        key = self._given.get("key")
        self.key = None if key is None else _key(key)
        self._files = list(self._named_files())
        self._check_permissions()
        self._check_rules()

    @property
    def messages_file(self) -> str | None:
        """The file with the texts that the manifest names; None where it names none."""
        return None if self._locale is None else f"_locales/{self._locale}/messages.json"

    def name(self, messages: bytes | None) -> str:
        """The name for people, of at most MAX_NAME_LENGTH characters. `messages`: content of `messages_file`."""
        name = self._name
        if (named := _MESSAGE.fullmatch(name)) is not None and messages is not None:
            found = {
                key.casefold(): each.get("message")
                for key, each in _parsed(messages, self.messages_file or "").items()
                if isinstance(each, dict)
            }
            message = found.get(named[1].casefold())
            name = message if isinstance(message, str) else name
        shown = "".join(letter for letter in name if letter.isprintable()).strip()
        return shown[:MAX_NAME_LENGTH] or "extension"

    def check_files(self, has: Callable[[str], bool]) -> None:
        """Raises PackageInvalid for a file that the browser would miss, and then not load the extension."""
        messages = self.messages_file
        if messages is not None and not has(messages):
            raise _wrong("default_locale", "missing_file", f"there is no file {messages} in the package")
        for place, path in self._files:
            if not has(path.lstrip("/").removeprefix("./")):
                raise _wrong(place, "missing_file", f"there is no file {path[:100]!r} in the package")

    def written(self, public_key: bytes) -> bytes:
        """The manifest for the browser, which makes the extension's id of the key, and gets no updates for it."""
        kept = {name: value for name, value in self._given.items() if name not in _LEFT_OUT}
        return orjson.dumps(kept | {"key": base64.b64encode(public_key).decode()}, option=orjson.OPT_INDENT_2)

    def _named_files(self) -> Iterator[tuple[str, str]]:
        """Files that the manifest names, each with its field."""
        background = _object(self._given.get("background", {}), "background")
        if "service_worker" in background:
            yield "background.service_worker", _text(background["service_worker"], "background.service_worker")
        for place, script in self._content_scripts():
            for kind in ("js", "css"):
                for at, path in enumerate(_list(script.get(kind, []), f"{place}.{kind}")):
                    yield f"{place}.{kind}[{at}]", _text(path, f"{place}.{kind}[{at}]")

    def _content_scripts(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for index, script in enumerate(_list(self._given.get("content_scripts", []), "content_scripts")):
            yield f"content_scripts[{index}]", _object(script, f"content_scripts[{index}]")

    def _check_permissions(self) -> None:
        for field in _PERMISSIONS:
            for index, permission in enumerate(_list(self._given.get(field, []), field)):
                _check_permission(f"{field}[{index}]", permission)
        for place, script in self._content_scripts():
            for at, pattern in enumerate(_list(script.get("matches", []), f"{place}.matches")):
                _check_pattern(f"{place}.matches[{at}]", pattern)

    def _check_rules(self) -> None:
        """The browser would write an index of such rules beside them, where it may not write, and then load nothing."""
        place = "declarative_net_request"
        if _object(self._given.get(place, {}), place).get("rule_resources"):
            place += ".rule_resources"
            message = "rules in files are not supported; leave it out, and set them by updateDynamicRules instead"
            raise _wrong(place, "manifest", message)


def _check_permission(place: str, permission: Any) -> None:
    if isinstance(permission, dict) and len(permission) == 1:
        # A permission with details, as {"fileSystem": ["write"]}.
        permission = next(iter(permission))
    if not isinstance(permission, str):
        raise _wrong(place, "manifest", "must be a text")
    if permission == "<all_urls>" or "://" in permission:
        _check_pattern(place, permission)
        return
    reason = why_refused(permission)
    if reason is not None:
        name = permission[:100]
        raise PackageInvalid(
            f"{MANIFEST}: {place}",
            "permission",
            f"the permission {name!r} is refused: it {reason}. Leave it out",
            permission=name,
        )


def _check_pattern(place: str, pattern: Any) -> None:
    if not isinstance(pattern, str):
        raise _wrong(place, "manifest", "must be a text")
    scheme = pattern.partition("://")[0].strip().casefold()
    if pattern != "<all_urls>" and scheme not in ("http", "https", "*", "ws", "wss"):
        raise PackageInvalid(
            f"{MANIFEST}: {place}",
            "permission",
            f"{pattern[:100]!r} is refused: an extension may have pages of http and https only",
            permission=pattern[:100],
        )


def _text(value: Any, place: str) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= _MAX_TEXT_LENGTH:
        raise _wrong(place, "manifest", f"must be a text of 1 to {_MAX_TEXT_LENGTH} characters")
    return value


def _list(value: Any, place: str) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong(place, "manifest", "must be a list")
    return value


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(place, "manifest", "must be an object")
    return value


def _parsed(content: bytes, name: str = MANIFEST) -> dict[str, Any]:
    """Raises PackageInvalid for what is not a JSON object; comments are allowed."""
    try:
        given = orjson.loads(_COMMENT.sub(lambda found: found[1] or b" ", content.removeprefix(_BOM)))
        # What can't be written again is nested too deeply.
        orjson.dumps(given)
    except (ValueError, TypeError, RecursionError) as error:
        raise PackageInvalid(name, "manifest", f"it is not JSON ({str(error)[:100]})") from None
    if not isinstance(given, dict):
        raise PackageInvalid(name, "manifest", "it must be a JSON object")
    return given


def _key(given: Any) -> bytes:
    """The public key of a manifest, which is a PEM block or its content."""
    if not isinstance(given, str):
        raise _wrong("key", "manifest", "must be a public key in base64")
    lines = [line for line in given.strip().splitlines() if not line.startswith("-----")]
    try:
        key = base64.b64decode("".join("".join(lines).split()), validate=True)
    except (ValueError, binascii.Error):
        raise _wrong("key", "manifest", "must be a public key in base64") from None
    if not 1 <= len(key) <= _MAX_KEY_BYTES:
        raise _wrong("key", "manifest", f"must be a public key of at most {_MAX_KEY_BYTES} bytes, in base64")
    return key


def _wrong(place: str, rule: str, message: str) -> PackageInvalid:
    return PackageInvalid(f"{MANIFEST}: {place}", rule, message)
