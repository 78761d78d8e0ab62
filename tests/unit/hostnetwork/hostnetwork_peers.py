"""The other sides for tests: an HSS and a packet gateway with their own few lines of each protocol."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import itertools
import socket
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

from mvnobox.core.sim.milenage import milenage

T, S6A = 10415, 16777251
IMSI, MSISDN = "001010000000001", "33700000001"
K, OPC = bytes.fromhex("465b5ce8b199b49faa5f0a2ee238a6bc"), bytes.fromhex("cd63cb71954a9f4e48a5994e37a02baf")
SIM = {"imsi": IMSI, "ki": K.hex(), "opc": OPC.hex(), "dnn": "internet", "sst": 1, "sd": "000001"}
PLMN = bytes.fromhex("00f110")

Avps = list[tuple[int, bytes]]


def avp(code: int, value: bytes | str | int | list[bytes], *, vendor: int = 0) -> bytes:
    """An AVP: text, octets, a group's members, or an integer of 32 bits."""
    if isinstance(value, list):
        value = b"".join(value)
    value = value.to_bytes(4) if isinstance(value, int) else value.encode() if isinstance(value, str) else value
    head = 12 if vendor else 8
    out = struct.pack(">II", code, (0xC0 if vendor else 0x40) << 24 | head + len(value))
    return out + (struct.pack(">I", vendor) if vendor else b"") + value + bytes(-len(value) % 4)


def avps(data: bytes) -> Avps:
    found: Avps = []
    while data:
        code, word = struct.unpack_from(">II", data)
        length = word & 0xFFFFFF
        found.append((code, data[12 if word >> 31 else 8 : length]))
        data = data[length + -length % 4 :]
    return found


def at(data: bytes, *path: int) -> bytes | None:
    """The value under a path of codes."""
    for code in path:
        inside = next((value for one, value in avps(data) if one == code), None)
        if inside is None:
            return None
        data = inside
    return data


def diameter(flags: int, command: int, application: int, hop: int, end: int, body: bytes) -> bytes:
    return struct.pack(">IIIII", 1 << 24 | 20 + len(body), flags << 24 | command, application, hop, end) + body


def subscription(*, status: int | None = 0, apn: str = "internet", rate: int = 1_000_000) -> bytes:
    qos = avp(
        1431, [avp(1028, 9, vendor=T), avp(1034, [avp(1046, 8, vendor=T), avp(1047, 1, vendor=T)], vendor=T)], vendor=T
    )
    ambr = avp(1435, [avp(516, rate, vendor=T), avp(515, 2 * rate, vendor=T)], vendor=T)
    configuration = avp(1430, [avp(1423, 1, vendor=T), avp(1456, 0, vendor=T), avp(493, apn), qos, ambr], vendor=T)
    profile = avp(1429, [avp(1423, 1, vendor=T), avp(1428, 0, vendor=T), configuration], vendor=T)
    parts = [avp(701, bytes.fromhex("33070000 0010".replace(" ", "")), vendor=T), ambr, profile]
    return avp(1400, ([avp(1424, status, vendor=T)] if status is not None else []) + parts, vendor=T)


