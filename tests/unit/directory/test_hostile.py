"""Clients that send what no client should: the server answers with an error or closes, and goes on for the others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import struct
from typing import Any

import bson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvnobox.core.directory import server as server_module
from mvnobox.core.directory.filters import Unsupported, keys, matches, project
from mvnobox.core.directory.updates import BadValue, Change
from mvnobox.core.directory.wire import Command, WireError, parse, reply

IMSI = "208930000000001"
FIND = {"find": "subscribers", "filter": {"imsi": IMSI}, "$db": "open5gs"}
UPDATE = {
    "update": "subscribers",
    "updates": [{"q": {"imsi": IMSI}, "u": {"$inc": {"security.sqn": 32}}, "upsert": True}],
    "$db": "open5gs",
}


def message(document: Any, flags: int = 0, tail: bytes = b"") -> bytes:
    payload = struct.pack("<I", flags) + b"\0" + bson.encode(document) + tail
    return struct.pack("<iiii", 16 + len(payload), 1, 0, 2013) + payload


def query(document: Any, collection: bytes = b"admin.$cmd") -> bytes:
    payload = struct.pack("<i", 0) + collection + b"\0" + struct.pack("<ii", 0, -1) + bson.encode(document)
    return struct.pack("<iiii", 16 + len(payload), 1, 0, 2004) + payload


async def exchange(port: int, data: bytes) -> bytes:
    """What comes back for octets until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        writer.write_eof()
        return await asyncio.wait_for(reader.read(), 5)
    except OSError:
        return b""
    finally:
        writer.close()


def answers(data: bytes) -> list[dict[str, Any]]:
    found = []
    while data:
        length, _, _, opcode = struct.unpack_from("<iiii", data)
        found.append(bson.decode(data[(21 if opcode == 2013 else 36) : length]))
        data = data[length:]
    return found


async def test_messages_that_come_together_or_octet_by_octet(directory: Any) -> None:
    await directory.put(IMSI)
    many = message(FIND) + message({"ping": 1, "$db": "admin"}) + query({"isMaster": 1}) + message(FIND, flags=2)
    found = answers(await exchange(directory.port, many + message({"nonsense": 1, "$db": "x"})))
    assert [next(iter(one)) for one in found] == ["cursor", "ok", "helloOk", "ok"]
    assert found[3]["code"] == 59
    reader, writer = await asyncio.open_connection("127.0.0.1", directory.port)
    for octet in message(FIND, flags=1, tail=b"\1\2\3\4"):
        writer.write(bytes((octet,)))
        await writer.drain()
    head = await reader.readexactly(16)
    body = await reader.readexactly(struct.unpack_from("<i", head)[0] - 16)
    assert bson.decode(body[5:])["cursor"]["firstBatch"][0]["imsi"] == IMSI
    writer.close()


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: directory\r\n\r\n",
        struct.pack("<iiii", 2**31 - 1, 1, 0, 2013),
        struct.pack("<iiii", 48_000_000, 1, 0, 2013),
        struct.pack("<iiii", 16, 1, 0, 2013),
        struct.pack("<iiii", -1, 1, 0, 2013),
        struct.pack("<iiii", 25, 1, 0, 2012) + b"\0" * 9,
        message(FIND, flags=4),
        message(FIND, tail=b"\0" + bson.encode({})),
        message(FIND, tail=b"\7"),
        message(FIND, tail=b"\1\xff\xff\xff\x7fupdates\0"),
        struct.pack("<iiii", 17 + 4, 1, 0, 2013) + b"\0" * 5,
    ],
)
async def test_what_is_no_message_ends_the_connection(directory: Any, data: bytes) -> None:
    assert await exchange(directory.port, data) == b""


async def test_old_queries_are_told_what_to_use(directory: Any) -> None:
    (found,) = answers(await exchange(directory.port, query({"imsi": IMSI}, b"open5gs.subscribers")))
    assert found["code"] == 352


