"""Responses of the proxy itself, in place of a server's: what it refuses, and what failed."""

from __future__ import annotations

import html

from gateway.core.failures import ANSWER_HEADER
from gateway.egress.http_heads import REQUEST_END, RequestHead

_REASONS = {
    400: "Bad Request",
    403: "Forbidden",
    407: "Proxy Authentication Required",
    431: "Request Header Fields Too Large",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
_CLASSES = {
    "egress.name_not_found": "dns",
    "egress.unreachable": "connect",
    "egress.timeout": "timeout",
    "egress.bad_answer": "http",
}
_PAGE = "<!doctype html><title>{title}</title><h1>{title}</h1><p>{message}</p><p><code>{rule}</code></p>\n"


class Refused(Exception):
    """A response of the proxy itself: status, rule and message."""

    def __init__(
        self, status: int, rule: str, message: str, head: RequestHead | None = None, *, of_proxy: bool = False
    ) -> None:
        super().__init__(message)
        self.status = status
        self.rule = rule
        self.message = message
        # Whether the runtime's own proxy is the cause. Pages do not learn which one it is.
        self.of_proxy = of_proxy
        # Of the request that was refused, where it could be read.
        self.head = head

    @property
    def is_failure(self) -> bool:
        """Whether the request was allowed and failed, rather than refused."""
        return self.status in (502, 504)

    @property
    def failure_class(self) -> str:
        """One of core.failures.CLASSES."""
        if self.is_failure:
            return "proxy" if self.of_proxy else _CLASSES[self.rule]
        return "policy"

    def answer(self, *, with_page: bool) -> bytes:
        title = "No answer" if self.is_failure else "Refused by the gateway"
        page = _PAGE.format(title=title, message=html.escape(self.message), rule=html.escape(self.rule)).encode()
        lines = [
            f"HTTP/1.1 {self.status} {_REASONS[self.status]}",
            "Content-Type: text/html; charset=utf-8",
            f"Content-Length: {len(page)}",
            "Cache-Control: no-store",
            # By which an observer of the browser finds the reason (observer/pages.py).
            f"{ANSWER_HEADER}: {self.rule}",
            "Connection: close",
        ]
        return "\r\n".join(lines).encode() + REQUEST_END + (page if with_page else b"")
