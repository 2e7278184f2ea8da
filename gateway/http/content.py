"""Stored bytes as an answer: whole or a range of them (RFC 9110, 14), as a download.

An upload may be a page with a script, which must never run in this gateway's origin: it is sent as an attachment, its
type is not guessed, and a browser that shows it all the same does so in a sandbox.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from gateway.core.errors import RangeNotSatisfiable
from gateway.domain.files.names import UNKNOWN_TYPE, is_media_type

_RANGE = re.compile(r"bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Content:
    """Description of the bytes. `tag` changes when they do."""

    name: str
    content_type: str
    size: int
    tag: str


async def answer(request: Request, content: Content, read: Callable[[int, int], AsyncIterator[bytes]]) -> Response:
    """The bytes of `read(start, end)`, for the range that the request asks for.

    Raises RangeNotSatisfiable, and what `read` raises before the first bytes.
    """
    tag = f'"{content.tag}"'
    headers = {
        # Earlier versions stored types that no header can have.
        "Content-Type": content.content_type if is_media_type(content.content_type) else UNKNOWN_TYPE,
        "Content-Disposition": disposition(content.name),
        "Accept-Ranges": "bytes",
        "ETag": tag,
        "Cache-Control": "private, no-cache",
        "Content-Security-Policy": "sandbox; default-src 'none'; frame-ancestors 'none'",
    }
    if _has(request, tag):
        return Response(status_code=304, headers={"ETag": tag, "Cache-Control": headers["Cache-Control"]})
    wanted = _range(request, content.size, tag)
    start, end = wanted or (0, content.size)
    headers["Content-Length"] = str(end - start)
    if wanted is not None:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{content.size}"
    status = 200 if wanted is None else 206
    if request.method == "HEAD" or start == end:
        return Response(status_code=status, headers=headers)
    chunks = read(start, end)
    return StreamingResponse(_from(await anext(chunks), chunks), status, headers)


async def _from(first: bytes, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in chunks:
        yield chunk


def disposition(name: str) -> str:
    """An attachment's file name (RFC 6266): in ASCII, and in UTF-8 where that differs."""
    plain = "".join(character if " " <= character <= "~" and character not in '"\\%' else "_" for character in name)
    value = f'attachment; filename="{plain}"'
    return value if plain == name else f"{value}; filename*=UTF-8''{quote(name, safe='')}"


def tagged(request: Request, body: bytes, media_type: str, headers: Mapping[str, str] | None = None) -> Response:
    """Bytes of the gateway's own, with a tag that is made from them; 304 where the caller has them."""
    tag = f'"{sha256(body).hexdigest()[:32]}"'
    if _has(request, tag):
        return Response(status_code=304, headers={"ETag": tag})
    return Response(body, media_type=media_type, headers={**(headers or {}), "ETag": tag})


def _has(request: Request, tag: str) -> bool:
    """Whether If-None-Match names the tag, weak or strong, alone or among others."""
    header = ", ".join(request.headers.getlist("if-none-match"))
    return header.strip() == "*" or tag in re.findall(r'"[^"]*"', header)


def _range(request: Request, size: int, tag: str) -> tuple[int, int] | None:
    """The first byte, and the one behind the last; None for all.

    One range is served. Several ranges, a malformed one, and one of other bytes (If-Range) get all."""
    match = _RANGE.fullmatch(request.headers.get("range", "").strip())
    if match is None or match.groups() == ("", "") or request.headers.get("if-range", tag).strip() != tag:
        return None
    first, last = match.groups()
    if first == "":
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None
    if start >= size:
        raise RangeNotSatisfiable(
            f"The file has {size} bytes, and none of those that are asked for.", details={"sizeBytes": size}
        )
    return start, end
