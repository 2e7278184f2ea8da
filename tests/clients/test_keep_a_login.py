"""docs/clients.md, "Keep a login": the sample as it stands, on a site that needs a cookie and both kinds of storage."""

from __future__ import annotations

import http.server
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.gateway_process import ROOT, GatewayProcess, environment_with, temporary_data_dir

SAMPLE = re.compile(r"^## Keep a login\n.*?^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SITE = "https://app.example"
SCRIPT = """\
import os
import pathlib
import sys

from playwright.sync_api import sync_playwright

{sample}

with sync_playwright() as playwright:
    step, url = sys.argv[1:]
    browser = playwright.chromium.connect_over_cdp(url)
    if step == "first":
        sign_in(browser)
    else:
        page = signed_in(browser)
        page.wait_for_selector("#user")
        print(page.inner_text("#user"))
    browser.close()
"""
LOGIN = """<!doctype html><title>Sign in</title>
<form method="post"><input id="name" name="name"><input id="password" name="password" type="password">
<button id="sign-in">Sign in</button></form>
<script>
document.querySelector('form').addEventListener('submit', async (event) => {
  event.preventDefault();
  localStorage.setItem('theme', 'dark');
  const opening = indexedDB.open('app', 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore('users');
  opening.onsuccess = () => {
    const writing = opening.result.transaction('users', 'readwrite');
    writing.objectStore('users').put(document.querySelector('#name').value, 'name');
    writing.oncomplete = () => event.target.submit();
  };
});
</script>"""
HOME = """<!doctype html><title>Home</title><script>
const opening = indexedDB.open('app', 1);
opening.onupgradeneeded = () => opening.result.createObjectStore('users');
opening.onsuccess = () => {
  const reading = opening.result.transaction('users').objectStore('users').get('name');
  reading.onsuccess = () => {
    const text = `COOKIE, ${localStorage.getItem('theme')}, ${reading.result}`;
    document.body.innerHTML = `<p id="user">${text}</p>`;
  };
};
</script><body></body>"""


class Site(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        signed_in = "signed in" if "session=ada" in self.headers.get("Cookie", "") else "signed out"
        self._answer(200, LOGIN if self.path == "/login" else HOME.replace("COOKIE", signed_in))

    def do_POST(self) -> None:
        form = self.rfile.read(int(self.headers["Content-Length"])).decode()
        cookie = "session=ada; HttpOnly; SameSite=Lax; Path=/" if form == "name=ada&password=secret" else "session=none"
        self._answer(303, "", ("Location", "/"), ("Set-Cookie", cookie))

    def _answer(self, status: int, page: str, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (("Content-Type", "text/html"), ("Content-Length", str(len(page))), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(page.encode())

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def site() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.thorough
def test_a_login_is_kept_from_one_runtime_to_the_next(site: int, tmp_path: Path) -> None:
    (sample,) = SAMPLE.findall((ROOT / "docs" / "clients.md").read_text())
    script = tmp_path / "keep.py"
    script.write_text(SCRIPT.format(sample=sample.replace(SITE, f"http://127.0.0.1:{site}")))

    def step(name: str, lease: str) -> str:
        done = subprocess.run(
            [sys.executable, script, name, lease],
            cwd=tmp_path,
            env=environment_with({"APP_PASSWORD": "secret"}),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.strip()

    with (
        temporary_data_dir() as data_dir,
        GatewayProcess.start(data_dir, GATEWAY_EGRESS_ALLOW=f"127.0.0.1:{site}") as gateway,
        httpx.Client(base_url=gateway.base_url, headers=gateway.headers, timeout=60, trust_env=False) as api,
    ):
        space = _created(api.post("/v1/spaces", json={"name": "login"}))
        for name, shown in (("first", ""), ("next", "signed in, dark, ada")):
            runtimes = f"/v1/spaces/{space['id']}/runtimes"
            runtime = _created(api.post(runtimes, json={"type": "browser"}))
            lease = _created(api.post(f"{runtimes}/{runtime['id']}/connections", json={"protocol": "cdp"}))
            assert step(name, lease["endpoint"]["url"]) == shown
            _created(api.post(f"{runtimes}/{runtime['id']}/stop"))
    assert (tmp_path / "app.example.json").stat().st_mode & 0o777 == 0o600


def _created(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body
