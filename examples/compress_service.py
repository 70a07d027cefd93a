"""A service that compresses small messages: the compressors are leased from a Pool by the threads of its connections.

    python examples/compress_service.py

What can be pooled is not what one thinks of first. A zlib compressobj is useless after flush(), and a copy() of a
template costs more than a new one. But one that is never finished can be used again: a full flush ends a message and
forgets it. A ZstdCompressor is made to be used again, by one thread at a time.

For zlib the gain is that of its 256 KiB of memory. Where the C library gives them back to the system after each
message, the kernel finds new pages for the next one each time: then the first row says six times. Where they stay, it
says one. With glibc it may be either; they stay with MALLOC_TRIM_THRESHOLD_ and MALLOC_MMAP_THRESHOLD_ at 100000000.
"""
from __future__ import annotations

import json
import random
import socket
import zlib
from collections.abc import Callable
from typing import Protocol

from _compare import arguments, compare, heading
from _loopback import all_at_once, receive, send, service

from deferpool import Pool

try:
    import zstandard
except ImportError:
    zstandard = None

CLIENTS = 4


class Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...


class EndlessDeflate:
    """A compressobj that is never finished; each message comes out as a whole raw deflate stream."""

    EMPTY_LAST_BLOCK = b"\x03\x00"

    def __init__(self) -> None:
        self.stream = zlib.compressobj(6, zlib.DEFLATED, -15)

    def compress(self, data: bytes) -> bytes:
        return self.stream.compress(data) + self.stream.flush(zlib.Z_FULL_FLUSH) + self.EMPTY_LAST_BLOCK


class CopyOfTemplate:
    """The other way that zlib offers."""

    TEMPLATE = zlib.compressobj(6, zlib.DEFLATED, -15)

    def compress(self, data: bytes) -> bytes:
        stream = self.TEMPLATE.copy()
        return stream.compress(data) + stream.flush()


class Deflate:
    """What everyone does: a new compressobj for each message."""

    def compress(self, data: bytes) -> bytes:
        stream = zlib.compressobj(6, zlib.DEFLATED, -15)
        return stream.compress(data) + stream.flush()


def message(number: int) -> bytes:
    chance = random.Random(number)
    rows = [{"id": chance.randrange(10**6), "name": f"customer {chance.randrange(1000)}", "paid": chance.random() < 0.5,
             "amount": round(chance.random() * 1000, 2)} for _ in range(12)]
    return json.dumps(rows).encode()


MESSAGES = [message(number) for number in range(64)]


def compare_compressors(name: str, fresh: Callable[[], Compressor], make: Callable[[], Compressor],
                        expand: Callable[[bytes], bytes], rounds: int, count: int) -> None:
    """By themselves, and in the service; both ways must give what expands to the messages."""
    pool = Pool(make, limit=64, name=name)

    def without(data: bytes) -> bytes:
        return fresh().compress(data)

    def pooled(data: bytes) -> bytes:
        with pool.lease() as compressor:
            return compressor.compress(data)

    for way in (without, pooled):
        for data in MESSAGES:
            if expand(way(data)) != data:
                raise SystemExit(f"{name}: a message does not come back as it was")

    def alone(way: Callable[[bytes], bytes]) -> Callable[[], None]:
        def run() -> None:
            for number in range(count):
                way(MESSAGES[number % len(MESSAGES)])
        return run

    compare(name, alone(without), alone(pooled), rounds=rounds, operations=count)

    def handler(way: Callable[[bytes], bytes]) -> Callable[[socket.socket], None]:
        def handle(connection: socket.socket) -> None:
            while (data := receive(connection)) is not None:
                send(connection, way(data))
        return handle

    def client(connection: socket.socket) -> None:
        for number in range(count // CLIENTS):
            send(connection, MESSAGES[number % len(MESSAGES)])
            if not receive(connection):
                raise SystemExit("the service closed a connection")

    with service(handler(without), CLIENTS) as some, service(handler(pooled), CLIENTS) as others:
        compare(f"  the same in the service, {CLIENTS} clients", lambda: all_at_once(client, some),
                lambda: all_at_once(client, others), rounds=rounds, operations=max(count // CLIENTS, 1) * CLIENTS)


def main() -> None:
    options = arguments("compressors from a Pool", count=2000)
    length = sum(map(len, MESSAGES)) // len(MESSAGES)
    heading(f"a message of {length} bytes")

    def inflate(data: bytes) -> bytes:
        return zlib.decompress(data, -15)

    compare_compressors("zlib, full flush", Deflate, EndlessDeflate, inflate, options.rounds, options.count)
    compare_compressors("zlib, a copy of a template", Deflate, CopyOfTemplate, inflate, options.rounds, options.count)
    if zstandard is None:
        print("zstandard is not installed: pip install zstandard shows where pooling pays most")
        return
    plain = zstandard.ZstdDecompressor()
    compare_compressors("zstandard", zstandard.ZstdCompressor, zstandard.ZstdCompressor, plain.decompress,
                        options.rounds, options.count)
    dictionary = zstandard.train_dictionary(16384, [message(number) for number in range(1000, 1400)])
    knowing = zstandard.ZstdDecompressor(dict_data=dictionary)

    def make() -> Compressor:
        compressor: Compressor = zstandard.ZstdCompressor(dict_data=dictionary)
        return compressor

    compare_compressors("zstandard with a dictionary", make, make, knowing.decompress, options.rounds, options.count)


if __name__ == "__main__":
    main()
