"""The file of deploy/nginx, which leases pass through in tests/http/test_proxies.py as the documentation has it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support import missing
from tests.support.gateway_process import ROOT
from tests.support.nginx import in_the_documentation, make_certificate

FILE = ROOT / "deploy" / "nginx" / "browser-gateway.conf"


def test_the_file_is_what_the_documentation_explains_and_tests_run() -> None:
    comment, _, configuration = FILE.read_text().partition("\n")
    assert comment.startswith("# ")
    assert configuration == in_the_documentation()


def test_nginx_accepts_the_file_as_it_is(tmp_path: Path) -> None:
    nginx = missing.program("nginx", "nginx-light")
    make_certificate(tmp_path)
    for kind in ("crt", "key"):
        (tmp_path / f"tls.{kind}").rename(tmp_path / f"browsers.{kind}")
    included = FILE.read_text().replace("/etc/nginx/browsers.", f"{tmp_path}/browsers.")
    (tmp_path / "included.conf").write_text(included)
    around = f"pid {tmp_path}/pid; error_log stderr; events {{}} http {{ access_log off; include included.conf; }}"
    (tmp_path / "nginx.conf").write_text(around)
    done = subprocess.run(
        [nginx, "-t", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr
