"""Fair use on the simulated core: a session runs at the rate that the OCS says, over a restart of the CTF, until a top-up."""

from __future__ import annotations

import asyncio
import subprocess
import time
from typing import Any

import httpx
import pytest
from tests.chf import Chf, serving

from .test_charged import CTF, QUOTA, Charged

pytestmark = [pytest.mark.timeout(120), pytest.mark.slow]
SLOW = 4_000_000


async def test_a_throttled_session_runs_at_its_rate_and_a_top_up_restores_it(core: Any, pg_database: Any) -> None:
    subprocess.run(["ip", "address", "add", f"{CTF}/24", "dev", "sim-here"], check=True)
    core.config["smf"]["n4"]["peer"] = CTF
    chf = Chf(QUOTA)
    charged = Charged(core, pg_database)
    async with serving(chf) as address, httpx.AsyncClient() as client:
        charged.services["ctf"][1]["ocs"] = address
        assert await asyncio.to_thread(charged.run("ctf", "migrate").wait, 60) == 0, core.log("ctf")
        await core.up("dn", "upf")
        await core.directory.put(megabits=50)
        await charged.start("ctf")
        await core.up("smf", "ue")
        await core.register()

        async def rate(octets: int) -> float:
            """Bit/s of IP packets while so many octets are downloaded."""
            before, begun = await charged.carried(), time.monotonic()
            answer = await core.ue("download", "--host", core.dn, "--stall", "5", "--path", f"/bytes/{octets}")
            took = time.monotonic() - begun
            assert answer["ok"], answer
            return (await charged.carried() - before) * 8 / took

        async def notified() -> None:
            """The OCS has something new to say: what a top-up or the end of a period leads to."""
            uri = chf.asked[0][1]["notifyUri"]
            asked, body = len(chf.asked), {"notificationType": "REAUTHORIZATION"}
            (await client.post(uri, json=body)).raise_for_status()

            async def heard() -> bool:
                state = (await client.get(f"http://127.0.0.1:{charged.ports['ctf']}/metrics")).text
                return len(chf.asked) > asked and f'ctf_throttle_total{{to="{to}"}} 1.0' in state

            await core.until("the UPF knows", heard, 20)

        free = await rate(2_000_000)
        to = "slowed"
        chf.slow(SLOW, SLOW)
        await notified()
        slow = await rate(2_000_000)
        core.stop("ctf", kill=True)
        await charged.start("ctf")
        still = await rate(2_000_000)
        to = "lifted"
        chf.free()
        await notified()
        again = await rate(2_000_000)
        assert 0.9 * SLOW <= slow <= 1.1 * SLOW, slow
        assert 0.9 * SLOW <= still <= 1.1 * SLOW, still
        assert free > 2 * SLOW and again > 2 * SLOW, (free, again)
