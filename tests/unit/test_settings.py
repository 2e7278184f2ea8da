from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from annotated_types import Ge, Gt, Le, MaxLen, MinLen
from pydantic import ValidationError

from gateway.core.errors import ConfigurationError
from gateway.settings import (
    GROUPS,
    Settings,
    flag,
    forget_secrets,
    is_secret,
    load,
    options,
    passwords_in,
    secrets_of,
    variable,
)
from gateway.settings.load import KUBERNETES_NAME, files_of_secrets
from tools import settings_page

SECRET = "hunter2-and-a-half"


def loaded(environ: dict[str, str] | None = None, **flags: Any) -> Settings:
    found, warnings = load(environ or {}, flags)
    assert warnings == []
    return found


def refused(environ: dict[str, str], **flags: Any) -> str:
    with pytest.raises(ConfigurationError) as raised:
        load(environ, flags)
    # Nothing that was given is in what it was caused by, either.
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None or raised.value.__suppress_context__
    return raised.value.message


def limits() -> list[Any]:
    """(name, text that is allowed, text that is not) at both ends of every option that has ends."""
    found = []
    for name, field in options().items():
        step = 1 if field.annotation is int else 0.001
        for limit in field.metadata:
            match limit:
                case Ge(ge=least):
                    found.append(pytest.param(name, str(least), str(least - step), id=f"{name}-least"))  # type: ignore[operator]
                case Gt(gt=below):
                    found.append(pytest.param(name, "0.001", str(below), id=f"{name}-above"))
                case Le(le=most):
                    found.append(pytest.param(name, str(most), str(most + step), id=f"{name}-most"))  # type: ignore[operator]
                case MaxLen(max_length=length):
                    found.append(pytest.param(name, "x" * length, "x" * (length + 1), id=f"{name}-longest"))
    return found


@pytest.mark.parametrize(("name", "allowed", "beyond"), limits())
def test_each_limit_at_and_beyond(name: str, allowed: str, beyond: str) -> None:
    value = getattr(loaded({variable(name): allowed}), name)
    assert str(value) == allowed or float(value) == float(allowed)
    assert variable(name) in refused({variable(name): beyond})


def test_a_viewport_has_two_sides_within_what_a_config_may_have() -> None:
    assert loaded().viewport_size == (1280, 720)
    for size in ((100, 8192), (8192, 100)):
        assert loaded({"GATEWAY_VIEWPORT": f"{size[0]}x{size[1]}"}).viewport_size == size
    sizes = ("99x720", "1280x99", "8193x720", "1280x8193", "1280", "1280x", "1280,720", "1280x720x1", "1e3x720")
    for wrong in (*sizes, "\u0663\u0660\u0660x300"):
        assert "WIDTHxHEIGHT" in refused({"GATEWAY_VIEWPORT": wrong})


def test_every_number_has_both_ends() -> None:
    for name, field in options().items():
        if field.annotation in (int, float):
            kinds = {type(limit) for limit in field.metadata}
            assert Le in kinds, name
            assert kinds & {Ge, Gt}, name
        if {MinLen, MaxLen} & {type(limit) for limit in field.metadata}:
            assert field.annotation is str


def test_every_option_has_a_sentence_of_help() -> None:
    for name, field in options().items():
        assert field.description, name
        assert field.description.endswith("."), name


@pytest.mark.parametrize("name", [name for name, field in options().items() if field.annotation in (int, float)])
@pytest.mark.parametrize("value", ["x", "1 2", "0x10", "nan", "inf", "-inf", "1e999", "--", "true"])
def test_an_invalid_number_is_refused_with_the_given_value(name: str, value: str) -> None:
    message = refused({variable(name): value})
    assert message.startswith(f"{variable(name)}: ")
    assert f"(given: {value!r})" in message


