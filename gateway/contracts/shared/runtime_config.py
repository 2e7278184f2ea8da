"""How a browser is launched: the config of a new runtime, and as it was given in answers; and why it ended."""

from __future__ import annotations

import contextlib
import zoneinfo
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import ConfigDict, Field, JsonValue, model_validator

from gateway.contracts.shared.network import GivenOrSaved, NetworkTraffic, Proxy
from gateway.contracts.shared.spelling import domain, fields_below, rename_fields, spelled
from gateway.core import runtime_config as values
from gateway.core.errors import Forbidden
from gateway.core.launch import BrowserName
from gateway.core.secret import Secret
from gateway.http.models import WHOLE, Answer, Body, Checked, optional


@cache
def _timezones() -> set[str]:
    return zoneinfo.available_timezones()


def _timezone(name: str) -> str:
    if name not in _timezones():
        raise ValueError(f"{name[:100]!r} is not an IANA time zone such as Europe/Berlin")
    return name


def _printable(text: str) -> str:
    if not text.isprintable() or not text.isascii():
        raise ValueError("must have printable ASCII characters only")
    return text


Locale = Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$", max_length=35, examples=["de-DE"])]
EventLevel = Literal["off", "lifecycle", "standard", "full"]
Pixels = Annotated[int, Field(ge=100, le=8192), WHOLE]


class Viewport(Body):
    """Size of a page in CSS pixels."""

    width: Pixels
    """Width in CSS pixels."""
    height: Pixels
    """Height in CSS pixels."""

    def to_domain(self) -> values.Viewport:
        return values.Viewport(self.width, self.height)


class Fingerprint(Body):
    """The contract's place for `viewport` and `locale`; they may be given here or beside it, not in both."""

    not_served = frozenset({"browser", "browserVersion", "os", "device"})

    viewport: Viewport = optional()
    """Size of pages."""
    locale: Locale = optional()
    """Language and region, such as `de-DE`."""

    def to_domain(self) -> values.Fingerprint:
        return values.Fingerprint(domain(self.viewport), self.locale)


def _unique(ids: list[UUID]) -> list[UUID]:
    if len(set(ids)) < len(ids):
        raise ValueError("must name each extension once")
    return ids


_SAID_TWICE: list[JsonValue] = [
    {"required": [name, "fingerprint"], "properties": {"fingerprint": {"required": [name]}}}
    for name in ("viewport", "locale")
]
_NO_EXTENSIONS: JsonValue = {
    "required": ["extensionIds", "browser"],
    "properties": {"extensionIds": {"minItems": 1}, "browser": {"const": "headless-shell"}},
}


class RuntimeConfig(Body):
    """How the browser is launched. Whatever is absent takes the browser's or the gateway's default."""

    model_config = ConfigDict(json_schema_extra={"not": {"anyOf": [*_SAID_TWICE, _NO_EXTENSIONS]}})
    not_served = frozenset({"profile", "stealth", "webRtcProxyOnly", "forceOpenShadowRoots"})

    browser: BrowserName = optional()
    """Which browser; the default is the gateway's."""
    viewport: Viewport = optional()
    """Size of pages."""
    locale: Locale = optional()
    """Language and region of the browser, such as `de-DE`."""
    timezone: Annotated[str, Checked(_timezone, format="iana-time-zone")] = optional()
    """IANA time zone of the browser, such as `Europe/Berlin`."""
    user_agent: Annotated[str, Field(min_length=1, max_length=512), Checked(_printable, pattern="^[ -~]+$")] = (
        optional()
    )
    """User agent of the browser, printable ASCII."""
    fingerprint: Fingerprint = optional()
    """Another place for `viewport` and `locale`."""
    proxy: Secret[GivenOrSaved] = optional()
    """A proxy of your own that the traffic of pages goes through, in full, or the id or name of a saved one."""
    network_traffic: NetworkTraffic = optional()
    """Lists of what pages may reach."""
    extension_ids: Annotated[list[Annotated[UUID, Field(strict=False)]], Checked(_unique, uniqueItems=True)] = (
        optional()
    )
    """Ids of browser extensions that the browser loads, which is full Chromium then; 10 at most where the operator has
    not set another limit."""
    events: EventLevel = optional()
    """How much is recorded of pages: `off`, `lifecycle`, `standard` or `full`."""
    recording: bool = optional()
    """Whether a video is recorded."""
    idle_timeout_seconds: Annotated[int, Field(ge=10, le=604800), WHOLE] = optional()
    """Stop after as many seconds without a client."""
    max_lifetime_seconds: Annotated[int, Field(ge=60, le=2592000), WHOLE] = optional()
    """Stop after as many seconds in any case; at most as many as the gateway allows, a day by default."""

    @model_validator(mode="after")
    def _said_once(self) -> RuntimeConfig:
        for name in ("viewport", "locale"):
            if getattr(self, name) is not None and getattr(self.fingerprint, name, None) is not None:
                raise ValueError(f"{name} is given both in config and in config.fingerprint; give it once")
        if self.extension_ids and self.browser == "headless-shell":
            raise ValueError("extensionIds need full Chromium; let browser be chromium, or leave it out")
        return self

    @property
    def proxy_password(self) -> str | None:
        """The password of a proxy that was given in full."""
        return self.proxy.upstream().password if isinstance(self.proxy, Proxy) else None

    def to_domain(self) -> values.RuntimeConfig:
        """What was given, and the proxy without its password."""
        return values.RuntimeConfig(
            browser=self.browser,
            viewport=domain(self.viewport),
            locale=self.locale,
            timezone=self.timezone,
            user_agent=self.user_agent,
            fingerprint=domain(self.fingerprint),
            proxy=self.proxy if isinstance(self.proxy, str) else domain(self.proxy),
            network_traffic=domain(self.network_traffic),
            extension_ids=None if self.extension_ids is None else tuple(map(str, self.extension_ids)),
            event_level=self.events,
            recording=self.recording,
            idle_timeout_seconds=self.idle_timeout_seconds,
            max_lifetime_seconds=self.max_lifetime_seconds,
        )


