"""Kinds of artifacts in queries."""

from __future__ import annotations

from typing import Annotated

from gateway.http.models import Checked, Text
from gateway.http.queries import REPEATABLE


def _kinds(text: str) -> str:
    if not all(0 < len(kind) <= 100 for kind in text.split(",")):
        raise ValueError("must be one kind, or several split by commas, such as download,recording")
    return text


Kinds = Annotated[Text, Checked(_kinds, pattern=r"^[^,\x00]{1,100}(,[^,\x00]{1,100})*$"), REPEATABLE]
