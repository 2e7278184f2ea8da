"""A local web server with the pages that browsers open in tests and benches.

| path | what it is |
|---|---|
| `/blank` | the smallest page with a title |
| `/redirect` | leads to `/blank` |
| `/form` | `#name` and `#greet`: a click writes `Hello NAME, CLICKS` into `#result` |
| `/noise` | 1700 x 1500 pixels that can't be compressed: a PNG of the whole page has more than 5 MB |
| `/download` | an attachment, `report.txt` |
| `/step` | the colour of `?colour=rrggbb` all over; `#step` logs its `?number` to the console |
| `/playground` | fields, lists, a frame, and what else calls of automation work on |
| `/upload` | `#file` in a form; its POST answers with name, size and hash of what came |
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
import threading
from email.parser import BytesParser
from email.policy import HTTP
from types import TracebackType

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from uvicorn import Config, Server

BIG_SCREENSHOT_BYTES = 5_000_000
DOWNLOAD_NAME = "report.txt"
DOWNLOAD_BODY = b"a report of 40 bytes that never changes\n"

BLANK = "<!doctype html><title>Blank</title><p>blank</p>"

FORM = """<!doctype html>
<title>Form</title>
<form onsubmit="return false">
  <input id="name" autocomplete="off">
  <button id="greet" type="button">Greet</button>
</form>
<div id="result"></div>
<script>
  let clicks = 0;
  document.querySelector('#greet').addEventListener('click', () => {
    clicks += 1;
    document.querySelector('#result').textContent = `Hello ${document.querySelector('#name').value}, ${clicks}`;
  });
</script>
"""

# The noise is the same at every load (xorshift32 from a fixed seed), so that a screenshot's size is too.
NOISE = """<!doctype html>
<title>Noise</title>
<style>html, body { margin: 0 } canvas { display: block }</style>
<canvas width="1700" height="1500"></canvas>
<script>
  const context = document.querySelector('canvas').getContext('2d');
  const image = context.createImageData(1700, 1500);
  const pixels = new Uint32Array(image.data.buffer);
  let state = 2463534242;
  for (let i = 0; i < pixels.length; i++) {
    state ^= state << 13; state ^= state >>> 17; state ^= state << 5;
    pixels[i] = state | 0xff000000;
  }
  context.putImageData(image, 0, 0);
  document.title = 'Noise, painted';
</script>
"""

STEP = """<!doctype html>
<title>Step</title>
<style>button { position: fixed; bottom: 8px; right: 8px } a { position: fixed; bottom: 8px; left: 8px }</style>
<button id="step">Step</button>
<a id="download" href="/download">Download</a>
<script>
  const given = new URLSearchParams(location.search);
  document.documentElement.style.background = `#${given.get('colour')}`;
  document.querySelector('#step').addEventListener('click', () => console.log(`clicked ${given.get('number')}`));
</script>
"""

PLAYGROUND = """<!doctype html>
<title>Playground</title>
<label>Name <input id="name" placeholder="Your name" autocomplete="off"></label>
<label>Password <input id="password" type="password"></label>
<button id="greet" type="button" title="greets">Greet</button>
<div id="result" data-testid="result"></div>
<input id="agree" type="checkbox">
<select id="colour" name="colour">
  <option value="red">Red</option><option value="green">Green</option><option value="blue">Blue</option>
</select>
<select id="many" name="many" multiple><option value="a">A</option><option value="b">B</option></select>
<input id="file" type="file">
<a id="download" href="/download">Download</a> <a id="link" href="/blank">A link</a>
<ul id="list"><li class="item">one</li><li class="item">two</li><li class="item">three</li></ul>
<p id="hidden" style="display: none">hidden</p>
<img alt="a dot" src="data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA=">
<div id="drag" draggable="true">drag</div> <div id="drop" style="width: 50px; height: 50px">drop</div>
<button id="ask" type="button">Ask</button>
<iframe id="frame" name="inner" src="/blank?inner"></iframe>
<script>
  const element = (id) => document.getElementById(id);
  const show = (text) => { element('result').textContent = text; };
  element('greet').addEventListener('click', () => show(`Hello ${element('name').value}`));
  element('ask').addEventListener('click', () => show(String(prompt('Who?', 'nobody'))));
  element('drop').addEventListener('dragover', (event) => event.preventDefault());
</script>
"""

UPLOAD = """<!doctype html>
<title>Upload</title>
<form method="post" enctype="multipart/form-data">
  <input id="file" name="file" type="file">
  <button id="send">Send</button>
</form>
"""


class PageServer:
    """Serves the pages on a free port of the loopback address, from a thread, between `with` and its end."""

    def __init__(self) -> None:
        # /held answers once this is set.
        self.released = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._server = Server(Config(_pages(self.released), log_config=None, lifespan="off", access_log=False))
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="pages", daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def url(self, path: str) -> str:
        return self.base_url + path

    def __enter__(self) -> PageServer:
        # The socket listens already: a browser that comes before the server's loop does waits in the backlog.
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.released.set()
        self._server.should_exit = True
        # A browser that still holds a connection open must not hold up the tests.
        self._server.force_exit = True
        self._thread.join(10)
        self._socket.close()


def _pages(released: threading.Event) -> Starlette:
    async def held(_: Request) -> Response:
        await asyncio.to_thread(released.wait)
        return HTMLResponse(BLANK)

    return Starlette(
        routes=[
            Route("/blank", lambda request: HTMLResponse(BLANK)),
            Route("/held", held),
            Route("/redirect", lambda request: RedirectResponse("/blank")),
            Route("/form", lambda request: HTMLResponse(FORM)),
            Route("/noise", lambda request: HTMLResponse(NOISE)),
            Route("/download", _download),
            Route("/step", lambda request: HTMLResponse(STEP)),
            Route("/playground", lambda request: HTMLResponse(PLAYGROUND)),
            Route("/worker.js", lambda request: Response("// Serves nothing.", media_type="text/javascript")),
            Route("/upload", lambda request: HTMLResponse(UPLOAD)),
            Route("/upload", _upload, methods=["POST"]),
        ]
    )


def _download(request: Request) -> Response:
    disposition = f'attachment; filename="{DOWNLOAD_NAME}"'
    return Response(DOWNLOAD_BODY, media_type="application/octet-stream", headers={"Content-Disposition": disposition})


async def _upload(request: Request) -> Response:
    body = await request.body()
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    files = []
    for part in BytesParser(policy=HTTP).parsebytes(head + body).iter_parts():
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        digest = hashlib.sha256(content).hexdigest()
        files.append({"name": part.get_filename(), "size": len(content), "sha256": digest})
    return JSONResponse({"files": files})
