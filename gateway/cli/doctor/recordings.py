"""A check of recordings: the smallest one is made as a run's would be."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from gateway.cli.doctor.findings import Finding, Level
from gateway.cli.doctor.scratch import scratch
from gateway.cli.doctor.storage import extra
from gateway.core import extras
from gateway.core.helper_process import bare_environment
from gateway.settings import Settings
from gateway.video import encoder_command
from gateway.video.reel import ReelWriter

_SUBJECT = "recordings"
_SECONDS = 60
_WIDTH, _HEIGHT = 64, 48


def recordings(settings: Settings) -> Iterator[Finding]:
    """Whether the extra is installed, and whether its encoder makes a video as the user that it runs as."""
    yield from extra(_SUBJECT, extras.RECORDINGS, needed=settings.recording)
    if not extras.RECORDINGS.installed:
        return
    with scratch(settings) as directory:
        failure = _made(Path(directory) / "recordings" / "reel", settings.uid_base + settings.uid_count)
    if failure is None:
        yield Finding(Level.OK, _SUBJECT, "A video can be made.")
        return
    yield Finding(
        Level.FAILED if settings.recording else Level.WARNING,
        _SUBJECT,
        f"No video can be made: {failure}.",
        "See that the encoder may run and read its files: the environment and GATEWAY_UID_BASE. Or turn recordings off "
        "(GATEWAY_RECORDING).",
    )


def _made(reel: Path, user_id: int) -> str | None:
    """Why the encoder made no video of a reel with one picture; None where it did."""
    writer = ReelWriter(reel, time.time())
    writer.frame(0, 0, _picture(), _WIDTH, _HEIGHT)
    writer.close(1000)
    with (
        # Standard input stays open, since the encoder ends with it.
        subprocess.Popen(
            encoder_command(reel, "video", user_id),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=bare_environment(),
            start_new_session=True,
        ) as encoder,
        contextlib.ExitStack() as ending,
    ):
        ending.callback(encoder.kill)
        try:
            code = encoder.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            return f"the encoder did not end within {_SECONDS} seconds"
        assert encoder.stderr is not None
        lines = encoder.stderr.read().strip().splitlines() or ["no output"]
    return None if code == 0 else f"the encoder ended with status {code} ({lines[-1][:300]})"


def _picture() -> bytes:
    import av

    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = _WIDTH, _HEIGHT, "yuvj420p"
    encoder.time_base = Fraction(1, 25)
    (packet,) = encoder.encode(av.VideoFrame(_WIDTH, _HEIGHT, "yuvj420p"))
    return bytes(packet)
