"""A brand's SQL functions: in its own transaction, on its own subscribers, with documents that the core can take."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from bson.int64 import Int64
from nacl.public import PrivateKey, SealedBox

from mvnobox.core.directory.__main__ import MIGRATIONS
from mvnobox.service import database

IMSI = "208930000000001"


async def test_a_new_key_starts_a_new_sequence_and_the_same_key_goes_on(served: Any) -> None:
    sealed = await served.put(IMSI)
    collection = served.subscribers()

    async def sqn() -> int:
        return int((await asyncio.to_thread(collection.find_one, {"imsi": IMSI}))["security"]["sqn"])

    await asyncio.to_thread(collection.update_one, {"imsi": IMSI}, {"$set": {"security.sqn": Int64(96)}})
    await served.put(IMSI, "33639980009", sealed=sealed)
    assert await sqn() == 96
    await served.put(IMSI)
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


async def test_numbers_move_with_a_new_provisioning(served: Any) -> None:
    await served.put(IMSI, "33639980001", "33639980002")
    await served.put(IMSI, "33639980002", "33639980003")
    await served.put("208930000000002", "33639980001")
    collection = served.subscribers()
    owners = {"33639980001": "208930000000002", "33639980002": IMSI, "33639980003": IMSI}
    for number, imsi in owners.items():
        assert (await asyncio.to_thread(collection.find_one, {"msisdn": number}))["imsi"] == imsi
    assert await served.sql("SELECT directory.remove_subscriber($1)", IMSI) is True
    assert await served.sql("SELECT directory.remove_subscriber($1)", IMSI) is False
    assert await asyncio.to_thread(collection.find_one, {"msisdn": "33639980003"}) is None


async def test_suspension_is_seen_by_the_core(served: Any) -> None:
    await served.put(IMSI)
    assert await served.sql("SELECT directory.set_subscriber_status($1, 1, 2)", IMSI) is True
    assert await served.sql("SELECT directory.set_subscriber_status('1', 1, 2)") is False
    found = await asyncio.to_thread(served.subscribers().find_one, {"imsi": IMSI})
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
        (["slice", 0, "sst"], 256, "sst"),
        (["slice", 0, "default_indicator"], 1, "of type boolean"),
        (["slice", 0, "session", 0, "qos", "index"], "9", "index has the wrong type"),
        (["slice", 0, "session", 0, "qos", "arp"], None, "arp has the wrong type"),
        (["slice", 0, "session", 0, "ue"], {"ipv4": 1}, "of type string"),
        (["slice", 0, "session", 0, "pcc_rule"], [{"flow": [{"direction": "1"}]}], "direction has the wrong type"),
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
    await directory.put(IMSI)
    await asyncio.gather(*(database.migrate(directory.dsn("directory"), MIGRATIONS) for _ in range(2)))
    assert await directory.sql("SELECT directory.count_subscribers()") == 1


async def test_numbers_keep_their_order(directory: Any) -> None:
    # The first is the subscriber's, the second an additional one.
    await directory.put(IMSI, "33639980009", "33639980001", "33639980009")
    found = await asyncio.to_thread(directory.subscribers().find_one, {"imsi": IMSI})
    assert found["msisdn"] == ["33639980009", "33639980001"]


async def test_initial_filter_criteria_are_taken_up_to_what_the_hss_holds(directory: Any, example: Any) -> None:
    trigger = {"condition_type_cnf": 1, "spt": [{"condition_negated": 0, "group": 0, "method": "INVITE"}]}
    server = {"server_name": "sip:as.example", "default_handling": 0}
    example["ifc"] = [{"priority": 1, "application_server": server, "trigger_point": trigger}]
    await directory.put(IMSI, document=example)
    found = await asyncio.to_thread(directory.subscribers().find_one, {"imsi": IMSI})
    assert found["ifc"] == example["ifc"]
    for wrong, said in (([{}] * 21, "ifc is"), ([{"trigger_point": {"spt": [{}] * 21}}], "spt is"), ([1], "ifc is")):
        example["ifc"] = wrong
        with pytest.raises(asyncpg.InvalidParameterValueError, match=said):
            await directory.put(IMSI, document=example)


async def test_whole_numbers_are_int32_however_they_are_written(directory: Any) -> None:
    put = "SELECT directory.put_subscriber($1, '{}', $2, $3)"
    await directory.sql(put, IMSI, directory.seal(), '{"subscriber_status": 0.0, "network_access_mode": 2e0}')
    found = await asyncio.to_thread(directory.subscribers().find_one, {"imsi": IMSI})
    assert [type(found[name]) for name in ("subscriber_status", "network_access_mode")] == [int, int]


PUT_MANY = "SELECT directory.put_subscribers($1, $2, $3, $4)"


async def test_many_subscribers_in_one_call(directory: Any, example: Any) -> None:
    imsis = [str(208930000000000 + i) for i in range(300)]
    sealed = [directory.seal() for _ in imsis]
    plans = [json.dumps({**example, "network_access_mode": 2 * (i % 2)}) for i in range(300)]
    numbers = [str(33600000000 + i) for i in range(300)]
    assert await directory.sql(PUT_MANY, imsis, numbers, sealed, plans) == 300
    collection = directory.subscribers()
    one = await asyncio.to_thread(collection.find_one, {"msisdn": numbers[7]})
    assert (one["imsi"], one["network_access_mode"], one["msisdn"]) == (imsis[7], 2, [numbers[7]])
    await asyncio.to_thread(collection.update_one, {"imsi": imsis[0]}, {"$set": {"security.sqn": Int64(96)}})
    await asyncio.to_thread(collection.update_one, {"imsi": imsis[1]}, {"$set": {"security.sqn": Int64(96)}})
    # Once more: numbers exchanged, a second one, another SIM.
    pairs = [[numbers[1], None], [numbers[0], "33700000000"], [None, None]]
    sealed[1] = directory.seal()
    assert await directory.sql(PUT_MANY, imsis[:3], pairs, sealed[:3], plans[:3]) == 3
    found = await asyncio.to_thread(lambda: list(collection.find({"imsi": {"$in": imsis[:3]}})))
    assert [one["msisdn"] for one in found] == [[numbers[1]], [numbers[0], "33700000000"], []]
    assert [one["security"]["sqn"] for one in found] == [96, 0, 0]
    assert await asyncio.to_thread(collection.find_one, {"msisdn": numbers[2]}) is None
    assert (await asyncio.to_thread(collection.find_one, {"msisdn": numbers[0]}))["imsi"] == imsis[1]
    assert await directory.sql(PUT_MANY, [], [], [], []) == 0
    assert await directory.sql(PUT_MANY, ["208930000000999"], [], [b"x"], ["{}"]) == 1


async def test_of_many_subscribers_all_or_none_is_put(directory: Any) -> None:
    await directory.put("208930000000009", "33700000009", role="bss_beta")
    other = "208930000000008"
    null, wrong, foreign = (
        asyncpg.NullValueNotAllowedError,
        asyncpg.InvalidParameterValueError,
        asyncpg.InsufficientPrivilegeError,
    )
    for imsis, numbers, sealed, documents, error, said in (
        ([IMSI, None], [], [b"x"] * 2, ["{}"] * 2, null, "must not be null"),
        ([IMSI, other], [], [b"x"], ["{}"] * 2, wrong, "2 IMSIs, 0 numbers .* 1 sealed keys, 2 documents"),
        ([IMSI, other], ["1"] * 3, [b"x"] * 2, ["{}"] * 2, wrong, "3 numbers"),
        ([IMSI, other], [["33700000001"] * 3] * 2, [b"x"] * 2, ["{}"] * 2, wrong, "6 numbers"),
        ([IMSI, IMSI], [], [b"x"] * 2, ["{}"] * 2, wrong, "twice"),
        ([IMSI, other], [], [b"x"] * 2, ["{}", '{"slice": [5]}'], wrong, "slice is"),
        ([IMSI] * 5001, [], [b"x"] * 5001, ["{}"] * 5001, wrong, "at most 5000"),
        ([IMSI, "208930000000009"], [], [b"x"] * 2, ["{}"] * 2, foreign, "208930000000009 belongs to another brand"),
        ([IMSI, other], ["33700000009", None], [b"x"] * 2, ["{}"] * 2, asyncpg.UniqueViolationError, "33700000009"),
        ([IMSI, "12ab567"], [], [b"x"] * 2, ["{}"] * 2, asyncpg.CheckViolationError, "12ab567|imsi"),
    ):
        with pytest.raises(error, match=said):
            await directory.sql(PUT_MANY, imsis, numbers, sealed, documents)
        assert await directory.sql("SELECT directory.count_subscribers()") == 0
    for role in ("ocs", "ctf_alpha"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await directory.sql(PUT_MANY, [IMSI], [], [b"x"], ["{}"], role=role)


async def test_calls_for_the_same_subscribers_wait_for_each_other(directory: Any) -> None:
    imsis = [str(208930000000000 + i) for i in range(200)]

    async def put(order: list[str]) -> None:
        for _ in range(5):
            await directory.sql(PUT_MANY, order, [], [b"x"] * 200, ["{}"] * 200)

    await asyncio.gather(put(imsis), put(imsis[::-1]), put(imsis), put(imsis[::-1]))
    assert await directory.sql("SELECT directory.count_subscribers()") == 200


async def test_a_database_of_the_first_version_keeps_its_rows(pg_database: Any, start: Any, tmp_path: Path) -> None:
    for name in ("0001_subscribers.py", "sql/0001_subscribers.sql"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((MIGRATIONS / name).read_bytes())
    # The advisory lock's name is the folder's; nothing else tells the two apart.
    await database.migrate(pg_database.dsn("directory"), tmp_path)
    key = PrivateKey.generate()
    sealed = bytes(SealedBox(key.public_key).encrypt(json.dumps({"k": "1" * 32, "opc": "2" * 32}).encode()))
    connection = await asyncpg.connect(pg_database.dsn("bss_alpha"))
    # The first version took any object: what is wrong by now is kept, too.
    document = '{"subscriber_status": 0, "imeisv": "1", "slice": [{"sst": 1}]}'
    put = "SELECT directory.put_subscriber($1, $2, $3, $4)"
    await connection.execute(put, IMSI, ["33639980009", "33639980001"], sealed, document)
    await connection.close()
    connection = await asyncpg.connect(pg_database.dsn("directory"))
    await connection.execute("UPDATE subscriber SET sqn = 320")
    await connection.close()
    async with start(key=key) as directory:  # migrates
        collection = directory.subscribers()
        found = await asyncio.to_thread(collection.find_one, {"msisdn": "33639980001"})
        assert found == {
            "_id": IMSI,
            "imsi": IMSI,
            "msisdn": ["33639980009", "33639980001"],
            "security": {"k": "1" * 32, "op": None, "opc": "2" * 32, "amf": "8000", "sqn": 320},
            "schema_version": 1,
            "subscriber_status": 0,
            "imeisv": "1",
            "slice": [{"sst": 1}],
        }
        assert await directory.sql("SELECT directory.count_subscribers()") == 1
        await directory.put(IMSI, sealed=sealed)
        assert (await asyncio.to_thread(collection.find_one, {"imsi": IMSI}))["security"]["sqn"] == 320
