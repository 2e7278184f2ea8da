"""How a runtime's browser is launched, as it was asked for."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from gateway.core.canonical import texts, to_json
from gateway.core.launch import BrowserName

EventLevel = Literal["off", "lifecycle", "standard", "full"]


@dataclass(frozen=True, slots=True)
class Viewport:
    """Size of a page in CSS pixels."""

    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Traits of the browser that some contracts group."""

    viewport: Viewport | None = None
    locale: str | None = None


@dataclass(frozen=True, slots=True)
class Proxy:
    """A runtime's own proxy. Its password is kept apart, encrypted; `has_password` says whether there is one.

    `id` and `name` are those of the saved proxy that was named, as it was at the launch.
    """

    protocol: Literal["http", "socks5"]
    host: str
    port: int
    username: str | None = None
    has_password: bool = False
    dns_resolution: Literal["local", "proxy"] = "local"
    id: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class NetworkTraffic:
    """URL patterns that narrow what the operator allows. None is absent, which an empty tuple is not."""

    url_allowlist: tuple[str, ...] | None = None
    url_blocklist: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """The requested config; None takes the browser's or the gateway's default. Times are seconds, and extensions are
    named by the ids that the gateway gave them.

    `proxy` may be the id or name of a saved one, which a launch replaces by the proxy itself.
    """

    browser: BrowserName | None = None
    viewport: Viewport | None = None
    locale: str | None = None
    timezone: str | None = None
    user_agent: str | None = None
    fingerprint: Fingerprint | None = None
    proxy: Proxy | str | None = None
    network_traffic: NetworkTraffic | None = None
    extension_ids: tuple[str, ...] | None = None
    event_level: EventLevel | None = None
    recording: bool | None = None
    idle_timeout_seconds: int | None = None
    max_lifetime_seconds: int | None = None

    @property
    def any_viewport(self) -> Viewport | None:
        """The viewport, wherever it was given."""
        return self.viewport or (self.fingerprint.viewport if self.fingerprint else None)

    @property
    def any_locale(self) -> str | None:
        """The locale, wherever it was given."""
        return self.locale or (self.fingerprint.locale if self.fingerprint else None)

    def over(self, base: RuntimeConfig) -> RuntimeConfig:
        """This config, with what it lacks from `base`. A viewport or locale may be in either of two places, so where
        this one has it, that of `base` does not count."""
        own = {each.name: value for each in fields(self) if (value := getattr(self, each.name)) is not None}
        viewport, locale = self.any_viewport, self.any_locale
        if base.fingerprint is not None:
            kept = Fingerprint(
                base.fingerprint.viewport if viewport is None else None,
                base.fingerprint.locale if locale is None else None,
            )
            base = replace(base, fingerprint=kept)
        if viewport is not None:
            base = replace(base, viewport=None)
        if locale is not None:
            base = replace(base, locale=None)
        if self.fingerprint is not None and base.fingerprint is not None:
            own["fingerprint"] = Fingerprint(
                self.fingerprint.viewport or base.fingerprint.viewport,
                self.fingerprint.locale or base.fingerprint.locale,
            )
        return replace(base, **own)

    def to_json(self) -> dict[str, Any]:
        """All but the event level, which has a column of its own."""
        config: dict[str, Any] = to_json(self)
        config.pop("event_level", None)
        return config

    @classmethod
    def from_json(cls, json: dict[str, Any], event_level: EventLevel | None) -> RuntimeConfig:
        given = dict(json)
        if (viewport := given.get("viewport")) is not None:
            given["viewport"] = Viewport(**viewport)
        if (fingerprint := given.get("fingerprint")) is not None:
            size = fingerprint.get("viewport")
            given["fingerprint"] = Fingerprint(None if size is None else Viewport(**size), fingerprint.get("locale"))
        if isinstance(proxy := given.get("proxy"), dict):
            given["proxy"] = Proxy(**proxy)
        if (traffic := given.get("network_traffic")) is not None:
            given["network_traffic"] = NetworkTraffic(
                texts(traffic.get("url_allowlist")), texts(traffic.get("url_blocklist"))
            )
        given["extension_ids"] = texts(given.get("extension_ids"))
        return cls(**given, event_level=event_level)
