"""The directory as Open5GS and the BSS use it: over the wire with pymongo, over SQL as a brand's role."""

from __future__ import annotations

import asyncio
import json
import os
import random
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import bson
import pymongo
import pymongo.errors
import pytest
from bson.int64 import Int64
from nacl.public import PrivateKey, SealedBox

from mvnobox.core.directory.commands import Commands
from mvnobox.core.directory.server import DirectoryServer
from mvnobox.core.directory.store import Store
from mvnobox.service import database

KEYS = {"k": "465b5ce8b199b49faa5f0a2ee238a6bc", "opc": "cd63cb71954a9f4e48a5994e37a02baf", "amf": "8000"}
DOCUMENT = {
    "subscriber_status": 0,
    "operator_determined_barring": 0,
    "network_access_mode": 0,
    "ambr": {"downlink": {"value": 50, "unit": 2}, "uplink": {"value": 10, "unit": 2}},
    "slice": [{"sst": 1, "sd": "000001", "default_indicator": True, "session": [{"name": "internet", "type": 1}]}],
}


class Directory:
    def __init__(self, port: int, dsn: Any, key: PrivateKey) -> None:
        self.port, self.dsn, self.key = port, dsn, key

    async def put(
        self, imsi: str, *numbers: str, role: str = "bss_alpha", document: Any = None, sealed: bytes | None = None
    ) -> bytes:
        sealed = sealed or SealedBox(self.key.public_key).encrypt(json.dumps(KEYS).encode())
        connection = await asyncpg.connect(self.dsn(role))
        try:
            await connection.execute(
                "SELECT directory.put_subscriber($1, $2, $3, $4)",
                imsi,
                list(numbers),
                sealed,
                json.dumps(document or DOCUMENT),
            )
        finally:
            await connection.close()
        return sealed

    def collection(self) -> Any:
        return pymongo.MongoClient("127.0.0.1", self.port, serverSelectionTimeoutMS=5000)["open5gs"]["subscribers"]


@pytest.fixture
async def directory(pg_database: Any) -> AsyncIterator[Directory]:
    key = PrivateKey.generate()
    await database.migrate(
        pg_database.dsn("directory"), Path(database.__file__).parents[1] / "core/directory/migrations"
    )
    pool = await database.make_pool(pg_database.dsn("directory"))
    server = DirectoryServer(Commands(Store(pool, bytes(key)), "open5gs"))
    listener = await asyncio.start_server(server.connection, "127.0.0.1", 0)
    yield Directory(listener.sockets[0].getsockname()[1], pg_database.dsn, key)
    listener.close()
    pool.terminate()


async def test_a_subscriber_is_read_with_the_types_that_open5gs_expects(directory: Directory) -> None:
    await directory.put("208930000000001", "33639980001")
    collection = directory.collection()
    found = await asyncio.to_thread(collection.find_one, {"imsi": "208930000000001"})
    assert found["security"] == {**KEYS, "op": None, "sqn": 0}
    assert isinstance(found["security"]["sqn"], Int64)
    assert type(found["slice"][0]["sst"]) is int and found["msisdn"] == ["33639980001"]
    assert found["ambr"]["downlink"] == {"value": 50, "unit": 2} and found["schema_version"] == 1
    by_number = {"$or": [{"imsi": "33639980001"}, {"msisdn": "33639980001"}]}
    assert (await asyncio.to_thread(collection.find_one, by_number))["imsi"] == "208930000000001"
    assert await asyncio.to_thread(collection.find_one, {"imsi": "999"}) is None
    assert await asyncio.to_thread(collection.count_documents, {}) == 1


async def test_sequence_numbers_are_never_lost(directory: Directory) -> None:
    await directory.put("208930000000001")
    collection = directory.collection()

    def bump() -> None:
        change = {"$inc": {"security.sqn": Int64(32)}}
        assert collection.update_one({"imsi": "208930000000001"}, change).matched_count == 1

    await asyncio.gather(*(asyncio.to_thread(bump) for _ in range(50)))
    await asyncio.to_thread(
        collection.update_one, {"imsi": "208930000000001"}, {"$bit": {"security.sqn": {"and": Int64(2**48 - 1)}}}
    )
    assert (await asyncio.to_thread(collection.find_one, {"imsi": "208930000000001"}))["security"]["sqn"] == 1600
    changed = await asyncio.to_thread(
        collection.update_one, {"imsi": "208930000000001"}, {"$set": {"security.sqn": Int64(64), "security.rand": "00"}}
    )
    assert changed.modified_count == 1
    assert (await asyncio.to_thread(collection.find_one, {"imsi": "208930000000001"}))["security"]["sqn"] == 64


