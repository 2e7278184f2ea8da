"""Classes of failures, and the bounded list in which an observer finds the reason of a failed tunnel."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from gateway.core import failures
from gateway.core.failures import CLASSES, Failure, RecentFailures, Server
from gateway.core.observation import Series

DNS = Failure("dns", "egress.name_not_found", "No such name.")
CONNECT = Failure("connect", "egress.unreachable", "Unreachable.", "proxy.example:3128")


@pytest.mark.parametrize(
    ("text", "class_"),
    [
        ("net::ERR_NAME_NOT_RESOLVED", "dns"),
        ("net::ERR_CONNECTION_REFUSED", "connect"),
        ("net::ERR_EMPTY_RESPONSE", "connect"),
        ("net::ERR_CONNECTION_TIMED_OUT", "timeout"),
        ("net::ERR_TIMED_OUT", "timeout"),
        ("net::ERR_CERT_DATE_INVALID", "tls"),
        ("net::ERR_SSL_PROTOCOL_ERROR", "tls"),
        ("net::ERR_TUNNEL_CONNECTION_FAILED", "proxy"),
        ("net::ERR_BLOCKED_BY_CLIENT", "policy"),
        ("net::ERR_UNSAFE_PORT", "policy"),
        ("net::ERR_TOO_MANY_REDIRECTS", "http"),
        ("net::ERR_HTTP2_PROTOCOL_ERROR", "http"),
        ("net::ERR_FAILED", "other"),
    ],
)
def test_a_net_error_has_a_class_and_its_name_as_the_cause(text: str, class_: str) -> None:
    assert failures.net_error(text) == Failure(class_, text.removeprefix("net::"), CLASSES[class_])


@pytest.mark.parametrize("text", ["", "net::ERR_x", "see net::ERR_FAILED", "net::ERR_FAILED\n", "ERR_" + "X" * 100])
def test_no_other_text_becomes_a_cause(text: str) -> None:
    assert failures.net_error(text) == Failure("other", "unknown", CLASSES["other"])


@pytest.mark.parametrize(
    ("status", "cause"), [(200, None), (499, None), (500, "http 500"), (599, "http 599"), (99999, "http 999")]
)
def test_server_errors_begin_at_500(status: int, cause: str | None) -> None:
    failure = failures.server_error(status)
    assert (failure and failure.cause) == cause


def test_the_data_of_an_event_name_the_proxy_only_if_it_is_at_fault() -> None:
    assert DNS.data() == {"class": "dns", "cause": "egress.name_not_found", "message": "No such name."}
    assert CONNECT.data()["proxy"] == "proxy.example:3128"


@pytest.mark.parametrize(
    ("url", "address", "tunnel"),
    [
        ("http://A.example/x?y#z", "a.example:80", False),
        ("https://a.example:8443/", "a.example:8443", True),
        ("ws://127.0.0.1/", "127.0.0.1:80", True),
        ("wss://***@[2001:db8::1]/", "[2001:db8::1]:443", True),
    ],
)
def test_the_server_of_a_url(url: str, address: str, tunnel: bool) -> None:
    server = Server.of(url)
    assert server is not None
    assert (server.address, server.tunnel) == (address, tunnel)


@pytest.mark.parametrize("url", ["", "data:text/html,x", "about:blank", "http://", "http://a:99999/", "http://[x/"])
def test_other_urls_have_no_server(url: str) -> None:
    assert Server.of(url) is None


class Reports:
    def __init__(self) -> None:
        self.asked = 0
        self.reports: list[tuple[Server, Failure, int]] = []

    def pending(self) -> None:
        self.asked += 1

    def report(self, server: Server, failure: Failure, count: int) -> None:
        self.reports.append((server, failure, count))


def server(number: int) -> Server:
    return Server(ip_address(number), 443, True)


def recent(most: int = 3) -> tuple[RecentFailures, Reports]:
    kept, reports = RecentFailures(most), Reports()
    kept.reporter = reports
    return kept, reports


def test_a_failure_is_found_for_a_while_by_its_server() -> None:
    kept, _ = recent()
    kept.note(server(1), DNS, 100)
    assert kept.find(server(1), 110) == DNS
    assert kept.find(server(1), 110.1) is None
    assert kept.find(server(2), 100) is None
    assert kept.find(server(1)._replace(tunnel=False), 100) is None


def test_what_is_looked_up_is_not_reported_again_with_the_attempts_that_belong_to_it() -> None:
    kept, reports = recent()
    kept.note(server(1), DNS, 100)
    kept.find(server(1), 100.5)
    kept.note(server(1), DNS, 101.5)
    assert kept.unreported(200) == ([], False)
    kept.note(server(1), DNS, 101.6)
    assert kept.unreported(200) == ([(server(1), DNS, 1)], False)
    assert reports.asked == 2


def test_a_failed_tunnel_has_the_reason_that_the_proxy_noted() -> None:
    kept, _ = recent()
    kept.note(Server("a.example", 443, True), DNS, 100)
    tunnel = "net::ERR_TUNNEL_CONNECTION_FAILED"
    assert kept.of_net_error(tunnel, "https://a.example/x", 100, reports=False) == DNS
    assert kept.unreported(100) == ([(Server("a.example", 443, True), DNS, 1)], False), "a look is no report"
    assert kept.of_net_error("net::ERR_FAILED", "https://a.example/", 100).class_ == "other"
    assert kept.of_net_error(tunnel, "https://b.example/", 100).class_ == "proxy"
    assert kept.of_net_error(tunnel, "data:,", 100).class_ == "proxy"


def test_what_is_not_looked_up_is_reported_once_with_its_number() -> None:
    kept, reports = recent()
    for _ in range(3):
        kept.note(server(1), DNS, 100)
    kept.note(server(2), CONNECT, 101, reported=True)
    kept.note(server(3), CONNECT, 102)
    assert kept.unreported(101) == ([(server(1), DNS, 3)], True)
    assert kept.unreported(102) == ([(server(3), CONNECT, 1)], False)
    assert kept.find(server(2), 102) == CONNECT
    assert reports.asked == 4


def test_another_failure_of_a_server_does_not_hide_the_one_before() -> None:
    kept, reports = recent()
    kept.note(server(1), DNS, 100)
    kept.note(server(1), CONNECT, 100)
    assert reports.reports == [(server(1), DNS, 1)]
    assert kept.find(server(1), 100) == CONNECT


@pytest.mark.parametrize(("count", "left_over"), [(2, 0), (3, 0), (4, 1)])
def test_a_bounded_number_of_servers_is_kept_and_none_is_lost(count: int, left_over: int) -> None:
    kept, reports = recent(3)
    for number in range(count):
        kept.note(server(number), DNS, 100)
    assert len(kept) == min(count, 3)
    assert len(reports.reports) == left_over
    assert len(kept.unreported(100)[0]) == min(count, 3)


def test_a_series_begins_with_what_was_not_there_lately() -> None:
    series = Series(10, 2)
    assert series.begins("a", 0)
    assert not series.begins("a", 9)
    assert not series.begins("a", 18), "each one continues the series"
    assert series.begins("b", 20)
    assert not series.begins("c", 21), "only two are followed"
    assert series.begins("c", 29)
    assert series.begins("a", 31)
