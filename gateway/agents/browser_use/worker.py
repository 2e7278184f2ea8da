"""Carries out jobs with browser-use: a process with the library loaded, which forks one that works for each job.

Its standard input is a socket: the gateway sends an order and two descriptors for each job
(gateway/agents/preloaded.py). The forked process has a socket for its own standard input: the job and answers to calls
of tools come in as lines of JSON, messages go out (gateway/agents/messages.py). What is printed goes to the log of a
process that fails.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import resource
import signal
import socket
import sys
import tempfile
import threading
import traceback
from typing import Any

# Before the library is imported, which also reads `.env` files of all directories above it.
_ENVIRONMENT = {
    "ANONYMIZED_TELEMETRY": "false",
    "BROWSER_USE_CLOUD_HINTS": "false",
    "BROWSER_USE_CLOUD_SYNC": "false",
    "BROWSER_USE_DISABLE_EXTENSIONS": "1",
    "BROWSER_USE_SETUP_LOGGING": "false",
    "BROWSER_USE_VERSION_CHECK": "false",
    "PYTHON_DOTENV_DISABLED": "1",
    "SKIP_LLM_API_KEY_VERIFICATION": "true",
}
# Some of them are imported late otherwise, in each forked process.
_MODULES = (
    "browser_use.agent.service",
    "browser_use.llm.anthropic.chat",
    "browser_use.llm.google.chat",
    "browser_use.llm.openai.chat",
    "jsonschema",
)
_MIB = 1024**2
_ORDER_BYTES = 65_536
# Of the gateway's lines, which are answers of tools.
_LINE_BYTES = 64 * _MIB
_FILE_BYTES = 64 * _MIB
# Threads count too.
_PROCESSES = 128
_SET_DEATH_SIGNAL = 1
_CAPABILITY_VERSION = 0x20080522
_ACTION_CHARACTERS = 500
# The relay repeats calls to models, and the gateway ends what takes too long.
_FAILURES = 3
_MODEL_SECONDS = 600
_STEP_SECONDS = 1200
_KEYWORDS = ("type", "description", "minimum", "maximum", "minItems", "maxItems")


def load() -> None:
    """Import and make all that a job needs; a forked process has it then."""
    os.environ.update(_ENVIRONMENT)
    for name in _MODULES:
        importlib.import_module(name)
    from browser_use.browser import watchdogs
    from browser_use.browser.watchdogs.aboutblank_watchdog import AboutBlankWatchdog

    # The session imports them once it is started.
    for module in pkgutil.iter_modules(watchdogs.__path__, f"{watchdogs.__name__}."):
        importlib.import_module(module.name)

    async def nothing(_: Any) -> None:
        pass

    # It would draw an animation into empty pages, for which they load a picture of the library's vendor.
    AboutBlankWatchdog._show_dvd_screensaver_on_about_blank_tabs = nothing  # noqa: SLF001
    asyncio.run(_rehearse())


async def _rehearse() -> None:
    """Begin a job without a browser and a model: much is imported, and many classes are made, at first use."""
    import httpx
    from browser_use.llm.exceptions import ModelProviderError
    from browser_use.llm.messages import UserMessage

    refusing = httpx.MockTransport(lambda _: httpx.Response(400))
    for provider in ("openai", "anthropic"):
        model = {"provider": provider, "name": "none", "address": "http://127.0.0.1", "token": "none"}
        job: dict[str, Any] = {"lease": "ws://127.0.0.1", "model": model, "instruction": ""}
        job |= {"options": {}, "tools": [], "schema": None}
        work = Work(None, job)
        async with httpx.AsyncClient(transport=refusing) as client:
            asked = work.model(http_client=client)
            agent = work.agent(asked)
            await work.session.attach_all_watchdogs()
            with contextlib.suppress(ModelProviderError):
                await asked.ainvoke([UserMessage(content="")], output_format=agent.AgentOutput)


# The process that forks.


def serve() -> None:
    """Fork a process for each order, and forget those that are over, until the gateway is gone."""
    control = socket.socket(fileno=os.dup(0))
    load()
    threads = [thread.name for thread in threading.enumerate()]
    if len(threads) != 1:
        sys.exit(f"A process with threads can't be forked: {threads}")
    # Collections write to all objects, so that forked processes would copy them.
    gc.collect()
    gc.freeze()
    control.send(b"{}")
    while True:
        line, descriptors, _, _ = socket.recv_fds(control, _ORDER_BYTES, 2)
        if not line:
            return
        order = json.loads(line)
        if "over" in order:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(order["over"], os.WNOHANG)
            control.send(b"{}")
            continue
        control.send(json.dumps(_forked(control, order, descriptors)).encode())
        for each in descriptors:
            os.close(each)


def _forked(control: socket.socket, order: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
    """`{"pid"}` of a process that has become another user, or `{"error"}`."""
    reading, writing = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        # Nothing of this function's callers may go on in it.
        try:
            control.close()
            os.close(reading)
            _become(order, descriptors, writing, parent)
            os.write(writing, b".")
            os.close(writing)
            asyncio.run(work())
        except BaseException:
            traceback.print_exc()
            with contextlib.suppress(OSError):
                os.write(writing, traceback.format_exc(limit=0).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as report:
        said = report.read()
    if said == b".":
        return {"pid": pid}
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return {"error": said.decode(errors="replace")[-1000:]}


def _become(order: dict[str, Any], descriptors: list[int], report: int, parent: int) -> None:
    """Be a process of its own: group, descriptors, directory, limits, user."""
    os.setsid()
    messages, output = descriptors
    os.dup2(messages, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.closerange(3, report)
    os.closerange(report + 1, most)
    os.environ.clear()
    os.environ.update({**_ENVIRONMENT, **order["environment"]})
    tempfile.tempdir = None
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_BYTES, _FILE_BYTES))
    libc = ctypes.CDLL(None, use_errno=True)
    if order["uid"] is not None:
        resource.setrlimit(resource.RLIMIT_NPROC, (_PROCESSES, _PROCESSES))
        os.setresuid(order["uid"], order["uid"], order["uid"])
        # Other than root's, an ordinary user's change of ids keeps its capabilities.
        head = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
        if libc.capset(head, (ctypes.c_uint32 * 6)()) != 0:
            raise OSError(ctypes.get_errno(), "capabilities can't be dropped")
    # After the user: a change of it forgets the signal.
    libc.prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise ProcessLookupError("the process that forks has ended")
    os.chdir(order["directory"])


# The process of a job.


class Failed(Exception):
    """Raised where a job has no result, with a kind of gateway/agents/messages.py."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Gateway:
    """Who gave the job."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._calls = 0
        self.limits = {"lineBytes": 1024, "textCharacters": 1000, "screenshotBytes": 0}

    async def job(self) -> dict[str, Any]:
        job: dict[str, Any] = json.loads(await self._line())
        self.limits = job["limits"]
        return job

    async def _line(self) -> bytes:
        line = await self._reader.readline()
        if not line:
            # It is gone.
            os._exit(0)
        return line

    def say(self, message: dict[str, Any]) -> None:
        self._writer.write(json.dumps(message).encode() + b"\n")

    async def end(self, message: dict[str, Any]) -> None:
        """Say the last message. A result that is too large is a failure."""
        size, most = len(json.dumps(message)) + 1, self.limits["lineBytes"]
        if size > most:
            message = {
                "type": "failed",
                "kind": "failed",
                "message": f"The result has {size} bytes, of at most {most}.",
            }
        self.say(message)
        await self._writer.drain()

    async def hear_answers(self) -> None:
        while True:
            answer = json.loads(await self._line())
            waiting = self._waiting.pop(answer["id"], None)
            if waiting is not None and not waiting.done():
                waiting.set_result(answer)

    async def call(self, tool: str, given: Any) -> dict[str, Any]:
        """`{"output"}` or `{"error"}` of one of the job's tools."""
        self._calls += 1
        number = str(self._calls)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        self.say({"type": "call", "id": number, "tool": tool, "input": given})
        return await answer

    def cut(self, text: str, most: int | None = None) -> str:
        most = self.limits["textCharacters"] if most is None else most
        return text if len(text) <= most else f"{text[: most - 1]}…"


