"""The network in a runtime's config: its own proxy, and lists that narrow what its pages may reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, field_validator, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from gateway.core import runtime_config as values
from gateway.core.canonical import texts
from gateway.core.hosts import Refusal
from gateway.core.secret import Secret
from gateway.core.traffic_rules import UrlPattern
from gateway.core.upstream_proxy import UpstreamProxy
from gateway.http.models import NAME_CHARACTERS, STORABLE, WHOLE, Body, Checked, Shown, one_of, optional

_DEFAULT_PORTS = {"http": 80, "socks5": 1080}
_MOST_BYTES = 255  # of SOCKS5's user and password each
_SHAPE = "{protocol, host, port, username, password}, or {url} such as http://user:password@proxy.example:3128"


def _pattern(text: str) -> str:
    UrlPattern.parse(text)
    return text


def _credential(text: str) -> str:
    if not text.isprintable() or len(text.encode()) > _MOST_BYTES:
        raise ValueError(f"must have printable characters only, and {_MOST_BYTES} bytes at most")
    return text


Pattern = Annotated[str, Field(min_length=1, max_length=2048), STORABLE, Checked(_pattern, format="url-pattern")]
Patterns = Annotated[list[Pattern], Field(max_length=1000)]
Credential = Annotated[
    str, Field(min_length=1, max_length=_MOST_BYTES), Checked(_credential, format="proxy-credential")
]


class NetworkTraffic(Body):
    """Lists of hosts and URL patterns. They narrow what the gateway's operator allows, and can't widen it."""

    not_served = frozenset({"saver", "blockAds", "blockTrackers", "blockResourceTypes"})

    url_allowlist: Patterns = optional()
    """If not empty, pages reach only what one of these entries matches: `[scheme://]host[:port][/path]`, where the host
    may be `*` or `*.suffix`."""
    url_blocklist: Patterns = optional()
    """Pages do not reach what one of these entries matches. It takes precedence over the allowlist."""

    def to_domain(self) -> values.NetworkTraffic:
        return values.NetworkTraffic(texts(self.url_allowlist), texts(self.url_blocklist))


class Proxy(Body):
    """A proxy of the caller's own that the runtime's traffic goes through, given as `url` or as its parts."""

    model_config = one_of(
        ("url",),
        ("protocol", "host", "port"),
        never=[
            *({"required": ["url", name]} for name in ("protocol", "host", "port", "username", "password")),
            # A password without a username, and a username that an http proxy would read as one with a password.
            {"required": ["password"], "properties": {"password": {"type": "string"}, "username": {"type": "null"}}},
            {
                "required": ["protocol", "username"],
                "properties": {"protocol": {"const": "http"}, "username": {"type": "string", "pattern": ":"}},
            },
        ],
    )

    url: Secret[Annotated[str, Field(min_length=1, max_length=2048), Shown(format="proxy-url")]] = optional()
    """The whole proxy as one URL, such as `http://user:password@proxy.example:3128`; nothing else but `dnsResolution`
    may be beside it."""
    protocol: Literal["http", "socks5"] = optional()
    """Protocol of the proxy."""
    host: Annotated[str, Field(min_length=1, max_length=253), Shown(format="proxy-host")] = optional()
    """Host name or address of the proxy."""
    port: Annotated[int, Field(ge=1, le=65535), WHOLE] = optional()
    """TCP port of the proxy."""
    username: Credential | None = None
    """User at the proxy."""
    password: Secret[Credential] | None = None
    """Password at the proxy; never returned."""
    dns_resolution: Literal["local", "proxy"] = "local"
    """`local`: the gateway resolves names, and checks the addresses; `proxy`: the proxy does."""

    @field_validator("url")
    @classmethod
    def _whole_url(cls, value: str) -> str:
        _parts_of(value)
        return value

    @model_validator(mode="after")
    def _one_way(self) -> Proxy:
        given = self.model_fields_set & {"url", "protocol", "host", "port", "username", "password"}
        if (given != {"url"}) if "url" in given else not {"protocol", "host", "port"} <= given:
            raise ValueError(f"give {_SHAPE}")
        proxy = self.upstream()
        if proxy.password is not None and proxy.username is None:
            raise ValueError("a password needs a username")
        if proxy.protocol == "http" and ":" in (proxy.username or ""):
            raise ValueError("the username of an http proxy can't have a colon")
        try:
            proxy.parsed_host  # noqa: B018  (it raises)
        except Refusal:
            raise ValueError("the proxy's host is malformed") from None
        return self

    def upstream(self) -> UpstreamProxy:
        resolves_names = self.dns_resolution == "proxy"
        if "url" in self.model_fields_set:
            return replace(_parts_of(self.url), resolves_names=resolves_names)
        return UpstreamProxy(self.protocol, self.host, self.port, self.username, self.password, resolves_names)

    def to_domain(self) -> values.Proxy:
        """As it is kept and answered: without its password."""
        proxy = self.upstream()
        has_password = proxy.password is not None
        return values.Proxy(proxy.protocol, proxy.host, proxy.port, proxy.username, has_password, self.dns_resolution)


class _OrSaved:
    """A model, or the id or name of a saved one. Errors name fields of the model as if there were no choice."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        given = handler.generate_schema(Proxy)

        def validate(value: Any, of_given: Callable[[Any], Any]) -> Any:
            if not isinstance(value, str):
                return of_given(value)
            if not value:
                raise PydanticKnownError("string_too_short", {"min_length": 1})
            if len(value) > NAME_CHARACTERS:
                raise PydanticKnownError("string_too_long", {"max_length": NAME_CHARACTERS})
            # Most likely with a password.
            if "://" in value or "\x00" in value:
                raise ValueError(f"is not the id or name of a saved proxy; give that, or {_SHAPE}")
            return value

        def serialize(value: Any, of_given: Callable[[Any], Any]) -> Any:
            return value if isinstance(value, str) else of_given(value)

        serialization = core_schema.wrap_serializer_function_ser_schema(serialize, schema=given)
        return core_schema.no_info_wrap_validator_function(validate, given, serialization=serialization)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        limits = {"minLength": 1, "maxLength": NAME_CHARACTERS, "pattern": r"^[^\x00]*$"}
        name = {"type": "string", **limits, "format": "saved-proxy"}
        return {"anyOf": [handler(schema), name]}


GivenOrSaved = Annotated[Proxy | str, _OrSaved()]


def _parts_of(url: str) -> UpstreamProxy:
    """Raises ValueError that does not repeat the URL, which may hold a password."""
    wrong = ValueError(f"is not the URL of a proxy; give {_SHAPE}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise wrong from None
    protocol: Literal["http", "socks5"] = "http" if parts.scheme == "http" else "socks5"
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or parts.path.strip("/") or parts.query or port == 0:
        raise wrong
    username, password = (unquote(text) if text else None for text in (parts.username, parts.password))
    for text in filter(None, (username, password)):
        _credential(text)
    return UpstreamProxy(protocol, parts.hostname, port or _DEFAULT_PORTS[protocol], username, password)
