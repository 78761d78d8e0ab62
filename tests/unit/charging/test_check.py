"""`check` finds every kind of difference in a ledger that was tampered with, and has the time that it needs."""

from __future__ import annotations

import uuid
from typing import Any

import asyncpg
import pytest

REF = uuid.UUID(int=7)
# A bucket with a use of 300 octets by one session that holds 200, and 20 cents for 1000 octets of group 5.
SOUND = f"""
INSERT INTO account (brand, account_id, currency, timezone, status) VALUES ('b', 'a', 'EUR', 'UTC', 'active');
INSERT INTO bucket (aid, unit, granted, used, held, lapsed, priority, source)
    SELECT aid, 'octets', 1000, 300, 200, 0, 10, 'plan:x' FROM account;
INSERT INTO bucket (aid, unit, granted, used, held, lapsed, priority, source)
    SELECT aid, 'minor', 500, 20, 0, 480, 10, 'plan:x' FROM account;
INSERT INTO session (ref, aid, brand, subscriber_id, create_key, created_stamp, expires_at, check_at, last_sequence, used, ratings)
    SELECT '{REF}', aid, 'b', 'imsi-1', gen_random_uuid(), now(), now(), now(), 1, '{{"octets": 1300, "minor": 20}}',
           '{{"1": {{"n": 1, "s": false, "u": "octets"}},
              "5": {{"n": 1, "s": false, "u": "octets", "t": {{"u": 1000, "c": 20}}, "p": {{"price": 2000000, "per": 100,
                   "step": 1, "minimum": 0, "setup": 0, "rounding": "half-up", "u": 1000, "c": 20, "q": 0}}}}}}' FROM account;
INSERT INTO reservation SELECT '{REF}', 1, id, 200 FROM bucket WHERE unit = 'octets';
INSERT INTO entry (aid, bucket, ref, sequence, rating, unit, debit, credit, amount)
    SELECT b.aid, CASE WHEN e.debit <> 'priced' THEN b.id END, CASE WHEN e.rating IS NOT NULL THEN '{REF}'::uuid END, 1,
           e.rating, b.unit, e.debit, e.credit, e.amount
    FROM bucket b JOIN (VALUES ('octets', NULL, 'source', 'available', 1000), ('octets', 1, 'available', 'held', 500),
        ('octets', 1, 'held', 'used', 300), ('octets', 5, 'priced', 'used', 1000), ('minor', NULL, 'source', 'available', 500),
        ('minor', 5, 'available', 'used', 20), ('minor', NULL, 'available', 'lapsed', 480)
    ) e (unit, rating, debit, credit, amount) USING (unit);
UPDATE bucket SET spent = true WHERE unit = 'minor';
ALTER TABLE entry DISABLE TRIGGER entry_is_final;
"""
TAMPERED = {
    "UPDATE bucket SET used = 250 WHERE unit = 'octets'": ["bucket 1: granted, used, held, lapsed, available are 1000, 250"],
    "UPDATE bucket SET granted = 2000 WHERE unit = 'octets'": ["bucket 1: granted, used, held, lapsed, available are 2000"],
    "UPDATE bucket SET lapsed = 0, spent = false WHERE unit = 'minor'": [
        "bucket 2: granted, used, held, lapsed, available are 500, 20, 0, 0, 480; entries say 500, 20, 0, 480, 0"
    ],
    "DELETE FROM entry WHERE debit = 'source' AND unit = 'octets'": ["bucket 1: granted, used"],
    "UPDATE entry SET amount = 301 WHERE debit = 'held'": ["bucket 1: granted", f"session {REF} octets: used 1300; entries say 1301"],
    "INSERT INTO entry (aid, bucket, unit, debit, credit, amount) VALUES (1, 77, 'octets', 'source', 'available', 5)": [
        "bucket 77: has entries but does not exist"
    ],
    "UPDATE bucket SET spent = true WHERE unit = 'octets'": ["bucket 1: is marked spent with 700 left"],
    "UPDATE bucket SET credit = true WHERE unit = 'minor'": [
        "bucket 2: is a credit line; entries say that 0 of 500 is credit"
    ],
    "UPDATE entry SET debit = 'credit' WHERE debit = 'source' AND unit = 'minor'": [
        "bucket 2: is no credit line; entries say that 500 of 500 is credit"
    ],
    "UPDATE reservation SET amount = 150": ["bucket 1: holds 200; reservations say 150"],
    "DELETE FROM reservation": ["bucket 1: holds 200; reservations say 0"],
    "INSERT INTO reservation VALUES ('" + str(REF) + "', 1, 55, 9)": ["bucket 55: holds 0; reservations say 9"],
    "UPDATE session SET used = '{\"octets\": 1299, \"minor\": 20}'": [
        f"session {REF} octets: used 1299; entries say 1300"
    ],
    "UPDATE session SET used = used - 'minor'": [f"session {REF} minor: used 0; entries say 20"],
    "UPDATE session SET ended_at = now(), ended_by = 'release'": [f"session {REF}: has ended, but holds 200"],
    "UPDATE reservation SET ref = '" + str(uuid.UUID(int=8)) + "'": [
        f"session {uuid.UUID(int=8)}: does not exist, but holds 200"
    ],
    "UPDATE entry SET amount = 900 WHERE debit = 'priced'": [
        f"session {REF} rating group 5: priced 1000 units for 20; entries say 900 for 20",
        f"session {REF} octets: used 1300; entries say 1200",
    ],
    "DELETE FROM entry WHERE debit = 'priced'": [
        f"session {REF} rating group 5: priced 1000 units for 20; entries say 0 for 0",
        f"session {REF} octets: used 1300; entries say 300",
    ],
    "UPDATE session SET ratings = ratings #- '{5,t}'": [
        f"session {REF} rating group 5: priced 0 units for 0; entries say 1000 for 20"
    ],
    # All sums agree, and the price does not: 1000 units cost 20 and not 19.
    """UPDATE session SET ratings = jsonb_set(jsonb_set(ratings, '{5,p,c}', '19'), '{5,t,c}', '19'),
                          used = '{"octets": 1300, "minor": 19}';
       UPDATE bucket SET granted = 499, used = 19 WHERE unit = 'minor';
       UPDATE entry SET amount = amount - 1 WHERE unit = 'minor' AND amount IN (20, 500)""": [
        f"session {REF} rating group 5: charged 19 for 1000 units, which cost 20"
    ],
}  # fmt: skip


