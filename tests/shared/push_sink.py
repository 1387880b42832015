"""A web server in the place of Loki, which takes what Promtail pushes and has of each entry all that Promtail sent."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Pushed:
    """An entry as it was pushed; bytes that aren't UTF-8 are replaced."""

    labels: dict[str, str]
    time: int  # nanoseconds since the epoch
    text: str
    metadata: dict[str, str]


def varint(data: bytes, place: int) -> tuple[int, int]:
    """Return a number of variable length, and where what follows begins."""
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, place


def unpack(data: bytes) -> bytes:
    """Return the content of a block of Snappy: literals, and copies of what came before."""
    size, place = varint(data, 0)
    out = bytearray()
    while place < len(data):
        tag = data[place]
        place += 1
        if tag & 3 == 0:
            length = tag >> 2
            if length >= 60:
                width = length - 59
                length = int.from_bytes(data[place : place + width], "little")
                place += width
            out += data[place : place + length + 1]
            place += length + 1
            continue
        if tag & 3 == 1:
            length, offset = (tag >> 2 & 7) + 4, (tag >> 5) << 8 | data[place]
            place += 1
        else:
            width = 2 if tag & 3 == 2 else 4
            length, offset = (tag >> 2) + 1, int.from_bytes(data[place : place + width], "little")
            place += width
        for _ in range(length):
            out.append(out[-offset])
    assert len(out) == size
    return bytes(out)


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the fields of a message of Protocol Buffers: number, and value or content."""
    place = 0
    while place < len(data):
        key, place = varint(data, place)
        value, place = varint(data, place)
        if key & 7 == 2:
            yield key >> 3, data[place : place + value]
            place += value
        else:
            assert key & 7 == 0, f"a field of the type {key & 7}"
            yield key >> 3, value


def contents(data: bytes, number: int) -> list[bytes]:
    """Return the contents of all fields of a number."""
    return [value for key, value in fields(data) if key == number and isinstance(value, bytes)]


def text_of(data: bytes, number: int) -> str:
    """Return the text in a field."""
    return b"".join(contents(data, number)).decode(errors="replace")


def entries_in(push: bytes) -> Iterator[Pushed]:
    """Yield the entries of a push request: streams of labels (1) and entries (2) of time, line and metadata."""
    for stream in contents(push, 1):
        labels = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', text_of(stream, 1)))
        for entry in contents(stream, 2):
            (when,) = contents(entry, 1)
            clock = dict(fields(when))
            pairs = [(text_of(pair, 1), text_of(pair, 2)) for pair in contents(entry, 3)]
            metadata = dict(pairs)
            assert len(metadata) == len(pairs), f"metadata that is there twice: {pairs}"
            yield Pushed(labels, int(clock.get(1, 0)) * 10**9 + int(clock.get(2, 0)), text_of(entry, 2), metadata)


class PushSink:
    """Takes pushes on a free port of loopback."""

    def __init__(self) -> None:
        self.entries: list[Pushed] = []
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                sink.entries += entries_in(unpack(body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/loki/api/v1/push"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Give the port back."""
        self.server.shutdown()
        self.server.server_close()
