"""Look-ups over the wire, with the types that Open5GS expects."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import asyncpg
import bson
import pymongo.errors
import pytest
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument

IMSI = "208930000000001"
INT32, INT64, BOOLEAN, STRING, ARRAY, DOCUMENT = 0x10, 0x12, 0x08, 0x02, 0x04, 0x03


def kinds(data: bytes, prefix: str = "") -> dict[str, int]:
    """BSON's type octet of every element, by dotted path."""
    found, offset = {}, 4
    while data[offset]:
        kind, end = data[offset], data.index(b"\0", offset)
        path, offset = prefix + data[offset + 1 : end].decode(), end + 1
        found[path] = kind
        size = {INT32: 4, INT64: 8, BOOLEAN: 1, 0x0A: 0, 0x01: 8}.get(kind)
        if size is None:
            length = int.from_bytes(data[offset : offset + 4], "little")
            size = length + 4 if kind == STRING else length
            if kind != STRING:
                found |= kinds(data[offset : offset + length], path + ".")
        offset += size
    return found


async def test_every_type_is_what_open5gs_reads(served: Any) -> None:
    await served.put(IMSI, "33639980001")
    collection = served.subscribers(document_class=RawBSONDocument)
    found = kinds((await asyncio.to_thread(collection.find_one, {"imsi": IMSI})).raw)
    found = {path: kind for path, kind in found.items() if path.split(".")[0] != "mirror"}
    assert found.pop("security.sqn") == INT64
    assert found.pop("security.op") == 0x0A
    assert found.pop("slice.0.default_indicator") == BOOLEAN
    strings = {"_id", "imsi", "msisdn.0", "security.k", "security.opc", "security.amf", "slice.0.sd"}
    strings.add("slice.0.session.0.name")
    assert {path for path, kind in found.items() if kind == STRING} == strings
    numbers = {path for path, kind in found.items() if kind not in (STRING, ARRAY, DOCUMENT)}
    assert len(numbers) == 20 and {found[path] for path in numbers} == {INT32}


async def test_a_subscriber_is_found_as_the_nfs_ask(served: Any) -> None:
    await served.put(IMSI, "33639980001", "33639980002")
    await served.put("208930000000002", "33639980003")
    collection = served.subscribers()
    one = await asyncio.to_thread(collection.find_one, {"imsi": IMSI})
    assert one["msisdn"] == ["33639980001", "33639980002"] and one["_id"] == IMSI
    assert one["security"]["k"] == "465b5ce8b199b49faa5f0a2ee238a6bc" and isinstance(one["security"]["sqn"], Int64)
    for digits in (IMSI, "33639980001", "33639980002"):
        either = {"$or": [{"imsi": digits}, {"msisdn": digits}]}
        assert await asyncio.to_thread(collection.find_one, either) == one
    queries: list[tuple[dict[str, Any], int]] = [
        ({"imsi": "999"}, 0),
        ({"imsi": 208930000000001}, 0),
        ({"msisdn": "33639980003"}, 1),
        ({"imsi": {"$in": [IMSI, "208930000000002", "1"]}}, 2),
        ({"imsi": {"$eq": IMSI}, "slice.session.name": "internet"}, 1),
        ({"imsi": IMSI, "slice.0.sst": 2}, 0),
        ({"imsi": IMSI, "subscriber_status": {"$gte": 1}}, 0),
        ({"imsi": IMSI, "ambr.downlink.value": {"$gt": 49}}, 1),
        ({"$and": [{"imsi": IMSI}, {"msisdn": "33639980002"}]}, 1),
        ({"imsi": IMSI, "msisdn": "33639980003"}, 0),
        ({"imsi": IMSI, "mme_host": {"$exists": False}}, 1),
        ({}, 2),
    ]
    for query, n in queries:
        assert len(await asyncio.to_thread(lambda q: list(collection.find(q)), query)) == n, query
        assert await asyncio.to_thread(collection.count_documents, query) == n, query
    assert await asyncio.to_thread(collection.estimated_document_count) == 2


async def test_projections(directory: Any) -> None:
    await directory.put(IMSI, "33639980001")
    collection = directory.subscribers()

    async def projected(wanted: Any) -> Any:
        return await asyncio.to_thread(collection.find_one, {"imsi": IMSI}, wanted)

    assert await projected({"imsi": 1, "_id": 0}) == {"imsi": IMSI}
    assert await projected(["ambr.uplink.value"]) == {"_id": IMSI, "ambr": {"uplink": {"value": 10}}}
    assert (await projected({"slice.session.name": 1}))["slice"] == [{"session": [{"name": "internet"}]}]
    without = await projected({"security": 0, "slice.session": 0})
    assert "security" not in without and "session" not in without["slice"][0] and without["slice"][0]["sst"] == 1
    with pytest.raises(pymongo.errors.OperationFailure, match="both shows and hides"):
        await projected({"imsi": 1, "slice": 0})


