"""A MongoDB of the user's own follows the directory: a subscriber's life, and what the core writes survives it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from bson.int64 import Int64

from mvnobox.core.directory import withdrawals
from mvnobox.core.directory.mirror.plan import CANCEL
from mvnobox.core.directory.store import make_pool
from mvnobox.core.directory.withdrawals import Withdrawals

IMSI, OTHER = "208930000000001", "208930000000002"
STATUS = "SELECT directory.set_subscriber_status($1, $2, 0)"
REMOVE = "SELECT directory.remove_subscriber($1)"
KEYS = {"k": "465b5ce8b199b49faa5f0a2ee238a6bc", "opc": "cd63cb71954a9f4e48a5994e37a02baf", "amf": "8000"}
OWN = {"imeisv": "4370816125816151", "mme_host": "mme.example", "mme_realm": "example", "purge_flag": False}


def keys_of(document: Any) -> dict[str, Any]:
    return {name: document["security"][name] for name in KEYS}


async def test_an_order_becomes_the_document_that_the_directory_itself_serves(mirrored: Any) -> None:
    await mirrored.directory.put(IMSI, "33639980001", "33639980002")
    await mirrored.caught_up()
    found = await mirrored.find()
    assert found.pop("mirror")["open"] is True
    assert found == await asyncio.to_thread(mirrored.directory.subscribers().find_one, {"imsi": IMSI})
    indexes = await asyncio.to_thread(mirrored.database.subscribers.index_information)
    assert indexes["imsi_1"]["unique"] and indexes["msisdn_1"]["unique"]


async def test_a_rolled_back_order_is_never_written(mirrored: Any) -> None:
    with pytest.raises(Exception, match="at most 2"):
        await mirrored.directory.sql(
            "SELECT directory.put_subscriber($1, '{}', 'x', '{}'), directory.put_subscriber($2, '{1,2,3}', 'x', '{}')",
            IMSI,
            OTHER,
        )
    await mirrored.caught_up()
    assert await mirrored.find() is None


async def test_what_the_core_writes_is_never_lost(mirrored: Any, example: Any) -> None:
    sealed = await mirrored.directory.put(IMSI, "33639980001")
    await mirrored.caught_up()
    await mirrored.update({"$set": {**OWN, "mme_timestamp": Int64(2**40)}}, upsert=True)
    await mirrored.update({"$inc": {"security.sqn": Int64(64)}})
    example["ambr"]["uplink"]["value"] = 99
    del example["access_restriction_data"]
    await mirrored.directory.put(IMSI, "33639980009", document=example, sealed=sealed)
    await mirrored.caught_up()
    found = await mirrored.find()
    assert found["ambr"]["uplink"]["value"] == 99 and found["msisdn"] == ["33639980009"]
    assert "access_restriction_data" not in found
    assert found["security"]["sqn"] == 64 and isinstance(found["security"]["sqn"], Int64)
    assert OWN.items() <= found.items() and found["mme_timestamp"] == 2**40
    assert keys_of(found) == KEYS


async def test_a_suspended_subscriber_has_keys_that_open_nothing_and_keeps_its_sequence(mirrored: Any) -> None:
    """Without `security` a late `$set security.sqn` of Open5GS would make keys of zeros."""
    await mirrored.directory.put(IMSI)
    await mirrored.caught_up()
    await mirrored.update({"$set": {"security.sqn": Int64(96)}})
    await mirrored.directory.sql(STATUS, IMSI, 1)
    await mirrored.caught_up()
    found = await mirrored.find()
    assert found["subscriber_status"] == 1
    security = found["security"]
    assert set(security) == {"k", "op", "opc", "amf", "sqn"} and security["op"] is None
    for name in ("k", "opc"):
        assert len(bytes.fromhex(security[name])) == 16 and security[name] != KEYS[name]
    # Somebody tries to attach meanwhile, and the plan is changed.
    await mirrored.update({"$inc": {"security.sqn": Int64(32)}})
    await mirrored.directory.sql(STATUS, IMSI, 1)
    await mirrored.directory.sql("SELECT directory.set_subscriber_status($1, 1, 2)", IMSI)
    await mirrored.caught_up()
    assert (await mirrored.find())["security"] == {**security, "sqn": 128}
    await mirrored.directory.sql(STATUS, IMSI, 0)
    await mirrored.caught_up()
    found = await mirrored.find()
    assert keys_of(found) == KEYS and found["security"]["sqn"] == 128 and found["mirror"]["open"] is True


@pytest.mark.parametrize("suspended", [False, True])
async def test_another_sim_begins_anew_also_while_suspended(mirrored: Any, suspended: bool) -> None:
    await mirrored.directory.put(IMSI)
    await mirrored.caught_up()
    await mirrored.update({"$set": {"security.sqn": Int64(96), **OWN}})
    other = {"k": "0" * 31 + "1", "opc": "0" * 31 + "2", "amf": "9000"}
    if suspended:
        await mirrored.directory.sql(STATUS, IMSI, 1)
        await mirrored.caught_up()
    document = {"subscriber_status": int(suspended)}
    await mirrored.directory.put(IMSI, document=document, sealed=mirrored.directory.seal(other))
    await mirrored.caught_up()
    if suspended:
        assert (await mirrored.find())["security"]["k"] not in (KEYS["k"], other["k"])
        await mirrored.directory.sql(STATUS, IMSI, 0)
        await mirrored.caught_up()
    found = await mirrored.find()
    assert keys_of(found) == other and found["security"]["sqn"] == 0 and OWN.items() <= found.items()
    # What had the HSS detach the old one is taken back, for the next time.
    assert CANCEL not in found


async def test_a_removed_subscriber_stays_closed_until_the_network_has_let_go(
    directory: Any, mirror: Any, pg_database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(withdrawals, "AGAIN_SECONDS", 0.2)
    async with mirror(directory, tells_amf=True) as mirrored:
        await directory.put(IMSI, "33639980001")
        await mirrored.caught_up()
        await mirrored.update({"$set": OWN})
        await directory.sql(REMOVE, IMSI)
        await mirrored.caught_up()
        found = await mirrored.find()
        assert found["security"]["k"] != KEYS["k"] and "msisdn" not in found and found["mirror"]["open"] is False
        # In a change stream this has the HSS cancel the location where it finds it.
        assert found[CANCEL] is True and OWN.items() <= found.items()
        pool = await make_pool(pg_database.dsn("directory"))
        task = asyncio.create_task(Withdrawals(pool, None).run())
        async with asyncio.timeout(20):
            while await mirrored.find() is not None:
                await asyncio.sleep(0.05)
        task.cancel()
        pool.terminate()


async def test_the_amf_is_told_once_the_document_is_closed(
    directory: Any, mirror: Any, pg_database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told before, the UE would register again with keys that still open."""
    async with mirror(directory, tells_amf=True) as mirrored:
        await directory.put(IMSI)
        await mirrored.caught_up()
    told: list[str] = []
    pool = await make_pool(pg_database.dsn("directory"))

    async def tell(self: Any, client: Any, row: Any) -> str:
        told.append(row["imsi"])
        return "done"

    monkeypatch.setattr(Withdrawals, "_told", tell)
    await directory.sql(STATUS, IMSI, 1)
    task = asyncio.create_task(Withdrawals(pool, "http://127.0.0.1:9").run())
    try:
        # Another's withdrawal shows that the work goes on.
        await directory.sql("INSERT INTO directory.withdrawal (imsi) VALUES ($1)", OTHER, role="directory")
        async with asyncio.timeout(20):
            while OTHER not in told:
                await asyncio.sleep(0.05)
            assert IMSI not in told
            async with mirror(directory, tells_amf=True) as mirrored:
                while IMSI not in told:
                    await asyncio.sleep(0.05)
                assert (await mirrored.find())["security"]["k"] != KEYS["k"]
    finally:
        task.cancel()
        pool.terminate()


