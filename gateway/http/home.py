"""The page at `/`, for people who open the gateway's address in a web browser. Other clients get a 404 there."""

from __future__ import annotations

import base64
from hashlib import sha256

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Match, Route
from starlette.types import Scope

from gateway.core import extras

_STYLE = """
:root { color-scheme: light dark; --ground: #f4f5f7; --card: #fff; --line: #d9dde3; --text: #1c2430; --quiet: #556070;
  --accent: #2457d6; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #14171c; --card: #1d2128; --line: #323843; --text: #e8ebf0; --quiet: #a3adbb; --accent: #8fb0ff; }
}
body { margin: 0; min-height: 100vh; display: grid; place-items: center; background: var(--ground); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", Arial, sans-serif; }
main { box-sizing: border-box; width: min(100% - 32px, 620px); margin: 16px; padding: 28px 32px;
  background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
h1 { margin: 0 0 8px; font-size: 24px; line-height: 1.25; }
p { margin: 0 0 16px; }
ul { list-style: none; margin: 0 0 16px; padding: 0; border-top: 1px solid var(--line); }
li { padding: 10px 0; border-bottom: 1px solid var(--line); }
li span { display: block; color: var(--quiet); font-size: 14px; }
a { color: var(--accent); font-weight: 600; }
a:focus-visible { outline: 2px solid var(--accent); outline-offset: 3px; border-radius: 2px; }
.quiet { margin: 0; color: var(--quiet); font-size: 14px; }
"""

# Relative, so that they hold below a proxy's prefix too.
_DOCS = '<li><a href="docs">API reference</a><span>Every operation, to try out with a key</span></li>\n'

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Browser gateway</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>Browser gateway</h1>
<p>This server runs browsers for programs: they ask for one over an HTTP API, and drive it with Playwright, Puppeteer or
any other client of the DevTools protocol.</p>
<ul>
{docs}<li><a href="openapi.json">OpenAPI document</a><span>The same for programs</span></li>
<li><a href="healthz">Health</a><span>Whether the gateway's process answers</span></li>
<li><a href="readyz">Readiness</a><span>Whether it can take new work, and what is missing if not</span></li>
</ul>
<p class="quiet">The API needs a key, which the operator of this gateway gives out. To watch a browser, open the whole
link that you were sent.</p>
</main>
</body>
</html>
"""

# Everything but the page's own style stays as strict as in other answers.
_POLICY = (
    f"default-src 'none'; style-src 'sha256-{base64.b64encode(sha256(_STYLE.encode()).digest()).decode()}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class _PageRoute(Route):
    """Matches what web browsers send. All other requests get the answer of a path that does not exist."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return super().matches(scope) if _wants_page(scope) else (Match.NONE, {})


def _wants_page(scope: Scope) -> bool:
    """Only people's browsers name HTML; `*/*` is what API clients send."""
    return (
        scope["type"] == "http"
        and scope["method"] in ("GET", "HEAD")
        and any(name == b"accept" and b"text/html" in value.lower() for name, value in scope["headers"])
    )


def routes() -> list[Route]:
    filled = _PAGE.replace("{style}", _STYLE).replace("{docs}", _DOCS if extras.DOCS.installed else "")

    async def home(request: Request) -> Response:
        return HTMLResponse(filled, headers={"Content-Security-Policy": _POLICY, "Vary": "Accept"})

    return [_PageRoute("/", home)]
