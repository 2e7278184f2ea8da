"""`gateway doctor`: what it says of a machine that is well, and of each thing that is not."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import doctor
from gateway.cli.doctor import Finding, Level, checks, database, fonts, languages, machine, recordings, storage
from gateway.core.errors import ConfigurationError
from gateway.crypto.keyring import create_key_file
from gateway.launchers.local import browsers, control_groups, extension_policy, limits, networks
from gateway.launchers.local.browsers import Binary
from gateway.settings import Settings
from gateway.store.embedded import EmbeddedPostgres
from tests.support import missing
from tests.support.fake_browsers import make_fake, with_fakes
from tests.support.gateway_process import ROOT, START_SECONDS, environment_with


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A short path: full Chromium has a socket below it."""
    with tempfile.TemporaryDirectory(prefix="d-") as name:
        yield Path(name) / "var"


@pytest.fixture(scope="module")
def database_url() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="d-") as name:
        Path(name).chmod(0o711)
        database = EmbeddedPostgres(Path(name) / "var", Settings().uid_base)
        yield database.start()
        database.stop()


def findings_of(subject: str, data_dir: Path, embedded: bool = True, **options: Any) -> list[Finding]:
    """The findings of one subject."""
    given = Settings(**{"data_dir": data_dir, "port": 0, **options})
    return [finding for finding in doctor.run(given, embedded) if finding.subject == subject]


