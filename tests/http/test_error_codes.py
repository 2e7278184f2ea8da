"""Every stable code of an error is documented with its status: in the OpenAPI document, or on a page."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from gateway.core import errors
from gateway.core.errors import ConfigurationError, GatewayError
from gateway.http.error_codes import CODES, statuses, table

ROOT = Path(__file__).parent.parent.parent
CLASSES = {
    name: each
    for name, each in vars(errors).items()
    if isinstance(each, type) and issubclass(each, GatewayError) and each not in (GatewayError, ConfigurationError)
}
# Codes of sockets, and what is only recorded in the audit log.
PAGES = "".join((ROOT / "docs" / page).read_text() for page in ("close-codes.md", "operating.md"))
ELSEWHERE = set(re.findall(r"`([a-z_]+\.[a-z_]+)`", PAGES))


def raised() -> Iterator[tuple[str, int]]:
    """Code and status of each error that the source makes with a code that is spelled out, and of each class."""
    yield from ((each.default_code, each.status) for each in CLASSES.values())
    for path in (ROOT / "gateway").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                named = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                given = [*node.args[1:2], *(each.value for each in node.keywords if each.arg == "code")]
                for code in given:
                    if named in CLASSES and isinstance(code, ast.Constant) and isinstance(code.value, str):
                        yield code.value, CLASSES[named].status


def test_every_code_is_documented_with_its_status() -> None:
    found = set(raised())
    assert len(found) > 60
    known = {(code, status) for code, several in statuses().items() for status in several}
    missing = sorted((code, status) for code, status in found - known if code not in ELSEWHERE)
    assert missing == [], "add them to gateway/http/error_codes.py"


def test_every_code_of_the_table_exists() -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "gateway").rglob("*.py") if path.stem != "error_codes")
    # Made of the noun that is not there, or has no room.
    made = {
        code
        for code in statuses()
        if code.endswith((".not_found", ".storage_full", ".max_profiles", ".profiles_full", ".max_extensions"))
    }
    assert [code for code in statuses() if f'"{code}"' not in source and code not in made] == []
    assert all(f"`{code}`" in table() for codes in CODES.values() for code in codes)
