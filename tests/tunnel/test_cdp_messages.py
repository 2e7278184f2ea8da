"""What a client may send: what review() makes of it, and that Chromium reads the same before and after it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.launchers.base import LaunchSpec
from gateway.launchers.local import browsers
from gateway.launchers.local.launcher import LocalLauncher
from gateway.settings import Settings
from gateway.tunnel.cdp_messages import MAX_METHOD, MAX_SESSION, Action, InvalidText, Slow, decide, review
from gateway.tunnel.policy import StandardPolicy
from tests.support.devtools import DevTools
from tests.support.gateway_process import temporary_data_dir

MALFORMED, INVALID, REFUSED = -32700, -32600, -32000
CHROMIUMS_LEVELS = 300
SECRET = "hunter2"
SESSION = "0123456789ABCDEF0123456789ABCDEF"

unhurried = settings(deadline=None)  # the machine may have other things to do


class Only:
    """A policy of one method; keeps what it was asked."""

    always_allowed: frozenset[str] = frozenset()

    def __init__(self, method: str) -> None:
        self.method = method
        self.asked: list[dict[str, Any]] = []

    def check(self, message: dict[str, Any]) -> str | None:
        self.asked.append(message)
        return None if message["method"] == self.method else f"This lease may do {self.method} only."

    def reads_params(self, method: str) -> bool:
        return method == self.method


class Muting:
    """A policy that lets a command pass with a change."""

    always_allowed: frozenset[str] = frozenset()

    def check(self, message: dict[str, Any]) -> str | None:
        message["params"]["silent"] = True
        return None

    def reads_params(self, method: str) -> bool:
        return False


def forwarded(text: str) -> str:
    action, payload = review(text.encode(), None)
    assert action is Action.FORWARD, payload
    return payload.decode()


def answered(text: str, policy: Only | None = None) -> dict[str, Any]:
    action, payload = review(text.encode(), policy)
    assert action is Action.ANSWER, payload
    answer: dict[str, Any] = json.loads(payload)
    return answer


def error(code: int, message: str, **known: Any) -> dict[str, Any]:
    return known | {"error": {"code": code, "message": message}}


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    assert len(keys) == len(set(keys)), keys
    return dict(pairs)


class Slowly:
    """StandardPolicy, for which no command takes the short way."""

    always_allowed: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self._policy = StandardPolicy("/files")
        self.check = self._policy.check
        self.reads_params = self._policy.reads_params


_NESTED = "[" * 300 + "]" * 300


@pytest.mark.parametrize(
    "text",
    [
        '{"id":1,"method":"Page.enable"}',
        '{"id":1,"method":"Page.enable","params":{},"sessionId":""}',
        '{"params":{"a":[1.50,"\\u0041"]}, "sessionId":"AB","id":-2147483648,"method":"Runtime.evaluate","more":null}',
        '{"id":1,"method":"Page.enable","params":null}',
        '{"id":1,"method":"Page.enable","params":[]}',
        '{"id":1,"method":"Page.enable","sessionId":null}',
        '{"id":1,"method":"Page.enable","sessionId":7}',
        '{"id":1,"method":"Page.enable","sessionId":"%s"}' % ("A" * MAX_SESSION),
        '{"id":1,"method":"Page.enable","sessionId":"%s"}' % ("A" * (MAX_SESSION + 1)),
        '{"id":5.0,"method":"Page.enable"}',
        '{"id":true,"method":"Page.enable"}',
        '{"id":2147483647,"method":"Page.enable"}',
        '{"id":2147483648,"method":"Page.enable"}',
        '{"id":"1","method":"Page.enable"}',
        '{"method":"Page.enable"}',
        '{"id":1}',
        '{"id":1,"method":["Page.enable"]}',
        '{"id":1,"method":"Page.enable","method":"Browser.crash"}',
        '{"id":1,"method":"Browser.crash","method":"Page.enable"}',
        '{"id":1,"method":"Browser.close"}',
        '{"id":1,"method":"Browser.crash"}',
        '{"id":1,"method":"Page.navigate","params":{"url":"file:///etc/passwd"}}',
        '{"id":1,"method":"Input.dispatchKeyEvent","params":{"nativeVirtualKeyCode":123}}',
        '{"id":1,"method":"No.such"}',
        '{"id":1,"method":"Page.enable","params":{"nested":' + _NESTED + "}}",
        "[]",
        "7",
        "{",
    ],
)
def test_the_short_way_of_most_commands_decides_as_the_long_one(text: str) -> None:
    assert decide(text.encode(), StandardPolicy("/files")) == decide(text.encode(), Slowly())


# JSON texts of every kind. An object is a tuple of pairs here, in which a key may come twice.

texts = st.text(st.characters(exclude_categories=()), max_size=12)
numbers = st.integers(-(10**40), 10**40) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inside: (
        st.lists(inside, max_size=4)
        | st.lists(st.tuples(st.sampled_from(["a", "b", "é", "__proto__"]) | texts, inside), max_size=5).map(tuple)
    ),
    max_leaves=15,
)
objects = st.lists(st.tuples(st.sampled_from(["a", "b"]) | texts, json_values), max_size=6).map(tuple)
ids = st.integers(-(2**31), 2**31 - 1)
blanks = st.text(" \t\r\n", max_size=2)


def written(value: Any, blank: str, *, escaped: bool) -> str:
    """JSON text as a sloppy client may write it; whatever is not ASCII escaped, or as it is where UTF-8 has it."""
    if isinstance(value, list):
        return "[" + f",{blank}".join(written(item, blank, escaped=escaped) for item in value) + f"{blank}]"
    if isinstance(value, tuple):
        pairs = (f"{blank}{written(k, '', escaped=escaped)}:{written(v, blank, escaped=escaped)}" for k, v in value)
        return "{" + f"{blank},".join(pairs) + "}"
    text = json.dumps(value, ensure_ascii=escaped)
    return text.encode("utf-8", "backslashreplace").decode()


@st.composite
def messages(draw: st.DrawFn) -> str:
    """Commands with the keys in any order, and any of them twice."""
    pairs: list[tuple[str, Any]] = [("id", draw(ids)), ("method", draw(texts))]
    pairs += draw(st.lists(st.tuples(st.just("params"), objects), max_size=2))
    pairs += draw(st.lists(st.tuples(st.just("sessionId"), texts), max_size=2))
    pairs += draw(st.lists(st.tuples(st.just("id"), ids) | st.tuples(st.just("method"), texts), max_size=1))
    pairs += draw(st.lists(st.tuples(st.sampled_from(["jsonrpc", "ID", "Params"]), json_values), max_size=1))
    blank = draw(blanks)
    return blank + written(tuple(draw(st.permutations(pairs))), blank, escaped=draw(st.booleans())) + blank


@unhurried
@given(text=messages())
def test_a_forwarded_message_equals_the_sent_one(text: str) -> None:
    assert as_chromium_reads(forwarded(text)) == as_chromium_reads(text)


def as_chromium_reads(text: str) -> str:
    """A message whose numbers are doubles, but for short whole ones; as repr, for in Python True == 1 == 1.0."""
    return repr(json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < 16 else float(digits)))


@unhurried
@given(text=messages())
@example(text='{"id":1,"method":"a","jsonrpc":"\\ud800","jsonrpc":[1e16,1e-7,123456789012345678901234567890]}')
@example(text='{"id":1,"method":"a","jsonrpc":["\\ud800",1e16,1e-7,123456789012345678901234567890]}')
def test_a_forwarded_message_is_canonical_and_has_each_key_once(text: str) -> None:
    once_forwarded = forwarded(text)
    json.loads(once_forwarded, object_pairs_hook=once)
    assert forwarded(once_forwarded) == once_forwarded


@unhurried
@given(payload=st.binary(max_size=200) | texts.map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_classified(payload: bytes) -> None:
    assert_classified(payload)


@unhurried
@given(text=messages(), position=st.integers(0, 200), length=st.integers(0, 5), inset=st.binary(max_size=5))
def test_a_command_with_exchanged_bytes_is_classified(text: str, position: int, length: int, inset: bytes) -> None:
    payload = text.encode()
    assert_classified(payload[:position] + inset + payload[position + length :])


def assert_classified(payload: bytes) -> None:
    try:
        action, reviewed = review(payload, None)
    except InvalidText:
        with pytest.raises(UnicodeDecodeError):
            payload.decode()
        return
    message = json.loads(reviewed, object_pairs_hook=once, parse_constant=pytest.fail)
    assert ("method" in message) is (action is Action.FORWARD)
    assert ("error" in message) is (action is Action.ANSWER)


@pytest.mark.parametrize(
    ("sent", "canonical"),
    [
        (' {"method" : "A.b",\n\t"id":1 } \r\n', '{"method":"A.b","id":1}'),
        ('{"id":1,"m\\u0065thod":"A\\u002eb"}', '{"id":1,"method":"A.b"}'),
        ('{"id":1,"method":"A.b","id":2}', '{"id":2,"method":"A.b"}'),
        (
            '{"id":1,"method":"A.b","params":{"a":[{"x":1,"\\u0078":2}]}}',
            '{"id":1,"method":"A.b","params":{"a":[{"x":2}]}}',
        ),
        ('{"id":1,"method":"A.b","params":null}', '{"id":1,"method":"A.b"}'),
        ('{"id":5.0,"method":"A.b"}', '{"id":5,"method":"A.b"}'),
        ('{"id":50e-1,"method":"A.b"}', '{"id":5,"method":"A.b"}'),
        ('{"id":-0.0,"method":"A.b"}', '{"id":0,"method":"A.b"}'),
        ('{"id":-2147483648,"method":"A.b"}', '{"id":-2147483648,"method":"A.b"}'),
        ('{"id":2147483647.0,"method":"A.b"}', '{"id":2147483647,"method":"A.b"}'),
        ('{"id":1,"method":"A.b","sessionId":""}', '{"id":1,"method":"A.b","sessionId":""}'),
    ],
)
def test_a_command_has_one_form(sent: str, canonical: str) -> None:
    assert forwarded(sent) == canonical


@pytest.mark.parametrize("text", ["ж", "😀", "\uffff", "\x7f", "\u2028"])
def test_text_is_not_inflated_also_beside_a_lone_surrogate(text: str) -> None:
    sent = '{"id":1,"method":"A.b","params":{"a":"' + text * 1000 + '\\ud800"}}'
    assert forwarded(sent) == sent


def test_a_bytearray_is_read_like_bytes() -> None:
    payload = b'{"id": 1, "method": "A.b"}'
    assert review(bytearray(payload), None) == review(payload, None) == (Action.FORWARD, b'{"id":1,"method":"A.b"}')


@pytest.mark.parametrize(
    "payload", [b"\xff", b'{"id":1,"method":"\xc0\x80"}', b'"\xed\xa0\x80"', b'{"a":"\xf0\x9f\x98']
)
def test_what_is_not_utf_8_is_an_error_of_its_own(payload: bytes) -> None:
    with pytest.raises(InvalidText, match=r"^The message is not UTF-8: .* at byte \d+\.$"):
        review(payload, None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "nope",
        "{",
        '{"id":1',
        '{"id":1,"method":"A.b",}',
        '{"id":1,"method":"A.b"}x',
        '{"id":1,"method":"A.b"} {}',
        '{"id":1,"method":"A.b"}\0',
        '\ufeff{"id":1,"method":"A.b"}',
        '/**/{"id":1,"method":"A.b"}',
        '{"id":1,"method":"A.b"}//',
        '{"id":1,/**/"method":"A.b"}',
        "{'id':1}",
        "{id:1}",
    ],
)
def test_what_is_not_json_is_malformed(text: str) -> None:
    answer = answered(text)
    assert answer["error"]["code"] == MALFORMED
    assert answer["error"]["message"].startswith("JSON: ")
    assert set(answer) == {"error"}


def test_json_in_another_encoding_is_malformed() -> None:
    payload = '{"id":1,"method":"A.b"}'.encode("utf-16-le")
    assert json.loads(payload) == {"id": 1, "method": "A.b"}, "Python's json would take it"
    action, answer = review(payload, None)
    assert action is Action.ANSWER
    assert json.loads(answer)["error"]["code"] == MALFORMED


@pytest.mark.parametrize(
    "number", ["NaN", "Infinity", "-Infinity", "01", "+1", ".5", "1.", "0x1", "1_0", "\u0661", "9" * 5000]
)
def test_what_is_no_number_of_json_or_of_chromium_is_malformed(number: str) -> None:
    assert answered(f'{{"id":1,"method":"A.b","params":{{"a":{number}}}}}')["error"]["code"] == MALFORMED


@pytest.mark.parametrize("number", ["1e400", "-1e400"])
def test_a_number_above_every_double_is_malformed(number: str) -> None:
    sent = f'{{"id":1,"method":"A.b","sessionId":"{SESSION}","params":{{"a":[{number}]}}}}'
    assert answered(sent) == error(MALFORMED, "JSON: invalid number", id=1, sessionId=SESSION)


def test_a_position_is_that_in_the_whole_message() -> None:
    assert answered('  {"id":?}') == error(MALFORMED, "JSON: Expecting value at position 8")
    assert answered(' {"id":1} ]') == error(MALFORMED, "JSON: unprocessed input remains at position 9")


@pytest.mark.parametrize("levels", [CHROMIUMS_LEVELS - 1, CHROMIUMS_LEVELS, CHROMIUMS_LEVELS + 1])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_nesting_is_left_to_chromium(levels: int, opening: str, closing: str) -> None:
    # The message and its params are levels too.
    inside = opening * (levels - 2) + "1" + closing * (levels - 2)
    sent = f'{{"id":1,"method":"A.b","params":{{"a":{inside}}}}}'
    assert forwarded(sent) == sent


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_nesting_that_python_can_not_read_is_malformed(opening: str, closing: str) -> None:
    inside = opening * 1_000_000 + "1" + closing * 1_000_000
    sent = f'{{"id":1,"method":"A.b","params":{{"a":{inside}}}}}'
    assert answered(sent) == error(MALFORMED, "JSON: stack limit exceeded")


NO_ID = "Message must have integer 'id' property"
NO_METHOD = "Message must have string 'method' property"
WRONG_PARAMS = "Message may have object 'params' property"
WRONG_SESSION = "Message may have string 'sessionId' property"
NO_OBJECT = "Message must be an object"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("[]", error(INVALID, NO_OBJECT)),
        ("1", error(INVALID, NO_OBJECT)),
        ("null", error(INVALID, NO_OBJECT)),
        ('"{}"', error(INVALID, NO_OBJECT)),
        ("{}", error(INVALID, NO_ID)),
        ('{"id":1}', error(INVALID, NO_METHOD, id=1)),
        ('{"id":1.0}', error(INVALID, NO_METHOD, id=1)),
        ('{"id":1,"method":null}', error(INVALID, NO_METHOD, id=1)),
        ('{"id":1,"method":["A.b"]}', error(INVALID, NO_METHOD, id=1)),
        ('{"method":"A.b","sessionId":"S"}', error(INVALID, NO_ID, sessionId="S")),
        ('{"id":2147483648,"method":"A.b"}', error(INVALID, NO_ID, id=2147483648)),
        ('{"id":-2147483649,"method":"A.b"}', error(INVALID, NO_ID, id=-2147483649)),
        ('{"id":1e10,"method":"A.b"}', error(INVALID, NO_ID, id=10000000000)),
        ('{"id":1,"method":"A.b","params":1}', error(INVALID, WRONG_PARAMS, id=1)),
        ('{"id":1,"method":"A.b","params":[]}', error(INVALID, WRONG_PARAMS, id=1)),
        ('{"id":1,"method":"A.b","params":"{}","sessionId":"S"}', error(INVALID, WRONG_PARAMS, id=1, sessionId="S")),
        ('{"id":1,"method":"A.b","sessionId":null}', error(INVALID, WRONG_SESSION, id=1)),
        ('{"id":1,"method":"A.b","sessionId":1}', error(INVALID, WRONG_SESSION, id=1)),
    ],
)
def test_what_is_no_command_is_invalid(text: str, answer: dict[str, Any]) -> None:
    assert answered(text) == answer


@pytest.mark.parametrize("number", ["true", "false", "null", '"1"', "[1]", "{}", "1.5", "1e400"])
def test_an_id_is_a_whole_number(number: str) -> None:
    assert answered(f'{{"id":{number},"method":"A.b"}}') == error(INVALID, NO_ID)


@pytest.mark.parametrize(
    ("name", "longest", "wanted"),
    [
        ("sessionId", MAX_SESSION, "Message may have 'sessionId' property of at most 64 characters"),
        ("method", MAX_METHOD, "Message must have 'method' property of at most 128 characters"),
    ],
)
def test_what_is_repeated_of_a_command_has_a_longest(name: str, longest: int, wanted: str) -> None:
    noted: list[object] = []

    def reviewed(text: str) -> tuple[Action, bytes]:
        message = json.dumps({"id": 1, "method": "A.b", name: text}).encode()
        return review(message, None, lambda *note: noted.append(note))

    for character in ("x", "\ud800"):
        assert reviewed(character * longest)[0] is Action.FORWARD
        assert len(noted) == 1
        action, answer = reviewed(character * (longest + 1))
        assert (action, json.loads(answer)) == (Action.ANSWER, error(INVALID, wanted, id=1))
        assert len(noted) == 1
        noted.clear()
    # Whatever else is wrong with it.
    _, answer = review(json.dumps({"id": "no", "sessionId": "x" * 10**6}).encode(), None)
    assert json.loads(answer) == error(INVALID, NO_ID)


@pytest.mark.parametrize("session", [{}, {"sessionId": SESSION}, {"sessionId": "\ud800é"}])
def test_a_policy_refuses_by_name_and_reason(session: dict[str, str]) -> None:
    sent = json.dumps({"id": 7, "method": "Browser.crash", "params": {}} | session)
    words = "This lease may do Page.enable only."
    assert answered(sent, Only("Page.enable")) == error(REFUSED, words, id=7, **session)


def test_a_policy_is_asked_once_for_what_will_be_forwarded() -> None:
    policy = Only("Page.enable")
    sent = b'{"id":7.0,"method":"Browser.crash","method":"Page.enable","params":null}'
    assert review(sent, policy) == (Action.FORWARD, b'{"id":7,"method":"Page.enable"}')
    assert policy.asked == [{"id": 7, "method": "Page.enable"}]


def test_a_policy_may_change_what_is_forwarded() -> None:
    sent = b'{"id":7,"method":"Page.enable","params":{"silent":false}}'
    assert review(sent, Muting()) == (Action.FORWARD, b'{"id":7,"method":"Page.enable","params":{"silent":true}}')


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"id":1}',
        '{"method":"A.b"}',
        '{"id":1,"method":"A.b","params":[]}',
        '{"id":1,"method":"A.b","params":{"a":NaN}}',
        '{"id":1,"method":"A.b","params":{"a":-Infinity}}',
    ],
)
def test_a_policy_is_not_asked_for_what_is_no_command(text: str) -> None:
    policy = Only("A.b")
    assert answered(text, policy)["error"]["code"] in (MALFORMED, INVALID)
    assert policy.asked == []


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b'{"id":7,"method":"Browser.close"}', b'{"id":7,"result":{}}'),
        (b'{"id":7,"method":"Browser\\u002eclose","params":{}}', b'{"id":7,"result":{}}'),
        (b'{"id":7,"method":"A.b","method":"Browser.close"}', b'{"id":7,"result":{}}'),
        (b'{"id":7,"method":"Browser.close","sessionId":"S"}', b'{"id":7,"result":{},"sessionId":"S"}'),
        (b'{"id":7,"method":"Browser.close","sessionId":""}', b'{"id":7,"result":{}}'),
    ],
)
def test_browser_close_leaves_in_any_session(sent: bytes, answer: bytes) -> None:
    policy = Only("Page.enable")
    assert review(sent, policy) == review(sent, None) == (Action.LEAVE, answer)
    assert policy.asked == []


def test_browser_close_must_be_a_command() -> None:
    assert answered('{"method":"Browser.close"}') == error(INVALID, NO_ID)
    assert answered('{"id":7,"method":"Browser.close","params":1}') == error(INVALID, WRONG_PARAMS, id=7)


@pytest.mark.parametrize(
    "text",
    [
        f'{{"id":1,"method":"A.b","params":{{"a":"{SECRET}"}}}}',
        f'{{"id":1,"method":"A.b","params":{{"a":"{SECRET}","b":1e400}}}}',
        f'{{"id":1,"method":"A.b","params":{{"a":"{SECRET}","b":NaN}}}}',
        f'{{"id":1,"method":"A.b","params":{{"a":"{SECRET}"',
        f'{{"id":1,"method":"A.b","params":{{"a":{SECRET}}}}}',
        f'{{"id":1,"method":"A.b","params":{{"a":"\\{SECRET}"}}}}',
        f'{{"id":1,"method":"A.b","params":"{SECRET}"}}',
        f'{{"id":"x","method":"A.b","params":{{"a":"{SECRET}"}}}}',
    ],
)
def test_an_answer_never_repeats_params(text: str) -> None:
    assert SECRET not in json.dumps(answered(text, Only("Page.enable")))


def test_an_error_never_repeats_what_is_not_utf_8() -> None:
    with pytest.raises(InvalidText) as raised:
        review(f'{{"id":1,"method":"A.b","params":{{"a":"{SECRET}'.encode() + b"\xff", None)
    assert SECRET not in str(raised.value)


# What a real Chromium makes of it.

# A value as a page sees it, to the last code unit.
SEEN = """function (value) {
  const seen = value =>
    typeof value === 'string' ? Array.from({length: value.length}, (_, i) => value.charCodeAt(i).toString(16)).join() :
    Array.isArray(value) ? value.map(seen) :
    value !== null && typeof value === 'object' ? Object.entries(value).map(([k, v]) => [seen(k), seen(v)]) :
    Object.is(value, -0) ? '-0' : String(value) + ' ' + typeof value;
  return JSON.stringify(seen(value));
}"""


class Page:
    """A page of a real browser, driven by bare text."""

    def __init__(self, devtools: DevTools, session: str, object_id: str) -> None:
        self._devtools = devtools
        self.session = session
        self._object_id = object_id

    async def ask(self, text: str) -> dict[str, Any]:
        """Chromium's answer, whatever it is."""
        await self._devtools.socket.send(text)
        while True:
            answer: dict[str, Any] = json.loads(await self._devtools.socket.recv())
            if "method" not in answer:
                return answer

    async def ask_reviewed(self, text: str) -> dict[str, Any]:
        """What a client is answered when its messages are reviewed."""
        action, payload = review(text.encode(), None)
        if action is Action.FORWARD:
            return await self.ask(payload.decode())
        answer: dict[str, Any] = json.loads(payload)
        return answer

    def command_with(self, value: str) -> str:
        """A command whose answer has the value of a JSON text as the page reads it."""
        params = (
            f'{{"objectId":{json.dumps(self._object_id)},"functionDeclaration":{json.dumps(SEEN)},'
            f'"returnByValue":true,"arguments":[{{"value":{value}}}]}}'
        )
        return f'{{"id":1,"sessionId":"{self.session}","method":"Runtime.callFunctionOn","params":{params}}}'


