"""A service on the loopback interface: a thread for each connection, messages of a length and so many bytes."""
from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LENGTH = struct.Struct("!Q")


def receive_into(connection: socket.socket, view: memoryview) -> bool:
    """Fills the view; False when the other side has closed the connection."""
    while view.nbytes:
        got = connection.recv_into(view)
        if not got:
            return False
        view = view[got:]
    return True


def receive_length(connection: socket.socket) -> int | None:
    """None when the other side has closed the connection."""
    head = bytearray(LENGTH.size)
    return LENGTH.unpack(head)[0] if receive_into(connection, memoryview(head)) else None


def receive(connection: socket.socket) -> bytes | None:
    length = receive_length(connection)
    if length is None:
        return None
    body = bytearray(length)
    return bytes(body) if receive_into(connection, memoryview(body)) else None


def send(connection: socket.socket, message: bytes) -> None:
    connection.sendall(LENGTH.pack(len(message)) + message)


@contextmanager
def service(handle: Callable[[socket.socket], None], clients: int) -> Iterator[list[socket.socket]]:
    """Connections to a server that runs handle(connection) in a thread for each; all are closed at the end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pairs = []
        for _ in range(clients):
            ours = socket.create_connection(listener.getsockname())
            pairs.append((ours, listener.accept()[0]))
    threads = [threading.Thread(target=handle, args=(theirs,)) for _, theirs in pairs]
    for pair in pairs:
        for end in pair:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for thread in threads:
        thread.start()
    try:
        yield [ours for ours, _ in pairs]
    finally:
        for ours, _ in pairs:
            ours.close()
        for thread in threads:
            thread.join()
        for _, theirs in pairs:
            theirs.close()


def all_at_once(work: Callable[[socket.socket], None], connections: list[socket.socket]) -> None:
    """Runs work(connection) in a thread for each; raises the first exception of any of them."""
    errors: list[BaseException] = []

    def body(connection: socket.socket) -> None:
        try:
            work(connection)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=body, args=(connection,)) for connection in connections]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
