"""Change streams as Open5GS's HSS follows them."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pymongo.errors
import pytest
from bson.int64 import Int64

IMSI = "208930000000001"


def following(collection: Any, **options: Any) -> Any:
    return collection.watch(full_document="updateLookup", max_await_time_ms=2000, **options)


async def event_of(stream: Any) -> Any:
    """The next event; each try waits as long as the stream's await time."""
    for _ in range(5):
        if (event := await asyncio.to_thread(stream.try_next)) is not None:
            return event
    raise AssertionError("no event came")


async def test_a_changed_subscription_is_told(directory: Any, example: Any) -> None:
    await directory.put(IMSI)
    collection = directory.subscribers()
    stream = await asyncio.to_thread(following, collection)
    assert await asyncio.to_thread(stream.try_next) is None
    await directory.sql("SELECT directory.set_subscriber_status($1, 1, 0)", IMSI)
    event = await event_of(stream)
    assert event["operationType"] == "update" and event["fullDocument"]["imsi"] == IMSI
    assert event["updateDescription"]["updatedFields"] == {"subscriber_status": 1}
    assert event["ns"] == {"db": "open5gs", "coll": "subscribers"} and event["documentKey"] == {"_id": IMSI}

    example["ambr"]["uplink"]["value"] = 99
    del example["subscribed_rau_tau_timer"]
    await directory.put(IMSI, "33639980001", document=example)
    event = await event_of(stream)
    described = event["updateDescription"]
    # Another SIM as well: where the old one is attached, it has to go.
    assert set(described["updatedFields"]) == {"ambr", "subscriber_status", "msisdn", "request_cancel_location"}
    assert described["removedFields"] == ["subscribed_rau_tau_timer"]

    await asyncio.to_thread(collection.update_one, {"imsi": IMSI}, {"$set": {"request_cancel_location": True}})
    event = await event_of(stream)
    assert event["updateDescription"]["updatedFields"] == {"request_cancel_location": True}

    await directory.put("208930000000002", role="bss_beta")
    event = await event_of(stream)
    assert event["operationType"] == "insert" and event["fullDocument"]["imsi"] == "208930000000002"

    await directory.sql("SELECT directory.remove_subscriber($1)", IMSI)
    cancel, delete = [await event_of(stream) for _ in range(2)]
    assert cancel["fullDocument"] == {"imsi": IMSI}
    assert cancel["updateDescription"]["updatedFields"] == {"request_cancel_location": True}
    assert delete["operationType"] == "delete" and delete["documentKey"] == {"_id": IMSI}
    await asyncio.to_thread(stream.close)


async def test_sequence_numbers_and_unchanged_documents_are_no_news(directory: Any) -> None:
    sealed = await directory.put(IMSI)
    collection = directory.subscribers()
    stream = await asyncio.to_thread(following, collection)
    await asyncio.to_thread(collection.update_one, {"imsi": IMSI}, {"$inc": {"security.sqn": Int64(32)}})
    await directory.put(IMSI, sealed=sealed)
    await directory.put("208930000000002")
    assert (await event_of(stream))["operationType"] == "insert"
    await asyncio.to_thread(stream.close)


async def test_a_stream_goes_on_at_its_token_on_any_replica(directory: Any, start: Any) -> None:
    stream = await asyncio.to_thread(following, directory.subscribers())
    await directory.put(IMSI)
    await event_of(stream)
    await directory.sql("SELECT directory.remove_subscriber($1)", IMSI)
    cancel = await event_of(stream)
    token = cancel["_id"]
    await asyncio.to_thread(stream.close)
    await directory.put("208930000000002")
    async with start(key=directory.key) as other:
        stream = await asyncio.to_thread(lambda: following(other.subscribers(), resume_after=token))
        # The second half of the removal first.
        assert (await event_of(stream))["operationType"] == "delete"
        assert (await event_of(stream))["operationType"] == "insert"
        await asyncio.to_thread(stream.close)
    # A replica that forgot the cursor: the client opens a new one at its token by itself.
    stream = await asyncio.to_thread(following, directory.subscribers())
    directory.server.commands._queries._cursors._known.clear()
    await directory.put("208930000000003")
    assert (await event_of(stream))["fullDocument"]["imsi"] == "208930000000003"
    await asyncio.to_thread(stream.close)


async def test_no_change_is_skipped_when_an_older_transaction_commits_later(directory: Any) -> None:
    stream = await asyncio.to_thread(following, directory.subscribers())
    slow = await asyncpg.connect(directory.dsn("bss_alpha"))
    transaction = slow.transaction()
    await transaction.start()
    await slow.execute("SELECT directory.put_subscriber('208930000000001', '{}', 'x', '{}')")
    await slow.execute("SELECT directory.remove_subscriber('208930000000001')")
    await slow.execute("SELECT directory.put_subscriber($1, '{}', $2, '{}')", "208930000000005", directory.seal())
    await directory.put("208930000000002", role="bss_beta")
    assert await asyncio.to_thread(stream.try_next) is None
    await transaction.commit()
    await slow.close()
    seen = [await event_of(stream) for _ in range(4)]
    assert [(one["operationType"], one["documentKey"]["_id"][-1]) for one in seen] == [
        ("update", "1"),
        ("delete", "1"),
        ("insert", "5"),
        ("insert", "2"),
    ]
    await asyncio.to_thread(stream.close)


async def test_without_a_watcher_nothing_is_logged(directory: Any) -> None:
    await directory.put(IMSI)
    assert await directory.sql("SELECT count(*) FROM change", role="directory") == 0


async def test_a_wrong_stream_is_refused(directory: Any) -> None:
    collection = directory.subscribers()
    for options in ({"resume_after": {"_data": "82"}}, {"start_after": {"x": 1}}, {"pipeline": [{"$match": {}}]}):
        with pytest.raises(pymongo.errors.OperationFailure) as caught:
            await asyncio.to_thread(lambda given=options: collection.watch(**given))
        assert caught.value.code == 238


async def test_a_stream_hears_again_after_its_database_connection_ended(directory: Any, pg_database: Any) -> None:
    stream = await asyncio.to_thread(following, directory.subscribers())
    await directory.put(IMSI)
    await event_of(stream)
    changes = directory.server.commands._queries._changes
    assert changes._listener is not None
    admin = await asyncpg.connect(pg_database.admin_dsn)
    await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'directory'")
    async with asyncio.timeout(5):
        while changes._listener is not None:
            await asyncio.sleep(0)
    await directory.put("208930000000002")
    assert (await event_of(stream))["fullDocument"]["imsi"] == "208930000000002"
    listening = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'directory' AND query LIKE 'LISTEN%'"
    assert changes._listener is not None and await admin.fetchval(listening) == 1
    await admin.close()
    await asyncio.to_thread(stream.close)


async def test_many_changes_of_one_transaction_are_one_notification(directory: Any) -> None:
    stream = await asyncio.to_thread(following, directory.subscribers())
    assert await asyncio.to_thread(stream.try_next) is None
    heard: list[str] = []
    listener = await asyncpg.connect(directory.dsn("directory"))
    await listener.add_listener("directory_subscriber", lambda *given: heard.append(given[-1]))
    imsis = [str(208930000000000 + i) for i in range(150)]
    put = "SELECT directory.put_subscribers($1, '{}', $2, $3)"
    await directory.sql(put, imsis, [directory.seal()] * 150, ["{}"] * 150)
    assert {(await event_of(stream))["documentKey"]["_id"] for _ in imsis} == set(imsis)
    await listener.fetchval("SELECT 1")
    assert heard == [""]
    await listener.close()
    await asyncio.to_thread(stream.close)
