"""What contains a browser's extensions: managed policies of Chromium, in a view of /etc of the browser's own.

An extension may open addresses that no page may, and changes settings that flags of the command line only suggest. A
managed policy closes both, for the extension and for a client that attaches to it. Chromium reads policies from a fixed
place below /etc. So a browser with extensions is started in a mount namespace, where a directory of the gateway lies
over /etc; nothing of the machine's own is changed, and other browsers do not see it.

No policy holds for WebRTC in an extension's own pages: Chromium exempts its processes from every rule of routing. So a
browser with extensions needs a network of its own (networks.py), out of which no datagram leads.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from gateway.launchers.local import command_line

# Where Chromium, Google Chrome and Chrome for Testing (Playwright's download) look, below /etc. Of several files the
# last one counts, so an operator's own policies hold as well, but open nothing again.
PLACES = ("chromium/policies", "opt/chrome/policies", "opt/chrome_for_testing/policies")
_FILE = "managed/zz-gateway.json"
_MODE = 0o755

# Permissions by which an extension would leave its browser, or get around the lease's policy; a browser loads no
# extension that asks for one of them.
UNCONTAINED = (
    "debugger",
    "nativeMessaging",
    "proxy",
    "system.cpu",
    "system.memory",
    "system.storage",
)

# Pages of the browser's own and files, also within `view-source:`; the store, whose pages may install extensions.
_CLOSED = (
    "file:*",
    "chrome:*",
    "chrome-untrusted:*",
    "chrome-search:*",
    "devtools:*",
    "chromewebstore.google.com",
    "chrome.google.com/webstore",
)
_STORE = "update_url:https://clients2.google.com/service/update2/crx"

# By their paths, since the launch script has no PATH.
_UNSHARE, _MOUNT, _SH = (
    shutil.which(name, path="/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin") or name
    for name in ("unshare", "mount", "sh")
)
_PROBE_SECONDS = 10.0
# Relative to the home directory, where the launch script is: a mount option can't contain every path.
MOUNT_ETC = f"{_MOUNT} -t overlay -o ro,nosuid,nodev,lowerdir=../etc:/etc none /etc"
ADVICE = (
    "Start the gateway as root with the capabilities CAP_SYS_ADMIN and CAP_NET_ADMIN, and leave "
    "GATEWAY_BROWSER_NETWORK at `auto`; it needs the programs unshare and mount (util-linux) and the kernel's overlay "
    "file system."
)


def policies() -> dict[str, Any]:
    """Chromium's managed policies for a browser with extensions, by name."""
    return {
        "URLBlocklist": list(_CLOSED),
        "URLAllowlist": [],
        "ExtensionSettings": {
            "*": {"installation_mode": "allowed", "blocked_permissions": list(UNCONTAINED)},
            _STORE: {"installation_mode": "blocked"},
        },
        "BlockExternalExtensions": True,
        "NativeMessagingBlocklist": ["*"],
        # What extensions could change and the command line only suggests (chrome.privacy, chrome.proxy).
        "WebRtcIPHandling": command_line.WEBRTC_HANDLING,
        "ProxySettings": {
            "ProxyMode": "fixed_servers",
            "ProxyServer": command_line.PROXY_HOST,
            "ProxyBypassList": command_line.PROXY_BYPASS,
        },
        "QuicAllowed": False,
        "DnsOverHttpsMode": "off",
    }


def write(directory: Path) -> None:
    """Write the policies below the new directory `etc` of a runtime's directory. Raises OSError."""
    text = json.dumps(policies())
    for place in PLACES:
        path = directory / "etc" / place / _FILE
        for parent in reversed(path.relative_to(directory).parents[:-1]):
            made = directory / parent
            made.mkdir(exist_ok=True)
            # Whatever the umask of the gateway is, the browser's user reads them.
            made.chmod(_MODE)
        path.write_text(text)
        path.chmod(0o644)


def contained(command: str) -> str:
    """The command of a browser (of the shell), run by root where the directory `../etc` lies over /etc."""
    mounted = shlex.quote(f'{MOUNT_ETC} && exec "$@"')
    return f"{_UNSHARE} --mount --propagation private -- {_SH} -c {mounted} sh {command}"


def why_none(no_networks: str | None, scratch: Path) -> str | None:
    """Why extensions can't be contained on this machine, in words that follow a colon; None where they can.

    `no_networks` is why runtimes have no networks of their own, as networks.why_none says it; `scratch` is a directory
    that may be written to. Blocks for a moment. Raises OSError.
    """
    if no_networks is not None:
        return f"runtimes have no network of their own ({no_networks}), so an extension could send datagrams anywhere"
    with tempfile.TemporaryDirectory(dir=scratch) as made:
        directory = Path(made)
        write(directory)
        (directory / "home").mkdir()
        read = shlex.join(["test", "-r", f"/etc/{PLACES[0]}/{_FILE}"])
        command = contained(f"{_SH} -c {shlex.quote(read)}")
        try:
            done = subprocess.run(
                [_SH, "-c", command],
                cwd=directory / "home",
                env={},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_PROBE_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"the mount namespace of a browser can't be made ({type(error).__name__})"
    if done.returncode == 0:
        return None
    printed = " ".join(done.stderr.split()) or f"status {done.returncode}"
    return f"the mount namespace of a browser can't be made ({printed[:200]})"