class GivenProxy(Answer):
    """The proxy of a config, without its password. Of a saved one, as it was at the launch, also its id and name."""

    id: UUID = optional()
    """Id of the saved proxy that was named."""
    name: str = optional()
    """Name of the saved proxy at that time."""
    protocol: Literal["http", "socks5"]
    """Protocol of the proxy."""
    host: str
    """Host name or address of the proxy."""
    port: int
    """TCP port of the proxy."""
    username: str | None
    """User at the proxy."""
    has_password: bool
    """Whether a password was given."""
    dns_resolution: Literal["local", "proxy"]
    """Who resolves names: `local` is the gateway."""


class GivenConfig(Answer):
    """The config that a runtime was created with, as it was given."""

    browser: BrowserName = optional()
    """Which browser was requested."""
    viewport: Viewport = optional()
    """Size of pages."""
    locale: Locale = optional()
    """Language and region."""
    timezone: str = optional()
    """IANA time zone."""
    user_agent: str = optional()
    """User agent."""
    fingerprint: Fingerprint = optional()
    """Another place for `viewport` and `locale`."""
    proxy: GivenProxy | str = optional()
    """The proxy, without its password; of a browser profile, also the id or name of a saved one."""
    network_traffic: NetworkTraffic = optional()
    """Lists of what pages may reach."""
    extension_ids: list[UUID] = optional()
    """Ids of browser extensions."""
    events: EventLevel = optional()
    """How much is recorded of pages."""
    recording: bool = optional()
    """Whether a video is recorded."""
    idle_timeout_seconds: int = optional()
    """Stop after as many seconds without a client."""
    max_lifetime_seconds: int = optional()
    """Stop after as many seconds in any case."""


class Failure(Answer):
    """Why a runtime ended."""

    code: str
    """Stable code, such as `runtime.stopped` or `browser.crashed`."""
    message: str
    """The cause in one sentence for people."""


@contextlib.contextmanager
def config_fields(prefix: str) -> Iterator[None]:
    """Errors of the block name fields of the config as the request has them, below `prefix`."""
    with fields_below(prefix):
        try:
            yield
        except Forbidden as error:
            if error.code == "proxy.not_allowed":
                rename_fields(error, prefix)
            raise


def spelled_config(config: values.RuntimeConfig) -> dict[str, Any]:
    """As it was given. `events` is the contracts' name of the event level."""
    given = config.to_json()
    if config.event_level is not None:
        given["events"] = config.event_level
    if isinstance(config.proxy, values.Proxy):
        given["proxy"]["username"] = config.proxy.username
    answer: dict[str, Any] = spelled(given)
    return answer
