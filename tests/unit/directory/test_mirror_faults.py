"""The mirror when things go wrong: a MongoDB that dies, replicas that race, hang or die, other people's documents."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import Any

import asyncpg
import pytest
from bson.int64 import Int64

from mvnobox.core.directory import answers
from mvnobox.core.directory.documents import Assembler
from mvnobox.core.directory.mirror import queue
from mvnobox.core.directory.mirror.plan import Planner, owner_of
from mvnobox.core.directory.mirror.queue import DONE, Held, Queue, forget
from mvnobox.core.directory.mirror.target import Target
from mvnobox.core.directory.store import make_pool

IMSI = "208930000000001"
K, OPC = "465b5ce8b199b49faa5f0a2ee238a6bc", "cd63cb71954a9f4e48a5994e37a02baf"
PUT_MANY = "SELECT directory.put_subscribers($1, $2, $3, $4)"
# What the database keeps of a MongoDB that follows.
KEPT = "SELECT (SELECT count(*) FROM directory.mirror) + (SELECT count(*) FROM directory.unmirrored)"


def imsi_of(number: int) -> str:
    return str(208930000100000 + number)


def done(held: dict[str, Held]) -> Held:
    return dataclasses.replace(held[IMSI], delay=DONE)


async def applied(target: Target, writes: list[Any]) -> dict[str, int | None]:
    return {imsi: code async for _, undone in target.apply(writes) for imsi, code in undone.items()}


async def launch(directory: Any, first: int, count: int, example: Any, sealed: bytes) -> None:
    imsis = [imsi_of(first + i) for i in range(count)]
    numbers = [str(33700000000 + first + i) for i in range(count)]
    await directory.sql(PUT_MANY, imsis, numbers, [sealed] * count, [json.dumps(example)] * count)


async def test_a_mongodb_that_dies_in_the_middle_of_a_launch_gets_everything(
    directory: Any, mirror: Any, mongodb: Any, example: Any
) -> None:
    if not mongodb.server.can_be_killed:
        pytest.skip("the MongoDB of MVNO_TEST_MONGODB is not ours to kill")
    sealed = directory.seal()
    await launch(directory, 0, 300, example, sealed)
    async with mirror(directory, replicas=2) as mirrored:
        async with asyncio.timeout(60):
            while await asyncio.to_thread(mongodb.subscribers.count_documents, {}) < 100:
                await asyncio.sleep(0.01)
        await launch(directory, 300, 1500, example, sealed)
        await asyncio.to_thread(mongodb.server.kill)
        try:
            # Orders go on, in the time that they take.
            async with asyncio.timeout(10):
                await launch(directory, 1800, 200, example, sealed)
                await directory.sql("SELECT directory.set_subscriber_status($1, 1, 0)", imsi_of(5))
                await directory.sql("SELECT directory.remove_subscriber($1)", imsi_of(6))
            async with asyncio.timeout(60):
                while not all([await one.ready() for one in mirrored.mirrors]):
                    await asyncio.sleep(0.05)
            said = await mirrored.mirrors[0].ready()
            assert "does not answer" in said and "wait to be written" in said and "127.0.0.1" not in said
        finally:
            await asyncio.to_thread(mongodb.server.start)
        await mirrored.caught_up(120)
        async with asyncio.timeout(30):
            while any([await one.ready() for one in mirrored.mirrors]):
                await asyncio.sleep(0.05)
        found = {one["imsi"]: one for one in await asyncio.to_thread(lambda: list(mongodb.subscribers.find({})))}
        assert set(found) == {imsi_of(i) for i in range(2000) if i != 6}
        assert found[imsi_of(5)]["mirror"]["open"] is False
        assert all(one["mirror"]["open"] for imsi, one in found.items() if imsi != imsi_of(5))


async def test_two_replicas_end_in_the_newest_document(mirror: Any, directory: Any, example: Any) -> None:
    sealed = await directory.put(IMSI, document=example)
    async with mirror(directory, replicas=2) as mirrored:
        for round_number in range(3):
            # Several brand's connections change one subscriber as fast as they can.
            async def change(values: range) -> None:
                connection = await asyncpg.connect(directory.dsn("bss_alpha"))
                for value in values:
                    example["ambr"]["uplink"]["value"] = value
                    text = json.dumps(example)
                    await connection.execute("SELECT directory.put_subscriber($1, '{}', $2, $3)", IMSI, sealed, text)
                await connection.close()

            start = 1 + 200 * round_number
            await asyncio.gather(*(change(range(start + 50 * i, start + 50 * i + 50)) for i in range(4)))
            text = await directory.sql("SELECT document::text FROM directory.subscriber", role="directory")
            await mirrored.caught_up()
            assert (await mirrored.find())["ambr"] == json.loads(text)["ambr"]


@pytest.fixture
async def by_hand(directory: Any, mongodb: Any) -> Any:
    """(queue, target, write): one replica's steps, one at a time."""
    pool = await make_pool(directory.dsn("directory"))
    assembler = Assembler(bytes(directory.key))
    target = Target(mongodb.uri, owner_of(assembler.public_key))
    made, planner = Queue(pool, target.digest), Planner(assembler, target.owner)
    await target.prepare()
    assert await made.hold()

    async def writes(held: dict[str, Held]) -> list[Any]:
        states, found = await made.states(held), await target.found(held)
        planned = [planner.plan(one, found.get(one.imsi), held[one.imsi].label) for one in states]
        return [one for one in planned if one is not None]

    yield made, target, writes
    await target.close()
    pool.terminate()