@pytest.mark.parametrize(
    ("variables", "name", "value"),
    [
        ({}, "port", 8787),
        ({}, "data_dir", Path("var")),
        ({}, "max_message_bytes", 256 * 1024 * 1024),
        ({"GATEWAY_PORT": "0"}, "port", 0),
        ({"GATEWAY_PORT": ""}, "port", 8787),
        ({"GATEWAY_DATABASE_URL": ""}, "database_url", None),
        ({"GATEWAY_DATABASE_URL": "postgresql://u:p@h/d"}, "database_url", "postgresql://u:p@h/d"),
        ({"GATEWAY_DATABASE_URL": "postgres://u:p@h/d"}, "database_url", "postgres://u:p@h/d"),
        ({"GATEWAY_UNSAFE_NO_SANDBOX": "true"}, "unsafe_no_sandbox", True),
        ({"GATEWAY_UNSAFE_NO_SANDBOX": "0"}, "unsafe_no_sandbox", False),
        ({"GATEWAY_TRUSTED_HOSTS": " A.example, ,b.Example,"}, "trusted_hosts", ("a.example", "b.example")),
        ({"GATEWAY_TRUSTED_HOSTS": ","}, "trusted_hosts", ()),
        ({"GATEWAY_INTERNAL_URL": "http://10.0.0.7:8787/"}, "internal_url", "http://10.0.0.7:8787"),
        ({}, "allowed_origins", ()),
        (
            {"GATEWAY_ALLOWED_ORIGINS": "https://Tool.example, http://[::1]:81,chrome-extension://abc"},
            "allowed_origins",
            ("https://tool.example", "http://[::1]:81", "chrome-extension://abc"),
        ),
        ({"GATEWAY_PUBLIC_URL": "https://g.example/"}, "public_url", "https://g.example"),
        ({"GATEWAY_PUBLIC_URL": "http://g.example:81/a/b/"}, "public_url", "http://g.example:81/a/b"),
        ({"GATEWAY_PUBLIC_URL": "http://[::1]:8787"}, "public_url", "http://[::1]:8787"),
        ({"GATEWAY_PROVIDER_TIMEOUT_SECONDS": "0.5"}, "provider_timeout_seconds", 0.5),
        ({"GATEWAY_LOG_LEVEL": "debug"}, "log_level", "debug"),
        ({"GATEWAY_CHROMIUM": "/opt/chrome"}, "chromium", Path("/opt/chrome")),
        ({"gateway_port": "1", "PORT": "2", "MY_GATEWAY_PORT": "3"}, "port", 8787),
    ],
)
def test_values(variables: dict[str, str], name: str, value: Any) -> None:
    assert getattr(loaded(variables), name) == value


@pytest.mark.parametrize(
    "url",
    [
        "g.example",
        "ftp://g.example",
        "http://",
        "http:///path",
        "http://:80",
        "http://g.example:port",
        "http://g.example:65536",
        "http://g.example:0",
        "http://[::1",
        "http://g.example\n",
        "http://g example",
        "ws://g.example",
    ],
)
@pytest.mark.parametrize("name", ["public_url", "internal_url", "openai_base_url"])
def test_an_invalid_url_is_refused(url: str, name: str) -> None:
    message = refused({variable(name): url})
    assert message == (
        f"{variable(name)}: must be an http or https address without user, query and fragment (given: {url!r})"
    )


@pytest.mark.parametrize(
    "origin", ["tool.example", "https://", "https://tool.example/", "https://a@b", "*", "null", "https://a:b"]
)
def test_an_invalid_origin_is_refused(origin: str) -> None:
    message = refused({"GATEWAY_ALLOWED_ORIGINS": f"https://good.example,{origin}"})
    assert message.startswith("GATEWAY_ALLOWED_ORIGINS: must be ")


@pytest.mark.parametrize("name", ["log_level", "log_format", "unsafe_no_sandbox"])
def test_an_unknown_choice_is_refused(name: str) -> None:
    assert "(given: 'maybe')" in refused({variable(name): "maybe"})


def test_every_wrong_option_is_listed_at_once() -> None:
    message = refused({"GATEWAY_PORT": "x", "GATEWAY_LOG_LEVEL": "loud"}, max_runtimes=0)
    assert message.count("; ") == 2
    for name in ("GATEWAY_PORT: ", "GATEWAY_LOG_LEVEL: ", "GATEWAY_MAX_RUNTIMES: "):
        assert name in message


def test_flags_beat_the_environment_and_that_beats_the_default() -> None:
    environ = {"GATEWAY_PORT": "1", "GATEWAY_HOST": "0.0.0.0"}
    found = loaded(environ, port="2")
    assert (found.port, found.host, found.region) == (2, "0.0.0.0", "local")


def test_a_flag_beats_even_a_wrong_variable() -> None:
    assert loaded({"GATEWAY_PORT": "x"}, port=2).port == 2


