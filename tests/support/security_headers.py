"""The security headers that every answer must have."""

from __future__ import annotations

from collections.abc import Mapping


def missing(headers: Mapping[str, str]) -> list[str]:
    """What is wrong with the security headers of an answer."""
    wrong = []
    if headers.get("x-content-type-options") != "nosniff":
        wrong.append("nosniff")
    policy = headers.get("content-security-policy", "")
    if "frame-ancestors" not in policy or "default-src 'none'" not in policy:
        wrong.append(f"policy {policy!r}")
    if headers.get("referrer-policy") != "no-referrer":
        wrong.append("referrer")
    if headers.get("cross-origin-opener-policy") != "same-origin":
        wrong.append("opener")
    if headers.get("cross-origin-resource-policy") not in ("same-origin", "cross-origin"):
        wrong.append("resource")
    if not {"no-store", "no-cache", "private"} & set(headers.get("cache-control", "").split(", ")):
        wrong.append("cache")
    lines = [name.lower() for name, _ in headers.items()]
    wrong += [f"{name} twice" for name in set(lines) if lines.count(name) > 1 and name.startswith(("x-con", "cont"))]
    return wrong