async def test_a_slow_client_is_ended_and_an_idle_one_is_not(directory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MESSAGE_SECONDS", 0.3)
    await directory.put(IMSI)
    idle_reader, idle_writer = await asyncio.open_connection("127.0.0.1", directory.port)
    idle_writer.write(message(FIND))
    await idle_reader.readexactly(16)
    for start in (b"", message(FIND)[:20], message(FIND) + b"\1"):
        reader, writer = await asyncio.open_connection("127.0.0.1", directory.port)
        writer.write(start)
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(reader.read(), 5)
        writer.close()
    idle_writer.write(message(FIND))
    await asyncio.wait_for(idle_reader.readexactly(16), 5)
    idle_writer.close()


async def test_a_client_that_does_not_read_is_ended(directory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MESSAGE_SECONDS", 0.3)
    statement = """SELECT count(directory.put_subscriber((208930000001000 + i)::text, '{}', $1, $2))
        FROM generate_series(1, 100) i"""
    await directory.sql(statement, directory.seal(), json.dumps({"subscriber_status": 0}))
    _, writer = await asyncio.open_connection("127.0.0.1", directory.port, limit=1)
    writer.transport.pause_reading()
    scan = message({"find": "subscribers", "$db": "open5gs"})
    with pytest.raises(ConnectionError):
        async with asyncio.timeout(30):
            while True:
                writer.write(scan * 20)
                await writer.drain()
                await asyncio.sleep(0)
    assert not directory.server.connections
    assert directory.server.waiting_octets == 0


async def test_connections_are_bounded(directory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MOST_CONNECTIONS", 3)
    await directory.put(IMSI)
    held = [await asyncio.open_connection("127.0.0.1", directory.port) for _ in range(3)]
    for reader, writer in held:
        writer.write(message(FIND))
        await reader.readexactly(16)
    assert await exchange(directory.port, message(FIND)) == b""
    held[0][1].close()
    async with asyncio.timeout(5):
        while not await exchange(directory.port, message(FIND)):
            await asyncio.sleep(0)
    for _, writer in held:
        writer.close()


async def test_a_large_message_needs_a_user(start: Any) -> None:
    large = message({**FIND, "comment": "x" * 20_000})
    async with start() as directory:
        assert answers(await exchange(directory.port, large))[0]["ok"] == 1.0
    async with start(users={"u": "p"}) as directory:
        assert await exchange(directory.port, large) == b""


async def test_mutated_messages_never_stop_the_server(directory: Any) -> None:
    await directory.put(IMSI, "33639980001")
    seeds = [message(FIND), message(UPDATE), query({"isMaster": 1}), message({"aggregate": "subscribers", **FIND})]
    chance = random.Random(208_93)
    for _ in range(1500):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randint(1, 6)):
            place = chance.randrange(len(data))
            match chance.randrange(4):
                case 0:
                    data[place] = chance.randrange(256)
                case 1:
                    del data[place : place + chance.randrange(1, 5)]
                case 2:
                    data[place:place] = chance.randbytes(chance.randrange(1, 5))
                case _:
                    struct.pack_into("<i", data, min(place, len(data) - 4), chance.choice([0, -1, 5, 2**31 - 1]))
            if len(data) < 20:
                break
        for answer in answers(await exchange(directory.port, bytes(data))):
            assert answer["ok"] == 1.0 or answer["code"] != 1, answer
    found = answers(await exchange(directory.port, message(FIND)))
    assert found[0]["cursor"]["firstBatch"][0]["security"]["k"] == "465b5ce8b199b49faa5f0a2ee238a6bc"


def section(chance: random.Random) -> bytes:
    """A section of a message whose lengths may lie."""
    size = chance.choice([0, -1, 4, 5, 12, 2**31 - 1, -(2**31), chance.randrange(64)])
    octets = struct.pack("<i", size) + chance.randbytes(chance.randrange(48))
    return bytes((chance.choice([0, 0, 1, 1, 2, 255]),)) + octets


def rubbish(chance: random.Random) -> bytes:
    """A message with a right header and anything behind it, or with a wrong header."""
    opcode = chance.choice([2004, 2013, 2013, 2013, 1, 2010, 2012, chance.getrandbits(31)])
    payload = struct.pack("<I", chance.choice([0, 0, 1, 2, 1 << 16, chance.getrandbits(32)]))
    payload += b"".join(section(chance) for _ in range(chance.randrange(4)))
    length = chance.choice([16 + len(payload)] * 6 + [17, 16, 0, -1, 2**31 - 1, 1_048_577])
    return struct.pack("<iiii", length, chance.getrandbits(31), 0, opcode) + payload


def nested(depth: int, key: bytes = b"a", kind: int = 3) -> bytes:
    inner = bson.encode({})
    for _ in range(depth):
        inner = struct.pack("<i", len(inner) + 7 + len(key)) + bytes((kind,)) + key + b"\0" + inner + b"\0"
    return inner


async def test_others_are_served_while_hostile_clients_do_their_worst(directory: Any) -> None:
    """Rubbish, deep documents, stalled and deaf clients at once; a client's every look-up is answered in time."""
    imsis = [str(208930000000001 + i) for i in range(50)]
    put = "SELECT directory.put_subscribers($1, '{}', $2, $3)"
    await directory.sql(put, imsis, [directory.seal()] * 50, ["{}"] * 50)
    chance = random.Random(23_502)
    loop = asyncio.get_running_loop()
    end = loop.time() + 5

    async def throw() -> None:
        while loop.time() < end:
            await exchange(directory.port, b"".join(rubbish(chance) for _ in range(chance.randrange(1, 5))))

    async def deep() -> None:
        while loop.time() < end:
            document = nested(chance.choice([10, 90, 150, 1000, 20_000]), chance.choice([b"$or", b"$nor", b"0"]))
            payload = b"\0\0\0\0\0" + document
            await exchange(directory.port, struct.pack("<iiii", 16 + len(payload), 1, 0, 2013) + payload)
            filters: Any = {"imsi": IMSI}
            for _ in range(chance.randrange(120)):
                filters = {chance.choice(["$nor", "$or", "$and"]): [filters, {"imsi": IMSI}]}
            await exchange(directory.port, message({**FIND, "filter": {"imsi": IMSI, "$nor": [filters]}}))

    async def heavy() -> None:
        every = message({"find": "subscribers", "filter": {"imsi": {"$in": imsis * 20}}, "$db": "open5gs"})
        while loop.time() < end:
            await exchange(directory.port, every * 5)

    stalled = [await asyncio.open_connection("127.0.0.1", directory.port) for _ in range(50)]
    for number, (_, writer) in enumerate(stalled):
        # Half messages, and messages whose answers are never read.
        writer.write(message(FIND)[: 10 + number] if number % 2 else message(FIND) * 200)

    async def served() -> list[float]:
        reader, writer = await asyncio.open_connection("127.0.0.1", directory.port)
        times = []
        while loop.time() < end:
            began = loop.time()
            writer.write(message(FIND))
            head = await asyncio.wait_for(reader.readexactly(16), 2)
            body = await reader.readexactly(struct.unpack_from("<i", head)[0] - 16)
            assert bson.decode(body[5:])["cursor"]["firstBatch"][0]["security"]["k"]
            times.append(loop.time() - began)
        writer.close()
        return times

    times, *_ = await asyncio.gather(served(), throw(), throw(), deep(), heavy())
    for _, writer in stalled:
        writer.close()
    assert len(times) > 100, f"{len(times)} look-ups, the slowest took {max(times):.2f} s"


async def test_a_filter_nested_deep_is_told_so(directory: Any) -> None:
    await directory.put(IMSI)
    filters: Any = {"imsi": IMSI}
    for _ in range(40):
        filters = {"$nor": [filters]}
    (found,) = answers(await exchange(directory.port, message({**FIND, "filter": {"imsi": IMSI, "$nor": [filters]}})))
    assert found["code"] == 238 and "nested so deep" in found["errmsg"]


WORDS = """imsi msisdn _id $or $and $nor $in $eq $ne $gt $exists security.sqn security.k $set $inc $bit $unset and
    ambr.uplink slice.0.sst a a..b $ purge_flag _ 0"""
names = st.sampled_from(["", *WORDS.split()])
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=10,
)
documents = st.dictionaries(names, values, max_size=4)
stored = {
    "_id": IMSI,
    "imsi": IMSI,
    "msisdn": ["1"],
    "slice": [{"sst": 1}],
    "ambr": {"uplink": {"value": 1}},
    "a": None,
}


@given(documents)
def test_any_filter_and_projection_is_decided_or_refused(document: dict[str, Any]) -> None:
    for use in (keys, lambda one: matches(stored, one), lambda one: project(stored, one)):
        with contextlib.suppress(Unsupported):
            use(document)


@given(documents)
def test_any_update_is_compiled_or_refused(document: dict[str, Any]) -> None:
    try:
        change = Change(document)
    except (Unsupported, BadValue):
        return
    statement = change.statement()
    assert IMSI not in statement and "purge_flag" not in statement
    assert all(f"${i}" in statement for i in range(1, len(change.parameters) + 2)) or "false AS modified" in statement


@given(st.binary(max_size=200), st.sampled_from([2004, 2013]))
def test_any_octets_are_a_command_or_an_error(data: bytes, opcode: int) -> None:
    try:
        command = parse(1, opcode, data)
    except WireError:
        return
    assert isinstance(command, Command) and reply(command, b"\5\0\0\0\0")


def test_documents_nested_deep_are_an_error() -> None:
    inner = bson.encode({})
    for _ in range(3000):
        inner = struct.pack("<i", len(inner) + 8) + b"\3a\0" + inner + b"\0"
    with pytest.raises(WireError):
        parse(1, 2013, b"\0\0\0\0\0" + inner)


async def test_any_command_is_answered(directory: Any) -> None:
    await directory.put(IMSI)
    wrong: list[Any] = [None, 1, -1, 2**40, "x", [], [1], {}, {"$x": 1}, [{}], True, 1.5]
    commands = [
        {"find": 0, "filter": 1, "limit": 1, "projection": 1, "sort": 1, "skip": 1, "batchSize": 1},
        {"update": 0, "updates": 1, "ordered": 1},
        {"update": 0, "updates": [{"q": 1, "u": 2}]},
        {"getMore": 1, "collection": 1, "batchSize": 1},
        {"killCursors": 0, "cursors": 1},
        {"count": 0, "query": 1, "limit": 1, "skip": 1},
        {"aggregate": 0, "pipeline": 1, "cursor": 1},
        {"hello": 1, "speculativeAuthenticate": 1, "saslSupportedMechs": 1},
        {"saslStart": 1, "mechanism": 1, "payload": 1},
        {"saslContinue": 1, "conversationId": 1, "payload": 1},
    ]
    sent = b"".join(
        message({**command, next(iter(command)): "subscribers", field: value, "$db": "open5gs"})
        for command in commands
        for field in command
        for value in wrong
    )
    found = answers(await exchange(directory.port, sent))
    assert len(found) == sum(map(len, commands)) * len(wrong)
    assert not [answer for answer in found if answer.get("code") in (1, 262)]
