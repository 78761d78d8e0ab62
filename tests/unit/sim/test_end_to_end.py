"""SMF, UPF, UE and data network in namespaces against the real directory, the SMF straight on the UPF."""

from __future__ import annotations

import asyncio
import ipaddress
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pymongo
import pytest
from bson.int64 import Int64

pytestmark = pytest.mark.timeout(180)


async def test_a_subscriber_s_day(core: Any) -> None:
    """From refusals to a download, idle mode, suspension and good-bye: what follows needs what came before."""
    await core.up()

    # Who is not let in, and why.
    for changes, why in (
        ({"ki": "00" * 16}, "MAC failure"),
        ({"imsi": "208930000000099"}, "not known"),
    ):
        answer = await core.ue("register", stdin=core.sim(**changes))
        assert not answer["ok"] and not answer["registered"] and why in answer["cause"], answer
    for changes, why in (({"dnn": "ims"}, "DNN"), ({"sd": "000009"}, "slice"), ({"sst": 2}, "slice")):
        answer = await core.ue("register", stdin=core.sim(**changes))
        assert not answer["ok"] and answer["registered"] and why in answer["cause"], answer
    answer = await core.ue("register", stdin={"imsi": core.imsi, "ki": "secret", "opc": core.opc})
    assert not answer["ok"] and "missing" in answer["cause"] and "secret" not in str(answer)
    assert (await core.ue("ping", "--target", core.gateway))["cause"] == "not registered"

    # Registered: an address of the pool, packets there and back, the pod's own routes as they were.
    answer = await core.register()
    assert ipaddress.ip_address(answer["address"]) in ipaddress.ip_network(core.pool)
    assert [(step["step"], step["ok"]) for step in answer["steps"]] == [("registration", True), ("session", True)]
    routes = subprocess.check_output(["ip", "-n", "sim-ue", "route"], text=True)
    assert "uesimtun" not in routes and "default" not in routes
    assert (await core.ue("ping", "--target", core.gateway, "--count", "5"))["received"] == 5
    got = await core.ue("download", "--url", f"http://{core.dn}:8080/bytes/20000000")
    assert got["ok"] and got["octets"] == 20_000_000, got
    assert 20_000_000 < got["carried"]["downlink"] < 22_000_000 and got["carried"]["uplink"] > 10_000
    carried = await core.ue("status")
    counted = [await core.metric("upf", f'upf_octets_total{{direction="{way}"}}') for way in ("downlink", "uplink")]
    assert counted == [carried["receivedOctets"], carried["sentOctets"]]
    limited = await core.ue(
        "download", "--host", core.dn, "--path", "/bytes/900000000?rate=2000000", "--bytes-limit", "3000000"
    )
    assert limited["ok"] and 3_000_000 <= limited["octets"] < 5_000_000 and limited["seconds"] > 1

    # NAT: the data network sees the user plane's address. What is denied and not allowed stays shut.
    assert not (await core.ue("download", "--host", core.dn, "--path", "/bytes/x"))["ok"]
    shut = await core.ue("download", "--host", core.here, "--port", "8500", "--stall", "1")
    assert shut["cause"] == "stalled"
    own = await core.ue("download", "--host", core.gateway, "--port", "8081", "--stall", "1")
    assert own["cause"] == "stalled"

    # A second phone in the pod; the two do not reach each other.
    answer = await core.ue("register", "--beside", stdin=core.sim(imsi=core.other))
    assert answer["ok"] and answer["interface"] == "uesimtun1"
    phones = {one["imsi"]: one["address"] for one in (await core.ue("status"))["phones"]}
    assert len(set(phones.values())) == 2
    between = await core.ue("ping", "--imsi", core.imsi, "--target", phones[core.other], "--count", "2")
    assert between["received"] == 0
    # Not a packet of it arrived: one namespace would not answer itself anyway.
    assert {one["imsi"]: one["receivedOctets"] for one in (await core.ue("status"))["phones"]}[core.other] == 0
    assert (await core.ue("deregister", "--imsi", core.other))["ok"]
    assert (await core.ue("status"))["imsi"] == core.imsi

    # Idle: the answer to the first packet waits for the page.
    assert (await core.ue("idle"))["ok"]
    assert (await core.ue("ping", "--target", core.gateway, "--count", "2"))["received"] == 2
    assert (await core.ue("idle"))["ok"]
    assert (await core.ue("service-request"))["ok"]

    # The same SIM again: the old session is released first, one stays.
    again = await core.ue("register", stdin=core.sim())
    assert again["ok"] and await core.metric("upf", "upf_sessions") == 1
    session = await core.ue("session")
    assert session["ok"] and session["address"] != again["address"]
    assert await core.metric("upf", "upf_sessions") == 1

    # Suspended while attached, refused while suspended, back when resumed.
    await core.directory.set_status(1)

    async def out() -> bool:
        return not (await core.ue("status"))["registered"]

    await core.until("deregistration", out)
    assert "barred" in (await core.ue("status"))["released"]
    refused = await core.ue("register", stdin=core.sim())
    assert not refused["ok"] and "barred" in refused["cause"]
    assert await core.metric("upf", "upf_sessions") == 0
    await core.directory.set_status(0)
    await core.register()

    # Good-bye.
    assert (await core.ue("deregister"))["ok"] and await core.metric("upf", "upf_sessions") == 0
    links = subprocess.check_output(["ip", "-n", "sim-ue", "link"], text=True)
    rules = subprocess.check_output(["ip", "-n", "sim-ue", "rule"], text=True)
    assert "uesimtun" not in links and "45" not in rules
    for role in core.config:
        log = core.log(role)
        assert "Traceback" not in log and core.ki not in log and core.opc not in log
        assert '"simulation": true' in log
        began = time.monotonic()
        assert core.stop(role) == 0 and time.monotonic() - began < 5