async def test_every_invariant_is_checked_and_named(ocs: Any) -> None:
    connection = await asyncpg.connect(ocs.dsn)
    await connection.execute(SOUND)
    found = "SELECT what || ': ' || difference FROM ledger_difference ORDER BY 1"
    assert await connection.fetch(found) == []
    for statement, expected in TAMPERED.items():
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(statement)
        said = [row[0] for row in await connection.fetch(found)]
        assert len(said) == len(expected), (statement, said)
        for one, begin in zip(said, sorted(expected), strict=True):
            assert one.startswith(begin), (statement, said)
        await transaction.rollback()
    # The command says the same, and that it is no success.
    await connection.execute("UPDATE reservation SET amount = 150")
    done = ocs.run("check")
    assert (done.returncode, done.stdout.splitlines()) == (
        1, ["bucket 1: holds 200; reservations say 150", "1 differences"]
    )  # fmt: skip
    await connection.close()


@pytest.mark.parametrize("limit", ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"])
async def test_a_large_ledger_has_the_time_that_it_needs(ocs: Any, limit: str) -> None:
    """What charging requests are held to would end the check of a large ledger: the view itself says what it runs under."""
    connection = await asyncpg.connect(ocs.dsn)
    await connection.execute(
        f"""CREATE OR REPLACE VIEW ledger_difference AS
            SELECT '{limit}'::text AS what, current_setting('{limit}') AS difference"""
    )
    await connection.close()
    assert ocs.run("check").stdout == f"{limit}: 0\n1 differences\n"
