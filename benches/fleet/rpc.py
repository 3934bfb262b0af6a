"""Serf's RPC protocol for measuring: calls, and streams whose bytes are stamped at once and read later."""
import select
import socket
import threading
import time
from typing import Any, Iterator, Optional

import msgpack

Address = tuple[str, int]
# Longest wait for an answer, in seconds.
CALL_S = 30.0
HEADER_KEY = b"Error"


def packed(command: str, body: Optional[dict] = None, seq: int = 1) -> bytes:
    request = msgpack.packb({"Command": command, "Seq": seq}, use_bin_type=False)
    return request if body is None else request + msgpack.packb(body, use_bin_type=False)


def unpacker() -> msgpack.Unpacker:
    return msgpack.Unpacker(
        raw=False, strict_map_key=False, unicode_errors="surrogateescape", max_buffer_size=256 << 20
    )


class Caller:
    """One connection, one call at a time."""

    def __init__(self, address: Address):
        self.socket = socket.create_connection(address, CALL_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.values = unpacker()
        self.call("handshake", {"Version": 1}, body=False)

    def next(self) -> Any:
        while True:
            for value in self.values:
                return value
            data = self.socket.recv(1 << 18)
            if not data:
                raise ConnectionError("the agent ended the connection")
            self.values.feed(data)

    def header(self) -> None:
        error = self.next().get("Error")
        if error:
            raise RuntimeError(f"the agent answers: {error}")

    def call(self, command: str, request: Optional[dict] = None, body: bool = True) -> Any:
        self.socket.sendall(packed(command, request))
        self.header()
        return self.next() if body else None

    def send_all(self, requests: list[bytes]) -> None:
        """Requests without a body in their answers, all at once; returns when each is answered."""
        self.socket.sendall(b"".join(requests))
        for _ in requests:
            self.header()

    def load(self, request: bytes, seconds: float, depth: int = 64) -> int:
        """Sends `depth` equal requests at a time; gives how many were answered. Replies are not decoded, which would
        cost more than making them: each has one key `Error` in its header, and those are counted."""
        end, answered, tail = time.perf_counter() + seconds, 0, b""
        while time.perf_counter() < end:
            self.socket.sendall(request * depth)
            wanted = answered + depth
            while answered < wanted:
                data = tail + self.socket.recv(1 << 20)
                if data == tail:
                    raise ConnectionError("the agent ended the connection")
                answered += data.count(HEADER_KEY)
                tail = data[1 - len(HEADER_KEY) :]
        return answered

    def close(self) -> None:
        self.socket.close()


class Listener:
    """One command whose answer is a stream of records."""

    def __init__(self, address: Address, command: str, request: dict):
        self.socket = socket.create_connection(address, CALL_S)
        self.chunks: list[tuple[float, bytes]] = []
        self.values = unpacker()
        self.sent = time.perf_counter()
        self.socket.sendall(packed("handshake", {"Version": 1}, 0) + packed(command, request))

    def records(self) -> Iterator[tuple[float, dict]]:
        """What has come since the last time. Records are the maps that are no headers."""
        chunks, self.chunks = self.chunks, []
        for at, data in chunks:
            self.values.feed(data)
            for value in self.values:
                if "Seq" not in value:
                    yield at, value
                elif value.get("Error"):
                    raise RuntimeError(f"the agent answers: {value['Error']}")

    def close(self) -> None:
        self.socket.close()


class Collector:
    """Reads all streams in one thread that does nothing else: it must not compete with what it measures."""

    def __init__(self) -> None:
        self.poll = select.epoll()
        self.listeners: dict[int, Listener] = {}
        self.last = 0.0
        threading.Thread(target=self.run, daemon=True).start()

    def run(self) -> None:
        while True:
            for descriptor, _ in self.poll.poll():
                self.read(descriptor)

    def read(self, descriptor: int) -> None:
        listener = self.listeners.get(descriptor)
        try:
            data = listener.socket.recv(1 << 18) if listener else b""
        except OSError:
            data = b""
        if listener and data:
            self.last = time.perf_counter()
            listener.chunks.append((self.last, data))
        else:
            self.forget(descriptor)

    def forget(self, descriptor: int) -> None:
        self.listeners.pop(descriptor, None)
        try:
            self.poll.unregister(descriptor)
        except OSError:
            pass  # closed meanwhile

    def add(self, listener: Listener) -> Listener:
        descriptor = listener.socket.fileno()
        self.listeners[descriptor] = listener
        self.poll.register(descriptor, select.EPOLLIN)
        return listener

    def remove(self, listener: Listener) -> None:
        self.forget(listener.socket.fileno())
        listener.close()


COLLECTOR = Collector()