async def test_a_session_is_as_fast_as_subscribed(core: Any) -> None:
    await core.directory.put(megabits=20)
    await core.up()
    await core.register()
    got = await core.ue("download", "--host", core.dn, "--path", "/bytes/5000000")
    assert got["ok"] and 14e6 < got["bitsPerSecond"] < 20.5e6, got


async def test_numbers_that_do_not_meet_are_resynchronised(core: Any) -> None:
    await core.up("upf", "smf", "ue")
    await core.register()
    subscribers = pymongo.MongoClient(core.directory.uri).get_default_database()["subscribers"]
    ahead = await asyncio.to_thread(subscribers.find_one, {"imsi": core.imsi})
    assert ahead["security"]["sqn"] == 32
    # A restored back-up: the network's number is behind the SIM's.
    await asyncio.to_thread(subscribers.update_one, {"imsi": core.imsi}, {"$set": {"security.sqn": Int64(0)}})
    for _ in range(3):
        await core.register()
    await asyncio.to_thread(subscribers.update_one, {"imsi": core.imsi}, {"$set": {"security.sqn": Int64(0)}})
    await core.register()
    assert (await asyncio.to_thread(subscribers.find_one, {"imsi": core.imsi}))["security"]["sqn"] > 32


def another_second() -> Callable[[], bool]:
    """Recovery time stamps have seconds: whether one has passed since now."""
    now = int(time.time())
    return lambda: int(time.time()) > now


async def test_sessions_come_back_after_restarts(core: Any) -> None:
    await core.up("upf", "smf", "ue")
    await core.register()

    async def recovered(times: int) -> bool:
        status = await core.ue("status")
        return status["registered"] and status["recoveries"] >= times

    async def reaches() -> bool:
        return bool((await core.ue("ping", "--target", core.gateway, "--count", "1"))["ok"])

    # The user plane is killed: the heartbeat tells the SMF, the UE gets a new session.
    core.stop("upf", kill=True)
    await core.until("another recovery time stamp", another_second())
    core.start("upf")
    await core.until("a session on the new user plane", lambda: recovered(1), 30)
    await core.until("packets", reaches)

    # The control plane is killed: the UE registers again, the old session is gone from the user plane.
    core.stop("smf", kill=True)
    await core.until("another recovery time stamp", another_second())
    core.start("smf")
    await core.until("a registration at the new core", lambda: recovered(2), 40)
    await core.until("packets", reaches)
    assert await core.metric("upf", "upf_sessions") == 1

    # The UE's pod goes without a word: its connection ends, and so does its session.
    core.stop("ue", kill=True)

    async def nobody() -> bool:
        return await core.metric("upf", "upf_sessions") == 0

    await core.until("the session's end", nobody)
