"""A form with one file in it (multipart/form-data), parsed while it arrives: the file is never whole in memory.

A form is a model like any body, whose field `file` is a `FilePart`. Its other parts are texts of bounded size, and may
come before or after the file.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Generic, TypeVar

from pydantic import InstanceOf, WithJsonSchema
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from gateway.core.errors import PayloadTooLarge, RequestInvalid, invalid_field
from gateway.http.bodies import wrong_media_type
from gateway.http.models import Body

FILE = "file"
_SHOWN = 100
# A form may have a line break or a short epilogue after its last boundary.
_MAX_EPILOGUE = 1024

Model = TypeVar("Model", bound=Body)


class FilePart:
    """The headers of the part with the file; its bytes come from `Form.chunks`."""

    def __init__(self, filename: str | None, content_type: str | None) -> None:
        self.filename = filename
        self.content_type = content_type


Binary = Annotated[InstanceOf[FilePart], WithJsonSchema({"type": "string", "format": "binary"})]


class Form(Generic[Model]):
    """A form to be read: first all `chunks`; then `value` is set.

    `validated` makes the model of the fields, or raises RequestInvalid. All fields but the file may have `limit` bytes.
    """

    def __init__(
        self, request: Request, model: type[Model], limit: int, validated: Callable[[dict[str, Any]], Model]
    ) -> None:
        media_type, options = parse_options_header(request.headers.get("content-type"))
        if media_type != b"multipart/form-data":
            given = media_type.decode("latin-1")[:_SHOWN]
            raise wrong_media_type(given, "multipart/form-data")
        boundary = options.get(b"boundary", b"")
        if not 1 <= len(boundary) <= 70:
            raise _malformed("its media type names no boundary of 1 to 70 characters")
        self._request = request
        self._known = {field.alias or name for name, field in model.model_fields.items()}
        self._limit = limit
        self._validated = validated
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_name,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
        )
        self._ended = False
        self._epilogue_bytes = 0
        self._text_bytes = 0
        self._found: dict[str, Any] = {}
        # Of the current part
        self._name = ""
        self._header_name = b""
        self._header_value = b""
        self._headers: dict[bytes, bytes] = {}
        self._text = bytearray()
        self._file = bytearray()

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes of the file; at their end all of the form has been read and validated."""
        try:
            async for piece in self._request.stream():
                if self._ended:
                    self._epilogue_bytes += len(piece)
                    if self._epilogue_bytes > _MAX_EPILOGUE:
                        raise _malformed(f"more than {_MAX_EPILOGUE} bytes follow its last boundary")
                if piece:
                    self._parser.write(piece)
                if self._file:
                    yield bytes(self._file)
                    self._file.clear()
            self._parser.finalize()
        except FormParserError as error:
            # The parser's messages are fixed sentences with a position.
            raise _malformed(str(error)[:200].rstrip(".")) from None
        except ClientDisconnect:
            raise RequestInvalid("The client disconnected before the body's end.", "request.incomplete") from None
        if not self._ended:
            raise RequestInvalid("The form ends before its last boundary.", "request.incomplete")
        self.value = self._validated(self._found)

    # Callbacks of the parser, with slices of the data that it was fed

    def _on_part_begin(self) -> None:
        self._headers = {}
        self._text = bytearray()

    def _on_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._header_name.lower()] = self._header_value
        self._header_name = self._header_value = b""

    def _on_headers_finished(self) -> None:
        kind, options = parse_options_header(self._headers.get(b"content-disposition"))
        if kind != b"form-data" or b"name" not in options:
            raise _malformed("a part has no Content-Disposition with a name")
        name = self._name = _text(options[b"name"], "the name of a part")
        if name not in self._known:
            raise _wrong(name, "field.unknown", f"There is no such field; there are {', '.join(sorted(self._known))}")
        if name in self._found:
            raise _wrong(name, "field.repeated", "This field is given more than once")
        if name == FILE:
            filename, content_type = options.get(b"filename"), self._headers.get(b"content-type")
            self._found[name] = FilePart(
                filename=None if filename is None else _text(filename, "the name of the file"),
                content_type=None if content_type is None else _text(content_type, "the Content-Type of the file"),
            )

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == FILE:
            self._file += data[start:end]
            return
        self._text_bytes += end - start
        if self._text_bytes > self._limit:
            raise PayloadTooLarge(
                f"The fields of the form besides its file are larger than {self._limit} bytes.",
                details={"limit": self._limit},
            )
        self._text += data[start:end]

    def _on_part_end(self) -> None:
        if self._name != FILE:
            self._found[self._name] = _text(bytes(self._text), f"the field {self._name}")

    def _on_end(self) -> None:
        self._ended = True


def _text(given: bytes, what: str) -> str:
    try:
        return given.decode()
    except UnicodeDecodeError:
        raise _malformed(f"{what} is not UTF-8") from None


def _malformed(why: str) -> RequestInvalid:
    return RequestInvalid(f"The body is not a valid form: {why}.", "request.malformed")


def _wrong(field: str, code: str, message: str) -> RequestInvalid:
    return invalid_field(field[:_SHOWN], message, code=code)
