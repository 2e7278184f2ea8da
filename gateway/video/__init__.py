"""Recordings of runs: reels of pictures, and the videos that a process makes of them."""

# Exit codes of the encoder's process. They are here since its module needs an extra that may not be installed.
NO_FRAMES = 3
LEFT_ALONE = 4
