"""What the core writes: sequence numbers, where a subscriber is, and nothing else by accident."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pymongo
import pymongo.errors
import pytest
from bson.int64 import Int64

from mvnobox.core.directory.updates import Change

IMSI = "208930000000001"


async def writer(place: Any) -> Any:
    """(update(change, **options), read()) of one subscriber there."""
    await place.put(IMSI, "33639980001")
    collection = place.subscribers(maxPoolSize=30)

    async def update(change: Any, **options: Any) -> Any:
        return await asyncio.to_thread(lambda: collection.update_one({"imsi": IMSI}, change, **options))

    async def read() -> Any:
        return await asyncio.to_thread(collection.find_one, {"imsi": IMSI})

    return update, read


@pytest.fixture
async def one(directory: Any) -> Any:
    """(update(change, **options), read()) of one subscriber."""
    return await writer(directory)


async def test_of_concurrent_sequence_numbers_none_is_lost(one: Any) -> None:
    update, read = one
    results = await asyncio.gather(*(update({"$inc": {"security.sqn": Int64(32)}}) for _ in range(100)))
    assert all(result.matched_count == result.modified_count == 1 for result in results)
    assert (await read())["security"]["sqn"] == 3200


async def test_sequence_numbers_have_48_bits(one: Any) -> None:
    update, read = one
    await update({"$set": {"security.sqn": Int64(2**48 - 1)}})
    assert (await read())["security"]["sqn"] == 2**48 - 1
    await update({"$inc": {"security.sqn": Int64(33)}})
    result = await update({"$bit": {"security.sqn": {"and": Int64(2**48 - 1)}}})
    assert (result.matched_count, result.modified_count) == (1, 0)
    assert (await read())["security"]["sqn"] == 32
    await update({"$bit": {"security.sqn": {"or": 1}}})
    assert (await read())["security"]["sqn"] == 33
    await update({"$inc": {"security.sqn": Int64(2**63 - 34)}})
    await update({"$inc": {"security.sqn": -40}})
    assert 0 <= (await read())["security"]["sqn"] < 2**48


async def test_what_the_core_writes_keeps_its_types_and_outlives_provisioning(served: Any) -> None:
    update, read = await writer(served)
    written = {
        "mme_host": "mme.epc.mnc093.mcc208.3gppnetwork.org",
        "mme_realm": "epc.mnc093.mcc208.3gppnetwork.org",
        "mme_timestamp": Int64(5),
        "purge_flag": False,
    }
    await update({"$set": written}, upsert=True)
    await update({"$set": {"imeisv": "4370816125816151"}}, upsert=True)
    await update({"$set": {"security.sqn": Int64(64), "security.rand": "00" * 16}})
    await served.put(IMSI, "33639980001")
    found = await read()
    assert {name: found[name] for name in written} == written and found["imeisv"] == "4370816125816151"
    assert isinstance(found["mme_timestamp"], Int64) and found["purge_flag"] is False
    assert found["security"]["rand"] == "00" * 16
    await update({"$unset": {"imeisv": "", "purge_flag": 1}})
    assert not {"imeisv", "purge_flag"} & set(await read())


async def test_provisioned_fields_are_set_by_dotted_path(one: Any) -> None:
    update, read = one
    await update({"$set": {"ambr.downlink.value": 7, "subscriber_status": 1, "slice.0.session.0.qos.index": 5}})
    found = await read()
    assert found["ambr"] == {"downlink": {"value": 7, "unit": 2}, "uplink": {"value": 10, "unit": 2}}
    assert found["subscriber_status"] == 1 and found["slice"][0]["session"][0]["qos"]["index"] == 5
    assert (await update({"$set": {"subscriber_status": 1}})).modified_count == 0
    for wrong in ({"subscriber_status": "barred"}, {"slice": [{}] * 9}, {"ambr.downlink.value": 2**31}):
        with pytest.raises(pymongo.errors.OperationFailure) as caught:
            await update({"$set": wrong})
        assert caught.value.code == 121
    assert await read() == found


async def test_an_upsert_makes_no_subscriber_without_keys(directory: Any) -> None:
    collection = directory.subscribers()
    result = await asyncio.to_thread(
        lambda: collection.update_one({"imsi": IMSI}, {"$set": {"imeisv": "1"}}, upsert=True)
    )
    assert result.matched_count == 0 and await asyncio.to_thread(collection.count_documents, {}) == 0


async def test_identity_and_keys_are_not_the_cores_to_change(one: Any) -> None:
    update, read = one
    before = await read()
    for change in (
        {"$set": {"security.k": "0"}},
        {"$set": {"security": {}}},
        {"$set": {"imsi": "1"}},
        {"$unset": {"msisdn": 1}},
        {"$set": {"a.b": 1}},
        {"$inc": {"subscriber_status": 1}},
        {"$rename": {"imsi": "x"}},
        {"$set": {"security.sqn": "1"}},
        {"$bit": {"security.sqn": {"not": 1}}},
    ):
        with pytest.raises(pymongo.errors.WriteError) as caught:
            await update(change)
        assert caught.value.code in (2, 238), change
    assert await read() == before


async def test_a_batch_says_which_update_was_wrong(directory: Any, one: Any) -> None:
    collection = directory.subscribers()
    good, wrong = {"$set": {"security.sqn": Int64(1)}}, {"$set": {"security.opc": "0"}}
    key = {"imsi": IMSI}
    for ordered, applied in ((True, 1), (False, 2)):
        writes = [pymongo.UpdateOne(key, good), pymongo.UpdateOne(key, wrong), pymongo.UpdateOne(key, good)]
        with pytest.raises(pymongo.errors.BulkWriteError) as caught:
            await asyncio.to_thread(lambda w=writes, o=ordered: collection.bulk_write(w, ordered=o))
        assert caught.value.details["nMatched"] == applied
        assert caught.value.details["writeErrors"][0]["index"] == 1
    both = {"imsi": {"$in": [IMSI, "208930000000002"]}}
    await directory.put("208930000000002")
    assert (await asyncio.to_thread(collection.update_many, both, good)).matched_count == 2


async def test_an_unacknowledged_update_is_done_and_not_answered(directory: Any, one: Any) -> None:
    _, read = one
    collection = directory.client(w=0)["open5gs"]["subscribers"]
    change = {"$set": {"security.sqn": Int64(7)}}
    await asyncio.to_thread(collection.update_one, {"imsi": IMSI}, change)
    # The same connection's next answer comes after it.
    await asyncio.to_thread(collection.find_one, {"imsi": IMSI})
    async with asyncio.timeout(5):
        while (await read())["security"]["sqn"] != 7:
            await asyncio.sleep(0)


async def test_an_update_outlasts_a_database_that_goes_away(directory: Any, one: Any, pg_database: Any) -> None:
    update, read = one
    admin = await asyncpg.connect(pg_database.admin_dsn)
    transaction = admin.transaction()
    await transaction.start()
    await admin.execute("LOCK TABLE directory.subscriber")
    # Open5GS's UDR stops by assertion where this fails.
    late = asyncio.ensure_future(update({"$set": {"imeisv": "4370816125816151"}}, upsert=True))
    async with asyncio.timeout(5):
        while not await admin.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0)
    await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'directory'")
    await transaction.commit()
    await admin.close()
    assert (await late).matched_count == 1
    assert (await read())["imeisv"] == "4370816125816151"


def test_what_would_be_wrong_if_done_twice_is_done_once() -> None:
    for change, repeatable in (
        ({"$set": {"security.sqn": 1}}, True),
        ({"$inc": {"security.sqn": 32}}, True),
        ({"$bit": {"security.sqn": {"and": 1, "or": 1}}}, True),
        ({"$bit": {"security.sqn": {"xor": 1}}}, False),
        ({"$inc": {"security.sqn": -32}}, False),
        ({"$set": {"imeisv": "1"}, "$inc": {"security.sqn": -1}}, False),
    ):
        assert Change(change).repeatable is repeatable