@pytest_asyncio.fixture(scope="module")
async def page() -> AsyncIterator[Page]:
    found = browsers.find(None)
    assert found is not None
    with temporary_data_dir() as data_dir:
        launcher = LocalLauncher(Settings(data_dir=data_dir, warm_browsers=0), found)
        await launcher.open()
        browser = await launcher.launch(LaunchSpec(uuid4()))
        async with DevTools.attach(browser) as devtools:
            session = await devtools.new_page()
            found_object = await devtools.send("Runtime.evaluate", session, expression="globalThis")
            yield Page(devtools, session, found_object["result"]["objectId"])
        await browser.stop()
        await launcher.close()


@pytest.mark.parametrize(
    "value",
    [
        "-0",
        "-0.0",
        "0.1e1",
        "1E5",
        "1e300",
        "1e-400",
        "5e-324",
        "1.7976931348623157e308",
        "2147483647",
        "2147483648",
        "9007199254740993",
        "123456789012345678901234567890",
        pytest.param("9" * 300, id="300 digits"),
        pytest.param("0." + "1" * 5000, id="5000 decimals"),
        pytest.param("1" + "0" * 5000 + "e-5000", id="5000 digits and an exponent"),
        '"\\ud800"',
        '"\\udc00\\ud800x"',
        '"\\ud83d\\ude00"',
        '"\\uffff\\ufffe\\ufdd0\uffff\ufffe\ufdd0\U0001ffff"',
        '"\\u0000\\u0001\\u001f\x7f\\u2028\u2028\ufeff"',
        '"жé😀\\/\\b\\f\\n\\r\\t\\"\\\\"',
        '{"a":1,"b":3,"a":2}',
        '{"\\ud800":1,"é":2,"":3,"2":4,"1":5,"__proto__":{"x":6}}',
        '[[],{},null,true,false,[{"a":[1,{"b":"c"}]}]]',
        " [ 1 ,\n2\t,\r3 ] ",
        pytest.param("[" * 296 + "1" + "]" * 296, id="300 levels of lists"),
        pytest.param('{"a":' * 296 + "1" + "}" * 296, id="300 levels of objects"),
    ],
)
async def test_a_page_sees_what_was_sent(page: Page, value: str) -> None:
    command = page.command_with(value)
    answer = await page.ask(command)
    assert "value" in answer["result"]["result"], answer
    assert await page.ask_reviewed(command) == answer
    assert review(command.encode(), None)[0] is Action.FORWARD


