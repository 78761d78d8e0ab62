"""IPv4v6 sessions behind the real CTF and OCS: what either family carries is charged, and credit's end stops both."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from .test_charged import SLICE, Charged, charging

pytestmark = [pytest.mark.timeout(240), pytest.mark.slow]
SEND = """
import socket, sys
for own, target in (sys.argv[1:3], sys.argv[3:5]):
    made = socket.socket(socket.AF_INET6 if ":" in own else socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((own, 0))
    for _ in range(10):
        try:
            made.sendto(bytes(500), (target, 9999))
        except ConnectionRefusedError:
            # What an earlier one was answered with.
            made.sendto(bytes(500), (target, 9999))
"""


@pytest.fixture
async def charged(core: Any, pg_database: Any) -> AsyncIterator[Charged]:
    core.with_ipv6()
    async with charging(core, pg_database, type_=3) as made:
        yield made


def refused() -> tuple[int, int]:
    """Datagrams of IPv4 and of IPv6 that came to the data network, where nobody listens for them."""
    read = ["ip", "netns", "exec", "sim-dn", "cat", "/proc/net/snmp", "/proc/net/snmp6"]
    names, values, *more = (
        line.split() for line in subprocess.check_output(read, text=True).splitlines() if line.startswith("Udp")
    )
    six = next(words[1] for words in more if words[0] == "Udp6NoPorts")
    return int(values[names.index("NoPorts")]), int(six)


async def uplink(core: Any, status: dict[str, Any]) -> tuple[int, int]:
    """Datagrams of IPv4 and of IPv6 that get from the UE to the data network, of ten each."""

    async def counted() -> tuple[int, int, int]:
        dropped = await core.metric("upf", 'upf_packets_total{direction="uplink",why="dropped"}', 0)
        return (*refused(), int(dropped))

    before = await counted()
    send = [SEND, status["address"], core.dn, status["address6"], core.dn6]
    subprocess.run(["ip", "netns", "exec", "sim-ue", sys.executable, "-c", *send], check=True)

    async def all_of_them() -> tuple[int, int, int] | None:
        now = await counted()
        came = (now[0] - before[0], now[1] - before[1], now[2] - before[2])
        return came if sum(came) >= 20 else None

    four, six, _ = await core.until("datagrams", all_of_them)
    return four, six


async def test_both_families_are_charged_cut_and_back(charged: Charged) -> None:
    core = charged.core
    await charged.grant(12_000_000)
    before = await core.register()
    six = ("download", "--host", core.dn6, "--stall", "2", "--path")
    four = ("download", "--host", core.dn, "--stall", "2", "--path")
    assert (await core.ue(*six, "/bytes/3000000"))["ok"]
    assert (await core.ue(*four, "/bytes/2000000"))["ok"]
    for target in (core.gateway, core.gateway6):
        assert (await core.ue("ping", "--target", target, "--count", "3"))["received"] == 3
    assert await uplink(core, before) == (10, 10)

    # The credit is one, whichever family uses it.
    cut = await core.ue(*six, "/bytes/30000000")
    assert cut["cause"] == "stalled" and 4_000_000 < cut["octets"] < 8_000_000, cut
    assert 12_000_000 - SLICE < await charged.used() <= await charged.carried() < 12_000_000 + SLICE
    for target in (core.gateway, core.gateway6):
        assert (await core.ue("ping", "--target", target, "--count", "1"))["received"] == 0
    assert await uplink(core, before) == (0, 0)

    # Without credit a new session has its prefix all the same, and nothing else.
    again = await core.ue("session")
    assert again["ok"] and again["address6"] not in (None, before["address6"])
    assert (await core.ue("ping", "--target", core.gateway6, "--count", "1"))["received"] == 0

    # A top-up opens the gate for both.
    await charged.grant(50_000_000)

    async def back() -> bool:
        return bool((await core.ue("ping", "--target", core.gateway6, "--count", "1"))["ok"])

    await core.until("the gate is open", back)
    assert (await core.ue("ping", "--target", core.gateway, "--count", "1"))["ok"]
    assert (await core.ue(*six, "/bytes/2000000"))["ok"] and (await core.ue(*four, "/bytes/1000000"))["ok"]


async def test_octets_charged_equal_octets_carried(charged: Charged) -> None:
    """To the octet, with prefix, pings and downloads: what the network says to the phone itself costs nothing."""
    core = charged.core
    await charged.grant(1_000_000_000)
    await core.register()
    for target in (core.gateway, core.gateway6):
        assert (await core.ue("ping", "--target", target, "--count", "2"))["ok"]
    assert (await core.ue("download", "--host", core.dn6, "--path", "/bytes/4000000"))["ok"]
    assert (await core.ue("download", "--host", core.dn, "--path", "/bytes/1000000"))["ok"]
    # The connections' last words are through when both sides have forgotten them.
    await core.until("no connection", lambda: not connections())
    carried = await charged.carried()
    assert (await core.ue("deregister"))["ok"]
    await core.until("octets charged equal octets carried", charged.equal(carried), 20)


def connections() -> str:
    """TCP connections of the phone's that have something to say."""
    ours = ["src", "10.45.0.0/16", "or", "src", "fd45:6a70:1c00::/48"]
    listed = ["ip", "netns", "exec", "sim-ue", "ss", "-Htn", "state", "connected", "exclude", "time-wait", *ours]
    return subprocess.check_output(listed, text=True)


async def test_fair_use_slows_ipv6_too(charged: Charged) -> None:
    core = charged.core
    await charged.grant(1_500_000)
    await charged.grant(10**15, throttle="dl=4000000;ul=4000000", priority=900, source="plan:test:slowed")
    await core.register()

    async def rate(octets: int) -> float:
        answer = await core.ue("download", "--host", core.dn6, "--stall", "5", "--path", f"/bytes/{octets}")
        assert answer["ok"], answer
        return float(answer["bitsPerSecond"]) / 1e6

    # The full speed ends in this one.
    await rate(3_000_000)
    assert 2.5 < await rate(1_500_000) < 4.8
