"""IPv4v6 sessions through SMF, UPF, UE and data network in namespaces: router advertisement, packets, isolation, idle mode."""

from __future__ import annotations

import ipaddress
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(180)
# In the UE's namespace: says what it hears until the answer comes. The other side runs in the data network's.
TALK = """
import socket, subprocess, sys
own, there = sys.argv[1:]
other = '''
import socket, sys
mine, stranger = (socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) for _ in range(2))
mine.bind((sys.argv[1], 8000)); stranger.bind((sys.argv[1], 8001))
print("ready", flush=True)
_, phone = mine.recvfrom(100)
for _ in range(5):
    stranger.sendto(b"stranger", phone)
mine.sendto(b"answer", phone)
'''
command = ["ip", "netns", "exec", "sim-dn", sys.executable, "-c", other, there]
with subprocess.Popen(command, stdout=subprocess.PIPE) as peer:
    peer.stdout.readline()
    phone = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    phone.settimeout(20)
    phone.bind((own, 7000))
    phone.sendto(b"hello", (there, 8000))
    while (heard := phone.recv(100)) != b"answer":
        print(heard.decode())
    print("answer")
"""


async def test_a_subscriber_of_both_families(core: Any) -> None:
    """From the prefix to a download, another phone, idle mode and good-bye: what follows needs what came before."""
    core.with_ipv6()
    await core.directory.put(core.imsi, type_=3)
    await core.directory.put(core.other, type_=3)
    await core.up()

    # The prefix comes by router advertisement; the pod's own routes are as they were.
    answer = await core.register()
    own = ipaddress.ip_address(answer["address6"])
    assert own in ipaddress.ip_network(core.pool6) and ipaddress.ip_address(answer["address"]) in ipaddress.ip_network(
        core.pool
    )
    assert answer["gateway6"] == core.gateway6
    routes = subprocess.check_output(["ip", "-n", "sim-ue", "-6", "route"], text=True)
    assert "default" not in routes and "uesimtun" not in routes
    assert "inet6" not in subprocess.check_output(
        ["ip", "-n", "sim-ue", "address", "show", "scope", "link", "dev", "uesimtun0"], text=True
    )

    # Both families carry.
    for target in (core.gateway, core.gateway6, core.dn6, core.internet6):
        assert (await core.ue("ping", "--target", target, "--count", "2"))["received"] == 2, target
    got = await core.ue("download", "--url", f"http://[{core.dn6}]:8080/bytes/5000000")
    assert got["ok"] and got["octets"] == 5_000_000 and 5_000_000 < got["carried"]["downlink"] < 5_600_000, got
    # Translated: the data network sees the user plane, not the UE's unique local address.
    seen = subprocess.check_output(["ip", "netns", "exec", "sim-dn", "ip", "-6", "neighbour"], text=True)
    assert str(own) not in seen and "fd78::3" in seen

    # What is closed stays closed, what has no route is said by the gateway.
    assert (await core.ue("ping", "--target", core.closed6, "--count", "1"))["received"] == 0
    nowhere = await core.ue("ping", "--target", "2606:4700::1111", "--count", "2")
    assert nowhere["received"] == 0 and "no route to destination" in nowhere["cause"], nowhere
    shut = await core.ue("download", "--host", core.gateway6, "--port", "8081", "--stall", "1")
    assert shut["cause"] == "stalled"

    # A second phone has a /64 of its own; the two do not reach each other.
    other = await core.ue("register", "--beside", stdin=core.sim(imsi=core.other))
    theirs = ipaddress.ip_address(other["address6"])
    assert int(theirs) >> 64 != int(own) >> 64 and theirs in ipaddress.ip_network(core.pool6)
    before = {one["imsi"]: one["receivedOctets"] for one in (await core.ue("status"))["phones"]}
    between = await core.ue("ping", "--imsi", core.imsi, "--target", str(theirs), "--count", "2")
    after = {one["imsi"]: one["receivedOctets"] for one in (await core.ue("status"))["phones"]}
    assert between["received"] == 0 and after[core.other] == before[core.other]
    assert (await core.ue("deregister", "--imsi", core.other))["ok"]

    # Idle: the answer to the first packet waits for the page, and comes once.
    assert (await core.ue("idle"))["ok"]
    assert (await core.ue("ping", "--target", core.gateway6, "--count", "2"))["received"] == 2

    # Another session has another prefix; IPv4 alone can be asked for.
    session = await core.ue("session")
    assert session["ok"] and session["address6"] != str(own)
    plain = await core.ue("register", stdin=core.sim(type="IPv4"))
    assert plain["ok"] and plain["address6"] is None
    assert "no IPv6 address" in (await core.ue("ping", "--target", core.gateway6, "--count", "1"))["cause"]
    refused = await core.ue("register", stdin=core.sim(type="IPv6"))
    assert not refused["ok"] and "IPv4v6 only" in refused["cause"]
    rules = subprocess.check_output(["ip", "-n", "sim-ue", "-6", "rule"], text=True)
    assert "uesimtun" not in rules and "45" not in rules.replace("32766", "")
    for role in core.config:
        assert "Traceback" not in core.log(role)


async def test_a_subscription_of_ipv4_alone_gets_that(core: Any) -> None:
    core.with_ipv6()
    await core.up("upf", "smf", "ue")
    answer = await core.register()
    assert answer["address6"] is None
    assert (await core.ue("ping", "--target", core.gateway, "--count", "1"))["received"] == 1


async def test_global_addresses_are_routed_and_strangers_kept_out(core: Any) -> None:
    """Without translation the data network sees the UE, and may answer it but not call it."""
    core.with_ipv6("2001:db8:4500::/40", "2001:db8:4500::1")
    subprocess.run(
        ["ip", "-n", "sim-dn", "-6", "route", "add", "2001:db8:4500::/40", "via", "2001:db8:78::3"], check=True
    )
    await core.directory.put(core.imsi, type_=3)
    await core.up()
    address = (await core.register())["address6"]
    assert address.startswith("2001:db8:4500:")
    assert (await core.ue("ping", "--target", core.internet6, "--count", "2"))["received"] == 2
    # The phone writes from its port 7000 to port 8000; a stranger's word to the former comes before the answer, and is
    # not heard.
    done = subprocess.run(
        ["ip", "netns", "exec", "sim-ue", sys.executable, "-c", TALK, address, core.internet6],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.split() == ["answer"], done.stdout + done.stderr


async def test_without_forwarding_it_says_so_and_stops(core: Any) -> None:
    core.with_ipv6()
    forwarding = "echo 0 > /proc/sys/net/ipv6/conf/all/forwarding"
    subprocess.run(["ip", "netns", "exec", "sim-upf", "sh", "-c", forwarding], check=True)
    core.start("upf")
    await core.until("its end", lambda: core.processes["upf"].poll() is not None, 30)
    assert "net.ipv6.conf.all.forwarding is 0 in the pod" in core.log("upf") and "Traceback" not in core.log("upf")


async def test_without_ipv6_it_says_so_and_stops(core: Any) -> None:
    core.with_ipv6()
    off = "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"
    subprocess.run(["ip", "netns", "exec", "sim-upf", "sh", "-c", off], check=True)
    core.start("upf")
    await core.until("its end", lambda: core.processes["upf"].poll() is not None, 30)
    assert "IPv6 is off in the pod" in core.log("upf") and "Traceback" not in core.log("upf")
