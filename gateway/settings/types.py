"""Types of options, and the base of every group of them."""

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, field_validator


class Group(BaseModel):
    """Options that belong together. A class of the gateway takes the group that it needs."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def _http_url(value: str) -> str:
    wrong = ValueError("must be an http or https address without user, query and fragment")
    if not re.fullmatch(r"https?://[^/\s?#@]+(/[^\s?#]*)?", value):
        raise wrong
    try:
        parts = urlsplit(value)
        if not parts.hostname or parts.port == 0:
            raise wrong
    except ValueError:  # urlsplit's own, for a bad port or bracket, repeats what it was given
        raise wrong from None
    return value.rstrip("/")


def _origin(value: str) -> str:
    # Extensions have origins of their own scheme, like chrome-extension://<id>.
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d{1,5})?", value):
        raise ValueError("must be scheme://host or scheme://host:port each, as a browser sends it in `Origin`")
    return value


def _frame_ancestor(value: str) -> str:
    if not re.fullmatch(r"[^\s;,\x00-\x20\x7f-\U0010ffff]+", value):
        raise ValueError("must be sources of a Content Security Policy, as `*`, `'self'` or `https://*.example.com`")
    return value


def _size(value: str) -> str:
    sides = value.split("x") if re.fullmatch(r"[0-9]{3,4}x[0-9]{3,4}", value) else ["0"]
    if not all(100 <= int(side) <= 8192 for side in sides):
        raise ValueError("must be WIDTHxHEIGHT, each from 100 to 8192, as `1280x720`")
    return value


Size = Annotated[str, AfterValidator(_size)]


def _metrics_place(value: str) -> str:
    if value not in ("api", "off"):
        address_of(value)
    return value


def address_of(value: str) -> tuple[str, int]:
    """Host and port of `host:port`, IPv6 in brackets. Raises ValueError."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/\[\]]+)):(\d{1,5})", value)
    if match is None or int(match[3]) > 65535:
        raise ValueError("must be `api`, `off` or an address as `127.0.0.1:9464` or `[::1]:9464`")
    return match[1] or match[2], int(match[3])


MetricsPlace = Annotated[str, AfterValidator(_metrics_place)]
HttpUrl = Annotated[str, AfterValidator(_http_url), WithJsonSchema({"type": "string", "format": "uri"})]
Origin = Annotated[str, AfterValidator(_origin)]
FrameAncestor = Annotated[str, AfterValidator(_frame_ancestor)]


def secret(default: Any, description: str) -> Any:
    """A field whose value is never shown, and which has no flag."""
    return Field(default, description=description, repr=False, json_schema_extra={"secret": True})


def split(*names: str) -> Any:
    """A validator that reads these fields from text, separated by commas and in lower case.

    Each group gives it a name of its own: where groups are combined, pydantic keeps one validator of a name.
    """

    def read(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return tuple(part.strip().lower() for part in value.split(",") if part.strip())

    return field_validator(*names, mode="before")(read)


def split_as_written(*names: str) -> Any:
    """As `split`, of what upper case matters in."""

    def read(value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    return field_validator(*names, mode="before")(read)