@pytest.mark.parametrize(
    ("environ", "flags"),
    [
        ({"GATEWAY_DATABASE_URL": f"mysql://u:{SECRET}@h"}, {}),
        ({"GATEWAY_DATABASE_URL": f"postgresql+asyncpg://u:{SECRET}@h"}, {}),
        ({"GATEWAY_DATABASE_URL": SECRET}, {}),
        ({"GATEWAY_PUBLIC_URL": f"https://u:{SECRET}@h"}, {}),
        ({"GATEWAY_OPENAI_BASE_URL": f"https://h/v1?key={SECRET}"}, {}),
        ({"GATEWAY_GOOGLE_BASE_URL": f"https://h/v1#{SECRET}"}, {}),
        ({"GATEWAY_MASTER_KEYS": f"a:{SECRET}", "GATEWAY_PORT": "x"}, {}),
        ({}, {"database_url": [SECRET]}),
        ({}, {"master_keys": {"a": SECRET}}),
        ({}, {"master_key": SECRET}),
    ],
)
def test_no_secret_is_in_an_error(environ: dict[str, str], flags: dict[str, Any]) -> None:
    assert SECRET not in refused(environ, **flags)


def test_no_secret_is_in_a_warning() -> None:
    _, warnings = load(
        {"GATEWAY_MASTER_KEY": SECRET, "GATEWAY_DATABASE": SECRET, "GATEWAY_PORT": "tcp://10.0.0.1:1"}, {}
    )
    assert len(warnings) == 3
    assert SECRET not in " ".join(warnings)


def test_no_secret_is_in_what_is_printed() -> None:
    found = loaded({"GATEWAY_DATABASE_URL": f"postgresql://u:{SECRET}@h", "GATEWAY_MASTER_KEYS": f"a:{SECRET}"})
    assert SECRET not in repr(found) + str(found)
    with pytest.raises(ValidationError) as raised:
        Settings(database_url=SECRET)
    assert SECRET not in str(raised.value) + repr(raised.value)


@pytest.mark.parametrize("name", ["database_url", *(f"files_{part}" for part in ("access_key", "secret_key"))])
def test_a_secret_may_be_in_a_file(tmp_path: Path, name: str) -> None:
    value = f"postgresql://me:{SECRET}@host/db"
    file = tmp_path / "secret"
    file.write_text(f"  {value}\n\n")
    both = {"GATEWAY_FILES_ACCESS_KEY": "a", "GATEWAY_FILES_SECRET_KEY": "b"}
    environ = {key: text for key, text in both.items() if key != variable(name)}
    found = loaded({**environ, f"{variable(name)}_FILE": str(file)})
    assert getattr(found, name) == value
    assert SECRET not in repr(found)
    assert loaded({f"{variable(name)}_FILE": ""}) == loaded()


@pytest.mark.parametrize("name", ["master_keys", "platform_ai_api_key"])
def test_files_of_options_that_are_read_again_are_options_of_their_own(name: str) -> None:
    assert name not in files_of_secrets()
    assert f"{name}_file" in options()


def test_a_file_of_a_secret_that_has_none_is_refused_by_variable_and_path(tmp_path: Path) -> None:
    def complaint(path: Path, **environ: str) -> str:
        said = refused({"GATEWAY_DATABASE_URL_FILE": str(path), **environ})
        assert said.startswith("GATEWAY_DATABASE_URL")
        assert SECRET not in said
        return said

    file = tmp_path / "secret"
    assert complaint(file).endswith(f"the file {file} can't be read (No such file or directory).")
    file.write_text(" \n")
    assert f"the file {file} is empty" in complaint(file)
    file.write_bytes(b"\xff" + SECRET.encode())
    assert complaint(file).endswith("(it is not text in UTF-8).")
    file.write_text(SECRET)
    assert complaint(file) == "GATEWAY_DATABASE_URL: must begin with postgresql://"
    also = complaint(file, GATEWAY_DATABASE_URL=f"postgresql://me:{SECRET}@host/db")
    assert also == "GATEWAY_DATABASE_URL and GATEWAY_DATABASE_URL_FILE are both set; unset one of them."


def test_the_secrets_are_these() -> None:
    secrets = [name for name, field in options().items() if is_secret(field)]
    assert secrets == ["database_url", "master_keys", "platform_ai_api_key", *OF_BUCKETS]


