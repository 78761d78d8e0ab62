"""Random and mutated messages: nothing crashes, every request that can be framed gets exactly one answer.

`DIAMETER_FUZZ_MESSAGES` says how many (default 50 000; a release run takes a million), `DIAMETER_FUZZ_SEED` where from.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import struct
from collections import Counter
from typing import Any

import pytest
from diameter_peer import Answer, Peer, avp, message, mscc, octets

from mvnobox.charging.diameter.connection import Connection, State
from mvnobox.charging.diameter.node import Node

MESSAGES = int(os.environ.get("DIAMETER_FUZZ_MESSAGES", "50000"))
SEED = int(os.environ.get("DIAMETER_FUZZ_SEED", "1"))
BATCH = 40
INTERESTING = (0, 1, 2, 4, 5, 7, 8, 11, 12, 0x7F, 0x80, 0xC0, 0xFF)


class Memory(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closing = False

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 3868) if name == "sockname" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        return None

    def pause_reading(self) -> None:
        return None

    def resume_reading(self) -> None:
        return None

    def answers(self) -> list[Answer]:
        data, found = b"".join(self.written), []
        self.written.clear()
        while data:
            length = int.from_bytes(data[1:4])
            assert data[0] == 1 and length >= 20 and length % 4 == 0 and length <= len(data)
            found.append(Answer(data[:length]))
            data = data[length:]
        return found


class Mutator:
    def __init__(self, seed: int, name: str = "smf.test", **of: Any) -> None:
        """`name`: what Session-Ids begin with; `of`: whose requests they are."""
        self.random = random.Random(seed)
        peer = Peer(None, None, "smf.test")  # type: ignore[arg-type]
        used = [avp(420, 17), avp(412, 300, wide=True), avp(414, 450, wide=True), avp(872, 4, vendor=10415)]
        money = avp(437, [avp(413, [avp(445, [avp(447, 5, wide=True), avp(429, 0)]), avp(425, 978)])])
        proxy = avp(284, [avp(280, "p1"), avp(33, b"x")])
        self.valid = [
            (272, peer.ccr(1, 0, f"{name};1;1", mscc(want=[]), more=proxy, **of)),
            (272, peer.ccr(2, 1, f"{name};1;1", mscc(want=[octets(800)], used=used, group=None), **of)),
            (
                272,
                peer.ccr(
                    2,
                    2,
                    name,
                    mscc(want=[], used=[octets(1)]),
                    mscc(want=[avp(420, 5)], group=3, more=avp(439, 1)),
                    **of,
                ),
            ),
            (272, peer.ccr(3, 3, f"{name};1;1", mscc(used=[octets(2**40)]), **of)),
            (272, peer.ccr(2, 4, f"{name};1;12", avp(446, [octets(4)]), avp(437, []), **of)),
            (
                272,
                peer.ccr(4, 0, f"{name};1;13", avp(437, [avp(417, 3, wide=True)]), avp(432, 4), more=avp(436, 0), **of),
            ),
            (272, peer.ccr(4, 0, f"{name};1;14", money, more=avp(436, 1), **of)),
            (272, peer.ccr(4, 0, f"{name};1;15", more=avp(436, 2), **of)),
            (272, peer.ccr(4, 0, f"{name};1;16", avp(437, [octets(3)]), more=avp(436, 3), **of)),
            (280, avp(264, "smf.test") + avp(296, "test")),
        ]

    def _avps(self, body: bytes) -> list[bytes]:
        parts = []
        while body:
            length = max(int.from_bytes(body[5:8]), 8)
            length += -length % 4
            parts.append(body[:length])
            body = body[length:]
        return parts

    def mutated(self, hop: int) -> bytes:
        """A message that is wrong in some way, now and then in none."""
        rnd = self.random
        command, body = rnd.choice(self.valid)
        flags, application = 0xC0, 4 if command == 272 else 0
        for _ in range(rnd.choice((1, 1, 1, 2, 3, 8))):
            kind = rnd.randrange(11)
            if kind == 0:  # one octet anywhere
                at = rnd.randrange(len(body) or 1)
                body = (
                    body[:at]
                    + bytes([rnd.choice(INTERESTING) if rnd.random() < 0.5 else rnd.randrange(256)])
                    + body[at + 1 :]
                )
            elif kind == 1:  # one bit anywhere
                at = rnd.randrange(len(body) or 1)
                if body:
                    body = body[:at] + bytes([body[at] ^ 1 << rnd.randrange(8)]) + body[at + 1 :]
            elif kind == 2:  # cut off, in the middle of whatever there is
                body = body[: rnd.randrange(len(body) + 1)]
            elif kind == 3:  # octets in the middle
                at = rnd.randrange(len(body) + 1)
                body = body[:at] + rnd.randbytes(rnd.choice((1, 4, 8, 64))) + body[at:]
            elif kind == 4:  # octets gone from the middle
                at = rnd.randrange(len(body) + 1)
                body = body[:at] + body[at + rnd.choice((1, 4, 8, 12)) :]
            elif kind == 5:  # AVPs in another order, some twice, some missing
                parts = self._parts(body)
                body = b"".join(rnd.choices(parts, k=rnd.randrange(len(parts) + 3))) if parts else body
            elif kind == 6:
                parts = self._parts(body)
                rnd.shuffle(parts)
                body = b"".join(parts)
            elif kind == 7:  # an AVP of any kind more
                head = struct.pack(">IB", rnd.choice((rnd.getrandbits(32), rnd.randrange(500))), rnd.randrange(256))
                body += (
                    head
                    + rnd.choice((8, 12, 16, rnd.getrandbits(24))).to_bytes(3)
                    + rnd.randbytes(rnd.choice((0, 4, 8)))
                )
            elif kind == 8:
                flags = rnd.randrange(256)
            elif kind == 9:
                command = rnd.choice((257, 258, 272, 274, 280, 282, rnd.getrandbits(24)))
            else:  # nothing but noise
                body = rnd.randbytes(rnd.randrange(300))
        body += bytes(-len(body) % 4)
        made = message(
            command,
            body,
            flags=flags,
            application=application if rnd.random() < 0.95 else 7,
            hop=hop,
            end=~hop & 0xFFFFFFFF,
        )
        if rnd.random() < 0.01:  # a frame that cannot be
            made = bytearray(made)
            made[rnd.randrange(4)] = rnd.randrange(256)
            made = bytes(made)
        return made

    def _parts(self, body: bytes) -> list[bytes]:
        try:
            parts = self._avps(body)
        except Exception:
            return [body]
        return parts if all(parts) else [body]


async def opened(node: Node, hop: int) -> tuple[Connection, Memory]:
    connection, transport = Connection(node), Memory()
    connection.connection_made(transport)
    peer = Peer(None, None, f"smf{hop}.test")  # type: ignore[arg-type]
    connection.data_received(message(257, peer.cer(), flags=0x80, application=0))
    await asyncio.sleep(0)
    (cea,) = transport.answers()
    assert cea.result == 2001
    return connection, transport


@pytest.mark.timeout(7200)
async def test_no_message_crashes_and_every_request_is_answered(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    node: Node = (await serve(outstanding=10_000)).node
    caplog.set_level(logging.ERROR)
    mutator, hop, done = Mutator(SEED), 0, 0
    connection, transport = await opened(node, 0)
    results: Counter[int] = Counter()
    while done < MESSAGES:
        # Whole messages and pieces, and after each batch a request that is certainly valid.
        expected: dict[int, bytes] = {}
        data = b""
        for _ in range(BATCH):
            hop += 1
            made = mutator.mutated(hop)
            done += 1
            data += made
            sound = made[0] == 1 and int.from_bytes(made[1:4]) == len(made)
            if not sound:
                break
            if made[4] & 0x80:
                expected[hop] = made
            if made[4] & 0x80 and not made[4] & 0x20 and int.from_bytes(made[5:8]) == 282:
                break  # the peer has said good-bye, or tried to
        else:
            sound = True
        if sound:
            hop += 1
            valid = message(*mutator.valid[hop % len(mutator.valid)], hop=hop)
            if int.from_bytes(valid[5:8]) == 280:
                valid = valid[:4] + b"\x80" + valid[5:8] + bytes(4) + valid[12:]
            expected[hop] = valid
            data += valid
        cut = mutator.random.randrange(len(data))
        for piece in (data[:cut], data[cut:]):
            if piece and connection._transport is not None:
                connection.data_received(piece)
        for _ in range(100_000):
            await asyncio.sleep(0)
            if not connection._running and not connection._turning and not connection._out:
                break
        gone = connection.state is State.CLOSING
        answers = transport.answers()
        for answer in answers:
            if answer.flags & 0x80:
                continue  # a watchdog of ours
            assert answer.flags & 0x90 == 0 and answer.result is not None
            asked = expected.pop(answer.hop, None)
            if asked is None:
                assert not sound, "an answer to nothing, or a second one"
                continue
            results[answer.result] += 1
            assert answer.end == int.from_bytes(asked[16:20]) and asked[5:8] == answer.data[5:8]
            assert answer.result // 1000 in (2, 3, 4, 5) and bool(answer.flags & 0x20) == (answer.result // 1000 == 3)
            if answer.hop == hop and sound:
                assert answer.result in (2001, 4012, 5031), (answer.result, asked.hex())
        left = [one.hex() for number, one in expected.items() if not (gone and number == hop)]
        assert not left or (not sound and gone), (SEED, done, left)
        assert not [record for record in caplog.records if record.levelno >= logging.ERROR], caplog.records
        if gone or not sound:
            connection.connection_lost(None)
            connection, transport = await opened(node, hop)
    connection.connection_lost(None)
    assert node.running == 0
    # The mutations reach every refusal that a single message can have.
    assert {2001, 3001, 3007, 3008, 3009, 5001, 5004, 5005, 5009, 5012, 5014} <= set(results), results
    print(f"{done} messages, seed {SEED}: {dict(sorted(results.items()))}")


async def test_mutations_leave_the_real_ledger_sound(account: Any, ocs: Any) -> None:
    """The same over a socket, with a real OCS and its database: every request is answered, and the account's sums agree."""
    for unit in ("octets", "seconds", "messages", "minor"):
        account.grant(10**15, unit)
    results: Counter[int] = Counter()
    peer = await Peer.connect(ocs.diameter[0], "fuzz.test")
    assert (await peer.exchange(message(257, peer.cer(), flags=0x80, application=0))).result == 2001
    hop = 0
    for batch in range(max(MESSAGES // 25 // BATCH, 1)):
        mutator = Mutator(SEED * 1_000_000 + batch, f"fuzz.test;{batch}", imsi=account.imsi)
        expected, sent = set(), []
        for command, body in mutator.valid[:-1]:
            hop += 1
            sent.append(message(command, body, hop=hop))
            expected.add(hop)
        while len(sent) < BATCH:
            hop += 1
            made = mutator.mutated(hop)
            # What ends the connection is the other test's matter, and that of test_peers.
            if made[0] != 1 or int.from_bytes(made[1:4]) != len(made) or int.from_bytes(made[5:8]) == 282:
                continue
            sent.append(made)
            if made[4] & 0x80:
                expected.add(hop)
        mutator.random.shuffle(sent)
        peer.writer.write(b"".join(sent))
        while expected:
            answer = await asyncio.wait_for(peer.receive(), 60)
            if answer.flags & 0x80:
                continue
            expected.remove(answer.hop)
            results[answer.result or 0] += 1
            # Nothing of it is the database's trouble.
            assert answer.result not in (0, 3004), answer.data.hex()
    assert {2001, 5002, 5004} <= set(results), results
    for unit in ("octets", "seconds", "messages", "minor"):
        granted, used, held, available = account.totals(unit)
        assert granted == used + held + available and used >= 0
    await peer.close()
    print(f"{hop} messages, seed {SEED}: {dict(sorted(results.items()))}")
