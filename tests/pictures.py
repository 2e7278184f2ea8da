"""Looking at pictures: what colour there is at a place of a JPEG."""

from __future__ import annotations

import io

import av

Colour = tuple[int, int, int]


def colour(jpeg: bytes, x: int, y: int) -> Colour:
    """Red, green and blue at a pixel, each to the next 16, since a JPEG is only nearly what it shows."""
    with av.open(io.BytesIO(jpeg), "r", format="mjpeg") as container:
        picture = next(container.decode(video=0)).reformat(format="rgb24")
    plane = picture.planes[0]
    at = y * plane.line_size + x * 3
    red, green, blue = (min(255, round(value / 16) * 16) for value in bytes(plane)[at : at + 3])
    return red, green, blue
