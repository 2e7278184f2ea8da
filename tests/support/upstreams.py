"""An upstream proxy that runtimes and saved proxies name, as others run them."""

from __future__ import annotations

import asyncio
import socket


class UpstreamServer:
    """A proxy as somebody else would run it: takes `user:pass`, notes what it is asked for, connects to `port`."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.asked: list[str] = []

    async def http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        if "Proxy-Authorization: Basic dXNlcjpwYXNz\r\n" not in head:
            writer.write(b"HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic\r\n\r\n")
            return
        self.asked.append(head.split()[1])
        await self._join(reader, writer, b"HTTP/1.1 200 OK\r\n\r\n")

    async def socks(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        if 2 not in methods:
            writer.write(b"\x05\xff")
            return
        writer.write(b"\x05\x02")
        _, length = await reader.readexactly(2)
        user = await reader.readexactly(length)
        password = await reader.readexactly((await reader.readexactly(1))[0])
        taken = (user, password) == (b"user", b"pass")
        writer.write(b"\x01" + bytes((not taken,)))
        if not taken:
            return
        kind = (await reader.readexactly(4))[3]
        if kind == 3:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        else:
            host = socket.inet_ntop(*{1: (2, await reader.readexactly(4))}[kind])
        self.asked.append(f"{host}:{int.from_bytes(await reader.readexactly(2))}")
        await self._join(reader, writer, b"\x05\x00\x00\x01" + bytes(6))

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, consent: bytes) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(consent)

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65536):
                sink.write(data)
            sink.close()

        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
