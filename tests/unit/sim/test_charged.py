"""The simulated core behind the real CTF, OCS and directory: octets charged are octets carried, whatever dies."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest
import yaml
from tests.ports import free_port

pytestmark = [pytest.mark.timeout(240), pytest.mark.slow]
TENANT_KEY = "11" * 32
TOKEN = "alpha." + hmac.new(bytes.fromhex(TENANT_KEY), b"alpha", hashlib.sha256).hexdigest()
CTF = "198.18.77.5"
SLICE = 1_000_000
# Lasts while a killed process starts again: a user plane without quota drops packets, which a UE counts as sent.
QUOTA = 12 * SLICE


class Charged:
    """A core with a CTF between SMF and UPF."""

    def __init__(self, core: Any, database: Any) -> None:
        self.core = core
        self.ports = {"ocs": free_port(), "ctf": free_port()}
        ocs_at, ctf_at = (f"127.0.0.1:{self.ports[name]}" for name in ("ocs", "ctf"))
        self.ocs = httpx.AsyncClient(
            base_url=f"http://{ocs_at}", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=10
        )
        ctf = {
            "brand": "alpha", "listen": CTF, "advertise": CTF, "upf": core.upf_node, "http": ctf_at,
            "notifyUri": f"http://{ctf_at}", "ocs": f"http://{ocs_at}",
            "quotaOctets": QUOTA, "reportingQuantumOctets": SLICE,
        }  # fmt: skip
        ocs = {"listen": ocs_at, "quota": {"octets": QUOTA}}
        self.services: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
            "ctf": ("mvnobox.n4", ctf, {"DATABASE_URL": database.dsn("ctf_alpha"), "OCS_TOKEN": TOKEN}),
            "ocs": ("mvnobox.charging", ocs, {"DATABASE_URL": database.dsn("ocs"), "OCS_TENANT_KEY": TENANT_KEY}),
        }

    def run(self, name: str, verb: str) -> subprocess.Popen[bytes]:
        module, settings, environment = self.services[name]
        path = self.core.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(settings))
        with open(self.core.folder / f"{name}.log", "ab") as log:
            command = [sys.executable, "-m", module, verb, "--config", str(path)]
            return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **environment})

    async def start(self, name: str) -> None:
        self.core.processes[name] = self.run(name, "serve")
        async with httpx.AsyncClient() as client:

            async def ready() -> bool:
                assert self.core.processes[name].poll() is None, self.core.log(name)
                try:
                    return (await client.get(f"http://127.0.0.1:{self.ports[name]}/readyz")).status_code == 200
                except httpx.TransportError:
                    return False

            await self.core.until(f"{name} is ready", ready, 60)

    async def grant(self, octets: int, **more: Any) -> None:
        bucket = {"unit": "octets", "amount": octets, "validUntil": None, "priority": 10, "source": "plan:test", **more}
        body = {"requestId": str(uuid4()), "buckets": [bucket]}
        (await self.ocs.post("/ocs/v1/accounts/a1/grants", json=body)).raise_for_status()

    async def used(self) -> int:
        found = (await self.ocs.get("/ocs/v1/accounts/a1/usage")).raise_for_status().json()
        return int(found["totals"]["octets"])

    async def carried(self) -> int:
        status = await self.core.ue("status")
        return int(status["receivedOctets"] + status["sentOctets"])

    def equal(self, carried: int) -> Callable[[], Any]:
        async def same() -> bool:
            return await self.used() == carried

        return same


@pytest.fixture
async def charged(core: Any, pg_database: Any) -> AsyncIterator[Charged]:
    async with charging(core, pg_database) as made:
        yield made


@contextlib.asynccontextmanager
async def charging(core: Any, pg_database: Any, *, type_: int = 1) -> AsyncIterator[Charged]:
    """The core with CTF and OCS, all of it up; `type_` of the subscriber's session."""
    subprocess.run(["ip", "address", "add", f"{CTF}/24", "dev", "sim-here"], check=True)
    core.config["smf"]["n4"]["peer"] = CTF
    made = Charged(core, pg_database)
    migrations = [made.run(name, "migrate") for name in made.services]
    await core.up("dn", "upf")
    for name, process in zip(made.services, migrations, strict=True):
        assert await asyncio.to_thread(process.wait, 60) == 0, core.log(name)
    # What passes while CTF and OCS talk is less than a slice.
    await core.directory.put(megabits=20, type_=type_)
    await made.start("ocs")
    await made.start("ctf")
    await core.up("smf", "ue")
    account = {
        "subscriberIds": [f"imsi-{core.imsi}"],
        "currency": "EUR",
        "timezone": "Europe/Paris",
        "status": "active",
    }
    (await made.ocs.put("/ocs/v1/accounts/a1", json=account)).raise_for_status()
    yield made
    await made.ocs.aclose()


