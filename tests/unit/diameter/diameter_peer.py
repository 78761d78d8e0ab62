"""A plain Diameter peer for tests: its own few lines of RFC 6733, nothing of the code under test."""

from __future__ import annotations

import asyncio
import itertools
import struct
from typing import Any

Avps = list[tuple[int, int, bytes]]  # code, vendor, value


def avp(
    code: int, value: bytes | str | int | list[bytes], *, vendor: int = 0, mandatory: bool = True, wide: bool = False
) -> bytes:
    """An AVP: text, octets, a group's members, or an integer of 32 (`wide`: 64) bits."""
    if isinstance(value, int):
        value = value.to_bytes(8 if wide else 4)
    elif isinstance(value, str):
        value = value.encode()
    elif isinstance(value, list):
        value = b"".join(value)
    flags = (0x80 if vendor else 0) | (0x40 if mandatory else 0)
    length = len(value) + (12 if vendor else 8)
    head = struct.pack(">IB", code, flags) + length.to_bytes(3) + (struct.pack(">I", vendor) if vendor else b"")
    return head + value + bytes(-length % 4)


def message(command: int, body: bytes, *, flags: int = 0xC0, application: int = 4, hop: int = 1, end: int = 1) -> bytes:
    return (
        b"\x01" + (20 + len(body)).to_bytes(3) + bytes([flags]) + command.to_bytes(3)
        + struct.pack(">III", application, hop, end) + body
    )  # fmt: skip


def avps(data: bytes) -> Avps:
    found: Avps = []
    while data:
        code, word = struct.unpack_from(">II", data)
        length = word & 0xFFFFFF
        vendor = struct.unpack_from(">I", data, 8)[0] if word >> 31 else 0
        found.append((code, vendor, data[12 if vendor else 8 : length]))
        data = data[length + -length % 4 :]
    return found


class Answer:
    """A message that was received."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.flags, self.command = data[4], int.from_bytes(data[5:8])
        self.application, self.hop, self.end = struct.unpack_from(">III", data, 8)
        self.avps = avps(data[20:])

    def all(self, *path: int) -> list[bytes]:
        """Values of the AVPs under a path of codes."""
        found = [value for code, _, value in self.avps if code == path[0]]
        for step in path[1:]:
            found = [value for group in found for code, _, value in avps(group) if code == step]
        return found

    def number(self, *path: int) -> int | None:
        found = self.all(*path)
        return int.from_bytes(found[0]) if found else None

    @property
    def result(self) -> int | None:
        return self.number(268)


class Peer:
    """One connection. Requests may be under way at once; answers find them by their hop-by-hop identifier."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str) -> None:
        self.reader, self.writer, self.host = reader, writer, host
        self.hops = itertools.count(1)
        self.waiting: dict[int, asyncio.Future[Answer]] = {}
        self.requests: asyncio.Queue[Answer] = asyncio.Queue()
        self.order: list[int] = []
        self.listening: asyncio.Task[None] | None = None

    @classmethod
    async def connect(cls, port: int, host: str = "smf.test") -> Peer:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        return cls(reader, writer, host)

    @classmethod
    async def open(cls, port: int, host: str = "smf.test") -> Peer:
        made = await cls.connect(port, host)
        answer = await made.exchange(message(257, made.cer(), flags=0x80, application=0))
        assert answer.result == 2001, answer.data
        made.listening = asyncio.create_task(made._listen())
        return made

    def cer(self, application: bytes | None = None, **more: bytes) -> bytes:
        return b"".join(
            [
                avp(264, self.host), avp(296, "test"), avp(257, b"\0\x01\x7f\0\0\x01"), avp(266, 0),
                avp(269, "peer", mandatory=False), avp(258, 4) if application is None else application, *more.values(),
            ]
        )  # fmt: skip

    async def receive(self) -> Answer:
        head = await self.reader.readexactly(20)
        return Answer(head + await self.reader.readexactly(int.from_bytes(head[1:4]) - 20))

    async def exchange(self, data: bytes) -> Answer:
        """Send and read the next message; only before the peer listens."""
        self.writer.write(data)
        return await asyncio.wait_for(self.receive(), 10)

    async def _listen(self) -> None:
        try:
            while True:
                got = await self.receive()
                if got.flags & 0x80:
                    self.requests.put_nowait(got)
                    continue
                self.order.append(got.hop)
                waiting = self.waiting.pop(got.hop, None)
                assert waiting is not None, "an answer that nobody asked for"
                waiting.set_result(got)
        except (asyncio.IncompleteReadError, ConnectionError):
            for waiting in self.waiting.values():
                waiting.cancel()

    def send(self, command: int, body: bytes, **more: Any) -> asyncio.Future[Answer]:
        if self.listening is not None and self.listening.done():
            raise ConnectionError("closed")
        hop = next(self.hops)
        self.waiting[hop] = asyncio.get_running_loop().create_future()
        self.writer.write(message(command, body, hop=hop, end=hop, **more))
        return self.waiting[hop]

    async def request(self, command: int, body: bytes, **more: Any) -> Answer:
        return await asyncio.wait_for(self.send(command, body, **more), 10)

    async def close(self) -> None:
        self.writer.close()
        if self.listening is not None:
            await self.listening

    def ccr(
        self, kind: int, number: int, session: str, *services: bytes, imsi: str | None = "208930000000001",
        context: str = "32251@3gpp.org", realm: str = "ocs.test.realm", more: bytes = b"",
    ) -> bytes:  # fmt: skip
        """A Credit-Control-Request's AVPs."""
        subscriber = [avp(443, [avp(450, 1), avp(444, imsi)])] if imsi is not None else []
        return b"".join(
            [
                avp(263, session), avp(264, self.host), avp(296, "test"), avp(283, realm), avp(258, 4),
                avp(461, context), avp(416, kind), avp(415, number), *subscriber, *services, more,
            ]
        )  # fmt: skip


def octets(total: int) -> bytes:
    return avp(421, total, wide=True)


def mscc(
    *, want: list[bytes] | None = None, used: list[bytes] | None = None, group: int | None = 1, more: bytes = b""
) -> bytes:
    """A Multiple-Services-Credit-Control."""
    parts = [avp(437, want)] if want is not None else []
    parts += [avp(446, used)] if used is not None else []
    parts += [avp(432, group)] if group is not None else []
    return avp(456, [*parts, more])
