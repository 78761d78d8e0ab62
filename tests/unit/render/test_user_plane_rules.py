"""Open5GS's user plane as its init script leaves it: the script runs in a namespace, packets say what is open and what is not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .test_ipv6 import POOL6, brand, releases

UE, DN, OTHER = "10.45.0.2", "198.18.0.9", "10.46.0.2"
UE6, NEIGHBOUR6, DN6 = "fd45:6a70:1c00:1::2", "fd45:6a70:1c00:2::3", "fd78::9"
DN_NAME = "dn.platform-dev.svc.cluster.local"
# Puts datagrams into the user plane's TUN device as its UPF would, and says what comes out of it and of the network's side.
SEND = """
import fcntl, ipaddress, json, os, select, socket, struct, sys
import mvnobox.core.sim.icmpv6 as icmpv6

def checksum(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF

def datagram(source, target, port):
    a, b = ipaddress.ip_address(source), ipaddress.ip_address(target)
    udp = struct.pack(">HHHH", 40000, port, 12, 0) + b"word"
    pseudo = a.packed + b.packed + struct.pack(">IHH", len(udp), 0, 17)
    if a.version == 4:
        pseudo = a.packed + b.packed + struct.pack(">HH", 17, len(udp))
    udp = udp[:6] + struct.pack(">H", checksum(pseudo + udp)) + udp[8:]
    if a.version == 6:
        return struct.pack(">IHBB", 6 << 28, len(udp), 17, 64) + a.packed + b.packed + udp
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + a.packed + b.packed
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + udp

def ping(source, target):
    body = struct.pack(">BBHHH", 128, 0, 0, 7, 1) + b"word"
    return icmpv6.packet(ipaddress.ip_address(source).packed, ipaddress.ip_address(target).packed, body, 64)

tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", b"tun0", 0x1001))
cases = json.load(sys.stdin)
for source, target, kind in cases:
    os.write(tun, ping(source, target) if kind == "ping" else datagram(source, target, kind))
# Whatever goes to the network or is answered has done so when this one, the last, is answered.
source, target = sys.argv[1:]
os.write(tun, ping(source, target))
heard = []
while True:
    data = os.read(tun, 4000)
    if data[0] >> 4 == 6:
        came = str(ipaddress.IPv6Address(data[8:24])), data[6], data[40], data[41]
        heard.append(came)
        if came[:3] == (target, 58, 129) and len([one for one in heard if one == came]) > sum(
            one[1] == target and one[2] == "ping" for one in cases
        ):
            break
print(json.dumps(heard))
"""
SNIFF = """
import ipaddress, json, select, socket, sys
made = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
made.bind((sys.argv[1], 0))
print("ready", flush=True)
seen = []
while True:
    readable, _, _ = select.select([made, sys.stdin], [], [])
    if made in readable:
        data = made.recv(4000)
        if data[0] >> 4 == 4 and data[9] == 17:
            seen.append([str(ipaddress.IPv4Address(data[i : i + 4])) for i in (12, 16)])
        elif data[0] >> 4 == 6 and data[6] == 17:
            seen.append([str(ipaddress.IPv6Address(data[i : i + 16])) for i in (8, 24)])
    else:
        break
print(json.dumps(seen))
"""


@dataclass
class Plane:
    """A user plane's namespace after the script, and the network's on the other end of its `eth0`."""

    upf: str
    network: str

    def ip(self, *arguments: str) -> str:
        return subprocess.check_output(["ip", "-n", self.upf, *arguments], text=True)

    def carried(self, *cases: tuple[str, str, int | str]) -> tuple[list[list[str]], list[list[object]]]:
        """Datagrams (port) and pings of UEs: (source, target) of the datagrams on the network, (source, next header, ICMPv6 type, code) of what UEs hear."""
        peer = ["ip", "netns", "exec", self.network, sys.executable, "-c", SNIFF, "eth0"]
        with subprocess.Popen(peer, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as sniffing:
            assert sniffing.stdout is not None and sniffing.stdout.readline() == "ready\n"
            here = ["ip", "netns", "exec", self.upf, sys.executable, "-c", SEND, UE6, "fd45:6a70:1c00::1"]
            done = subprocess.run(here, input=json.dumps(cases), capture_output=True, text=True, timeout=30)
            assert done.returncode == 0, done.stderr
            out, _ = sniffing.communicate("end\n", timeout=30)
        return json.loads(out), json.loads(done.stdout)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Plane]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    if not shutil.which("ip") or not shutil.which("nft") or not os.path.exists("/dev/net/tun"):
        pytest.skip("iproute2, nftables or /dev/net/tun is missing")
    made = Plane(*(f"v6-{part}-{uuid.uuid4().hex[:6]}" for part in ("upf", "net")))
    for name in (made.upf, made.network):
        _run("ip", "netns", "add", name)
        _run("ip", "-n", name, "link", "set", "lo", "up")
    try:
        _run("ip", "-n", made.upf, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", made.network)
        for name, addresses in ((made.upf, ("198.18.0.3/24", "fd78::3/64")), (made.network, (f"{DN}/24", f"{DN6}/64"))):
            for address in addresses:
                _run("ip", "-n", name, "address", "add", address, "dev", "eth0", *(["nodad"] if ":" in address else []))
            _run("ip", "-n", name, "link", "set", "eth0", "up")
        # What the pod's spec asks for.
        for key in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            _run("ip", "netns", "exec", made.upf, "sh", "-c", f"echo 1 > /proc/sys/net/{key}")
        link = json.loads(subprocess.check_output(["ip", "-j", "-n", made.network, "link", "show", "eth0"], text=True))
        for family, gateway in (("-4", DN), ("-6", DN6)):
            # Known from the beginning: no packet waits for it.
            known = ["lladdr", link[0]["address"], "dev", "eth0", "nud", "permanent"]
            _run("ip", family, "-n", made.upf, "neighbour", "add", gateway, *known)
            _run("ip", family, "-n", made.upf, "route", "add", "default", "via", gateway)
        hosts = tmp_path / "hosts"
        hosts.write_text(f"{DN} {DN_NAME}\n{DN6} {DN_NAME}\n")
        script = tmp_path / "prepare.sh"
        script.write_text(releases(brand())["upf"]["prepare"])
        within = f"mount --bind {hosts} /etc/hosts && exec sh {script}"
        _run("ip", "netns", "exec", made.upf, "unshare", "-m", "sh", "-c", within)
        yield made
    finally:
        for name in (made.upf, made.network):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def test_a_device_of_both_families(plane: Plane) -> None:
    [device] = json.loads(plane.ip("-j", "address", "show", "dev", "tun0"))
    addresses = {(one["local"], one["prefixlen"]) for one in device["addr_info"]}
    # No link-local one: nothing of the kernel's own goes to UEs.
    assert addresses == {("10.45.0.1", 16), ("fd45:6a70:1c00::1", 48)} and device["mtu"] == 1400


def test_what_is_open_to_customers_and_what_is_not(plane: Plane) -> None:
    internet, internet6 = "192.0.2.1", "2606:4700::1111"
    closed: list[tuple[str, str, int | str]] = [
        (UE, OTHER, 53), (UE, "10.96.0.1", 443), (UE, "169.254.169.254", 80),
        (UE6, NEIGHBOUR6, 53), (UE6, "fd46::2", 53), (UE6, "fe80::1", 53), (UE6, "ff0e::1", 53), (UE6, "fd78::3", 80),
        (UE6, "64:ff9b::a60:1", 443), (UE6, "::ffff:10.96.0.1", 443), (UE6, "2002:a60:1::1", 443), (UE6, "::1", 80),
        (UE6, "fd45:6a70:1c00::1", 8805), ("2606:4700::2222", internet6, 53), ("fd99::1", DN6, 53),
    ]  # fmt: skip
    opened: list[tuple[str, str, int | str]] = [(UE, internet, 53), (UE, DN, 53), (UE6, internet6, 53), (UE6, DN6, 53)]
    went, heard = plane.carried(*closed, (UE6, "fd45:6a70:1c00::1", "ping"), *opened)
    # What leaves does so under the user plane's own address.
    assert went == [["198.18.0.3", internet], ["198.18.0.3", DN], ["fd78::3", internet6], ["fd78::3", DN6]], went
    assert ["fd45:6a70:1c00::1", 58, 129, 0] in heard
    assert not [one for one in heard if one[0] in (NEIGHBOUR6, "fd78::3")]


def test_what_has_no_route_is_said(plane: Plane) -> None:
    """As on a cluster without IPv6: the gateway answers at once, and phones go on with IPv4."""
    plane.ip("-6", "route", "delete", "default")
    went, heard = plane.carried((UE6, "2606:4700::1111", 443), (UE, "192.0.2.1", 443))
    assert went == [["198.18.0.3", "192.0.2.1"]]
    # Destination unreachable, no route to destination (RFC 4443 section 3.1).
    assert ["fd45:6a70:1c00::1", 58, 1, 0] in heard


def test_without_ipv6_in_the_pod_it_says_so(plane: Plane, tmp_path: Path) -> None:
    _run("ip", "netns", "exec", plane.upf, "sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6")
    script = tmp_path / "again.sh"
    script.write_text(releases(brand(POOL6))["upf"]["prepare"])
    done = subprocess.run(["ip", "netns", "exec", plane.upf, "sh", str(script)], capture_output=True, text=True)
    assert done.returncode == 1 and "take pool6 out" in done.stderr
