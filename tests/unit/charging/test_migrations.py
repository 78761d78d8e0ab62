"""Migrations: idempotent, together, and from a ledger of the first version with sessions under way."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import create_async_engine

import mvnobox.charging
import mvnobox.service

NCHF = "/nchf-convergedcharging/v3/chargingdata"
IMSI = "imsi-208930000000001"


async def _upgrade(dsn: str, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(mvnobox.service.__path__[0]) / "alembic_env"))
    config.set_main_option("version_locations", str(Path(mvnobox.charging.__path__[0]) / "migrations"))
    config.set_main_option("path_separator", "os")
    engine = create_async_engine(dsn.replace("postgresql://", "postgresql+asyncpg://", 1))

    def run(connection: Connection) -> None:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)

    async with engine.begin() as connection:
        await connection.run_sync(run)
    await engine.dispose()


async def test_a_ledger_of_the_first_version_goes_on(bare: Any) -> None:
    await _upgrade(bare.dsn, "0001")
    connection = await asyncpg.connect(bare.dsn)
    await connection.execute(
        """INSERT INTO account (brand, account_id, currency, timezone, status) VALUES ('alpha', 'a1', 'EUR', 'UTC', 'active');
           INSERT INTO subscriber SELECT 'imsi-208930000000001', aid FROM account"""
    )
    buckets = [{"unit": "octets", "amount": 1000, "validUntil": None, "priority": 10, "source": "plan:x"}]
    await connection.execute("SELECT grant_buckets('alpha', 'a1', $1, 'd', $2)", uuid.uuid4(), json.dumps(buckets))

    async def create(key: str) -> dict[str, Any]:
        units = [{"rating": 1, "unit": "octets", "used": 0, "want": 600}]
        made: dict[str, Any] = json.loads(
            await connection.fetchval(
                "SELECT charge_create('alpha', $1, $2, 0, $3, 'http://127.0.0.1:1/', 3600)",
                IMSI,
                key,
                json.dumps(units),
            )
        )
        return made

    running, ended, starved = await create("one"), await create("two"), await create("three")
    further = "SELECT charge_further('alpha', $1, $2, $3, NULL, 3600, $4)"
    units = json.dumps([{"rating": 1, "unit": "octets", "used": 150, "want": 600}])
    await connection.fetchval(further, uuid.UUID(running["ref"]), 1, units, False)
    await connection.fetchval(further, uuid.UUID(ended["ref"]), 1, "[]", True)
    await connection.close()

    await _upgrade(bare.dsn, "head")
    assert bare.run("check").stdout == "0 differences\n"
    await asyncio.to_thread(bare.start)
    async with bare.client("alpha") as client:

        async def post(ref: str, verb: str, sequence: int, used: int) -> Any:
            container = {"localSequenceNumber": 1, "totalVolume": used}
            body = {
                "nfConsumerIdentification": {"nodeFunctionality": "SMF"},
                "invocationTimeStamp": "2026-01-01T00:00:00Z",
                "invocationSequenceNumber": sequence,
                "multipleUnitUsage": [{"ratingGroup": 1, "usedUnitContainer": [container], "requestedUnit": {}}],
            }
            return await client.post(f"{NCHF}/{ref}/{verb}", json=body)

        # What was answered before stays answered: neither charged nor released again.
        repeat = await post(running["ref"], "update", 1, 150)
        assert repeat.json()["multipleUnitInformation"] == [
            {"ratingGroup": 1, "resultCode": "SUCCESS", "grantedUnit": {"totalVolume": 450}}
        ]
        assert (await post(ended["ref"], "release", 1, 0)).status_code == 204
        assert (await post(running["ref"], "update", 2, 100)).json()["multipleUnitInformation"][0]["grantedUnit"]
        assert (await post(starved["ref"], "update", 1, 0)).status_code == 200
        totals = (await client.get("/ocs/v1/accounts/a1/balances")).json()["totals"]["octets"]
        assert totals["used"] == 250
    assert bare.run("check").stdout == "0 differences\n"


async def test_migrations_at_once_and_again(ocs: Any) -> None:
    config = ocs.folder / "ocs.yaml"
    command_line = [sys.executable, "-m", "mvnobox.charging", "migrate", "--config", str(config)]
    running = [subprocess.Popen(command_line, env=ocs.environment()) for _ in range(3)]
    assert [await asyncio.to_thread(process.wait) for process in running] == [0, 0, 0]


async def test_accounts_that_had_ended_before_give_their_subscribers_back(bare: Any) -> None:
    await _upgrade(bare.dsn, "0008")
    connection = await asyncpg.connect(bare.dsn)
    await connection.execute(
        """INSERT INTO account (brand, account_id, currency, timezone, status)
               VALUES ('alpha', 'a1', 'EUR', 'UTC', 'active'), ('alpha', 'a2', 'EUR', 'UTC', 'terminated');
           INSERT INTO subscriber SELECT 'msisdn-' || account_id, aid FROM account"""
    )
    await _upgrade(bare.dsn, "head")
    assert [r[0] for r in await connection.fetch("SELECT subscriber_id FROM subscriber")] == ["msisdn-a1"]
    await connection.close()