async def test_who_hung_does_not_overwrite_what_is_newer(
    directory: Any, mongodb: Any, by_hand: Any, example: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, target, planned = by_hand
    sealed = await directory.put(IMSI, document=example)
    first = await made.claim(10)
    assert await applied(target, await planned(first)) == {}
    assert await made.settle({IMSI: done(first)}) == {IMSI}
    example["ambr"]["uplink"]["value"] = 2
    await directory.put(IMSI, document=example, sealed=sealed)
    monkeypatch.setattr(queue, "LEASE_SECONDS", 0.0)
    hung = await made.claim(10)
    late = await planned(hung)
    # While it hangs, its lease ends, another change comes, and somebody else is quicker.
    example["ambr"]["uplink"]["value"] = 3
    await directory.put(IMSI, document=example, sealed=sealed)
    second = await made.claim(10)
    assert second[IMSI].label > hung[IMSI].label
    assert await applied(target, await planned(second)) == {}
    assert await applied(target, late) == {IMSI: None}
    assert (await asyncio.to_thread(mongodb.subscribers.find_one, {}))["ambr"]["uplink"]["value"] == 3
    # Its claim is not its own any more; the other's is.
    assert await made.settle({IMSI: done(hung)}) == {IMSI}
    assert await directory.sql("SELECT count(*) FROM directory.unmirrored", role="directory") == 1
    assert await made.settle({IMSI: done(second)}) == {IMSI}
    assert await directory.sql("SELECT count(*) FROM directory.unmirrored", role="directory") == 0


async def test_who_hung_through_a_removal_has_its_document_looked_at_again(
    directory: Any, mongodb: Any, by_hand: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An insertion has no older document to compare with: what was not one's own claim any more is noted again."""
    made, target, planned = by_hand
    monkeypatch.setattr(queue, "LEASE_SECONDS", 0.0)
    await directory.put(IMSI)
    hung = await made.claim(10)
    late = await planned(hung)
    await directory.sql("SELECT directory.remove_subscriber($1)", IMSI)
    await directory.sql("DELETE FROM directory.withdrawal", role="directory")
    second = await made.claim(10)
    assert await applied(target, await planned(second)) == {}
    await made.settle({IMSI: done(second)})
    assert await applied(target, late) == {}
    assert await asyncio.to_thread(mongodb.subscribers.count_documents, {}) == 1
    await made.settle({IMSI: done(hung)})
    again = await made.claim(10)
    assert await applied(target, await planned(again)) == {}
    assert await asyncio.to_thread(mongodb.subscribers.count_documents, {}) == 0


async def test_a_replica_that_died_with_its_claims_is_replaced(
    directory: Any, mirror: Any, by_hand: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _, _ = by_hand
    await directory.put(IMSI)
    monkeypatch.setattr(queue, "LEASE_SECONDS", 2.0)
    assert set(await made.claim(10)) == {IMSI}
    assert await made.claim(10) == {}
    async with mirror(directory) as mirrored:
        await mirrored.caught_up(20)
        assert await mirrored.find()


async def test_an_order_never_waits_for_the_mirror(directory: Any, by_hand: Any, example: Any) -> None:
    """Claims lie still while an order changes what is claimed, and giving them back waits for no order."""
    made, _, _ = by_hand
    sealed = await directory.put(IMSI)
    held = await made.claim(10)
    order = await asyncpg.connect(directory.dsn("bss_alpha"))
    transaction = order.transaction()
    await transaction.start()
    async with asyncio.timeout(5):
        text = json.dumps(example | {"subscriber_status": 1})
        await order.execute("SELECT directory.put_subscriber($1, '{}', $2, $3)", IMSI, sealed, text)
        # Held by the order at this moment: for another time.
        assert await made.settle({IMSI: done(held)}) == set()
    await transaction.commit()
    await order.close()
    assert await made.settle({IMSI: done(held)}) == {IMSI}
    assert set(await made.claim(10)) == {IMSI}


async def test_somebody_elses_document_keeps_its_number_and_nobody_else_waits(
    directory: Any, mirror: Any, mongodb: Any
) -> None:
    number, other = "33639980001", "208930000000002"
    theirs = {"imsi": "999700000000001", "msisdn": [number]}
    await asyncio.to_thread(mongodb.subscribers.insert_one, theirs)
    async with mirror(directory) as mirrored:
        await directory.put(IMSI, number)
        await directory.put(other)
        async with asyncio.timeout(30):
            while not await mirrored.find(other) or await mirrored.waiting() > 1:
                await asyncio.sleep(0.02)
        assert await mirrored.find(theirs["imsi"]) == theirs
        assert await mirrored.find() is None and await mirrored.waiting() == 1
        await asyncio.to_thread(mongodb.subscribers.delete_one, {"imsi": theirs["imsi"]})
        await mirrored.caught_up()
        assert (await mirrored.find())["msisdn"] == [number]


async def test_another_mongodb_takes_over_once_the_first_is_gone(directory: Any, by_hand: Any, mongodb: Any) -> None:
    made, _, _ = by_hand
    await directory.put(IMSI)
    assert await made.seed() == 1 and await made.seed() == 0
    pool = await make_pool(directory.dsn("directory"))
    other = Queue(pool, "another")
    try:
        assert not await other.hold() and await other.claim(10) == {} and not await other.seed()
        await forget(pool)
        assert set(await made.claim(10)) == {IMSI}
        await directory.sql("UPDATE directory.mirror SET seen = now() - interval '2 minutes'", role="directory")
        assert await other.hold() and not await made.hold()
        # What the first still writes is not what the second needs.
        assert await other.seed() == 1
        assert await made.claim(10) == {}
        await directory.sql("UPDATE directory.mirror SET seen = now() - interval '2 minutes'", role="directory")
        await forget(pool)
        await directory.put("208930000000002")
        assert await directory.sql(KEPT, role="directory") == 0
    finally:
        pool.terminate()


async def test_a_mongodb_that_the_last_replica_has_left_in_order_holds_nothing_up(directory: Any, by_hand: Any) -> None:
    made, _, _ = by_hand
    await directory.put(IMSI)
    pool = await make_pool(directory.dsn("directory"))
    try:
        await made.seed()
        await made.leave()
        # Another replica follows still.
        assert await made.hold()
        await forget(pool)
        assert await directory.sql(KEPT, role="directory") == 2
        await made.leave()
        await forget(pool)
        assert await directory.sql(KEPT, role="directory") == 0
    finally:
        pool.terminate()


async def test_who_was_writing_as_the_mirror_came_is_not_missed(directory: Any, mirror: Any) -> None:
    """A transaction that began before notes nothing: subscribers of before are noted when it has ended."""
    order = await asyncpg.connect(directory.dsn("bss_alpha"))
    transaction = order.transaction()
    await transaction.start()
    await order.execute("SELECT directory.put_subscriber($1, '{}', $2, '{}')", IMSI, directory.seal())
    async with mirror(directory) as mirrored:
        other = "208930000000002"
        await directory.put(other)
        # What is left is to note the subscribers of before.
        async with asyncio.timeout(20):
            while not await mirrored.find(other) or await mirrored.waiting() > 1:
                await asyncio.sleep(0.02)
        assert await mirrored.waiting() == 1 and await mirrored.find() is None
        await transaction.commit()
        await order.close()
        await mirrored.caught_up()
        assert await mirrored.find()


async def test_a_sequence_that_is_raised_while_documents_are_written_is_kept(
    directory: Any, mirror: Any, mongodb: Any, example: Any
) -> None:
    """FerretDB reads and writes a document in two steps of its own: only a MongoDB can show it under load."""
    sealed = await directory.put(IMSI, document=example)
    async with mirror(directory) as mirrored:
        await mirrored.caught_up()
        raised = 0
        for value in range(1, 21):
            example["ambr"]["uplink"]["value"] = value
            await directory.put(IMSI, document=example, sealed=sealed)
            if mongodb.server.can_be_killed:
                await mirrored.caught_up()
            await mirrored.update({"$inc": {"security.sqn": Int64(32)}})
            raised += 32
        await mirrored.caught_up()
        assert (await mirrored.find())["security"]["sqn"] == raised


async def test_two_directories_on_one_mongodb_leave_each_other_alone(directory: Any, mirror: Any, mongodb: Any) -> None:
    """Two environments by mistake: neither takes the other's subscribers, nor removes them as strangers."""
    theirs = {"imsi": IMSI, "mirror": {"of": "another", "label": Int64(0)}, "security": {"k": "theirs"}}
    stranger = {"imsi": "208930000000009", "mirror": {"of": "another", "label": Int64(9)}}
    await asyncio.to_thread(mongodb.subscribers.insert_many, [theirs, stranger])
    await directory.put(IMSI)
    await directory.put("208930000000002")
    async with mirror(directory) as mirrored:
        async with asyncio.timeout(30):
            while not await mirrored.find("208930000000002") or await mirrored.waiting() > 1:
                await asyncio.sleep(0.02)
        assert await mirrored.find() == theirs and await mirrored.find(stranger["imsi"]) == stranger


@pytest.mark.parametrize(
    "odd", [{"mirror": 5}, {"security": 5}, {"security": {"sqn": 1e300, "k": K, "opc": OPC}}, {"msisdn": "1"}]
)
async def test_a_document_with_nonsense_in_it_is_made_right(
    directory: Any, mirror: Any, mongodb: Any, odd: dict[str, Any]
) -> None:
    await asyncio.to_thread(mongodb.subscribers.insert_one, {"imsi": IMSI, **odd})
    await directory.put(IMSI, "33639980001")
    async with mirror(directory) as mirrored:
        await mirrored.caught_up()
        found = await mirrored.find()
        assert found["msisdn"] == ["33639980001"] and found["security"]["sqn"] == 0 and found["mirror"]["open"] is True


async def test_a_database_younger_than_the_documents_is_no_trouble(directory: Any, mirror: Any, example: Any) -> None:
    """PostgreSQL was restored from a backup: claims are numbered above those of before."""
    sealed = await directory.put(IMSI)
    async with mirror(directory) as mirrored:
        await mirrored.caught_up()
        await mirrored.update({"$set": {"mirror.label": Int64(10**6)}})
    await directory.sql("SELECT setval('directory.mirror_label', 1)", role="directory")
    example["ambr"]["uplink"]["value"] = 77
    await directory.put(IMSI, document=example, sealed=sealed)
    async with mirror(directory) as mirrored:
        await mirrored.caught_up()
        assert (await mirrored.find())["ambr"]["uplink"]["value"] == 77


@pytest.mark.parametrize(
    ("more", "streams"),
    [({}, False), ({"setName": "rs0", "hosts": ["127.0.0.1:1"]}, True), ({"msg": "isdbgrid"}, True)],
)
async def test_a_server_on_its_own_has_no_change_streams(
    directory: Any, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any], streams: bool
) -> None:
    """What a replica set's member and a mongos say in their hello, from a server that speaks the protocol."""
    alone = answers.greeting
    monkeypatch.setattr(answers, "greeting", lambda connection: alone(connection) | more)
    target = Target(f"mongodb://127.0.0.1:{directory.port}/open5gs?directConnection=true", "")
    try:
        assert await target.has_streams() is streams
    finally:
        await target.close()