async def test_keys_that_cannot_be_opened_close_the_document(mirrored: Any) -> None:
    await mirrored.directory.put(IMSI, "33639980001")
    await mirrored.caught_up()
    await mirrored.directory.put(IMSI, "33639980001", sealed=b"not sealed for us")
    await mirrored.directory.put(OTHER, sealed=b"neither")
    await mirrored.caught_up()
    for imsi in (IMSI, OTHER):
        assert (await mirrored.find(imsi))["security"]["k"] != KEYS["k"]
    await mirrored.directory.put(IMSI, "33639980001")
    await mirrored.caught_up()
    assert keys_of(await mirrored.find()) == KEYS


async def test_two_subscribers_change_numbers(directory: Any, mirror: Any) -> None:
    """In one batch: each is given what the other's document still has."""
    numbers = ["33639980001", "33639980002"]
    sealed = [await directory.put(IMSI, numbers[0]), await directory.put(OTHER, numbers[1])]
    async with mirror(directory) as mirrored:
        await mirrored.caught_up()
    await directory.put(IMSI, "33639980003", sealed=sealed[0])
    await directory.put(OTHER, numbers[0], sealed=sealed[1])
    await directory.put(IMSI, numbers[1], sealed=sealed[0])
    async with mirror(directory) as mirrored:
        await mirrored.caught_up()
        assert [(await mirrored.find(imsi))["msisdn"] for imsi in (IMSI, OTHER)] == [[numbers[1]], [numbers[0]]]