PLATFORM = {
    "GATEWAY_PLATFORM_AI_PROVIDER": "openai",
    "GATEWAY_PLATFORM_AI_MODELS": "gpt-5, GPT-5-mini",
    "GATEWAY_PLATFORM_AI_API_KEY": SECRET,
}


def test_the_operators_own_models_keep_their_spelling() -> None:
    found = loaded(PLATFORM)
    assert found.platform_ai_models == ("gpt-5", "GPT-5-mini")
    assert found.base_url_of("openai") == "https://api.openai.com/v1"
    compatible = {"GATEWAY_PLATFORM_AI_PROVIDER": "openai-compatible", "GATEWAY_PLATFORM_AI_BASE_URL": "http://m:1/v1"}
    assert loaded(PLATFORM | compatible).base_url_of("openai-compatible") is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"PROVIDER": ""}, "GATEWAY_PLATFORM_AI_MODELS, GATEWAY_PLATFORM_AI_API_KEY needs GATEWAY_PLATFORM_AI_PROV"),
        ({"MODELS": ""}, "GATEWAY_PLATFORM_AI_PROVIDER needs GATEWAY_PLATFORM_AI_MODELS"),
        ({"API_KEY": ""}, "needs one of GATEWAY_PLATFORM_AI_API_KEY and GATEWAY_PLATFORM_AI_API_KEY_FILE"),
        ({"API_KEY_FILE": "/key"}, "needs one of GATEWAY_PLATFORM_AI_API_KEY and GATEWAY_PLATFORM_AI_API_KEY_FILE"),
        ({"BASE_URL": "http://m:1/v1"}, "GATEWAY_PLATFORM_AI_BASE_URL is for"),
        ({"PROVIDER": "openai-compatible"}, "GATEWAY_PLATFORM_AI_BASE_URL is for"),
    ],
)
def test_the_operators_own_access_to_a_provider_is_whole_or_refused(changed: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        loaded(PLATFORM | {f"GATEWAY_PLATFORM_AI_{name}": value for name, value in changed.items()})
    assert message in raised.value.message
    assert not raised.value.message.startswith("GATEWAY_SETTINGS")
    assert SECRET not in raised.value.message


OF_BUCKETS = ("files_access_key", "files_secret_key", "files_session_token")


def test_the_values_of_secret_options_are_those_that_logs_mask() -> None:
    found = loaded(
        {
            "GATEWAY_MASTER_KEYS": "one:YWJj,two:ZGVm",
            "GATEWAY_DATABASE_URL": "postgresql://me:pa%20ss@host/db",
            "GATEWAY_FILES_SECRET_KEY": "the secret key",
        }
    )
    assert secrets_of(found) == ["YWJj", "ZGVm", "pa%20ss", "pa ss", "the secret key"]
    assert secrets_of(loaded()) == []
    assert passwords_in("postgresql://me@host/db?password=p%40w&x=y") == ["p@w", "p@w"]
    assert passwords_in("postgresql://me@host/db") == passwords_in("http://[") == []


def test_a_buckets_credentials_come_from_the_usual_variables_too_and_leave_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usual = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": "t"}

    def read(**environ: str) -> list[str | None]:
        found = loaded(usual | environ)
        assert SECRET not in repr(found)
        return [getattr(found, name) for name in OF_BUCKETS]

    bucket = "s3://files/below?endpoint=https://s3.example:9000&region=eu-1"
    assert read(GATEWAY_FILES_URL=bucket) == ["a", SECRET, "t"]
    given = read(GATEWAY_FILES_URL=bucket, GATEWAY_FILES_ACCESS_KEY="b", GATEWAY_FILES_SECRET_KEY="c")
    assert given == ["b", "c", None]
    assert read() == read(GATEWAY_FILES_URL="file:///shared") == [None, None, None]
    for name, value in usual.items():
        monkeypatch.setenv(name, value)
    forget_secrets()
    assert not usual.keys() & os.environ.keys()


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3://B",
        "files",
        "/files",
        "file://host/x",
        "https://x",
        "s3://u:p@b",
        "s3://b?endpoint=x",
        "s3://b?key=x",
    ],
)
def test_where_files_are_is_an_address_of_a_bucket_or_a_directory(url: str) -> None:
    with pytest.raises(ConfigurationError, match="GATEWAY_FILES_URL: must be s3://bucket"):
        loaded({"GATEWAY_FILES_URL": url})


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("GATEWAY_PROT", "GATEWAY_PORT"),
        ("GATEWAY_HOSTNAME", "GATEWAY_HOST"),
        ("GATEWAY_DB_URL", "GATEWAY_DATABASE_URL"),
        ("GATEWAY_MASTER_KEY", "GATEWAY_MASTER_KEYS"),
        ("GATEWAY_KEYS", "GATEWAY_MASTER_KEYS"),
        ("GATEWAY_DATADIR", "GATEWAY_DATA_DIR"),
        ("GATEWAY_IDLE_TIMEOUT", "GATEWAY_IDLE_TIMEOUT_SECONDS"),
        ("GATEWAY_LOGLEVEL", "GATEWAY_LOG_LEVEL"),
        ("GATEWAY_CHROME", "GATEWAY_CHROMIUM"),
        ("GATEWAY_SERVICE", None),
        ("GATEWAY_PORT_8787", "GATEWAY_PORT"),
        ("GATEWAY_xyz", None),
        ("GATEWAY_", None),
    ],
)
def test_an_unknown_option_gets_a_warning_with_the_nearest_known(name: str, nearest: str | None) -> None:
    _, [warning] = load({name: "1"}, {})
    assert warning.startswith(f"{name} is not an option of the gateway; the nearest one is GATEWAY_")
    assert warning.removesuffix(".").rsplit(" ", 1)[1] in map(variable, options())
    if nearest is not None:
        assert warning.endswith(f" {nearest}.")


