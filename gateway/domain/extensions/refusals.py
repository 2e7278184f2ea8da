"""What is wrong with the package of an extension."""

from __future__ import annotations

from typing import Any

from gateway.core.errors import RequestInvalid

_SHOWN = 200


class PackageInvalid(RequestInvalid):
    """Raised for a package that is not accepted. `part` is what of it (an entry of its zip, or a field as
    `manifest.json: permissions[0]`), `rule` the stable name of the rule that it breaks, and the message says what is
    right."""

    default_code = "browser_extension.invalid_package"

    def __init__(self, part: str, rule: str, message: str, **details: Any) -> None:
        # A name in a zip may have any characters.
        shown = part if part.isprintable() else repr(part)[1:-1]
        super().__init__(
            f"The package is not accepted: {shown[:_SHOWN]}: {message}.",
            details={"part": shown[:_SHOWN], "rule": rule, **details},
        )