async def test_a_document_of_before_is_taken_over_with_its_sequence(
    directory: Any, mirror: Any, mongodb: Any, example: Any
) -> None:
    """What an Open5GS with a MongoDB had: the same SIM goes on, and numbers of the shell's type are made right."""
    security = {"k": KEYS["k"].upper(), "opc": KEYS["opc"], "amf": "8000", "op": None, "sqn": 416.0}
    old = {"imsi": IMSI, "msisdn": [], "security": security, "ambr": {"downlink": {"value": 1.0}}, "imeisv": "1"}
    await asyncio.to_thread(mongodb.subscribers.insert_one, old)
    strangers = {"imsi": "999700000000001", "security": security}
    await asyncio.to_thread(mongodb.subscribers.insert_one, strangers)
    await directory.put(IMSI)
    async with mirror(directory) as mirrored:
        await mirrored.caught_up()
        found = await mirrored.find()
        assert isinstance(found["security"]["sqn"], Int64) and found["security"]["sqn"] == 416
        assert found["_id"] == old["_id"] and keys_of(found) == KEYS and found["imeisv"] == "1"
        assert (
            found["slice"] == example["slice"]
            and "msisdn" not in found
            and type(found["ambr"]["downlink"]["value"]) is int
        )
        assert await mirrored.find(strangers["imsi"]) == strangers


async def test_what_changed_while_no_mirror_ran_is_made_up_for(directory: Any, mirror: Any) -> None:
    await directory.put(IMSI)
    await directory.put(OTHER)
    third = "208930000000003"
    async with mirror(directory) as mirrored:
        await mirrored.caught_up()
        assert await mirrored.find(OTHER)
    for statement in ("DELETE FROM directory.mirror", "DELETE FROM directory.unmirrored"):
        await directory.sql(statement, role="directory")
    await directory.sql(REMOVE, OTHER)
    await directory.put(third)
    # Without a mirror nothing is noted.
    assert await directory.sql("SELECT count(*) FROM directory.unmirrored", role="directory") == 0
    subscribers = directory.subscribers()
    await asyncio.to_thread(subscribers.update_one, {"imsi": IMSI}, {"$set": {"security.sqn": Int64(640)}})
    async with mirror(directory) as mirrored:
        await mirrored.caught_up()
        assert await mirrored.find(OTHER) is None and await mirrored.find(third)
        assert (await mirrored.find())["security"]["sqn"] == 640


async def test_what_a_late_upsert_left_is_removed_and_used(mirrored: Any) -> None:
    """UDR and HSS upsert: after a removal there is a document without keys again."""
    await mirrored.update({"$set": {"imeisv": "1"}}, OTHER, upsert=True)
    await mirrored.update({"$set": {"imeisv": "2"}}, upsert=True)
    await mirrored.directory.put(IMSI)
    await mirrored.directory.put(OTHER)
    await mirrored.directory.sql(REMOVE, OTHER)
    await mirrored.caught_up()
    assert keys_of(await mirrored.find()) == KEYS and (await mirrored.find())["imeisv"] == "2"
    assert await mirrored.find(OTHER) is None


@pytest.mark.slow
async def test_a_launch_is_a_matter_of_seconds(mirrored: Any, example: Any) -> None:
    """10,000 subscribers; the bound is for a busy machine, and for FerretDB."""
    await mirrored.caught_up()
    sealed, text = mirrored.directory.seal(), json.dumps(example)
    for first in range(0, 10_000, 1000):
        imsis = [str(208930000100000 + first + i) for i in range(1000)]
        numbers = [str(33700000000 + first + i) for i in range(1000)]
        put = "SELECT directory.put_subscribers($1, $2, $3, $4)"
        await mirrored.directory.sql(put, imsis, numbers, [sealed] * 1000, [text] * 1000)
    await mirrored.caught_up(60)
    assert await asyncio.to_thread(mirrored.database.subscribers.count_documents, {"mirror.open": True}) == 10_000
