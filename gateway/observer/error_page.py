"""The reason of a failure in the error page that the browser shows: Chromium knows only that a tunnel was refused, and
the page of the headless shell is empty.

The error page is no page of the server that failed: its origin is opaque, and no script of the web can reach it. What
is in the tab when the command arrives may be another page, though, so the script looks where it is, and does nothing
elsewhere. That is one task of the page, in which it can't navigate; and no page can have this address or change how
`location` reads. `Page.setDocumentContent` has no such guard: it would write into whatever document is there.
"""

from __future__ import annotations

import orjson

from gateway.core.failures import Failure

# Texts are set as such, never as HTML. The error page may still be loading.
_SCRIPT = """((lines, always) => {
    if (location.href !== 'chrome-error://chromewebdata/') return;
    const show = () => {
        if (!always && document.body.childElementCount) return;
        const body = document.createElement('body');
        body.style.cssText = 'font: 16px sans-serif; margin: 3em auto; max-width: 40em; padding: 0 1em';
        for (const [tag, text] of lines) {
            const element = document.createElement(tag);
            element.textContent = text;
            body.append(element);
        }
        document.body.replaceWith(body);
    };
    if (document.readyState === 'loading') addEventListener('DOMContentLoaded', show); else show();
})(%s, %s)"""


def script(failure: Failure) -> str:
    """JavaScript that shows the failure, if the page is an error page."""
    lines = [("h1", "This page can't be loaded"), ("p", failure.message)]
    if failure.proxy is not None:
        lines.append(("p", f"The runtime's proxy: {failure.proxy}"))
    lines.append(("p", f"{failure.class_}: {failure.cause}"))
    # What the browser noticed itself, it explains as well, but for the headless shell; and of certificates it asks.
    always = failure.cause.startswith("egress.")
    return _SCRIPT % (orjson.dumps(lines).decode(), orjson.dumps(always).decode())
