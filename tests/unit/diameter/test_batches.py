"""Charging in batches on the real ledger: each call its own answer, whatever its neighbours do."""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from mvnobox.charging.batches import Batches, make_pipeline
from mvnobox.charging.ledger import Call, Ledger, Operation, Units, make_pool
from mvnobox.charging.problems import UNFIT
from mvnobox.charging.settings import OcsSettings


@pytest.fixture
async def engines(ocs: Any) -> AsyncIterator[list[Batches]]:
    """Two replicas' engines over the same database."""
    settings = OcsSettings()
    pools = [await make_pool(ocs.dsn, 4) for _ in range(2)]
    pipelines = [make_pipeline(ocs.dsn) for _ in pools]
    yield [Batches(one, Ledger(pool, settings), settings) for one, pool in zip(pipelines, pools, strict=True)]
    for pipeline, pool in zip(pipelines, pools, strict=True):
        pipeline.close()
        await pool.close()


def call(operation: Operation, ref: uuid.UUID, sequence: int, imsi: str, used: int, wanted: int | None) -> Call:
    create = operation == "create"
    return Call(
        operation, "alpha", sequence, [Units(1, "octets", used, wanted)], None, ref,
        f"imsi-{imsi}", ref if create else None, dt.datetime.now(dt.UTC) if create else None, True,
    )  # fmt: skip


async def test_many_calls_of_few_accounts_through_two_replicas(account: Any, engines: list[Batches]) -> None:
    """Both replicas' batches hold calls of one account and of none: no deadlock, nobody else's answer."""
    account.grant(10**9)
    used = 0

    async def walk(number: int) -> None:
        nonlocal used
        ref, engine = uuid.uuid4(), engines[number % 2]
        assert (await engine.charge(call("create", ref, 0, account.imsi, 0, 500))).outcome == "done"
        for sequence in range(1, 6):
            used += number
            reply = await engine.charge(call("update", ref, sequence, account.imsi, number, 500 + number))
            assert (reply.outcome, reply.ref) == ("done", ref)
            assert f'"totalVolume":{500 + number}' in (reply.body or "")
            stranger = await engine.charge(call("update", uuid.uuid4(), 1, "1" * 15, 1, 1))
            assert stranger.outcome == "unknown"
            again = await engines[sequence % 2].charge(
                call("update", ref, sequence, account.imsi, number, 500 + number)
            )
            assert (again.outcome, again.body) == ("repeated", reply.body)
        assert (await engine.charge(call("release", ref, 6, account.imsi, 0, None))).outcome == "done"

    await asyncio.gather(*(walk(number) for number in range(48)))
    assert account.totals() == (10**9, used, 0, 10**9 - used)


async def test_a_call_that_cannot_be_charged_fails_alone(account: Any, engines: list[Batches]) -> None:
    account.grant(10**9)
    refs = [uuid.uuid4() for _ in range(20)]
    calls = [call("create", ref, 0, account.imsi, 2**70 if n == 7 else 10, 500) for n, ref in enumerate(refs)]
    found = await asyncio.gather(*(engines[0].charge(one) for one in calls), return_exceptions=True)
    assert isinstance(found[7], UNFIT) or "value out of" in str(found[7])
    assert all(not isinstance(one, BaseException) and one.outcome == "done" for n, one in enumerate(found) if n != 7)
    assert account.totals()[1] == 190
