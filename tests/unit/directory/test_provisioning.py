"""A brand's SQL functions: in its own transaction, on its own subscribers, with documents that the core can take."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest
from bson.int64 import Int64

IMSI = "208930000000001"


async def test_a_new_key_starts_a_new_sequence_and_the_same_key_goes_on(directory: Any) -> None:
    sealed = await directory.put(IMSI)
    collection = directory.subscribers()

    async def sqn() -> int:
        return int((await asyncio.to_thread(collection.find_one, {"imsi": IMSI}))["security"]["sqn"])

    await asyncio.to_thread(collection.update_one, {"imsi": IMSI}, {"$set": {"security.sqn": Int64(96)}})
    await directory.put(IMSI, "33639980009", sealed=sealed)
    assert await sqn() == 96
    await directory.put(IMSI)
    assert await sqn() == 0


async def test_a_brand_reaches_only_its_own(directory: Any) -> None:
    await directory.put(IMSI, "33639980001")
    for statement in (
        "SELECT directory.remove_subscriber($1)",
        "SELECT directory.set_subscriber_status($1, 1, 1)",
        "SELECT directory.put_subscriber($1, '{}', '', '{}')",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="another brand"):
            await directory.sql(statement, IMSI, role="bss_beta")
    with pytest.raises(asyncpg.UniqueViolationError):
        await directory.put("208930000000002", "33639980001", role="bss_beta")
    assert await directory.sql("SELECT directory.count_subscribers()", role="bss_beta") == 0
    assert await directory.sql("SELECT directory.count_subscribers()") == 1
    for role in ("bss_alpha", "bss_beta", "ctf_alpha", "ocs"):
        for statement in (
            "SELECT sealed FROM directory.subscriber",
            "DELETE FROM directory.number",
            "SELECT * FROM directory.change",
            "INSERT INTO directory.watch (seen) VALUES (now())",
            "SELECT directory.caller()",
            "SELECT directory.owned('1', 'alpha')",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await directory.sql(statement, role=role)
    for role in ("ocs", "ctf_alpha"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await directory.sql("SELECT directory.count_subscribers()", role=role)


async def test_the_first_brand_keeps_an_imsi_that_two_want_at_once(directory: Any) -> None:
    alpha, beta = await asyncpg.connect(directory.dsn("bss_alpha")), await asyncpg.connect(directory.dsn("bss_beta"))
    put = "SELECT directory.put_subscriber($1, '{}', 'x', '{}')"
    transaction = alpha.transaction()
    await transaction.start()
    await alpha.execute(put, IMSI)
    late = asyncio.ensure_future(beta.execute(put, IMSI))
    watcher = await asyncpg.connect(directory.dsn("bss_alpha"))
    async with asyncio.timeout(10):
        while not await watcher.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0)
    await transaction.commit()
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="another brand"):
        await late
    for connection in (alpha, beta, watcher):
        await connection.close()


async def test_a_rolled_back_order_leaves_no_subscriber(directory: Any) -> None:
    connection = await asyncpg.connect(directory.dsn("bss_alpha"))
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("SELECT directory.put_subscriber($1, '{33639980001}', 'x', '{}')", IMSI)
    assert await connection.fetchval("SELECT directory.count_subscribers()") == 1
    await transaction.rollback()
    assert await connection.fetchval("SELECT directory.count_subscribers()") == 0
    await connection.close()
    await directory.put("208930000000002", "33639980001", role="bss_beta")


async def test_numbers_move_with_a_new_provisioning(directory: Any) -> None:
    await directory.put(IMSI, "33639980001", "33639980002")
    await directory.put(IMSI, "33639980002", "33639980003")
    await directory.put("208930000000002", "33639980001")
    collection = directory.subscribers()
    owners = {"33639980001": "208930000000002", "33639980002": IMSI, "33639980003": IMSI}
    for number, imsi in owners.items():
        assert (await asyncio.to_thread(collection.find_one, {"msisdn": number}))["imsi"] == imsi
    assert await directory.sql("SELECT directory.remove_subscriber($1)", IMSI) is True
    assert await directory.sql("SELECT directory.remove_subscriber($1)", IMSI) is False
    assert await asyncio.to_thread(collection.find_one, {"msisdn": "33639980003"}) is None


async def test_suspension_is_seen_by_the_core(directory: Any) -> None:
    await directory.put(IMSI)
    assert await directory.sql("SELECT directory.set_subscriber_status($1, 1, 2)", IMSI) is True
    assert await directory.sql("SELECT directory.set_subscriber_status('1', 1, 2)") is False
    found = await asyncio.to_thread(directory.subscribers().find_one, {"imsi": IMSI})
    assert (found["subscriber_status"], found["operator_determined_barring"]) == (1, 2)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (["security"], {"k": "0"}, "without security"),
        (["surprise"], 1, "not of Open5GS"),
        (["slice"], [{"sst": 1}] * 9, "at most 8"),
        (["slice", 0, "session"], [{"name": "internet"}] * 5, "at most 4"),
        (["slice", 0, "session", 0], 5, "at most 4 objects"),
        (["slice", 0, "session", 0, "name"], "inter net", "DNN"),
        (["slice", 0, "session", 0, "pcc_rule"], [{}] * 9, "at most 8 objects"),
        (["slice", 0, "session", 0, "pcc_rule"], [{"flow": [{}] * 16}], "at most 15"),
        (["slice", 0, "sst"], "1", "sst"),
        (["slice", 0, "sd"], "1", "sd is 6"),
        (["slice", 0, "sd"], None, "sd has the wrong type"),
        (["subscriber_status"], "0", "wrong type"),
        (["subscriber_status"], 2**31, "32-bit"),
        (["ambr", "uplink", "value"], 1.5, "32-bit"),
        (["ambr"], [], "wrong type"),
        (["ambr", "uplink"], {"value": {"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": {"i": {}}}}}}}}}}}, "nested"),
    ],
)
async def test_a_document_that_would_stop_the_shared_core_is_refused(
    directory: Any, example: Any, path: list[Any], value: Any, said: str
) -> None:
    place = example
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(asyncpg.InvalidParameterValueError, match=said):
        await directory.put(IMSI, document=example)
    assert await directory.sql("SELECT directory.count_subscribers()") == 0


async def test_wrong_identities_are_refused(directory: Any) -> None:
    put = "SELECT directory.put_subscriber($1, $2, 'x', '{}')"
    for imsi, numbers, error in (
        ("12ab567", [], asyncpg.CheckViolationError),
        (IMSI, ["+33639980001"], asyncpg.CheckViolationError),
        (IMSI, ["33639980001", "33639980002", "33639980003"], asyncpg.InvalidParameterValueError),
        (IMSI, [None], asyncpg.NullValueNotAllowedError),
        (None, [], asyncpg.NullValueNotAllowedError),
    ):
        with pytest.raises(error):
            await directory.sql(put, imsi, numbers)
    with pytest.raises(asyncpg.NullValueNotAllowedError):
        await directory.sql("SELECT directory.set_subscriber_status($1, NULL, 0)", IMSI)


async def test_migrating_again_changes_nothing(directory: Any) -> None:
    from mvnobox.core.directory.__main__ import MIGRATIONS
    from mvnobox.service import database

    await directory.put(IMSI)
    await asyncio.gather(*(database.migrate(directory.dsn("directory"), MIGRATIONS) for _ in range(2)))
    assert await directory.sql("SELECT directory.count_subscribers()") == 1
