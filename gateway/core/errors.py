"""The tree of errors. Each knows its HTTP status and its stable code; the shape on the wire is one for all.

    GatewayError
    |- ConfigurationError      what the operator gave can't be used; ends the start with a sentence
    |- RequestInvalid          400
    |- Unauthorized            401
    |- Forbidden               403
    |- NotFound                404
    |- MethodNotAllowed        405
    |- RequestTimeout          408
    |- Conflict                409
    |- Gone                    410
    |- PayloadTooLarge         413
    |- UnsupportedMediaType    415
    |- RangeNotSatisfiable     416
    |- UpgradeRequired         426
    |- LimitReached            429
    |- HeadersTooLarge         431
    |- Internal                500
    |- NotSupported            501
    `- Unavailable             503
       `- LaunchFailed         503, with the class of the failure and what to do

The body is `{"error", "code", "requestId", "details"}` (contract: spaces.md, 4.9).
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

# Wrong values are repeated up to this length.
_SHOWN_VALUE = 100


class GatewayError(Exception):
    status: ClassVar[int] = 500
    default_code: ClassVar[str] = "internal.error"

    def __init__(
        self,
        message: str,
        code: str | None = None,
        *,
        details: dict[str, Any] | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.details = details or {}
        self.retry_after = retry_after


class HostedElsewhere(Exception):
    """Raised where another gateway has the browser and must do what was asked; `url` is where it is reached."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = url


class ConfigurationError(GatewayError):
    """Raised when an option, a key or the state of the machine does not allow a start."""

    default_code = "configuration.invalid"


class RequestInvalid(GatewayError):
    """Raised when a body, query or path is wrong; `details.errors` lists every wrong field."""

    status = 400
    default_code = "request.invalid"


def invalid_field(field: str, message: str, value: Any = None, *, code: str = "field.invalid") -> RequestInvalid:
    """For one wrong field that no model could check. `value` is what was given; None leaves it out."""
    entry = {"field": field, "message": message} | ({} if value is None else {"value": shown(value)}) | {"code": code}
    return RequestInvalid(f"The request is not valid: {field}: {message}.", details={"errors": [entry]})


def shown(value: Any) -> Any:
    """A wrong value as errors repeat it: short, and always JSON, which has no NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value[:_SHOWN_VALUE] if isinstance(value, str) else value


class Unauthorized(GatewayError):
    status = 401
    default_code = "auth.invalid"


class OrganizationSuspended(Unauthorized):
    """Raised for a valid key of a suspended organization; counted like a wrong key where those are limited."""

    status = 403
    default_code = "organization.suspended"


class Forbidden(GatewayError):
    """Raised for what a key's kind may not do; never for an id, which is then not found."""

    status = 403
    default_code = "auth.forbidden"


class NotFound(GatewayError):
    """Raised for an id that never was and for one that the caller may not see, in the same words."""

    status = 404
    default_code = "route.not_found"


class MethodNotAllowed(GatewayError):
    status = 405
    default_code = "route.method_not_allowed"


class RequestTimeout(GatewayError):
    """Raised when a client takes too long to say what it wants."""

    status = 408
    default_code = "request.timeout"


class Conflict(GatewayError):
    status = 409
    default_code = "request.conflict"


class Gone(GatewayError):
    status = 410
    default_code = "lease.expired"


class PayloadTooLarge(GatewayError):
    status = 413
    default_code = "request.too_large"


class UnsupportedMediaType(GatewayError):
    status = 415
    default_code = "request.media_type"


class RangeNotSatisfiable(GatewayError):
    """Raised for a range of bytes that lies behind the end; `details.sizeBytes` says where that is."""

    status = 416
    default_code = "request.range"


class UpgradeRequired(GatewayError):
    """Raised for a plain HTTP request to the address of a websocket."""

    status = 426
    default_code = "connect.websocket_only"


class LimitReached(GatewayError):
    status = 429
    default_code = "limit.reached"


class HeadersTooLarge(GatewayError):
    status = 431
    default_code = "request.headers_too_large"


class Internal(GatewayError):
    status = 500


class NotSupported(GatewayError):
    """Raised when the server that runs the gateway lacks something that the request needs."""

    status = 501
    default_code = "gateway.not_supported"


class Unavailable(GatewayError):
    status = 503
    default_code = "gateway.unavailable"


def host_unavailable(noun: str, cause: object = None) -> Unavailable:
    """For a `lease`, `run` or `runtime` whose browser another gateway has, which can't be asked."""
    why = "" if cause is None else f": {cause}"
    return Unavailable(
        f"The gateway that has the browser of this {noun} can't be reached{why}.",
        "runtime.host_unavailable",
        retry_after=1,
    )


def database_unavailable() -> Unavailable:
    return Unavailable("The database can't be reached; try again shortly.", "database.unavailable", retry_after=2)


class LaunchFailed(Unavailable):
    """Raised when a browser did not come up. `failure` is one of the classes in launchers/failures.py."""

    default_code = "runtime.launch_failed"

    def __init__(self, message: str, *, failure: str, advice: str) -> None:
        super().__init__(f"{message} {advice}", details={"class": failure, "advice": advice}, retry_after=5)
        self.failure = failure
        self.advice = advice
