"""Findings of the checks of `gateway doctor`, and how they are shown."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

_MIB = 1024 * 1024
_GIB = 1024 * _MIB


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """Finding of one check in one sentence, and advice when that is not ok."""

    level: Level
    subject: str
    sentence: str
    advice: str = ""


def render(findings: list[Finding]) -> str:
    """One line a finding, what to do below it, and a line that sums up."""
    width = max(len(finding.subject) for finding in findings) if findings else 0
    lines = []
    for finding in findings:
        lines.append(f"{finding.level:<7}  {finding.subject:<{width}}  {finding.sentence}")
        if finding.advice:
            lines.append(f"{'':<7}  {'':<{width}}  -> {finding.advice}")
    failed = sum(finding.level == Level.FAILED for finding in findings)
    warned = sum(finding.level == Level.WARNING for finding in findings)
    warnings = "1 warning" if warned == 1 else f"{warned} warnings"
    lines.append(f"{failed} failed, {warnings}." if failed or warned else "All is well.")
    return "\n".join(lines)


def exit_code(findings: list[Finding]) -> int:
    return int(any(finding.level == Level.FAILED for finding in findings))


def readable_size(count: int) -> str:
    return f"{count / _GIB:.1f} GiB" if count >= _GIB else f"{count / _MIB:.0f} MiB"


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]
