"""Writing straight to a connection's socket, in the call that has the bytes.

An event loop's transport keeps what is written until all that was received in this turn of the loop is processed. What
goes straight is on its way before anything else is done.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable


def straight_writer(transport: asyncio.Transport) -> Callable[[bytes], None]:
    """As the transport's `write`, and in order with it, but not deferred where the kernel takes the bytes.

    It must not be called once the transport's protocol has lost the connection: the descriptor may then be that of
    another one. With TLS it is the transport's `write` itself.
    """
    write = transport.write
    descriptor = transport.get_extra_info("socket").fileno()
    if descriptor < 0 or transport.get_extra_info("ssl_object") is not None:
        return write
    buffered = transport.get_write_buffer_size

    def write_straight(data: bytes) -> None:
        if not buffered():
            try:
                sent = os.write(descriptor, data)
            except OSError:
                # It is full, or lost: the transport notices, and reports it to its protocol.
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        write(data)

    return write_straight