async def work() -> None:
    reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=0), limit=_LINE_BYTES)
    gateway = Gateway(reader, writer)
    gateway.say({"type": "ready"})
    job = await gateway.job()
    hearing = asyncio.create_task(gateway.hear_answers())
    try:
        await gateway.end({"type": "result", "value": await Work(gateway, job).result()})
    except Exception as error:
        traceback.print_exc()
        kind = error.kind if isinstance(error, Failed) else "failed"
        message = gateway.cut(str(error) or type(error).__name__)
        await gateway.end({"type": "failed", "kind": kind, "message": message})
    hearing.cancel()


class Work:
    """One job."""

    def __init__(self, gateway: Gateway | None, job: dict[str, Any]) -> None:
        """Without a gateway it is only rehearsed."""
        from browser_use import BrowserSession

        self._gateway: Any = gateway
        self._job = job
        self._steps = 0
        # The last call to the model, where it failed.
        self._model_failure: BaseException | None = None
        scratch = os.getcwd()
        if not job["lease"]:
            raise Failed("page", "There is no browser.")
        self.session = BrowserSession(
            cdp_url=job["lease"],
            is_local=False,
            # Neither its window nor its rights are changed, and it stays when the agent leaves.
            headless=False,
            no_viewport=True,
            permissions=[],
            keep_alive=True,
            highlight_elements=False,
            enable_default_extensions=False,
            captcha_solver=False,
            downloads_path=f"{scratch}/downloads",
        )

    def agent(self, model: Any) -> Any:
        from browser_use import Agent

        job, options, schema = self._job, self._job["options"], self._job["schema"]
        return Agent(
            task=job["instruction"],
            llm=model,
            browser=self.session,
            tools=self._tools(),
            output_model_schema=None if schema is None else _shown_as("Output", schema, is_checked=True),
            extend_system_message=options.get("systemPrompt"),
            use_vision=options.get("vision", False),
            file_system_path=f"{os.getcwd()}/files",
            max_failures=_FAILURES,
            llm_timeout=_MODEL_SECONDS,
            step_timeout=_STEP_SECONDS,
            # An address in the instruction is no page that must be opened.
            directly_open_url=False,
            use_judge=False,
            calculate_cost=False,
            enable_signal_handler=False,
        )

    async def result(self) -> dict[str, Any]:
        job, schema = self._job, self._job["schema"]
        await self._attach()
        agent = self.agent(self.model())
        history = await agent.run(max_steps=job["maxSteps"], on_step_end=self._after_step)
        if history.is_done():
            answer = history.final_result() or ""
            output = None if schema is None else json.loads(answer)
            return {
                "success": history.is_successful() is True,
                "completed": True,
                "message": answer,
                "output": output,
            }
        if not self.session.is_cdp_connected:
            raise Failed("page", "The browser was closed.")
        failure = self._model_failure
        is_used_up = agent.state.n_steps > job["maxSteps"]
        if failure is not None and not (is_used_up and _is_unusable(failure)):
            raise Failed("model", str(failure) or type(failure).__name__)
        if not is_used_up:
            raise Failed("failed", next((each for each in reversed(history.errors()) if each), "It has ended."))
        return {"success": False, "completed": False, "message": "All steps are used.", "output": None}

    async def _attach(self) -> None:
        """Work on the page of the job, and on no other that was opened earlier."""
        from browser_use.browser.events import SwitchTabEvent

        await self.session.start()
        wanted = self._job["targetId"]
        if wanted is None:
            return
        if all(page.target_id != wanted for page in self.session.session_manager.get_all_page_targets()):
            raise Failed("page", "The page is not open any more.")
        event = self.session.event_bus.dispatch(SwitchTabEvent(target_id=wanted))
        await event
        await event.event_result(raise_if_any=True)

    def model(self, **options: Any) -> Any:
        """The model, at the relay's address, with its token."""
        from browser_use import ChatAnthropic, ChatGoogle, ChatOpenAI

        access = self._job["model"]
        address = access["address"]
        given = {"model": access["name"], "api_key": access["token"], "max_retries": 1, **options}
        model: Any
        match access["provider"]:
            case "anthropic":
                model = ChatAnthropic(base_url=address, **given)
            case "google":
                model = ChatGoogle(http_options={"base_url": address}, **given)
            case "openai":
                model = ChatOpenAI(base_url=f"{address}/v1", **given)
            case _:
                # A server may not know structured output, and then reads the schema in words.
                model = ChatOpenAI(base_url=f"{address}/v1", add_schema_to_system_prompt=True, **given)
        ask = model.ainvoke

        async def ainvoke(*messages: Any, **others: Any) -> Any:
            self._model_failure = None
            try:
                return await ask(*messages, **others)
            except BaseException as error:
                self._model_failure = error
                raise

        model.ainvoke = ainvoke
        return model

    def _tools(self) -> Any:
        """The library's actions, and the job's tools as further ones, which the gateway carries out."""
        from browser_use import Tools

        tools = Tools(exclude_actions=list(self._job["options"].get("excludeTools", ())))
        for tool in self._job["tools"]:
            shown = _shown_as(tool["name"], tool["inputSchema"])
            tools.action(tool["description"], param_model=shown)(self._caller(tool["name"]))
        return tools

    def _caller(self, name: str) -> Any:
        from browser_use import ActionResult

        async def call(params: Any) -> Any:
            answer = await self._gateway.call(name, params.root)
            if "error" in answer:
                return ActionResult(error=answer["error"])
            return ActionResult(extracted_content=json.dumps(answer["output"]))

        call.__name__ = name
        return call

    async def _after_step(self, agent: Any) -> None:
        """Say what was done, and why. A step in which the model answered nothing is none."""
        done = agent.history.history[self._steps :]
        self._steps += len(done)
        for item in done:
            if item.model_output is None:
                continue
            number, total = item.metadata.step_number, self._job["maxSteps"]
            reasons = (item.model_output.thinking, item.model_output.next_goal)
            actions = [self._described(action) for action in item.model_output.action]
            self._gateway.say(
                {
                    "type": "step",
                    "number": number,
                    "total": total if number <= total else None,
                    "action": self._gateway.cut("; ".join(actions) or "no action"),
                    "reason": self._gateway.cut(" ".join(filter(None, reasons))),
                    "url": await self.session.get_current_page_url(),
                    "screenshot": await self._picture() if self._job["screenshots"] else None,
                }
            )

    def _described(self, action: Any) -> str:
        ((name, given),) = action.model_dump(exclude_unset=True).items()
        return f"{name} {self._gateway.cut(json.dumps(given), _ACTION_CHARACTERS)}"

    async def _picture(self) -> str | None:
        try:
            taken = await self.session.take_screenshot(format="jpeg", quality=60)
        except Exception:
            traceback.print_exc()
            return None
        return base64.b64encode(taken).decode() if len(taken) <= self._gateway.limits["screenshotBytes"] else None


