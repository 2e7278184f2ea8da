"""Names of the domain as contracts spell them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

from pydantic.alias_generators import to_camel

from gateway.core.errors import GatewayError, RequestInvalid

_Value_co = TypeVar("_Value_co", covariant=True)


class _Model(Protocol[_Value_co]):
    def to_domain(self) -> _Value_co: ...


def domain(model: _Model[_Value_co] | None) -> _Value_co | None:
    """The domain's value of a model; None for one that was not given."""
    return None if model is None else model.to_domain()


def spelled(document: Any) -> Any:
    """A JSON document with names in camelCase: shorter names first, those of one length by their bytes.

    Answers have always had this order, which is that of PostgreSQL's jsonb.
    """
    if isinstance(document, list):
        return [spelled(each) for each in document]
    if not isinstance(document, dict):
        return document
    names = {to_camel(name): content for name, content in document.items()}
    return {name: spelled(names[name]) for name in sorted(names, key=lambda name: (len(name.encode()), name.encode()))}


def camel(field: str) -> str:
    """The path of a field in camelCase."""
    return ".".join(to_camel(part) for part in field.split("."))


@contextlib.contextmanager
def fields_below(prefix: str, name: Callable[[str], str] = camel) -> Iterator[None]:
    """Errors of the block name fields as the request has them: `max_spaces` is `limits.maxSpaces` below `limits`.

    Without a prefix they are those of the body itself.
    """
    try:
        yield
    except RequestInvalid as error:
        rename_fields(error, prefix, name)
        raise


def rename_fields(error: GatewayError, prefix: str, name: Callable[[str], str] = camel) -> None:
    """Name the fields of `details.errors` as the request has them, in the message too."""
    for each in error.details.get("errors", ()):
        field = f"{prefix}.{name(each['field'])}" if prefix else name(each["field"])
        # As a field it stands before any sentence about it.
        before, found, after = _parted(error.message, each["field"])
        error.message = before + (field if found else "") + after
        each["field"] = field


def _parted(text: str, field: str) -> tuple[str, str, str]:
    """A text around the first place where a field stands by itself."""
    found = re.search(rf"(?<![\w.]){re.escape(field)}(?!\w)", text)
    return (text, "", "") if found is None else (text[: found.start()], field, text[found.end() :])