async def test_all_subscribers_are_read_in_batches(directory: Any) -> None:
    statement = """SELECT count(directory.put_subscriber((208930000001000 + i)::text, '{}', $1, $2))
        FROM generate_series(1, 750) i"""
    await directory.sql(statement, directory.seal(), json.dumps({"subscriber_status": 0}))
    collection = directory.subscribers()

    def read(**options: Any) -> list[str]:
        return [one["imsi"] for one in collection.find({}, {"imsi": 1}, **options)]

    everybody = [str(208930000001000 + i) for i in range(1, 751)]
    assert await asyncio.to_thread(read) == everybody
    assert await asyncio.to_thread(read, batch_size=7) == everybody
    assert await asyncio.to_thread(read, limit=300) == everybody[:300]
    assert await asyncio.to_thread(read, limit=-3) == everybody[:3]

    def abandoned() -> None:
        cursor = collection.find({}, batch_size=5)
        next(cursor)
        identity = cursor.cursor_id
        cursor.close()
        collection.database.command("getMore", Int64(identity), collection="subscribers")

    with pytest.raises(pymongo.errors.CursorNotFound):
        await asyncio.to_thread(abandoned)


async def test_what_is_not_supported_is_said_in_the_clients_words(directory: Any) -> None:
    collection = directory.subscribers()
    refused = [
        (238, lambda: collection.find_one({"slice.sst": 1})),
        (238, lambda: collection.find_one({"imsi": {"$regex": "^208"}})),
        (238, lambda: collection.find_one({"imsi": IMSI, "$where": "1"})),
        (238, lambda: collection.insert_one({"imsi": "1"})),
        (238, lambda: collection.delete_many({})),
        (238, lambda: list(collection.aggregate([{"$sort": {"imsi": 1}}]))),
        (238, lambda: list(collection.find({}).sort("ambr"))),
        (59, lambda: collection.database.command("shutdown")),
        (14, lambda: collection.database.command("find", "subscribers", filter=[])),
        (43, lambda: collection.database.command("getMore", Int64(5), collection="subscribers")),
    ]
    await directory.put(IMSI)
    for code, call in refused:
        with pytest.raises(pymongo.errors.OperationFailure) as caught:
            await asyncio.to_thread(call)
        assert caught.value.code == code, caught.value
        details = caught.value.details
        assert details is not None and details["codeName"] and details["errmsg"]
    others = collection.database["others"]
    assert await asyncio.to_thread(others.find_one, {"imsi": IMSI}) is None
    assert await asyncio.to_thread(collection.database.list_collection_names) == ["subscribers"]
    assert (await asyncio.to_thread(collection.index_information))["imsi_1"]["unique"]
    assert (await asyncio.to_thread(collection.database.client.server_info))["version"] == "6.0.0"


async def test_one_subscribers_broken_keys_are_nobody_elses_trouble(directory: Any) -> None:
    await directory.put(IMSI)
    await directory.put("208930000000002", sealed=b"not sealed for us")
    await directory.put("208930000000003", sealed=directory.seal({"k": "short", "opc": "0" * 32}))
    collection = directory.subscribers()
    for imsi in ("208930000000002", "208930000000003"):
        with pytest.raises(pymongo.errors.OperationFailure, match="keys"):
            await asyncio.to_thread(collection.find_one, {"imsi": imsi})
    assert await asyncio.to_thread(collection.find_one, {"imsi": IMSI})


async def test_many_ask_at_once_and_each_gets_its_own(directory: Any) -> None:
    imsis = [str(208930000000100 + i) for i in range(60)]
    for imsi in imsis:
        await directory.put(imsi)
    collection = directory.subscribers(maxPoolSize=40)
    wanted = [*imsis, "1", *imsis, "2"]
    found = await asyncio.gather(*(asyncio.to_thread(collection.find_one, {"imsi": imsi}) for imsi in wanted))
    assert [one and one["imsi"] for one in found] == [imsi if len(imsi) > 1 else None for imsi in wanted]


async def test_a_look_up_that_loses_its_database_connection_is_made_again(directory: Any, pg_database: Any) -> None:
    await directory.put(IMSI)
    collection = directory.subscribers(retryReads=False)
    admin = await asyncpg.connect(pg_database.admin_dsn)
    transaction = admin.transaction()
    await transaction.start()
    await admin.execute("LOCK TABLE directory.subscriber")
    look_up = asyncio.ensure_future(asyncio.to_thread(collection.find_one, {"imsi": IMSI}))
    async with asyncio.timeout(5):
        while not await admin.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0)
    await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'directory'")
    await transaction.commit()
    await admin.close()
    assert (await look_up)["imsi"] == IMSI


def test_the_reference_decoder_of_this_test_sees_a_wrong_type() -> None:
    assert kinds(bson.encode({"a": 1, "b": Int64(1), "c": {"d": [True]}})) == {
        "a": INT32,
        "b": INT64,
        "c": DOCUMENT,
        "c.d": ARRAY,
        "c.d.0": BOOLEAN,
    }