async def test_what_is_carried_is_charged_and_credit_is_the_limit(charged: Charged) -> None:
    core = charged.core
    await charged.grant(8_000_000)
    await core.register()
    path = ("download", "--host", core.dn, "--stall", "2", "--path")
    assert (await core.ue(*path, "/bytes/3000000"))["ok"]

    # Credit ends in the middle of a download; what is beyond it is less than a slice.
    cut = await core.ue(*path, "/bytes/20000000")
    assert cut["cause"] == "stalled" and cut["octets"] < 6_000_000, cut
    carried = await charged.carried()
    # The UE's own repetitions into a closed gate are counted by its device, not by the user plane.
    assert 8_000_000 - SLICE < await charged.used() <= carried < 8_000_000 + SLICE
    assert (await core.ue("ping", "--target", core.gateway, "--count", "1"))["received"] == 0

    # A top-up opens the gate.
    await charged.grant(50_000_000)

    async def again() -> bool:
        return bool((await core.ue("ping", "--target", core.gateway, "--count", "1"))["ok"])

    await core.until("the gate is open", again)
    assert (await core.ue(*path, "/bytes/2000000"))["ok"]


async def test_octets_stay_right_when_the_ctf_and_the_ocs_are_killed(charged: Charged) -> None:
    core = charged.core
    await charged.grant(1_000_000_000)
    await core.register()
    download = core.ue_start("download", "--host", core.dn, "--stall", "20", "--path", "/bytes/16000000?rate=2000000")

    def beyond(octets: int) -> Callable[[], Any]:
        async def enough() -> bool:
            return await charged.carried() > octets

        return enough

    for octets, name in ((1_000_000, "ctf"), (5_000_000, "ocs"), (9_000_000, "ctf")):
        await core.until(f"{octets} octets", beyond(octets), 30)
        core.stop(name, kill=True)
        await charged.start(name)
    out, err = await asyncio.to_thread(download.communicate, None, 60)
    answer = json.loads(out)
    assert answer["ok"] and answer["octets"] == 16_000_000, out + err
    carried = await charged.carried()
    assert (await core.ue("deregister"))["ok"]
    await core.until("octets charged equal octets carried", charged.equal(carried), 20)


async def test_a_user_plane_that_restarts_behind_the_ctf_gets_its_sessions_back(charged: Charged) -> None:
    core = charged.core
    await charged.grant(50_000_000)
    await core.register()
    assert (await core.ue("download", "--host", core.dn, "--path", "/bytes/500000"))["ok"]
    before = await charged.carried()
    # What was carried and not yet reported is reported before the end.
    assert core.stop("upf") == 0
    await core.until("octets charged equal octets carried", charged.equal(before), 20)
    core.start("upf")

    async def back() -> bool:
        status = await core.ue("status")
        return status["registered"] and status["recoveries"] == 1

    await core.until("a session on the new user plane", back, 60)

    async def reaches() -> bool:
        return bool((await core.ue("ping", "--target", core.gateway, "--count", "1"))["ok"])

    await core.until("packets", reaches)
    assert (await core.ue("download", "--host", core.dn, "--path", "/bytes/500000"))["ok"]
    carried = await charged.carried()
    assert (await core.ue("deregister"))["ok"]
    await core.until("octets charged equal octets carried", charged.equal(carried), 20)


async def test_fair_use_slows_the_line_and_a_top_up_is_quick_again(charged: Charged) -> None:
    core = charged.core
    await charged.grant(3_000_000)
    await charged.grant(10**15, throttle="dl=4000000;ul=4000000", priority=900, source="plan:test:slowed")
    await core.register()

    async def rate(octets: int) -> float:
        answer = await core.ue("download", "--host", core.dn, "--stall", "5", "--path", f"/bytes/{octets}")
        assert answer["ok"], answer
        return float(answer["bitsPerSecond"]) / 1e6

    assert await rate(1_000_000) > 8
    # The full speed ends in this one.
    await rate(3_000_000)
    assert 2.5 < await rate(1_500_000) < 4.8
    await charged.grant(9_000_000, source="topup:test")
    await core.until("full speed", lambda: faster(rate), 30)


async def faster(rate: Callable[[int], Any]) -> bool:
    return bool(await rate(500_000) > 8)