@settings(deadline=None, max_examples=50)
@given(value=json_values, blank=blanks, escaped=st.booleans())
async def test_a_page_sees_any_value_as_it_was_sent(page: Page, value: Any, blank: str, escaped: bool) -> None:
    command = page.command_with(written(value, blank, escaped=escaped))
    assert await page.ask_reviewed(command) == await page.ask(command)


@pytest.mark.parametrize(
    "value",
    [
        "1e400",
        "-1e400",
        pytest.param("9" * 400, id="400 digits"),
        pytest.param("9" * 5000, id="5000 digits"),
        "NaN",
        "-Infinity",
        "01",
        "1.",
        "[1,]",
        "[1 /* one */]",
        '"\\x41"',
        "'a'",
        pytest.param("[" * 297 + "1" + "]" * 297, id="301 levels"),
        pytest.param("[" * 5000 + "1" + "]" * 5000, id="5004 levels"),
    ],
)
async def test_what_chromium_can_not_read_is_refused_with_its_code(page: Page, value: str) -> None:
    command = page.command_with(value)
    assert (await page.ask(command))["error"]["code"] == MALFORMED
    assert (await page.ask_reviewed(command))["error"]["code"] == MALFORMED


@pytest.mark.parametrize("value", ['"\t"', '"\x01"', '"\\v"', "[1\x0b]", "[\x0c1]"])
async def test_what_chromium_reads_beyond_json_is_refused(page: Page, value: str) -> None:
    command = page.command_with(value)
    assert "result" in await page.ask(command)
    assert (await page.ask_reviewed(command))["error"]["code"] == MALFORMED


