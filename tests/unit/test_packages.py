"""What development needs is installed by uv as pip would, and by pip where uv can't."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from gateway.agents import uv
from tools import packages

ROOT = Path(__file__).parent.parent.parent
PINS = """\
# By `make lock`.
other==1.0 \\
    --hash=sha256:aa
uv==0.13.9 \\
    --hash=sha256:bb \\
    --hash=sha256:cc
    # via browser-gateway
"""
# Python of an environment: it notes what it is asked for, and its pip installs uv where it can.
PYTHON = """\
#!/bin/sh
case "$*" in
*" config list") echo "global.index-url='https://mirror.example/simple'"; exit ;;
*" --require-hashes "*) cp "${{0%python}}program" "${{0%python}}uv" ;;
esac
echo "pip $*" >>"{asked}"
"""
UV = """\
#!/bin/sh
echo "uv of $UV_DEFAULT_INDEX: $*" >>"{asked}"
exit {status}
"""


def _environment(tmp_path: Path, status: int) -> Path:
    """An environment whose uv exits with `status`."""
    for name, text in {"python": PYTHON, "program": UV}.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.format(asked=tmp_path / "asked", status=status))
        path.chmod(0o755)
    (tmp_path / "pins.txt").write_text(PINS)
    return tmp_path / "bin" / "python"


def _asked(tmp_path: Path) -> list[str]:
    """With the names of temporary files left out."""
    return re.sub(r"\S*/(?=uv\.txt|pins\.txt|python)", "", (tmp_path / "asked").read_text()).splitlines()


OF_UV = "pip -m pip install --no-deps -q --require-hashes --requirement uv.txt"
BY_UV = (
    "uv of https://mirror.example/simple: pip install --quiet --no-config --python python"
    " --no-deps --require-hashes --compile-bytecode --requirement pins.txt"
)
BY_PIP = "pip -m pip install --no-deps --progress-bar=off --requirement pins.txt"


def test_uv_installs_from_the_index_of_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(_environment(tmp_path, status=0)))
    assert packages.main([str(tmp_path / "pins.txt")]) == 0
    assert _asked(tmp_path) == [OF_UV, BY_UV]


def test_pip_installs_where_uv_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", str(_environment(tmp_path, status=2)))
    assert packages.main([str(tmp_path / "pins.txt")]) == 0
    assert _asked(tmp_path) == [OF_UV, BY_UV, BY_PIP]
    assert "uv could not install them, so pip does" in capfd.readouterr().out


def test_pip_installs_where_it_finds_no_uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = _environment(tmp_path, status=0)
    python.write_text(f'#!/bin/sh\necho "pip $*" >>"{tmp_path / "asked"}"\ncase "$*" in *uv.txt) exit 1 ;; esac\n')
    monkeypatch.setattr(sys, "executable", str(python))
    assert packages.main([str(tmp_path / "pins.txt")]) == 0
    assert _asked(tmp_path) == [OF_UV, BY_PIP]


def test_only_the_lines_of_a_package_are_its_pin() -> None:
    assert packages.pinned("uv", PINS) == "uv==0.13.9 \\\n    --hash=sha256:bb \\\n    --hash=sha256:cc"
    assert packages.pinned("v", PINS) == ""
    assert packages.pinned("uv", (ROOT / "requirements-dev.txt").read_text()).startswith("uv==")


def test_uv_is_told_what_pip_is(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    settings = f"""\
:env:.cert='/certificates.pem'
:env:.index-url='https://of-variable.example/simple'
download.index-url='https://of-another-command.example/simple'
global.extra-index-url='file://{tmp_path}/wheels\\nfile://{tmp_path}/gone https://extra.example/simple'
global.find-links='{tmp_path}/gone {tmp_path}/wheels\\nhttps://links.example'
global.index-url='https://of-file.example/simple'
global.progress-bar='off'
global.timeout='180'
install.proxy='http://proxy.example:3128'
install.timeout='90'
"""
    assert uv.variables(settings) == {
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_DEFAULT_INDEX": "https://of-variable.example/simple",
        "UV_INDEX": f"file://{tmp_path}/wheels https://extra.example/simple",
        "UV_FIND_LINKS": f"{tmp_path}/wheels,https://links.example",
        "UV_HTTP_TIMEOUT": "90",
        "SSL_CERT_FILE": "/certificates.pem",
        "HTTP_PROXY": "http://proxy.example:3128",
        "HTTPS_PROXY": "http://proxy.example:3128",
    }


def test_without_settings_uv_chooses_of_all_indexes_as_pip_does() -> None:
    assert uv.variables("global.extra-index-url='file:///there/is/none'\n") == {
        "UV_INDEX_STRATEGY": "unsafe-best-match"
    }