KUBERNETES = {
    "GATEWAY_SERVICE_HOST": "10.0.0.1",
    "GATEWAY_SERVICE_PORT": "8787",
    "GATEWAY_SERVICE_PORT_HTTP": "8787",
    "GATEWAY_PORT_8787_TCP": "tcp://10.0.0.1:8787",
    "GATEWAY_PORT_8787_TCP_PROTO": "tcp",
    "GATEWAY_PORT_8787_TCP_PORT": "8787",
    "GATEWAY_PORT_8787_TCP_ADDR": "10.0.0.1",
    "GATEWAY_PORT_53_UDP": "udp://10.0.0.1:53",
    # Of a Service called "gateway-metrics".
    "GATEWAY_METRICS_SERVICE_HOST": "10.0.0.2",
    "GATEWAY_METRICS_SERVICE_PORT": "9090",
    "GATEWAY_METRICS_SERVICE_PORT_METRICS": "9090",
    "GATEWAY_METRICS_PORT": "tcp://10.0.0.2:9090",
    "GATEWAY_METRICS_PORT_9090_TCP": "tcp://10.0.0.2:9090",
    "GATEWAY_METRICS_PORT_9090_TCP_ADDR": "10.0.0.2",
}


def test_service_variables_of_kubernetes_are_ignored() -> None:
    assert loaded(KUBERNETES) == Settings()


@pytest.mark.parametrize(
    "value", ["tcp://10.0.0.1:8787", "tcp://[fd00::1]:8787", "udp://10.0.0.1:53", "sctp://10.0.0.1:1"]
)
def test_the_port_variable_of_kubernetes_is_ignored_with_a_warning(value: str) -> None:
    found, [warning] = load(KUBERNETES | {"GATEWAY_PORT": value}, {})
    assert found.port == 8787
    assert warning == f"GATEWAY_PORT={value} is what Kubernetes sets for a Service called gateway; it is not used."


def test_a_port_of_ones_own_beside_kubernetes_variables_counts() -> None:
    assert loaded(KUBERNETES | {"GATEWAY_PORT": "9000"}).port == 9000
    found, _ = load(KUBERNETES | {"GATEWAY_PORT": "tcp://10.0.0.1:8787"}, {"port": "9001"})
    assert found.port == 9001


def test_no_option_has_a_name_that_kubernetes_takes() -> None:
    for name in options():
        assert KUBERNETES_NAME.fullmatch(variable(name)) is None


def test_forget_secrets_takes_them_out_of_the_environment_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in options():
        monkeypatch.setenv(variable(name), SECRET if name in ("database_url", "master_keys") else "kept")
    forget_secrets()
    forget_secrets()
    assert "GATEWAY_DATABASE_URL" not in os.environ
    assert "GATEWAY_MASTER_KEYS" not in os.environ
    assert os.environ["GATEWAY_HOST"] == os.environ["GATEWAY_MASTER_KEYS_FILE"] == "kept"
    program = "import os, sys; sys.exit(any('hunter2' in value for value in os.environ.values()))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_settings_can_not_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]


