"""A real nginx in front of a gateway, with the configuration of docs/proxies.md."""

from __future__ import annotations

import datetime
import ipaddress
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support import missing
from tests.support.gateway_process import ROOT
from tests.support.waiting import wait_until

_START_SECONDS = 10.0
_STOP_SECONDS = 10.0

# One process, which keeps all it writes in its own directory.
_AROUND = """\
daemon off;
master_process off;
pid nginx.pid;
error_log error.log info;
events {{}}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
{servers}
}}
"""


def free_port() -> int:
    """A port that nothing listens on, for servers whose port must be configured."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def in_the_documentation() -> str:
    """The configuration of docs/proxies.md."""
    block: str
    (block,) = re.findall(r"```nginx\n(.*?)```", (ROOT / "docs" / "proxies.md").read_text(), re.DOTALL)
    return block


def documented(port: int, gateway_port: int, *, tls: bool, prefix: str, read_seconds: int | None = None) -> str:
    """The configuration of the docs, with these ports, with or without TLS, under `prefix` ("/" or "/name/")."""
    block = in_the_documentation()
    changes = {
        r"server 127\.0\.0\.1:8787;": f"server 127.0.0.1:{gateway_port};",
        r"listen 443 ssl;": f"listen 127.0.0.1:{port}{' ssl' if tls else ''};",
        r"ssl_certificate +\S+;": "ssl_certificate tls.crt;" if tls else "",
        r"ssl_certificate_key +\S+;": "ssl_certificate_key tls.key;" if tls else "",
        r"location /browsers/ ": f"location {prefix} ",
    }
    if read_seconds is not None:
        changes[r"proxy_read_timeout \w+;"] = f"proxy_read_timeout {read_seconds}s;"
    for pattern, replacement in changes.items():
        block, found = re.subn(pattern, replacement, block)
        assert found == 1, f"{pattern} is {found} times in docs/proxies.md"
    return block


@contextmanager
def nginx(directory: Path, servers: str, port: int) -> Iterator[None]:
    """Listening between `with` and its end."""
    binary = missing.program("nginx", "nginx-light")
    make_certificate(directory)
    configuration = directory / "nginx.conf"
    configuration.write_text(_AROUND.format(servers=servers))
    log = directory / "output"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [binary, "-p", str(directory), "-c", str(configuration)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        wait_until(
            lambda: process.poll() is not None or _listens(port), f"nginx listens: {log.read_text()}", _START_SECONDS
        )
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_STOP_SECONDS)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def make_certificate(directory: Path) -> None:
    """`tls.crt` and `tls.key`: self-signed, for the loopback address."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests of the gateway")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName("localhost"), x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))]
            ),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    (directory / "tls.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / "tls.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