class Hss:
    """Answers AIR, ULR and PUR of one subscriber; keeps what it was asked."""

    def __init__(self) -> None:
        self.sqn = 32
        self.asked: list[tuple[int, bytes]] = []
        self.subscription = subscription()
        self.refuse: dict[int, bytes] = {}
        self.network = PLMN
        self.cea = avp(268, 2001)
        self.acknowledged: asyncio.Queue[tuple[int, int, bytes]] = asyncio.Queue()
        self._hops = itertools.count(1)
        self._writer: asyncio.StreamWriter | None = None
        self.connections = 0

    @contextlib.asynccontextmanager
    async def serving(self, port: int, host: str = "127.0.0.1") -> AsyncIterator[Hss]:
        server = await asyncio.start_server(self._serve, host, port)
        try:
            yield self
        finally:
            server.close()
            if self._writer is not None:
                self._writer.close()

    def hang_up(self) -> None:
        assert self._writer is not None
        self._writer.close()

    def tell(self, command: int, body: bytes, *, application: int = S6A) -> None:
        """A request of the HSS's own."""
        assert self._writer is not None
        common = avp(263, "hss.test;1;2") + avp(264, "hss.test") + avp(296, "test")
        hop = next(self._hops)
        self._writer.write(diameter(0xC0, command, application, hop, hop, common + body))

    def raw(self, data: bytes) -> None:
        assert self._writer is not None
        self._writer.write(data)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readexactly(20)
                first, second, application, hop, end = struct.unpack(">IIIII", head)
                body = await reader.readexactly((first & 0xFFFFFF) - 20)
                command = second & 0xFFFFFF
                if not second >> 31:
                    self.acknowledged.put_nowait((command, hop, body))
                    continue
                self.asked.append((command, body))
                answer = self.refuse.get(command) or self._answer(command, body)
                session = avp(263, at(body, 263) or b"") if application else b""
                own = avp(264, "hss.test") + avp(296, "test")
                writer.write(diameter(second >> 24 & 0x40, command, application, hop, end, session + answer + own))

    def _answer(self, command: int, body: bytes) -> bytes:
        ok = avp(268, 2001)
        if command == 257:
            return self.cea
        if command == 316:
            return ok + avp(1406, 1, vendor=T) + self.subscription
        if command == 318:
            return ok + self._vector(body)
        return ok

    def _vector(self, body: bytes) -> bytes:
        again = at(body, 1408, 1411)
        if again is not None:
            rand, auts = again[:16], again[16:]
            ak = milenage(K, OPC, rand, bytes(6), b"\0\0").ak_star
            self.sqn = int.from_bytes(bytes(a ^ b for a, b in zip(auts[:6], ak, strict=True)))
        self.sqn += 32
        rand, sqn, amf = bytes(range(16)), self.sqn.to_bytes(6), b"\x80\0"
        v = milenage(K, OPC, rand, sqn, amf)
        concealed = bytes(a ^ b for a, b in zip(sqn, v.ak, strict=True))
        text = b"\x10" + self.network + b"\0\3" + concealed + b"\0\6"
        kasme = hmac.new(v.ck + v.ik, text, hashlib.sha256).digest()
        values = {1447: rand, 1448: v.res, 1449: concealed + amf + v.mac_a, 1450: kasme}
        return avp(
            1413, [avp(1414, [avp(code, value, vendor=T) for code, value in values.items()], vendor=T)], vendor=T
        )


def ie(type_: int, value: bytes, instance: int = 0) -> bytes:
    return struct.pack(">BHB", type_, len(value), instance) + value


def elements(data: bytes) -> list[tuple[int, int, bytes]]:
    found = []
    while data:
        type_, length, instance = struct.unpack_from(">BHB", data)
        found.append((type_, instance, data[4 : 4 + length]))
        data = data[4 + length :]
    return found


def pick(data: bytes, type_: int, instance: int = 0) -> bytes | None:
    return next((value for t, i, value in elements(data) if (t, i) == (type_, instance)), None)


def gtp(kind: int, teid: int | None, sequence: int, body: bytes = b"") -> bytes:
    rest = (b"" if teid is None else struct.pack(">I", teid)) + sequence.to_bytes(3) + b"\0" + body
    return struct.pack(">BBH", 0x40 if teid is None else 0x48, kind, len(rest)) + rest


def fteid(interface: int, teid: int, address: str = "127.0.0.1") -> bytes:
    return bytes([0x80 | interface]) + struct.pack(">I", teid) + socket.inet_aton(address)