def test_the_table_has_a_row_for_every_option() -> None:
    tables = [settings_page.table(group).splitlines() for group in GROUPS.values()]
    assert {head for head, *_ in tables} == {"| Variable | Flag | Value | Default | Meaning |"}
    rule = tables[0][1]
    rows = [row for _, _, *rows in tables for row in rows]
    assert len(rows) == len(options())
    for row, (name, field) in zip(rows, options().items(), strict=True):
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
        assert cells[0] == f"`{variable(name)}`"
        assert cells[1] == ("environment only" if is_secret(field) else f"`{flag(name)}`")
        assert all(cells)
        assert len(cells) == rule.count("---")


@pytest.mark.parametrize(
    "row",
    [
        "| `GATEWAY_PORT` | `--port` | whole number, 0 to 65535 | `8787` | Port to listen on; 0 takes a free one. |",
        "| `GATEWAY_LOG_FORMAT` | `--log-format` | `auto`, `console`, `json` | `auto` | ",
        "| `GATEWAY_DATABASE_URL` | environment only | text | none | ",
        "| `GATEWAY_UNSAFE_NO_SANDBOX` | `--unsafe-no-sandbox` | `true` or `false` | `false` | ",
        "| `GATEWAY_REGION` | `--region` | text, 1 to 120 characters | `local` | ",
        "| `GATEWAY_ATTACH_TIMEOUT_SECONDS` | `--attach-timeout-seconds` | number, above 0, at most 60 | `5.0` | ",
        "| `GATEWAY_PUBLIC_URL` | `--public-url` | http or https address | none | ",
        "| `GATEWAY_DATA_DIR` | `--data-dir` | path | `var` | ",
        "| `GATEWAY_TRUSTED_HOSTS` | `--trusted-hosts` | list, separated by commas | `localhost,127.0.0.1,[::1]` | ",
    ],
)
def test_rows_say_type_range_and_default(row: str) -> None:
    assert row in settings_page.document()


def test_the_page_of_settings_is_up_to_date() -> None:
    assert settings_page.PAGE.read_text() == settings_page.document(), "run `make docs`"


def test_every_number_of_an_option_is_finite() -> None:
    assert all(math.isfinite(value) for value in vars(Settings()).values() if isinstance(value, float))


@pytest.mark.parametrize(
    "name",
    [
        "egress_allow",
        "egress_deny",
        "event_masked_parameters",
        "trusted_hosts",
        "allowed_origins",
        "viewer_frame_ancestors",
    ],
)
def test_every_list_is_read_from_text(name: str) -> None:
    text = (
        "https://a.example,https://b.example"
        if name in ("allowed_origins", "viewer_frame_ancestors")
        else "a.example,b.example"
    )
    assert len(getattr(Settings.model_validate({name: text}), name)) == 2


@pytest.mark.parametrize(
    ("host", "place", "same"),
    [
        ("127.0.0.1", "127.0.0.1:9001", True),
        ("localhost", "127.0.0.1:9001", True),
        ("0.0.0.0", "127.0.0.1:9001", True),
        ("::1", "[::]:9001", True),
        ("gateway.internal", "gateway.internal:9001", True),
        ("127.0.0.1", "127.0.0.1:9002", False),
        ("127.0.0.1", "127.0.0.2:9001", False),
        ("127.0.0.1", "[::1]:9001", False),
        ("127.0.0.1", "metrics.internal:9001", False),
        ("127.0.0.1", "api", False),
    ],
)
def test_the_api_and_metrics_listen_at_different_addresses(host: str, place: str, same: bool) -> None:
    given = {"GATEWAY_HOST": host, "GATEWAY_PORT": "9001", "GATEWAY_METRICS": place}
    if not same:
        assert loaded(given).metrics == place
        return
    sentence = refused(given)
    assert sentence.startswith("GATEWAY_METRICS: has port 9001, which is that of GATEWAY_PORT;")
    assert sentence.endswith(f"(given: '{place}')")


def test_free_ports_of_the_api_and_metrics_differ_and_a_wrong_port_is_reported_alone() -> None:
    assert loaded({"GATEWAY_PORT": "0", "GATEWAY_METRICS": "127.0.0.1:0"}).port == 0
    assert "GATEWAY_METRICS" not in refused({"GATEWAY_PORT": "x", "GATEWAY_METRICS": "127.0.0.1:9001"})
