"""Check of fonts: which scripts the browser draws, found by letting it draw a letter of each.

A letter without a font is drawn as a box, the same as a code point that no font has.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator

from gateway.cli.doctor.findings import Finding, Level

# A script, a letter of it, and the package of Debian and Ubuntu with fonts for it. Old text fonts have a few emoji, but
# not this one.
SCRIPTS = (
    ("Chinese", "\u6f22", "fonts-noto-cjk"),
    ("Japanese", "\u3042", "fonts-noto-cjk"),
    ("Korean", "\ud55c", "fonts-noto-cjk"),
    ("Arabic", "\u0639", "fonts-noto-core"),
    ("Hebrew", "\u05d0", "fonts-noto-core"),
    ("Thai", "\u0e01", "fonts-noto-core"),
    ("Devanagari", "\u0915", "fonts-noto-core"),
    ("Bengali", "\u0995", "fonts-noto-core"),
    ("Gurmukhi", "\u0a15", "fonts-noto-core"),
    ("Gujarati", "\u0a95", "fonts-noto-core"),
    ("Tamil", "\u0b95", "fonts-noto-core"),
    ("Telugu", "\u0c15", "fonts-noto-core"),
    ("Kannada", "\u0c95", "fonts-noto-core"),
    ("Malayalam", "\u0d15", "fonts-noto-core"),
    ("Emoji", "\U0001f980", "fonts-noto-color-emoji"),
)

# U+0378 is not assigned.
_PAGE = """<!doctype html><html><script>
const letters = LETTERS;
const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
function drawn(text) {
  canvas.clearRect(0, 0, 64, 48);
  canvas.font = '24px sans-serif';
  canvas.fillText(text, 4, 32);
  return canvas.getImageData(0, 0, 64, 48).data.join();
}
const box = drawn('\\u0378');
document.documentElement.dataset.boxes = Object.keys(letters).filter((name) => drawn(letters[name]) === box).join();
</script></html>
"""

_FILLED = _PAGE.replace("LETTERS", json.dumps({name: letter for name, letter, _ in SCRIPTS}))
# For the browser that is started anyway; its DOM has the result.
PAGE = f"data:text/html;base64,{base64.b64encode(_FILLED.encode()).decode()}"

_RESULT = re.compile(r'data-boxes="([A-Za-z,]*)"')


def missing(dom: str) -> list[str] | None:
    """Scripts that are drawn as boxes in the DOM of PAGE; None where it does not say."""
    found = _RESULT.search(dom)
    return None if found is None else [name for name in found[1].split(",") if name]


def fonts(boxes: Iterable[str]) -> Iterator[Finding]:
    """The finding for these scripts without a font."""
    without = [(name, package) for name, _, package in SCRIPTS if name in set(boxes)]
    if not without:
        yield Finding(Level.OK, "fonts", f"Pages have fonts for {len(SCRIPTS)} scripts that were tried.")
        return
    packages = " ".join(dict.fromkeys(package for _, package in without))
    yield Finding(
        Level.WARNING,
        "fonts",
        f"Pages and screenshots show boxes in place of: {', '.join(name for name, _ in without)}.",
        f"Install fonts: on Debian and Ubuntu `apt-get install {packages}`, for browsers started later.",
    )
