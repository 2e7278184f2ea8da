"""Looking at pictures: what colour there is at a place of a JPEG."""

from __future__ import annotations

import io
from fractions import Fraction

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


def solid(colour: Colour, width: int, height: int) -> bytes:
    """A JPEG of one colour. The width is a multiple of 16."""
    picture = av.VideoFrame(width, height, "rgb24")
    picture.planes[0].update(bytes(colour) * (picture.planes[0].line_size // 3 * height))
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuvj420p"
    encoder.time_base = Fraction(1, 25)
    (packet,) = encoder.encode(picture.reformat(format="yuvj420p"))
    return bytes(packet)
