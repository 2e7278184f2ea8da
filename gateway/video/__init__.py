"""Recordings of runs: reels of pictures, and the videos that a process makes of them."""

from __future__ import annotations

import sys
from pathlib import Path

# Exit codes of the encoder's process. They are here since its module needs an extra that may not be installed.
NO_FRAMES = 3
LEFT_ALONE = 4


def encoder_command(reel: Path, video: str, user_id: int) -> list[str]:
    """The command that makes the file `video` in a reel's directory. It ends when its standard input is closed."""
    return [sys.executable, "-m", "gateway.video.encoder", str(reel), video, str(user_id)]
