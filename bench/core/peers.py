"""Both sides of N4 and the OCS for the bench: as little work as will do, so that the CTF between them is what is measured.

`python peers.py upf ADDRESS`, `python peers.py smf OWN PEER SECONDS OUTSTANDING`, `python peers.py ocs PORT`. Messages
are those recorded between Open5GS's SMF and UPF; only addresses, SEIDs and sequence numbers are filled in.
"""

from __future__ import annotations

import json
import secrets
import select
import socket
import statistics
import struct
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))

from mvnobox.pfcp import codec  # noqa: E402
from mvnobox.pfcp.codec import Ie, IeType, Message, Type  # noqa: E402

RECORDED = ROOT / "tests/unit/n4/data/open5gs_2_7_7.json"
PORT = 8805
_SEID, _SEQUENCE = struct.Struct(">Q"), struct.Struct(">I")
# Numbers that stand nowhere else in a message, to find where the real ones go.
_MARK = 0x5EED5EED5EED5EED
_IMSI = "001019999999999"
# Those whom the sessions are of.
FIRST_IMSI, ACCOUNTS = 208_930_000_000_000, 1000
LOST_SECONDS = 20.0


def recorded(kind: int) -> Message:
    """The first recorded IPv4 message of a type."""
    for one in json.loads(RECORDED.read_text())["ipv4"]:
        message = codec.decode(bytes.fromhex(one["hex"]))
        if message.type == kind:
            return message
    raise LookupError(kind)


def _placed(message: Message, own: str) -> Message:
    """With the address of this run, and marks for SEIDs and IMSI."""
    ies = []
    for ie in message.ies:
        if ie.type == IeType.NODE_ID:
            ie = codec.node_id(own)
        elif ie.type == IeType.F_SEID:
            ie = codec.f_seid(_MARK, own)
        elif ie.type == IeType.USER_ID:
            ie = codec.user_id(_IMSI)
        ies.append(ie)
    return Message(message.type, 0, ies, seid=message.seid)