@pytest.mark.parametrize("number", ["5", "5.0", "50e-1", "-0", "-0.0", "-1", "-2147483648", "2147483647", "1e9"])
async def test_an_id_is_answered_as_chromium_answers_it(page: Page, number: str) -> None:
    command = f'{{"id":{number},"method":"Browser.getVersion"}}'
    answer = await page.ask(command)
    assert answer["id"] == float(number)
    assert await page.ask_reviewed(command) == answer


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "1",
        "{}",
        '{"id":1}',
        '{"id":1,"method":""}',
        '{"id":1,"method":"é"}',
        '{"id":1,"method":1}',
        '{"id":true,"method":"Browser.getVersion"}',
        '{"id":"1","method":"Browser.getVersion"}',
        '{"id":1.5,"method":"Browser.getVersion"}',
        '{"id":1,"method":"Browser.getVersion","params":1}',
        '{"id":1,"method":"Browser.getVersion","params":"{}"}',
        '{"id":1,"method":"Browser.getVersion","sessionId":null}',
        '{"id":1,"method":"Browser.getVersion","sessionId":1}',
        '{"id":1,"method":"Browser.getVersion","extra":1}',
        '{"id":1,"method":"Browser.close\\u0000"}',
        '{"id":1,"method":"Nope.nope"}',
        '{"id":1,"method":"Nope.nope","sessionId":""}',
    ],
)
async def test_what_is_no_command_is_answered_in_chromiums_words(page: Page, text: str) -> None:
    answer = await page.ask(text)
    assert "error" in answer
    assert await page.ask_reviewed(text) == answer


