"""Writes docs/modules.md, the map of the code, from the first sentence of each module's docstring: `make docs`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "modules.md"
_HEAD = """\
# Modules

`make docs` writes this page from the first sentence of each module's docstring. [ARCHITECTURE.md](../ARCHITECTURE.md)
says what each room is for, and why.
"""


def first_sentence(path: Path) -> str:
    """The first sentence of a module's docstring; empty where there is none."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    paragraph = " ".join(text.partition("\n\n")[0].split())
    # Ends with a period before a space and a capital; a colon before an example ends it too.
    sentence = re.split(r"(?<=[.])\s+(?=[A-Z`])", paragraph, maxsplit=1)[0]
    return sentence.removesuffix(":").removesuffix(".")


def _rows(folder: Path) -> Iterator[str]:
    for path in sorted(folder.glob("*.py")):
        sentence = first_sentence(path)
        if path.name == "__init__.py" and not sentence:
            continue
        yield f"| [{path.name}](../{path.relative_to(ROOT)}) | {sentence.replace('|', chr(92) + '|')} |"


def document() -> str:
    """The complete page: a table for each folder that has modules."""
    folders = sorted({path.parent for path in (ROOT / "gateway").rglob("*.py")})
    parts = [_HEAD]
    for folder in folders:
        if rows := list(_rows(folder)):
            head = f"\n## {folder.relative_to(ROOT)}\n\n| module | content |\n| --- | --- |\n"
            parts.append(head + "\n".join(rows) + "\n")
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(document())
