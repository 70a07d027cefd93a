"""A server that stores what it is sent: each file is received whole into one buffer, new or from a BufferPool.

    python examples/file_server.py

The sockets and the file take so much longer than the making of a buffer that little is gained in time. What the pool
does give is a bound: however many connections there are, it keeps no more than `bound_bytes`.
"""
from __future__ import annotations

import os
import socket
import tempfile
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from _compare import arguments, compare, heading
from _loopback import LENGTH, all_at_once, receive_into, receive_length, service

from deferpool import Buffer, BufferPool

CLIENTS = 4
Get = Callable[[int], AbstractContextManager["Buffer | bytearray"]]


def new_buffer(size: int) -> AbstractContextManager[Buffer | bytearray]:
    return nullcontext(bytearray(size))


def storing(folder: Path, get: Get) -> Callable[[socket.socket], None]:
    """A handler: a length and so many bytes come in, the checksum of what now lies in the file goes out."""

    def handle(connection: socket.socket) -> None:
        with open(folder / str(connection.fileno()), "wb", buffering=0) as file:
            while (size := receive_length(connection)) is not None:
                # The view ends before the buffer does: one that is still looked into cannot be given back.
                with get(size) as buffer, memoryview(buffer) as view:
                    if not receive_into(connection, view):
                        return
                    file.seek(0)
                    file.write(view)
                    checksum = zlib.crc32(view)
                connection.sendall(LENGTH.pack(checksum))

    return handle


def main() -> None:
    options = arguments("received files in buffers from a BufferPool", count=800)
    buffers = BufferPool(limit_bytes=16 << 20)
    heading("a file received, stored and answered")
    for size in (4096, 65536, 1 << 20):
        body = os.urandom(size)
        expected = zlib.crc32(body)
        each = max(options.count // CLIENTS * 65536 // max(size, 65536), 1)

        def client(connection: socket.socket, body: bytes = body, expected: int = expected, each: int = each) -> None:
            for _ in range(each):
                connection.sendall(LENGTH.pack(len(body)))
                connection.sendall(body)
                if receive_length(connection) != expected:
                    raise SystemExit("the server has received something else")

        with tempfile.TemporaryDirectory() as folder, \
                service(storing(Path(folder), new_buffer), CLIENTS) as some, \
                service(storing(Path(folder), buffers.get), CLIENTS) as others:
            compare(f"{size // 1024} KiB, {CLIENTS} clients", lambda: all_at_once(client, some),
                    lambda: all_at_once(client, others), rounds=options.rounds, operations=each * CLIENTS)
    figures = buffers.stats()
    print(f"{figures['cached_bytes']:,} bytes are cached, of at most {figures['bound_bytes']:,}; "
          f"buffers made: {figures['created']}, of {figures['gets']} used")


if __name__ == "__main__":
    main()