@pytest.fixture
def without_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the check that starts browsers, for tests of the others."""
    monkeypatch.setattr(checks, "browser", lambda settings: iter(()))


def test_a_healthy_machine_has_no_failures(data_dir: Path) -> None:
    findings = doctor.run(Settings(data_dir=data_dir, port=0), embedded=True)
    text = doctor.render(findings)
    assert doctor.exit_code(findings) == 0, text
    subjects = (
        "browser",
        "sandbox",
        "fonts",
        "languages",
        "database",
        "master keys",
        "port",
        "data directory",
        "open files",
        "processes",
    )
    assert set(subjects) <= {finding.subject for finding in findings}
    found = browsers.find(None)
    assert found is not None
    assert f"{found.default}, used by default, starts in" in text.replace("The headless", "the headless")
    assert "with its sandbox on" in text
    assert not data_dir.exists()


def test_each_finding_that_is_not_ok_says_what_to_do() -> None:
    findings = [
        Finding(Level.OK, "port", "It is free."),
        Finding(Level.WARNING, "open files", "The limit is low.", "Raise it."),
        Finding(Level.FAILED, "database", "It is gone.", "Bring it back."),
    ]
    assert doctor.render(findings).splitlines() == [
        "ok       port        It is free.",
        "warning  open files  The limit is low.",
        "                     -> Raise it.",
        "failed   database    It is gone.",
        "                     -> Bring it back.",
        "1 failed, 1 warning.",
    ]
    assert doctor.exit_code(findings) == 1
    assert doctor.exit_code(findings[:2]) == 0
    assert doctor.render(findings[:1]).splitlines()[-1] == "All is well."


def test_a_check_that_breaks_is_a_finding_and_the_others_go_on(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(settings: Settings) -> Iterator[Finding]:
        raise RuntimeError("postgresql://u:secret@h/d")

    monkeypatch.setattr(checks, "browser", broken)
    findings = doctor.run(Settings(data_dir=data_dir, port=0), embedded=True)
    assert findings[0].level == Level.FAILED
    assert findings[0].sentence == "The check itself broke (RuntimeError)."
    assert {"database", "port"} <= {finding.subject for finding in findings}


# Browser and sandbox


def test_a_wrong_choice_of_a_browser_fails(data_dir: Path) -> None:
    (finding,) = findings_of("browser", data_dir, chromium=Path("/nonexistent/chromium"))
    assert finding.level == Level.FAILED
    assert finding.sentence.startswith("GATEWAY_CHROMIUM=/nonexistent/chromium can't be used: there is no such file.")


def test_no_browser_at_all_fails_with_how_to_get_one(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browsers, "SYSTEM_BINARIES", ())
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(data_dir))
    (finding,) = findings_of("browser", data_dir)
    assert finding.level == Level.FAILED
    assert "python -m gateway.launchers.local.browsers" in finding.advice


@pytest.fixture
def place(data_dir: Path) -> Path:
    data_dir.parent.chmod(0o755)
    return data_dir.parent


@with_fakes
def test_a_browser_that_does_not_start_fails_with_its_last_output(data_dir: Path, place: Path) -> None:
    fake = make_fake(place / "chromium", last_words="lost my profile", status=7)
    findings = doctor.run(Settings(data_dir=data_dir, port=0, chromium=fake), embedded=True)
    browser, sandbox = findings[:2]
    assert browser.level == Level.FAILED
    assert "does not start. The browser ended while it was starting, with status 7." in browser.sentence
    assert "lost my profile" in browser.sentence
    assert sandbox == Finding(Level.WARNING, "sandbox", "Unknown, because the browser does not start.")


@with_fakes
def test_a_refused_sandbox_is_distinguished_from_the_browser(data_dir: Path, place: Path) -> None:
    fake = make_fake(place / "chromium", last_words="No usable sandbox! If this is a Debian system", status=1)
    (finding,) = findings_of("sandbox", data_dir, chromium=fake)
    assert finding.level == Level.FAILED
    assert finding.sentence == "The kernel refused Chromium's sandbox."
    assert "user.max_user_namespaces" in finding.advice


def test_root_with_no_other_user_ids_can_start_no_browser(data_dir: Path) -> None:
    missing.program("unshare", "util-linux")
    command = ["unshare", "--user", "--map-root-user", sys.executable, "-m", "gateway", "doctor", "--port", "0"]
    done = subprocess.run(
        [*command, "--data-dir", str(data_dir)], capture_output=True, text=True, check=False, env=os.environ.copy()
    )
    assert done.returncode == 1, done.stderr
    assert "failed   sandbox" in done.stdout
    assert f"Root can't start browsers as user {Settings().uid_base + Settings().uid_count - 1}" in done.stdout


def test_browsers_without_sandbox_are_a_warning(data_dir: Path) -> None:
    (finding,) = findings_of("sandbox", data_dir, unsafe_no_sandbox=True)
    assert finding.level == Level.WARNING
    assert "GATEWAY_UNSAFE_NO_SANDBOX" in finding.sentence


def test_scripts_without_a_font_are_a_warning_that_names_packages() -> None:
    (found,) = fonts.fonts(["Thai", "Emoji", "Tamil"])
    assert (found.level, found.subject) == (Level.WARNING, "fonts")
    assert found.sentence.endswith(": Thai, Tamil, Emoji.")
    assert "apt-get install fonts-noto-core fonts-noto-color-emoji`" in found.advice
    (found,) = fonts.fonts([])
    assert found.level is Level.OK


@pytest.mark.parametrize(
    ("dom", "missing"),
    [('<html data-boxes="Thai,Emoji">', ["Thai", "Emoji"]), ('<html data-boxes="">', []), ("<html></html>", None)],
)
def test_what_a_browser_drew_is_read_from_its_page(dom: str, missing: list[str] | None) -> None:
    assert fonts.missing(dom) == missing


def test_a_browser_without_fonts_draws_boxes_only(tmp_path: Path) -> None:
    found = browsers.find(None)
    assert found is not None
    nothing = tmp_path / "fonts.conf"
    nothing.write_text('<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig></fontconfig>')

    def boxes(**environment: str) -> list[str]:
        done = subprocess.run(
            [
                found.default.path,
                "--headless",
                "--no-sandbox",
                f"--user-data-dir={tmp_path}/profile",
                "--dump-dom",
                fonts.PAGE,
            ],
            env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        drawn = fonts.missing(done.stdout)
        assert drawn is not None
        return drawn

    assert len(boxes(FONTCONFIG_FILE=str(nothing))) == len(fonts.SCRIPTS)
    # Any machine with a font for a browser's text has Hebrew or Arabic: DejaVu, Liberation and Noto do.
    assert {"Arabic", "Hebrew"} - set(boxes())


def test_browsers_without_language_files_are_a_warning(tmp_path: Path) -> None:
    def finding(*names: str) -> Finding:
        directory = tmp_path / "-".join(names)
        (directory / "locales").mkdir(parents=True)
        for name in names:
            (directory / "locales" / f"{name}.pak").touch()
        (found,) = languages.languages([Binary("chromium", directory / "chromium", "156.0.0.0", "of a test")])
        return found

    assert finding("en-US", "de").level is Level.OK
    without = finding("en-US")
    assert (without.level, "chromium-l10n" in without.advice) == (Level.WARNING, True)


def test_nothing_is_left_of_the_browsers_that_were_started(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temp_dir = data_dir.parent / "tmp"
    temp_dir.mkdir()
    for directory in (data_dir.parent, temp_dir):
        directory.chmod(0o755)
    monkeypatch.setattr(tempfile, "tempdir", str(temp_dir))
    findings = findings_of("browser", data_dir)
    assert {finding.level for finding in findings} == {Level.OK}
    assert list(temp_dir.iterdir()) == []


# Database


@pytest.mark.usefixtures("without_browser")
def test_a_database_that_answers_is_ok_and_its_missing_tables_are_a_warning(data_dir: Path, database_url: str) -> None:
    answers, tables = findings_of("database", data_dir, database_url=database_url)
    assert answers.level == Level.OK
    assert "answers, PostgreSQL 18." in answers.sentence
    assert tables.level == Level.WARNING
    assert "run `gateway migrate`" in tables.sentence
    assert tables.advice.startswith("Run `gateway migrate`")


@pytest.mark.usefixtures("without_browser")
@pytest.mark.parametrize(
    "url",
    [
        "postgresql://app:s3cr%40t-w0rd@127.0.0.1:9/gateway",
        "postgresql://app:s3cr@t-w0rd@127.0.0.1:9/gateway",
        "postgresql://app:s3cr/cr#et?w0rd@127.0.0.1:9/gateway",
        "postgresql://app@127.0.0.1:9/gateway?password=s3cr-w0rd",
        "postgresql://app:s3cr-w0rd@127.0.0.1:port/gateway",
        "postgresql://app:s3cr-w0rd@[::1/gateway",
    ],
)
def test_a_database_that_does_not_answer_fails_without_showing_its_password(data_dir: Path, url: str) -> None:
    (finding,) = findings_of("database", data_dir, database_url=url)
    assert finding.level == Level.FAILED
    assert "can't be used" in finding.sentence
    assert "app" in finding.sentence
    assert "s3cr" not in doctor.render([finding])
    assert "w0rd" not in doctor.render([finding])


@pytest.mark.usefixtures("without_browser")
def test_clocks_that_differ_are_a_warning(data_dir: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 90)
    _, clocks, _ = findings_of("database", data_dir, database_url=database_url)
    assert clocks.level == Level.WARNING
    assert re.fullmatch(r"The database's clock is (89\.\d|90\.0) s ahead of this machine's\.", clocks.sentence)
    assert "NTP" in clocks.advice


@pytest.mark.usefixtures("without_browser")
def test_a_wrong_database_name_is_reported(data_dir: Path, database_url: str) -> None:
    (finding,) = findings_of("database", data_dir, database_url=database_url.replace("/gateway?", "/elsewhere?"))
    assert finding.level == Level.FAILED
    assert 'database "elsewhere" does not exist' in finding.sentence


@pytest.mark.usefixtures("without_browser")
def test_serving_needs_a_database_and_a_key(data_dir: Path) -> None:
    (database,) = findings_of("database", data_dir, embedded=False)
    (keys,) = findings_of("master keys", data_dir, embedded=False)
    assert (database.level, keys.level) == (Level.FAILED, Level.FAILED)
    assert "GATEWAY_DATABASE_URL" in database.sentence
    assert "GATEWAY_MASTER_KEYS" in keys.advice


@pytest.mark.usefixtures("without_browser")
def test_data_of_another_postgresql_fails(data_dir: Path) -> None:
    assert [finding.level for finding in findings_of("database", data_dir)] == [Level.OK]
    (data_dir / "postgres").mkdir(parents=True)
    (data_dir / "postgres" / "PG_VERSION").write_text("13\n")
    (finding,) = findings_of("database", data_dir)
    assert finding.level == Level.FAILED
    assert "was made by PostgreSQL 13" in finding.sentence


@pytest.mark.usefixtures("without_browser")
def test_a_user_without_a_name_can_not_make_a_database(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "has_a_name", lambda uid: False)
    (finding,) = findings_of("database", data_dir)
    assert finding.level == Level.FAILED
    assert f"User {os.geteuid()} has no entry in /etc/passwd" in finding.sentence


# Keys


@pytest.mark.usefixtures("without_browser")
def test_keys_are_named_and_never_shown(data_dir: Path) -> None:
    data_dir.mkdir()
    file = data_dir / "master-keys"
    create_key_file(file)
    (finding,) = findings_of("master keys", data_dir)
    assert finding == Finding(Level.OK, "master keys", f"{file} has 'main' to write.")
    key = file.read_text().partition(":")[2].strip()
    both = f"new:{key},main:{key}"
    (finding,) = findings_of("master keys", data_dir, master_keys=both)
    assert finding.sentence == "GATEWAY_MASTER_KEYS has 'new' to write and 'main' to read."
    (finding,) = findings_of("master keys", data_dir, master_keys=f"main:{key[:-8]}")
    assert finding.level == Level.FAILED
    assert key[:16] not in doctor.render([finding])


@pytest.mark.usefixtures("without_browser")
def test_a_key_file_that_others_may_read_is_a_warning(data_dir: Path) -> None:
    data_dir.mkdir()
    file = data_dir / "keys"
    create_key_file(file)
    file.chmod(0o644)
    fine, open_to_all = findings_of("master keys", data_dir, embedded=False, master_keys_file=file)
    assert fine.level == Level.OK
    assert open_to_all.level == Level.WARNING
    assert open_to_all.advice == f"Run `chmod 600 {file}`."


@pytest.mark.usefixtures("without_browser")
def test_a_missing_key_file_fails_and_a_first_start_does_not(data_dir: Path) -> None:
    (missing,) = findings_of("master keys", data_dir, master_keys_file=data_dir / "none")
    assert missing.level == Level.FAILED
    (first,) = findings_of("master keys", data_dir)
    assert first.level == Level.OK
    assert "The first start makes one" in first.sentence


# The machine


@pytest.mark.usefixtures("without_browser")
def test_a_taken_port_is_reported_with_its_owner(data_dir: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (finding,) = findings_of("port", data_dir, port=port)
    assert finding.level == Level.FAILED
    assert f"127.0.0.1:{port} is taken by process {os.getpid()} (" in finding.sentence
    (finding,) = findings_of("port", data_dir, port=port)
    assert finding == Finding(Level.OK, "port", f"127.0.0.1:{port} is free.")


def test_a_taken_address_of_metrics_is_reported_with_its_option() -> None:
    def findings(place: str | None, *, embedded: bool = True) -> list[Finding]:
        return list(machine.metrics(Settings(metrics=place), embedded))

    assert findings(None) == findings("api", embedded=False) == findings("off", embedded=False) == []
    assert [finding.level for finding in findings("127.0.0.1:0")] == [Level.OK]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        (finding,) = findings(place)
    assert finding.level == Level.FAILED
    assert place in finding.sentence
    assert "Set GATEWAY_METRICS to a free port." in finding.advice


def test_the_default_address_of_metrics_at_the_port_of_the_api_fails(data_dir: Path, without_browser: None) -> None:
    (finding,) = findings_of("metrics", data_dir, embedded=False, port=9464)
    assert finding.level == Level.FAILED
    assert finding.sentence.startswith(
        "GATEWAY_METRICS (by default 127.0.0.1:9464): has port 9464, which is that of GATEWAY_PORT;"
    )


@pytest.mark.usefixtures("without_browser")
@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "no such host", "a" * 64])
@pytest.mark.parametrize("port", [0, 8787])
def test_an_address_of_another_machine_fails(data_dir: Path, host: str, port: int) -> None:
    (finding,) = findings_of("port", data_dir, host=host, port=port)
    assert finding.level == Level.FAILED
    assert host in finding.sentence
    assert "GATEWAY_HOST" in finding.advice
    assert "GATEWAY_PORT" not in finding.advice


@pytest.mark.usefixtures("without_browser")
def test_a_data_directory_that_can_not_be_made_fails(data_dir: Path) -> None:
    (finding,) = findings_of("data directory", Path("/proc/gateway"))
    assert finding.level == Level.FAILED
    assert "can't be written to" in finding.sentence
    data_dir.write_text("")
    (finding,) = findings_of("data directory", data_dir)
    assert finding.level == Level.FAILED
    assert "is not a directory" in finding.sentence


@pytest.mark.usefixtures("without_browser")
def test_limits_are_held_against_the_number_of_runtimes(data_dir: Path) -> None:
    (few,) = findings_of("open files", data_dir, max_runtimes=1)
    (many,) = findings_of("open files", data_dir, max_runtimes=10_000)
    assert few.level == Level.OK
    assert many.level == Level.WARNING
    assert "10000 runtimes may need 100256" in many.sentence
    assert "GATEWAY_MAX_RUNTIMES" in many.advice


@pytest.mark.usefixtures("without_browser")
def test_a_control_group_with_few_processes_is_a_warning(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = data_dir.parent / "pids.max"
    monkeypatch.setattr(machine, "PROCESS_LIMITS", (limit, data_dir.parent / "none"))
    limit.write_text("max\n")
    assert findings_of("processes", data_dir, max_runtimes=1)[0].level == Level.OK
    limit.write_text("512\n")
    (finding,) = findings_of("processes", data_dir)
    assert finding.level == Level.WARNING
    assert finding.sentence == "The limit is 512; 50 runtimes may need 6000."


@pytest.mark.usefixtures("without_browser")
def test_shared_memory_that_is_missing_or_closed_is_a_warning(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "SHARED_MEMORY_DIR", data_dir)
    (missing,) = findings_of("shared memory", data_dir)
    data_dir.mkdir(mode=0o755)
    (closed,) = findings_of("shared memory", data_dir)
    data_dir.chmod(0o1777)
    (fine,) = findings_of("shared memory", data_dir)
    assert (missing.level, closed.level, fine.level) == (Level.WARNING, Level.WARNING, Level.OK)
    assert "--shm-size" in missing.advice
    assert "enough for 50 of 50 browsers" in fine.sentence


# What runtimes may have


@pytest.mark.usefixtures("without_browser")
def test_limits_unavailable_without_root_are_a_warning(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "has_own_user", lambda: True)
    (fine,) = findings_of("runtimes' limits", data_dir, runtime_max_processes=300, runtime_max_files=400)
    assert fine.level == Level.OK
    assert fine.sentence == (
        "Each runtime is a user of its own and may have 300 processes, 400 open files a process, 2.0 GiB a file."
    )
    monkeypatch.setattr(limits, "has_own_user", lambda: False)
    (lost,) = findings_of("runtimes' limits", data_dir)
    assert lost.level == Level.WARNING
    assert "their processes are not limited one by one" in lost.sentence
    assert "has the files of the others and of the gateway" in lost.sentence
    assert "as root" in lost.advice


@pytest.mark.usefixtures("without_browser")
def test_what_is_lost_without_networks_of_their_own_is_a_warning_and_a_failure_where_they_are_required(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networks, "why_none", lambda setting: None)
    (fine,) = findings_of("runtimes' network", data_dir)
    assert fine.level == Level.OK
    monkeypatch.setattr(networks, "why_none", lambda setting: "the gateway is not root")
    (lost,) = findings_of("runtimes' network", data_dir)
    (failed,) = findings_of("runtimes' network", data_dir, browser_network="require")
    assert (lost.level, failed.level) == (Level.WARNING, Level.FAILED)
    assert lost.sentence.startswith("Runtimes have the machine's network: the gateway is not root.")
    assert "the DevTools ports of other browsers" in lost.sentence
    assert "CAP_SYS_ADMIN and CAP_NET_ADMIN" in lost.advice
    monkeypatch.undo()
    (off,) = findings_of("runtimes' network", data_dir, browser_network="off")
    assert off.level == Level.WARNING
    assert "GATEWAY_BROWSER_NETWORK is `off`" in off.sentence


@pytest.mark.usefixtures("without_browser")
def test_extensions_that_can_not_be_contained_are_a_warning(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "why_none", lambda setting: "the gateway is not root")
    (unprivileged,) = findings_of("extensions", data_dir)
    assert unprivileged.level == Level.WARNING
    assert "no network of their own (the gateway is not root)" in unprivileged.sentence
    monkeypatch.undo()
    if os.geteuid() != 0:
        return
    (fine,) = findings_of("extensions", data_dir)
    assert fine.level == Level.OK
    monkeypatch.setattr(extension_policy, "MOUNT_ETC", "mount -t nothing none /etc")
    (lost,) = findings_of("extensions", data_dir)
    assert lost.level == Level.WARNING
    assert lost.sentence.startswith("Launches with extensions are refused, since these can't be contained: ")
    assert "can't be made (mount: /etc: " in lost.sentence
    assert "CAP_SYS_ADMIN" in lost.advice


@pytest.mark.usefixtures("without_browser")
def test_a_limit_of_memory_that_can_not_be_kept_fails_and_says_why(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> Path:
        raise ConfigurationError("there is no cgroup v2 on this machine")

    monkeypatch.setattr(control_groups, "own_group", none)
    (unasked,) = findings_of("runtimes' memory", data_dir)
    assert unasked.level == Level.OK
    assert unasked.sentence == (
        "No limit is set. The memory of a runtime can't be limited: there is no cgroup v2 on this machine."
    )
    (asked,) = findings_of("runtimes' memory", data_dir, runtime_memory_bytes=1024**3)
    assert asked.level == Level.FAILED
    assert "Delegate=yes" in asked.advice
    monkeypatch.setattr(control_groups, "own_group", lambda: Path("/group"))
    (kept,) = findings_of("runtimes' memory", data_dir, runtime_memory_bytes=1024**3)
    assert kept == Finding(
        Level.OK, "runtimes' memory", "Each runtime may have 1.0 GiB, by a control group below /group."
    )


# Files


def test_a_storage_of_the_operators_choice_is_tried(data_dir: Path) -> None:
    def found(url: str | None) -> list[tuple[str, str]]:
        findings = storage.files(Settings(data_dir=data_dir, files_url=url))
        return [(finding.level.value, finding.subject) for finding in findings]

    assert found(None) == []
    assert found(f"file://{data_dir}/shared") == [("ok", "files")]
    assert list((data_dir / "shared").iterdir()) == []
    assert found("s3://files?endpoint=http://127.0.0.1:9") == [("failed", "files")]


# Recordings


@pytest.mark.usefixtures("without_browser")
@pytest.mark.parametrize("umask", [0o022, 0o077], ids=oct)
def test_a_video_is_made_whatever_the_umask(data_dir: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        installed, made = findings_of("recordings", data_dir)
    finally:
        os.umask(before)
    assert installed.level == Level.OK
    assert made == Finding(Level.OK, "recordings", "A video can be made.")


@pytest.mark.usefixtures("without_browser")
@pytest.mark.parametrize(("recording", "level"), [(True, Level.FAILED), (False, Level.WARNING)])
def test_an_encoder_that_fails_is_reported_with_its_last_line(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, recording: bool, level: Level
) -> None:
    def broken(reel: Path, video: str, user_id: int) -> list[str]:
        return [sys.executable, "-c", "import sys; sys.exit('PermissionError: index')"]

    monkeypatch.setattr(recordings, "encoder_command", broken)
    _, made = findings_of("recordings", data_dir, recording=recording)
    assert made.level == level
    assert made.sentence == "No video can be made: the encoder ended with status 1 (PermissionError: index)."


# Read-only directories


def without_writable_system(*arguments: str, data_dir: Path) -> subprocess.CompletedProcess[str]:
    """A command of the gateway where only `data_dir` can be written to, of its existing directories."""
    script = 'mount --make-rprivate / && mount -t tmpfs none "$0" && mount -o remount,bind,ro / && cd / && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", script, str(data_dir), sys.executable, "-m", "gateway", *arguments]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        # Directories in /dev/shm would be writable.
        env=environment_with({"PYTHONPATH": str(ROOT), "TMPDIR": "/nonexistent"}),
        timeout=START_SECONDS,
    )


may_mount = pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0,
    reason="needs rights to mount",
)


@may_mount
def test_a_read_only_system_is_fine_where_the_data_directory_is_not(data_dir: Path) -> None:
    data_dir.mkdir()
    done = without_writable_system("doctor", "--port", "0", "--data-dir", str(data_dir), data_dir=data_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "with its sandbox on" in done.stdout
    assert "A video can be made." in done.stdout


@may_mount
@pytest.mark.parametrize("command", ["up", "keys list"])
def test_a_read_only_data_directory_is_refused_in_a_sentence(data_dir: Path, command: str) -> None:
    data_dir.mkdir()
    wanted = "/nonexistent/gateway"
    done = without_writable_system(*command.split(), "--data-dir", wanted, data_dir=data_dir)
    assert done.returncode == 1
    assert done.stderr == (
        f"gateway: The data directory {wanted} can't be written to (Read-only file system). Give another one in "
        "GATEWAY_DATA_DIR.\n"
    )


def test_without_any_writable_directory_the_other_checks_go_on(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    findings = doctor.run(Settings(data_dir=Path("/proc/gateway"), port=0), embedded=True)
    failed = [finding for finding in findings if finding.level == Level.FAILED]
    subjects = ["browser", "recordings", "data directory", "extensions"]
    assert [finding.subject for finding in failed] == subjects
    assert all("be written to" in finding.sentence for finding in failed)
    assert "TMPDIR" in failed[0].sentence
