"""One way for everything that is logged: structlog and the standard library, ours and the libraries', to stderr.

What the models of the current request mark as secret is masked in each line (`gateway.core.secret`), and so are the
options that are secret, which an answer of a database or bucket may repeat. As a second net,
each line is cleaned by patterns after it was rendered, of every logger and with all that it quotes: the paths that
uvicorn and websockets print, headers, exceptions. A request's id gets into its lines by
`structlog.contextvars.bind_contextvars(request_id=...)`.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import traceback
from collections.abc import Iterable
from typing import Final, Literal, TextIO
from urllib.parse import unquote

import structlog
from structlog.typing import EventDict, Processor
from websockets.frames import Frame, Opcode

from gateway.core.secret import MASK, Secrets, masked

# A line that has none of these and no long run of letters has nothing to hide.
_MARKERS = (
    *(
        "connect/",
        "connect\\/",
        "connect%2",
        "viewers/",
        "downloads",
        "viewers\\/",
        "viewers%2",
        "view_",
        "file_",
        "bctrl_",
        "@",
        "pass",
        "secret",
        "token",
        "jwt",
        "authorization",
        "bearer",
        "cookie",
    ),
    *("-key", "apikey", "api_key", "sk-", "aiza", "aq."),
)
_LONG_RUN = re.compile(r"[A-Za-z0-9+/_-]{39}")

# Where a word may begin in a rendered line: also behind an escape of JSON, of a URL or of a terminal's colours.
_EDGE = (
    r"(?:(?<![A-Za-z0-9_-])|(?<=\\[bfnrt])|(?<=\\u[0-9a-f]{4})|(?<=%[0-9A-Fa-f]{2})|(?<=\x1b\[\dm)|(?<=\x1b\[\d\dm))"
)
_NOT_IN_ESCAPE = r"(?<!\\)(?<!\\u)(?<!\\u[0-9a-f])(?<!\\u[0-9a-f]{2})(?<!\\u[0-9a-f]{3})"
_HEADER = r"(?i:authorization|(?:set-)?cookie|x-api-key|x-goog-api-key)"
_NAME = r"(?i:pass(?:word|wd|phrase)|secret|bearer|token|api[_-]?key|jwt)"
# Characters of an address, also when they were encoded several times.
_SLASH = r"(?:\\?/|%(?:25)*2[Ff])"
_EQUALS = r"(?:=|%(?:25)*3[Dd])"
_COLON = r"(?:[:=]|%(?:25)*3[AaDd])"
_BLANK = r"(?:\s|\+|%(?:25)*20)"
# What may be seen of the gateway's own tokens and keys, if one follows; after a first pass the mask does.
_OWN_PREFIX = r"(?:(?:bctrl_)?[A-Za-z0-9]{12}(?=[A-Za-z0-9_-]{43}|\*\*\*))?"
# A letter that is encoded, which nothing has to be, and a word of a line.
_ENCODED_LETTER = re.compile(r"%(?:25)*[4-7][0-9A-Fa-f]")
_WORD = re.compile(r"[^\s\"'\\\x1b]+")
_MOST_ENCODINGS = 5

# Each rule has one group, of what may still be seen; the rest of what it matches is hidden. No rule ends inside an
# escape or takes a quote away that ends a string, so that a line of JSON stays one. The time is linear in the line's
# length, since strangers choose what some lines quote.
_SECRET = re.compile(
    "|".join(
        (
            rf"(v1{_SLASH}connect{_SLASH}(?:[A-Za-z0-9]{{12}})?)[^\s\"'\\?#\x1b]+",
            r"(bctrl_[A-Za-z0-9]{12})[A-Za-z0-9_-]+",
            rf"(v1{_SLASH}viewers{_SLASH}(?:live|recording|activity){_SLASH})[^\s\"'\\?#\x1b]+",
            r"(view_)[A-Za-z0-9_-]{20,}",
            rf"(v1{_SLASH}storage{_SLASH}downloads{_SLASH})[^\s\"'\\?#\x1b]+",
            r"(file_)[A-Za-z0-9_-]{90,}",
            # To the last @: the database's library takes a password with @ and / that were not encoded.
            r"(postgres(?:ql)?(?:\+\w+)?://[^\s:/@\"]*:)\S{0,2000}(?=@)",
            r"(://[^\s:/?#@\"]*:)[^\s/?#@\"\\]*(?=@)",
            rf"({_NAME}{_EQUALS}{_OWN_PREFIX})(?:\\.|[^\s&\"'\\\x1b])+",
            # A header by itself, and as a pair of quoted texts; not over the bounds of one string of JSON.
            rf"({_HEADER}{_BLANK}*{_COLON}{_BLANK}*(?:'|\\\")?)[^\"'\\\r\n\x1b]+",
            rf"((?:{_HEADER}|{_NAME})(?:\"\s*:\s*\"|\\\"\s*:\s*\\\"|'\s*[:,]\s*b?'))[^\"'\\\r\n\x1b]+",
            rf"((?i:bearer){_BLANK}+)[^\s\"'\\\x1b]+",
            _EDGE + r"(sk-(?:ant-|proj-)?)[A-Za-z0-9_-]{8,}",
            r"(AIza|AQ\.)[A-Za-z0-9_-]{20,}",
            # A lease token by itself. Letters that stand right before it only make less of it seen.
            r"((?:\x1b\[\d+m|\\[bfnrt]|\\u[0-9a-f]{4})?[A-Za-z0-9]{12})[A-Za-z0-9_-]{43,}",
            # 32 bytes in base64, which is a master key; a few letters less, where an escape seems to reach into it.
            _NOT_IN_ESCAPE + r"()[A-Za-z0-9+/]{39,43}=",
        )
    )
)

# A secret that is a word such as "error" does not take these away.
_OF_THE_LINE = frozenset(("level", "logger", "timestamp"))

_NOISY = ("httpx", "httpcore", "alembic", "uvicorn.error")  # lines for developers; logged at debug only

_COMMON: Final[list[Processor]] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
]
# One list for good: loggers that were used already keep the one that they found.
_PROCESSORS: Final[list[Processor]] = [
    structlog.stdlib.filter_by_level,
    *_COMMON,
    structlog.stdlib.PositionalArgumentsFormatter(),
    structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
]


def redact(text: str) -> str:
    """The text without tokens of leases and viewers, API keys, provider keys, and what else lets somebody in."""
    lowered = text.lower()
    if any(marker in lowered for marker in _MARKERS) or _LONG_RUN.search(text):
        text = _SECRET.sub(_hide, text)
    return _WORD.sub(_without_encoded_secret, text) if "%" in text and _ENCODED_LETTER.search(text) else text


def mask_secrets(logger: object, method: str, event: EventDict) -> EventDict:
    """A processor: the event without the values that the models of the current request mark as secret."""
    return {name: value if name in _OF_THE_LINE else masked(value) for name, value in event.items()}


def configure(
    level: str,
    format: Literal["console", "json"],  # noqa: A002  (it is called so as an option)
    worker: int | None = None,
    secrets: Iterable[str] = (),
) -> None:
    """Send all logging to stderr, from `level` on. May be called again; the last call counts. Lines have the number of
    the worker, if the process is one of several. `secrets` are those of the process, which are masked in each line.

    Other handlers on this process's stdout and stderr are taken off, since they would not redact. What is to log
    through here must not add its own afterwards: uvicorn wants `log_config=None`.
    """
    structlog.configure(
        processors=_PROCESSORS,
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    _take_off_others()
    handler = Stderr()
    handler.setFormatter(_RedactingFormatter(_rendering(format, worker, secrets)))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.NOTSET if level == "debug" else logging.WARNING)
    logging.captureWarnings(True)


def _hide(match: re.Match[str]) -> str:
    assert match.lastindex is not None
    return match[match.lastindex] + MASK


def _without_encoded_secret(match: re.Match[str]) -> str:
    """The mask in place of a word that has a secret once all in it is decoded."""
    word = plain = match[0]
    if MASK in word or not _ENCODED_LETTER.search(word):
        return word
    for _ in range(_MOST_ENCODINGS):
        plain = unquote(plain)
    return MASK if _SECRET.search(plain) else word


def style_of(log_format: str) -> Literal["console", "json"]:
    """The format that GATEWAY_LOG_FORMAT selects: `auto` by whether stderr is a terminal."""
    if log_format == "auto":
        return "console" if sys.stderr.isatty() else "json"
    return "console" if log_format == "console" else "json"


def _rendering(style: Literal["console", "json"], worker: int | None, secrets: Iterable[str]) -> list[Processor]:
    # The plain traceback: the fancy ones print local variables.
    before: list[Processor] = [structlog.processors.format_exc_info, mask_secrets]
    own = Secrets()
    own.add_all(secrets)
    if own:

        def mask_own_secrets(logger: object, method: str, event: EventDict) -> EventDict:
            return {name: value if name in _OF_THE_LINE else own.masked(value) for name, value in event.items()}

        before.append(mask_own_secrets)
    if worker is not None:

        def with_worker(logger: object, method: str, event: EventDict) -> EventDict:
            event["worker"] = worker
            return event

        before.insert(0, with_worker)
    if style == "json":
        return [*before, structlog.processors.JSONRenderer()]
    return [
        *before,
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback, sort_keys=False
        ),
    ]


def _take_off_others() -> None:
    streams = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    known = logging.root.manager.loggerDict.values()
    for logger in [logging.root, *(logger for logger in known if isinstance(logger, logging.Logger))]:
        for handler in list(logger.handlers):
            if isinstance(handler, logging.StreamHandler) and handler.stream in streams:
                logger.removeHandler(handler)
                logger.propagate = True


class _RedactingFormatter(structlog.stdlib.ProcessorFormatter):
    def __init__(self, renderer: list[Processor]) -> None:
        super().__init__(processors=[self.remove_processors_meta, *renderer], foreign_pre_chain=_COMMON)

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(_without_payloads(record)))


def _without_payloads(record: logging.LogRecord) -> logging.LogRecord:
    """The record with the contents of websocket frames left out.

    They are what a user and a page say to each other, and `websockets` shortens them, which cuts secrets in pieces that
    nothing recognizes.
    """
    if not isinstance(record.args, tuple) or not any(isinstance(arg, Frame) for arg in record.args):
        return record
    clean = logging.makeLogRecord(record.__dict__)
    clean.args = tuple(_outline(arg) if isinstance(arg, Frame) else arg for arg in record.args)
    return clean


def _outline(frame: Frame) -> str:
    if frame.opcode is Opcode.CLOSE:
        return str(frame)
    return f"{frame.opcode.name} [{len(frame.data)} bytes{'' if frame.fin else ', continued'}]"


class Stderr(logging.StreamHandler[TextIO]):
    """Writes to what `sys.stderr` is at that moment, so that it never holds on to one that was closed."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, value: TextIO) -> None:
        raise AttributeError("the stream is always sys.stderr")

    def handleError(self, record: logging.LogRecord) -> None:
        """Report a record that can't be logged. The standard library would print its arguments as they are."""
        report = f"{record.pathname}:{record.lineno} wrote a line that can't be logged.\n{traceback.format_exc()}"
        with contextlib.suppress(OSError, ValueError, AttributeError):  # stderr may be full, closed or none
            self.stream.write(redact(masked(report)))