@pytest.mark.parametrize("method", ["Browser.getVersion", "Runtime.evaluate"])
async def test_null_as_params_is_no_params(page: Page, method: str) -> None:
    command = f'{{"id":1,"sessionId":"{page.session}","method":"{method}","params":null}}'
    assert await page.ask_reviewed(command) == await page.ask(command)


async def test_a_key_that_comes_twice_is_read_as_it_was_checked(page: Page) -> None:
    policy = Only("Browser.getVersion")
    sent = b'{"id":1,"method":"Browser.crash","m\\u0065thod":"Browser.getVersion"}'
    action, payload = review(sent, policy)
    assert action is Action.FORWARD
    assert "product" in (await page.ask(payload.decode()))["result"]

    command = f'"sessionId":"{page.session}","method":"Runtime.evaluate"'
    twice = f'{{"id":1,{command},"params":{{"expression":"1","expression":"2"}}}}'
    assert (await page.ask_reviewed(twice))["result"]["result"]["value"] == 2


def test_what_orjson_reads_and_nothing_writes_is_malformed() -> None:
    # orjson parses 1024 levels; it serializes fewer, and so does Python.
    deep = b'{"id":1,"method":"X.y","params":{"x":' + b"[" * 1015 + b"]" * 1015 + b"}}"
    action, answer = review(deep, None)
    assert action is Action.ANSWER
    assert json.loads(answer)["error"] == {"code": -32700, "message": "JSON: stack limit exceeded"}