class Pgw(asyncio.DatagramProtocol):
    """Answers Create and Delete Session; `deaf` is how many datagrams it lets pass unheard."""

    def __init__(self) -> None:
        self.cause, self.deaf, self.restarts = 16, 0, 7
        self.heard: list[tuple[int, int, int, bytes]] = []
        self.answers: asyncio.Queue[tuple[int, int, int, bytes]] = asyncio.Queue()
        self.change: Callable[[bytes], bytes] = lambda data: data
        self.peer: tuple[str, int] = ("", 0)
        self._addresses = itertools.count(2)
        self._transport: Any = None

    @contextlib.asynccontextmanager
    async def serving(self, port: int, host: str = "127.0.0.1") -> AsyncIterator[Pgw]:
        loop = asyncio.get_running_loop()
        self.host = host
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(host, port))
        try:
            yield self
        finally:
            self._transport.close()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def send(self, data: bytes) -> None:
        self._transport.sendto(data, self.peer)

    def kinds(self) -> list[int]:
        return [kind for kind, *_ in self.heard]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.peer = addr
        kind, start = data[1], 12 if data[0] & 8 else 8
        teid = struct.unpack_from(">I", data, 4)[0] if start == 12 else 0
        sequence, body = int.from_bytes(data[start - 4 : start - 1]), data[start:]
        if kind not in (1, 32, 36):
            self.answers.put_nowait((kind, teid, sequence, body))
            return
        self.heard.append((kind, teid, sequence, body))
        if self.deaf:
            self.deaf -= 1
            return
        if kind == 1:
            answer = gtp(2, None, sequence, ie(3, bytes([self.restarts])))
        elif kind == 36:
            answer = gtp(37, self.sgw_teid, sequence, ie(2, bytes([self.cause, 0])))
        else:
            self.sgw_teid = struct.unpack_from(">I", pick(body, 87) or bytes(9), 1)[0]
            self.downlink_teid = struct.unpack_from(">I", pick(pick(body, 93) or b"", 87, 2) or bytes(9), 1)[0]
            answer = gtp(33, self.sgw_teid, sequence, self._created())
        self._transport.sendto(self.change(answer), addr)

    def _created(self) -> bytes:
        if self.cause != 16:
            return ie(2, bytes([self.cause, 0]))
        address = socket.inet_aton(f"10.45.128.{next(self._addresses)}")
        bearer = ie(73, b"\5") + ie(2, b"\x10\0") + ie(87, fteid(5, 0x7001, self.host), 2)
        options = b"\x80" + struct.pack(">HB4s", 13, 4, socket.inet_aton("9.9.9.9")) + struct.pack(">HBH", 16, 2, 1380)
        return (
            ie(2, b"\x10\0")
            + ie(87, fteid(7, 0x7000, self.host), 1)
            + ie(79, b"\1" + address)
            + ie(78, options)
            + ie(93, bearer)
        )


class Upf(asyncio.DatagramProtocol):
    """Sends every packet back with its addresses swapped, which makes an echo reply of a request; then knows no tunnel."""

    def __init__(self, pgw: Pgw) -> None:
        self._pgw, self.headers = pgw, list[bytes]()
        self.forgets = False
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.headers.append(data[:8])
        if self.forgets:
            about = struct.pack(">BI", 16, 0x7001) + struct.pack(">BH", 133, 4) + socket.inet_aton(self._pgw.host)
            self._transport.sendto(struct.pack(">BBHI", 0x32, 26, 4 + len(about), 0) + bytes(4) + about, addr)
            return
        packet = bytearray(data[8:])
        packet[12:16], packet[16:20] = packet[16:20], packet[12:16]
        # Type 8 becomes 0: the checksum over it grows by as much.
        packet[20] = 0
        total = int.from_bytes(packet[22:24]) + 0x0800
        packet[22:24] = ((total & 0xFFFF) + (total >> 16)).to_bytes(2)
        self._transport.sendto(struct.pack(">BBHI", 0x30, 255, len(packet), self._pgw.downlink_teid) + packet, addr)