async def test_a_new_key_starts_a_new_sequence_and_the_same_key_goes_on(directory: Directory) -> None:
    sealed = await directory.put("208930000000001")
    collection = directory.collection()
    await asyncio.to_thread(collection.update_one, {"imsi": "208930000000001"}, {"$set": {"security.sqn": Int64(96)}})
    await directory.put("208930000000001", "33639980009", sealed=sealed)
    assert (await asyncio.to_thread(collection.find_one, {"imsi": "208930000000001"}))["security"]["sqn"] == 96
    await directory.put("208930000000001")
    assert (await asyncio.to_thread(collection.find_one, {"imsi": "208930000000001"}))["security"]["sqn"] == 0


async def test_a_brand_reaches_only_its_own(directory: Directory) -> None:
    await directory.put("208930000000001", "33639980001")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await directory.put("208930000000001", role="bss_beta")
    with pytest.raises(asyncpg.UniqueViolationError):
        await directory.put("208930000000002", "33639980001", role="bss_beta")
    beta = await asyncpg.connect(directory.dsn("bss_beta"))
    assert await beta.fetchval("SELECT directory.remove_subscriber('208930000000001')") is False
    assert await beta.fetchval("SELECT directory.set_subscriber_status('208930000000001', 1, 1)") is False
    assert await beta.fetchval("SELECT directory.count_subscribers()") == 0
    for statement in (
        "SELECT * FROM directory.subscriber",
        "DELETE FROM directory.number",
        "SELECT directory.caller()",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await beta.execute(statement)
    await beta.close()
    ocs = await asyncpg.connect(directory.dsn("ocs"))
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await ocs.execute("SELECT directory.count_subscribers()")
    await ocs.close()


async def test_a_rolled_back_order_leaves_no_subscriber(directory: Directory) -> None:
    connection = await asyncpg.connect(directory.dsn("bss_alpha"))
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("SELECT directory.put_subscriber('208930000000001', '{}', 'x', '{}')")
    await transaction.rollback()
    assert await connection.fetchval("SELECT directory.count_subscribers()") == 0
    with pytest.raises(asyncpg.PostgresError, match="without security"):
        await connection.execute("""SELECT directory.put_subscriber('208930000000001', '{}', 'x', '{"imsi": "1"}')""")
    await connection.close()


async def test_suspension_is_seen_by_the_core(directory: Directory) -> None:
    await directory.put("208930000000001")
    connection = await asyncpg.connect(directory.dsn("bss_alpha"))
    assert await connection.fetchval("SELECT directory.set_subscriber_status('208930000000001', 1, 0)") is True
    await connection.close()
    found = await asyncio.to_thread(directory.collection().find_one, {"imsi": "208930000000001"})
    assert found["subscriber_status"] == 1


async def test_what_is_not_supported_is_said_in_the_clients_words(directory: Directory) -> None:
    collection = directory.collection()
    with pytest.raises(pymongo.errors.OperationFailure, match="does not support"):
        await asyncio.to_thread(collection.find_one, {"slice.sst": 1})
    with pytest.raises(pymongo.errors.OperationFailure, match="no such command"):
        await asyncio.to_thread(collection.insert_one, {"imsi": "1"})
    with pytest.raises(pymongo.errors.OperationFailure, match="does not support"):
        await asyncio.to_thread(collection.update_one, {"imsi": "1"}, {"$set": {"security.k": "0"}})


def message(document: Any, flags: int = 0, opcode: int = 2013) -> bytes:
    payload = struct.pack("<I", flags) + b"\0" + bson.encode(document)
    return struct.pack("<iiii", 16 + len(payload), 1, 0, opcode) + payload


async def test_hostile_octets_never_stop_the_server(directory: Directory) -> None:
    await directory.put("208930000000001")
    good = message({"find": "subscribers", "filter": {"imsi": "208930000000001"}, "$db": "open5gs"})
    chance = random.Random(int(os.environ.get("FUZZ_SEED", "1")))
    for round_number in range(400):
        data = bytearray(good)
        for _ in range(chance.randint(1, 8)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if round_number % 3 == 0:
            data = data[: chance.randrange(len(data))]
        reader, writer = await asyncio.open_connection("127.0.0.1", directory.port)
        writer.write(bytes(data))
        writer.write_eof()
        await asyncio.wait_for(reader.read(), 5)
        writer.close()
    found = await asyncio.to_thread(directory.collection().find_one, {"imsi": "208930000000001"})
    assert found is not None