def _socket(address: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    made.bind((address, port))
    return made


def upf(own: str) -> None:
    """Accepts whatever comes; for ever."""
    template = bytearray(_placed(recorded(Type.SESSION_ESTABLISHMENT_RESPONSE), own).encode())
    mark = bytes(template).index(_SEID.pack(_MARK))
    wanted = struct.pack(">HH", IeType.F_SEID, 13)
    sock = _socket(own, PORT)
    accepted = codec.u8(IeType.CAUSE, 1)
    stamp = codec.recovery(1_700_000_000)
    number = 0
    while True:
        data, peer = sock.recvfrom(65535)
        if data[1] == Type.SESSION_ESTABLISHMENT_REQUEST:
            number += 1
            at = data.index(wanted, 16)
            template[4:12] = data[at + 5 : at + 13]
            template[12:15] = data[12:15]
            template[mark : mark + 8] = _SEID.pack(number)
            sock.sendto(template, peer)
            continue
        message = codec.decode(data)
        if not message.is_request:
            continue
        ies: list[Ie] = [accepted]
        if message.type == Type.HEARTBEAT_REQUEST:
            ies = [stamp]
        elif message.type == Type.ASSOCIATION_SETUP_REQUEST:
            features = recorded(Type.ASSOCIATION_SETUP_RESPONSE).need(IeType.UP_FUNCTION_FEATURES)
            ies = [codec.node_id(own), accepted, stamp, features]
        seid = None if message.seid is None else 1
        sock.sendto(Message(message.type + 1, message.sequence, ies, seid=seid).encode(), peer)


class Smf:
    """Sets sessions up in a closed loop."""

    def __init__(self, own: str, peer: str) -> None:
        self._sock, self._peer = _socket(own, PORT), (peer, PORT)
        self._own = own
        self._template = bytearray(_placed(recorded(Type.SESSION_ESTABLISHMENT_REQUEST), own).encode())
        self._seid = bytes(self._template).index(_SEID.pack(_MARK))
        self._imsi = bytes(self._template).index(codec.user_id(_IMSI).data[2:])
        self._users = [codec.user_id(str(FIRST_IMSI + number)).data[2:] for number in range(ACCOUNTS)]
        self._number = int(time.time()) % 1000 * 10_000_000
        # Not those of a run before: the CTF answers them from memory.
        self._sequence = secrets.randbelow(1 << 24)

    def associate(self) -> None:
        """Raises RuntimeError where the peer does not want to."""
        ies = [codec.node_id(self._own), codec.recovery(1_700_000_000)]
        deadline = time.monotonic() + 60
        self._sock.settimeout(1)
        while time.monotonic() < deadline:
            self._sequence = (self._sequence + 1) & 0xFFFFFF
            self._sock.sendto(Message(Type.ASSOCIATION_SETUP_REQUEST, self._sequence, ies).encode(), self._peer)
            try:
                while True:
                    answer = codec.decode(self._sock.recv(65535))
                    if answer.type == Type.ASSOCIATION_SETUP_RESPONSE:
                        if codec.number(answer.first(IeType.CAUSE), 1) == 1:
                            return
                        break
            except (TimeoutError, ConnectionError):
                continue
        raise RuntimeError("no association")

    def _send(self, now: float) -> int:
        self._number += 1
        self._sequence = (self._sequence + 1) & 0xFFFFFF
        template = self._template
        template[12:15] = _SEQUENCE.pack(self._sequence)[1:]
        template[self._seid : self._seid + 8] = _SEID.pack(self._number)
        template[self._imsi : self._imsi + 8] = self._users[self._number % ACCOUNTS]
        self._sock.sendto(template, self._peer)
        return self._sequence

    def run(self, seconds: float, outstanding: int, pause: float) -> dict[str, Any]:
        """Set-ups a second and their times in ms; between an answer and the next request there are `pause` seconds."""
        waiting: dict[int, float] = {}
        took: list[float] = []
        refused = lost = 0
        self._sock.setblocking(False)
        begun = time.perf_counter()
        for _ in range(outstanding):
            waiting[self._send(begun)] = time.perf_counter()
        while True:
            now = time.perf_counter()
            if now - begun > seconds:
                break
            ready, _, _ = select.select([self._sock], [], [], 1.0)
            if not ready:
                for sequence in [s for s, at in waiting.items() if now - at > LOST_SECONDS]:
                    del waiting[sequence]
                    lost += 1
                    waiting[self._send(now)] = now
                continue
            while True:
                try:
                    data = self._sock.recv(65535)
                except (BlockingIOError, ConnectionError):
                    break
                if data[1] == Type.HEARTBEAT_REQUEST:
                    beat = Message(
                        Type.HEARTBEAT_RESPONSE, codec.decode(data).sequence, [codec.recovery(1_700_000_000)]
                    )
                    self._sock.sendto(beat.encode(), self._peer)
                    continue
                if data[1] != Type.SESSION_ESTABLISHMENT_RESPONSE:
                    continue
                now = time.perf_counter()
                sent = waiting.pop(int.from_bytes(data[12:15], "big"), None)
                if sent is None:
                    continue
                if b"\x00\x13\x00\x01\x01" in data:
                    took.append(now - sent)
                else:
                    refused += 1
                if pause:
                    time.sleep(pause)
                waiting[self._send(now)] = time.perf_counter()
        elapsed = time.perf_counter() - begun
        took.sort()
        return {
            "made": len(took),
            "rate": len(took) / elapsed,
            "p50": statistics.median(took) * 1000 if took else 0.0,
            "p99": took[int(len(took) * 0.99)] * 1000 if took else 0.0,
            "refused": refused,
            "lost": lost,
        }


def ocs(port: int) -> None:
    """An Nchf responder that knows nobody and grants everybody; for ever."""
    from granian.constants import HTTPModes, Interfaces
    from granian.server.embed import Server

    grant = json.dumps(
        {
            "invocationTimeStamp": "2026-01-01T00:00:00Z",
            "invocationSequenceNumber": 0,
            "multipleUnitInformation": [
                {"ratingGroup": 1, "resultCode": "SUCCESS", "grantedUnit": {"totalVolume": 5_000_000}}
            ],
        }
    ).encode()
    served = 0

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        nonlocal served
        if scope["type"] != "http":
            return
        while (await receive()).get("more_body"):
            pass
        served += 1
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(grant)).encode())]
        headers.append((b"location", b"/nchf-convergedcharging/v3/chargingdata/%032x" % served))
        status = 201 if scope["path"].endswith("/chargingdata") else 200
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": grant})

    import asyncio

    import uvloop

    server = Server(
        app, address="127.0.0.1", port=port, interface=Interfaces.ASGI, http=HTTPModes.auto, log_enabled=False
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(server.serve())


def main() -> None:
    match sys.argv[1:]:
        case ["upf", own]:
            upf(own)
        case ["ocs", port]:
            ocs(int(port))
        case ["smf", own, peer, seconds, outstanding, pause]:
            smf = Smf(own, peer)
            smf.associate()
            smf.run(min(2.0, float(seconds)), int(outstanding), float(pause))
            print(json.dumps(smf.run(float(seconds), int(outstanding), float(pause))))


if __name__ == "__main__":
    main()
