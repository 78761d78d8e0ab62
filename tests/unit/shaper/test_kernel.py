"""The shaper in network namespaces of the test's own, with the kernel's HTB and nftables: what gets through is measured."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

RATE = 2_000_000
# Sends at 12 Mbit/s for a second, then says that it is over; the listener counts what comes in between.
LISTEN = """
import socket, sys, time
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
s.bind((sys.argv[1], 5000)); s.settimeout(20); print("ready", flush=True)
count = 0; first = last = 0.0
while True:
    data = s.recv(2000); now = time.monotonic()
    if data == b"over": break
    first = first or now; last = now; count += len(data)
print(count * 8 / max(last - first, 1e-9), flush=True)
"""
SEND = """
import socket, sys, time
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
s = socket.socket(family, socket.SOCK_DGRAM); s.bind((sys.argv[1], 0))
began = time.monotonic(); sent = 0
while (now := time.monotonic() - began) < 1.0:
    while sent * 1200 * 8 < now * 12e6:
        s.sendto(b"x" * 1200, (sys.argv[2], 5000)); sent += 1
    time.sleep(0.001)
for _ in range(150):
    s.sendto(b"over", (sys.argv[2], 5000)); time.sleep(0.002)
"""


def _why_not() -> str | None:
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [name for name in ("ip", "tc", "nft") if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} is not installed"
    name = f"mvno-{uuid.uuid4().hex[:6]}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode != 0:
        return "network namespaces cannot be made here"
    done = subprocess.run(
        ["ip", "netns", "exec", name, "tc", "qdisc", "add", "dev", "lo", "root", "handle", "1:", "htb"],
        capture_output=True,
    )
    subprocess.run(["ip", "netns", "del", name], check=True)
    return "the kernel has no HTB (sch_htb)" if done.returncode else None


@dataclass
class Net:
    """ue — (tun0) upf (eth0) — dn."""

    tag: str
    url: str = ""
    process: subprocess.Popen[bytes] | None = None

    def name(self, part: str) -> str:
        return f"mvno-{part}-{self.tag}"

    def run(self, part: str, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["ip", "netns", "exec", self.name(part), *command], capture_output=True, text=True, check=check
        )

    def start(self, config: Path) -> None:
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", self.name("upf"), sys.executable, "-m", "mvnobox.core.shaper", "serve", "--config", str(config)]
        )  # fmt: skip
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if self.run("upf", sys.executable, "-c", READY, check=False).returncode == 0:
                return
            assert self.process.poll() is None
        raise AssertionError("the shaper does not get ready")

    def put(self, throttles: list[dict[str, Any]]) -> int:
        """The status of a PUT from within the namespace."""
        done = self.run("upf", sys.executable, "-c", PUT, repr({"throttles": throttles}))
        return int(done.stdout)

    def measure(self, source: str, sender: str, target: str, receiver: str) -> float:
        """bit/s of UDP payload that arrive."""
        listening = subprocess.Popen(
            ["ip", "netns", "exec", self.name(target), sys.executable, "-c", LISTEN, receiver],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert listening.stdout is not None and listening.stdout.readline() == "ready\n"
        self.run(source, sys.executable, "-c", SEND, sender, receiver)
        said = listening.stdout.readline()
        assert listening.wait(20) == 0
        return float(said)


READY = "import httpx; httpx.get('http://127.0.0.1:8095/readyz').raise_for_status()"
PUT = "import httpx, sys, ast; print(httpx.put('http://127.0.0.1:8095/v1/throttles', json=ast.literal_eval(sys.argv[1])).status_code)"


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    if (reason := _why_not()) is not None:
        pytest.skip(reason)
    made = Net(uuid.uuid4().hex[:6])
    for part in ("ue", "upf", "dn"):
        subprocess.run(["ip", "netns", "add", made.name(part)], check=True)
        made.run(part, "ip", "link", "set", "lo", "up")
    try:
        for part, device, host, prefix in (("ue", "tun0", "eth0", "45"), ("dn", "eth0", "eth0", "200")):
            made.run("upf", "ip", "link", "add", device, "type", "veth", "peer", "name", host, "netns", made.name(part))
            for where, inner, ends in (("upf", device, "1"), (part, host, "23")):
                for end in ends:
                    made.run(where, "ip", "addr", "add", f"10.{prefix}.0.{end}/24", "dev", inner)
                    made.run(where, "ip", "addr", "add", f"2001:db8:{prefix}:{end}::1/48", "dev", inner, "nodad")
                made.run(where, "ip", "link", "set", inner, "up")
            made.run(part, "ip", "route", "add", "default", "via", f"10.{prefix}.0.1")
            made.run(part, "ip", "-6", "route", "add", "default", "via", f"2001:db8:{prefix}:1::1")
        made.run("upf", "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        config = tmp_path_factory.mktemp("shaper") / "shaper.yaml"
        config.write_text("listen: 127.0.0.1:8095\ndown: [tun0]\n")
        made.start(config)
        yield made
    finally:
        if made.process is not None:
            made.process.terminate()
            made.process.wait(10)
        for part in ("ue", "upf", "dn"):
            subprocess.run(["ip", "netns", "del", made.name(part)], check=False)


SLOW = {"addresses": ["10.45.0.2", "2001:db8:45:2::/64"], "uplink": RATE // 2, "downlink": RATE}


def test_a_slowed_line_has_its_rate_both_ways_and_others_have_theirs(net: Net) -> None:
    assert net.put([SLOW]) == 204
    assert net.measure("dn", "10.200.0.2", "ue", "10.45.0.2") == pytest.approx(RATE, rel=0.15)
    assert net.measure("ue", "10.45.0.2", "dn", "10.200.0.2") == pytest.approx(RATE / 2, rel=0.15)
    assert net.measure("dn", "10.200.0.2", "ue", "10.45.0.3") > 5 * RATE
    assert net.measure("ue", "10.45.0.3", "dn", "10.200.0.2") > 5 * RATE


def test_ipv6_is_slowed_by_its_prefix(net: Net) -> None:
    assert net.put([SLOW]) == 204
    assert net.measure("dn", "2001:db8:200:2::1", "ue", "2001:db8:45:2::1") == pytest.approx(RATE, rel=0.15)
    assert net.measure("dn", "2001:db8:200:2::1", "ue", "2001:db8:45:3::1") > 5 * RATE


def test_another_rate_and_none(net: Net) -> None:
    assert net.put([SLOW]) == 204
    assert net.put([{**SLOW, "downlink": 2 * RATE}]) == 204
    assert net.measure("dn", "10.200.0.2", "ue", "10.45.0.2") == pytest.approx(2 * RATE, rel=0.15)
    assert net.put([]) == 204
    assert net.measure("dn", "10.200.0.2", "ue", "10.45.0.2") > 5 * RATE
    assert net.run("upf", "tc", "class", "show", "dev", "tun0").stdout == ""


def test_what_somebody_else_took_away_is_built_anew(net: Net) -> None:
    assert net.put([SLOW]) == 204
    net.run("upf", "nft", "delete", "table", "inet", "mvno_shaper")
    net.run("upf", "tc", "qdisc", "del", "dev", "tun0", "root")
    other = {"addresses": ["10.45.0.3"], "uplink": RATE, "downlink": RATE}
    assert net.put([SLOW, other]) == 204
    for address in ("10.45.0.2", "10.45.0.3"):
        assert net.measure("dn", "10.200.0.2", "ue", address) == pytest.approx(RATE, rel=0.15)


def test_a_new_process_goes_on(net: Net, tmp_path: Path) -> None:
    assert net.put([SLOW]) == 204
    assert net.process is not None
    net.process.kill()
    net.process.wait(10)
    # Still slowed, while nobody is there.
    assert net.measure("dn", "10.200.0.2", "ue", "10.45.0.2") == pytest.approx(RATE, rel=0.15)
    config = tmp_path / "shaper.yaml"
    config.write_text("listen: 127.0.0.1:8095\ndown: [tun0]\n")
    net.start(config)
    assert net.put([{**SLOW, "downlink": 2 * RATE}]) == 204
    assert net.measure("dn", "10.200.0.2", "ue", "10.45.0.2") == pytest.approx(2 * RATE, rel=0.15)


def test_what_is_no_state_changes_nothing(net: Net) -> None:
    assert net.put([SLOW]) == 204
    before = net.run("upf", "nft", "list", "ruleset").stdout
    assert net.put([{**SLOW, "addresses": ["no address"]}]) == 400
    assert net.put([{**SLOW, "uplink": -1}]) == 400
    assert net.run("upf", "nft", "list", "ruleset").stdout == before
