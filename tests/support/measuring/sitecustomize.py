"""Measures the coverage of each Python process that `make test-all` starts, when this directory is on PYTHONPATH.

By PYTHONPATH and not by a variable of coverage's own, since the encoder of videos and the reviewer of large commands
are given no other variable. All data go to one directory, to which a process that gave up its rights may write too.

SQLAlchemy calls the driver, and what runs in a transaction of a migration, in a greenlet. Coverage's own support for
greenlets looks up the current one at each call of any function, which costs twice as much as all else that it does.
Here each greenlet has a tracer of its own, exchanged when greenlets switch.
"""

import sys
import threading
from pathlib import Path
from types import FrameType, MemberDescriptorType
from typing import Any

import coverage
import greenlet

_ROOT = Path(__file__).resolve().parent.parent.parent.parent

coverage.Coverage(
    data_file=str(_ROOT / ".measured" / "coverage"),
    data_suffix=True,
    auto_data=True,  # saved at exit
    include=[str(_ROOT / "gateway" / "*")],
    config_file=str(_ROOT / "pyproject.toml"),
).start()
_start_in_thread: Any = threading.gettrace()
# The attribute of a greenlet that has its tracer. No weak dictionary: its callback would run when the greenlets of a
# thread that has ended are freed, which CPython 3.11 does in a pending call, and a traced function hangs in those.
_TRACER = "_tracer_of_coverage"
# Those of greenlets that ended, whose stacks are empty again: there is a greenlet for each call of the driver.
_unused: list[Any] = []


def _trace_greenlets() -> None:
    """Follow the switches of this thread, which is being traced."""
    setattr(greenlet.getcurrent(), _TRACER, sys.gettrace())
    greenlet.settrace(_switched)


def _switched(event: str, switch: tuple[greenlet.greenlet, greenlet.greenlet]) -> None:
    """Called in the greenlet that goes on, before any of its code runs."""
    origin, target = switch
    running: Any = sys.gettrace()
    if running is None:
        return  # The process is ending, and its data are saved.
    if origin.dead and (tracer := vars(origin).pop(_TRACER, None)) is not None:
        _unused.append(tracer)
    if (tracer := getattr(target, _TRACER, None)) is None:
        try:
            tracer = _unused.pop()
        except IndexError:
            tracer = _further(running)
        setattr(target, _TRACER, tracer)
    tracer.start()


def _further(tracer: Any) -> Any:
    """Another tracer for the same data: all that was set of the one is set of the other."""
    kind = type(tracer)
    further = kind()
    for name, member in vars(kind).items():
        if isinstance(member, MemberDescriptorType):
            setattr(further, name, getattr(tracer, name))
    return further


def _thread_started(frame: FrameType, event: str, arg: object) -> Any:
    traced = _start_in_thread(frame, event, arg)
    _trace_greenlets()
    return traced


# From Python 3.14 on, coverage traces nothing but listens to sys.monitoring, which knows no stacks.
if sys.gettrace() is not None:
    _trace_greenlets()
    threading.settrace(_thread_started)
