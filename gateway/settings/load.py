"""Reads the options from flags and the environment."""

from __future__ import annotations

import difflib
import inspect
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from gateway.core.errors import ConfigurationError
from gateway.settings.all import GROUPS, Settings
from gateway.settings.types import Group

PREFIX = "GATEWAY_"

# Behind the name of a secret option: the file that has its value.
_FILE = "_FILE"

# What Kubernetes puts into every pod's environment for a Service called "gateway" or "gateway-<something>".
KUBERNETES_NAME = re.compile(
    r"GATEWAY_([A-Z0-9_]+_)?(SERVICE_(HOST|PORT(_.+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_KUBERNETES_VALUE = re.compile(r"(tcp|udp|sctp)://")


# The names of a bucket's credentials in other tools.
_OF_BUCKETS = {
    "AWS_ACCESS_KEY_ID": "files_access_key",
    "AWS_SECRET_ACCESS_KEY": "files_secret_key",
    "AWS_SESSION_TOKEN": "files_session_token",
}


def options() -> dict[str, FieldInfo]:
    """Name in Python -> field, in the order of the documentation."""
    return {name: field for group in GROUPS.values() for name, field in own_options(group).items()}


def own_options(group: type[Group]) -> dict[str, FieldInfo]:
    """The options that a group declares itself, without those of the groups that it includes."""
    declared = inspect.get_annotations(group)
    return {name: field for name, field in group.model_fields.items() if name in declared}


def is_secret(field: FieldInfo) -> bool:
    return isinstance(field.json_schema_extra, dict) and bool(field.json_schema_extra.get("secret"))


def files_of_secrets() -> list[str]:
    """Secret options that may come from a file, read once. Of the others `..._file` is an option of its own."""
    return [
        name for name, field in options().items() if is_secret(field) and f"{name}_file" not in Settings.model_fields
    ]


def variable(name: str) -> str:
    return PREFIX + name.upper()


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def load(environ: Mapping[str, str], flags: Mapping[str, Any]) -> tuple[Settings, list[str]]:
    """Settings from flags, then environment, then defaults; and warnings in words.

    Reads the files that secret options name. Raises ConfigurationError that lists every option that is wrong. Values
    that Kubernetes sets are ignored.
    """
    values, warnings = _from_environment(environ)
    values.update(flags)
    if values.get("files_url", "").startswith("s3://") and "files_access_key" not in values:
        values.update({name: environ[key] for key, name in _OF_BUCKETS.items() if environ.get(key)})
    try:
        return Settings(**values), warnings
    except ValidationError as error:
        lines = [_complaint(problem["loc"], problem["msg"], problem["input"]) for problem in error.errors()]
        raise ConfigurationError("; ".join(lines)) from None


def _from_environment(environ: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Values of the environment, by name in Python, and warnings. An empty value counts as not set."""
    values: dict[str, str] = {}
    warnings: list[str] = []
    known = {variable(name): name for name in Settings.model_fields}
    files = {variable(name) + _FILE: name for name in files_of_secrets()}
    for key, value in environ.items():
        if not key.startswith(PREFIX) or _is_kubernetes(key, value, known):
            continue
        if key in files:
            if value != "":
                values[files[key]] = _content(key, value, variable(files[key]), environ)
        elif key not in known:
            warnings.append(f"{key} is not an option of the gateway; the nearest one is {_nearest(key)}.")
        elif key == "GATEWAY_PORT" and _KUBERNETES_VALUE.match(value):
            warnings.append(f"{key}={value} is what Kubernetes sets for a Service called gateway; it is not used.")
        elif value != "":
            values[known[key]] = value
    return values, warnings


def _content(key: str, path: str, of: str, environ: Mapping[str, str]) -> str:
    """The secret in the file that `key` names, without white space around it; `of` is the option's own variable.

    Raises ConfigurationError.
    """
    if environ.get(of):
        raise ConfigurationError(f"{of} and {key} are both set; unset one of them.")
    try:
        text = Path(path).read_text().strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise ConfigurationError(f"{key}: the file {path} can't be read ({reason}).") from None
    if not text:
        raise ConfigurationError(f"{key}: the file {path} is empty; it must have the value of {of}.")
    return text


def _is_kubernetes(key: str, value: str, known: Mapping[str, str]) -> bool:
    if key in known:
        return False
    return bool(KUBERNETES_NAME.fullmatch(key) or (key.endswith("_PORT") and _KUBERNETES_VALUE.match(value)))


def _nearest(key: str) -> str:
    """The option most like an unknown one. Without the prefix, which would make all of them alike."""
    name = key.removeprefix(PREFIX).lower()
    longer = [each for each in Settings.model_fields if name in each]
    return variable(difflib.get_close_matches(name, longer or Settings.model_fields, n=1, cutoff=0.0)[0])


def _complaint(location: tuple[int | str, ...], message: str, given: Any) -> str:
    """One option's error. The value is omitted if it may be secret: that of a secret or unknown option,
    and an address with a user or query."""
    said = message.removeprefix("Value error, ")
    if not location:
        # Of several options together, which the message names; what was given is all of them.
        return said
    name = str(location[0])
    field = Settings.model_fields.get(name)
    hidden = field is None or is_secret(field) or (isinstance(given, str) and re.search("[@?#]", given))
    return f"{variable(name)}: {said}" + ("" if hidden else f" (given: {given!r})")


def secrets_of(loaded: Settings) -> list[str]:
    """The secret options' values: each master key by itself, and of the database's URL its password alone."""
    given = {name: getattr(loaded, name) or "" for name, field in options().items() if is_secret(field)}
    keys = [entry.partition(":")[2] for entry in re.split(r"[,\s]+", given.pop("master_keys"))]
    return [text for text in (*keys, *passwords_in(given.pop("database_url")), *given.values()) if text]


def passwords_in(url: str) -> list[str]:
    """The password of a database's URL as it is written, and decoded; none where the URL can't be read."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return []
    written = [parts.netloc.rpartition("@")[0].partition(":")[2], *parse_qs(parts.query).get("password", [])]
    return [password for text in written if text for password in (text, unquote(text))]


def forget_secrets() -> None:
    """Take secrets out of this process's environment, so that no child inherits them."""
    for name, field in Settings.model_fields.items():
        if is_secret(field):
            os.environ.pop(variable(name), None)
    for key in _OF_BUCKETS:
        os.environ.pop(key, None)
