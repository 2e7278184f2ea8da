"""`gateway agent`: see launchers/remote/agent.py. It reads no option of the gateway, and imports nothing of it."""

from __future__ import annotations

import argparse
import os
import ssl
import sys
from pathlib import Path

from gateway.launchers.remote import agent, proofs
from gateway.launchers.remote.proofs import Verifier

_VERIFIER = "GATEWAY_AGENT_VERIFIER"


def main(arguments: list[str]) -> int:
    given = _parser().parse_args(arguments)
    if given.make_verifier is not None:
        return _make_verifier(given)
    text = os.environ.pop(_VERIFIER, None)
    if given.verifier_file is not None:
        text = given.verifier_file.read_text()
    if text is None:
        return _wrong(f"it needs a verifier: {_VERIFIER} or --verifier-file")
    if given.directory is None or given.browser is None:
        return _wrong("it needs --directory and --browser")
    if (given.browser_uid is None) == (os.geteuid() == 0):
        return _wrong("it needs --browser-uid if it is root, and can't have it otherwise")
    try:
        verifier = Verifier.parse(text)
    except ValueError as error:
        return _wrong(f"the verifier can't be used: {error}")
    tls = None
    if given.tls_certificate is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.minimum_version = ssl.TLSVersion.TLSv1_3
        tls.load_cert_chain(given.tls_certificate, given.tls_key)
    elif not given.trusted_network:
        return _wrong(
            "it needs --tls-certificate and --tls-key, or --trusted-network on a network without other parties"
        )
    return agent.run(
        agent.Options(
            verifier,
            given.host,
            given.port,
            given.directory,
            given.browser,
            given.browser_uid,
            given.adoption_seconds,
            given.silence_seconds,
            given.forbidden,
            tls,
        )
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gateway agent", description="Runs one browser for gateways that connect to it."
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8790, help="the port to listen on (default: %(default)s)")
    parser.add_argument("--directory", type=Path, help="an empty directory for the browser's files")
    parser.add_argument("--browser", type=Path, help="the path of the headless shell or of Chromium")
    parser.add_argument("--browser-uid", type=_uid, help="as root: the user of the browser, which is not the agent's")
    parser.add_argument("--verifier-file", type=Path, help=f"a file with the agent's verifier; or {_VERIFIER}")
    parser.add_argument(
        "--adoption-seconds",
        type=_seconds,
        default=60.0,
        help="how long the browser lives without a gateway (%(default)s)",
    )
    parser.add_argument(
        "--silence-seconds",
        type=_seconds,
        default=15.0,
        help="after how long without a word a gateway is gone (%(default)s)",
    )
    parser.add_argument(
        "--forbidden", type=_address, metavar="HOST:PORT", help="begin to listen once this can't be reached"
    )
    parser.add_argument(
        "--tls-certificate", type=Path, help="a certificate, in PEM, that the gateways' authority has signed"
    )
    parser.add_argument("--tls-key", type=Path, help="its key, in PEM")
    parser.add_argument(
        "--trusted-network",
        action="store_true",
        help="without TLS: on a network where no other party reads or changes what is sent",
    )
    parser.add_argument(
        "--make-verifier", metavar="NAME", help="print the verifier of an agent, by the gateways' key, and end"
    )
    parser.add_argument("--key-file", type=Path, help="for --make-verifier: the gateways' key, 32 bytes or more")
    return parser


def _make_verifier(given: argparse.Namespace) -> int:
    if given.key_file is None:
        return _wrong("--make-verifier needs --key-file")
    key = given.key_file.read_bytes().strip()
    if len(key) < proofs.MIN_KEY_BYTES:
        return _wrong(f"the gateways' key has {len(key)} bytes; {proofs.MIN_KEY_BYTES} are the least")
    if ":" in given.make_verifier or not given.make_verifier:
        return _wrong("the name of an agent has one character at least, and no colon")
    print(proofs.verifier(key, given.make_verifier).text)
    return 0


def _wrong(text: str) -> int:
    print(f"gateway agent: {text}", file=sys.stderr)
    return 2


def _uid(text: str) -> int:
    if not 0 < int(text) < 2**31:
        raise ValueError
    return int(text)


def _seconds(text: str) -> float:
    if not 0 < float(text) <= 86400:
        raise ValueError
    return float(text)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)