def _is_unusable(failure: BaseException) -> bool:
    """Whether the model has answered, but not in the form that was asked for."""
    from pydantic import ValidationError

    return isinstance(failure.__cause__, ValidationError)


def _shown_as(name: str, schema: dict[str, Any], *, is_checked: bool = False) -> Any:
    """A class of values that the model is shown this schema of, where the library knows a small part of JSON Schema.

    A value that does not fit is refused where `is_checked`; the gateway checks it in any case.
    """
    from jsonschema import validators
    from pydantic import RootModel

    shown = _plain(schema, schema)
    validator = validators.validator_for(schema)(schema)

    class Shown(RootModel[dict[str, Any]]):
        def model_post_init(self, _: Any) -> None:
            if is_checked and (error := next(validator.iter_errors(self.root), None)) is not None:
                raise ValueError(f"{error.json_path}: {error.message}")

        @classmethod
        def __get_pydantic_json_schema__(cls, *_: Any) -> dict[str, Any]:
            return dict(shown)

    Shown.__name__ = Shown.__qualname__ = name
    return Shown


def _plain(given: Any, whole: dict[str, Any], within: tuple[str, ...] = ()) -> dict[str, Any]:
    """A schema in the words that all providers take, definitions in the places that refer to them."""
    if not isinstance(given, dict):
        return {}
    if isinstance(reference := given.get("$ref"), str):
        if reference in within:
            raise Failed("failed", f"browser-use can't use a schema that has itself as a part ({reference}).")
        others = {name: value for name, value in given.items() if name != "$ref"}
        return _plain({**_referred(reference, whole), **others}, whole, (*within, reference))
    if isinstance(kinds := given.get("type"), list):
        return {"anyOf": [_plain({**given, "type": kind}, whole, within) for kind in kinds]}
    if kinds == "null":
        return {"type": "null"}
    shown = {name: given[name] for name in _KEYWORDS if name in given}
    values = given.get("enum", [given["const"]] if "const" in given else [])
    if values and all(isinstance(value, str) for value in values):
        shown["enum"] = values
    if isinstance(properties := given.get("properties"), dict):
        shown["properties"] = {name: _plain(each, whole, within) for name, each in properties.items()}
        shown["required"] = [name for name in given.get("required", ()) if name in properties]
    if isinstance(items := given.get("items"), dict):
        shown["items"] = _plain(items, whole, within)
    if choices := given.get("anyOf") or given.get("oneOf"):
        shown["anyOf"] = [_plain(each, whole, within) for each in choices]
    return shown


def _referred(reference: str, whole: dict[str, Any]) -> dict[str, Any]:
    found: Any = whole
    for part in reference.removeprefix("#").split("/")[1:]:
        found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    if not reference.startswith("#") or not isinstance(found, dict):
        raise Failed("failed", f"browser-use can't use a schema with the reference {reference}.")
    return found


if __name__ == "__main__":
    load() if sys.argv[1:] == ["--load"] else serve()