@pytest.mark.parametrize(
    "params",
    [
        pytest.param(b"[1e400]", id="a number that no double can hold"),
        pytest.param(b"[%b]" % (b"9" * 4200), id="an integer of 4,200 digits"),
        pytest.param(rb'["\ud800"]', id="half of a surrogate pair"),
        pytest.param(b"[" * 300 + b"]" * 300, id="more levels than orjson writes"),
    ],
)
def test_what_takes_python_long_is_reviewed_elsewhere_above_a_size(params: bytes) -> None:
    noted: list[object] = []
    payload = b'{"id":1,"method":"X.y","params":{"a":%b}}' % params
    reviewed = review(payload, None)
    assert review(payload, None, None, len(payload)) == reviewed
    with pytest.raises(Slow):
        review(payload, None, lambda *note: noted.append(note), len(payload) - 1)
    assert noted == []


def test_what_orjson_reads_is_reviewed_at_once_unless_the_policy_reads_its_parameters() -> None:
    payload = b'{"id":1,"method":"X.y","params":{"a":[1.5]}}'
    policy = Only("X.y")
    assert review(payload, None, None, 1) == (Action.FORWARD, payload)
    assert review(payload, Only("X.z"), None, 1)[0] is Action.ANSWER
    assert review(payload, policy, None, len(payload)) == (Action.FORWARD, payload)
    policy.asked.clear()
    with pytest.raises(Slow):
        review(payload, policy, None, len(payload) - 1)
    assert policy.asked == []
