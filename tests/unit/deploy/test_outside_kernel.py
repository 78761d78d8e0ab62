"""A host network outside of the cluster, in network namespaces of the test's own: who sees whom by which address.

The pod's part is the packet gateway's own init script, the node's the agent's table; kube-proxy's is its one rule.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mvnobox.deploy.agent.edges import edges, forgotten, translations
from mvnobox.deploy.agent.policies import Pod, compile_rules
from mvnobox.render import BrandEdge, BrandPlan, Epc, Images, Outside, brand_releases
from mvnobox.spec import load_brand

ROOT = Path(__file__).resolve().parents[3]
SGW, STRANGER, PGW, NODE = "198.51.100.7", "192.0.2.9", "203.0.113.20", "198.51.100.1"
PODS, SERVICES = "10.244.0.0/16", "10.96.0.0/16"
LABELS = {"app.kubernetes.io/name": "pgwc"}
# One socket: a line of standard input is sent, a datagram is a line of standard output, and is answered where asked.
PEER = """
import json, selectors, socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind((sys.argv[1], int(sys.argv[2])))
print(json.dumps(["bound"]), flush=True)
watch = selectors.DefaultSelector()
watch.register(s, 1); watch.register(sys.stdin, 1)
while True:
    for key, _ in watch.select():
        if key.fileobj is s:
            data, peer = s.recvfrom(100); print(json.dumps([data.decode(), *peer]), flush=True)
            if data.startswith(b"ask"): s.sendto(b"answer", peer)
        else:
            line = sys.stdin.readline()
            if not line: sys.exit()
            text, host, port = json.loads(line); s.sendto(text.encode(), (host, port))
"""


def _why_not() -> str | None:
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [name for name in ("ip", "nft", "conntrack", "sysctl") if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} is not installed"
    name = f"mvno-{uuid.uuid4().hex[:6]}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode != 0:
        return "network namespaces cannot be made here"
    nat = "table ip x { chain y { type nat hook postrouting priority 100; }; }"
    done = subprocess.run(["ip", "netns", "exec", name, "nft", "-f", "-"], input=nat, text=True, capture_output=True)
    subprocess.run(["ip", "netns", "del", name], check=True)
    return "the kernel has no address translation (nft nat)" if done.returncode else None


class Peer:
    """A process with one UDP socket in a namespace."""

    def __init__(self, namespace: str, address: str, port: int) -> None:
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, sys.executable, "-c", PEER, address, str(port)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._seen: queue.Queue[list[Any]] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        assert self.next() == ["bound"]

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._seen.put(json.loads(line))

    def next(self) -> list[Any]:
        """The next datagram: text, source address, source port."""
        return self._seen.get(timeout=10)

    def send(self, text: str, host: str, port: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([text, host, port]) + "\n")
        self._process.stdin.flush()

    def end(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


class Net:
    """host (an SGW, a stranger) — node — pod (a packet gateway)."""

    def __init__(self) -> None:
        tag = uuid.uuid4().hex[:6]
        self.host, self.node, self.pod = (f"mvno-{part}-{tag}" for part in ("host", "node", "pod"))
        self.pod_address = "10.244.0.5"
        self.edges: Any = None
        for name in (self.host, self.node, self.pod):
            self.run("ip", "netns", "add", name)
            self.run("ip", "-n", name, "link", "set", "lo", "up")
        self.run(
            "ip", "link", "add", "eth0", "netns", self.host, "type", "veth", "peer", "name", "host", "netns", self.node
        )
        self.run(
            "ip", "link", "add", "eth0", "netns", self.pod, "type", "veth", "peer", "name", "pod", "netns", self.node
        )
        for address in (SGW, STRANGER):
            self.run("ip", "-n", self.host, "address", "add", f"{address}/32", "dev", "eth0")
            self.run("ip", "-n", self.node, "route", "add", address, "dev", "host", check=False)
        self.run("ip", "-n", self.node, "address", "add", f"{NODE}/32", "dev", "host")
        self.run("ip", "-n", self.node, "address", "add", "10.244.0.1/32", "dev", "pod")
        for name, device in ((self.host, "eth0"), (self.node, "host"), (self.node, "pod"), (self.pod, "eth0")):
            self.run("ip", "-n", name, "link", "set", device, "up")
        for address in (SGW, STRANGER):
            self.run("ip", "-n", self.node, "route", "replace", address, "dev", "host")
        self.run("ip", "-n", self.host, "route", "add", NODE, "dev", "eth0")
        self.run("ip", "-n", self.host, "route", "add", "default", "via", NODE)
        self.run("ip", "netns", "exec", self.node, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        self.cluster_pod(self.pod_address)

    def run(self, *command: str, stdin: str | None = None, check: bool = True) -> str:
        done = subprocess.run(command, input=stdin, text=True, capture_output=True, check=False)
        assert done.returncode == 0 or not check, f"{command}: {done.stderr}"
        return done.stdout

    def cluster_pod(self, address: str) -> None:
        """What the CNI plug-in does for a pod of this address."""
        self.run("ip", "-n", self.pod, "address", "flush", "dev", "eth0")
        self.run("ip", "-n", self.node, "route", "flush", "dev", "pod")
        self.run("ip", "-n", self.pod, "address", "add", f"{address}/32", "dev", "eth0")
        self.run("ip", "-n", self.pod, "route", "add", "10.244.0.1", "dev", "eth0")
        self.run("ip", "-n", self.pod, "route", "add", "default", "via", "10.244.0.1")
        self.run("ip", "-n", self.node, "route", "add", address, "dev", "pod")
        self.pod_address = address

    def in_node(self, *command: str, stdin: str | None = None, check: bool = True) -> None:
        self.run("ip", "netns", "exec", self.node, *command, stdin=stdin, check=check)

    def proxy(self) -> None:
        """kube-proxy's part: what comes for the Service's address goes to the pod, with its own source."""
        rule = f"ip daddr {PGW} udp dport 2123 dnat to {self.pod_address}:2123"
        self.in_node("nft", "-f", "-", stdin=(
            "add table ip proxy\ndelete table ip proxy\n"
            f"table ip proxy {{ chain services {{ type nat hook prerouting priority -100; {rule}; }}; }}\n"
        ))  # fmt: skip

    def agent(self, *, leaves: bool = True) -> list[str]:
        """The agent's part, up to what has to be forgotten."""
        pod = Pod("b", "pgwc", self.pod_address, LABELS, (("gtpc", "UDP", 2123),))
        service = {
            "metadata": {"namespace": "b"},
            "spec": {
                "selector": LABELS, "externalIPs": [PGW],
                "ports": [{"port": 2123, "targetPort": "gtpc", "protocol": "UDP"}],
            },
        }  # fmt: skip
        block = [{"ipBlock": {"cidr": "198.51.100.0/24"}}]
        policy = {
            "metadata": {"namespace": "b", "name": "pgwc"},
            "spec": {
                "podSelector": {"matchLabels": LABELS}, "policyTypes": ["Ingress", "Egress"],
                "ingress": [{"from": block, "ports": [{"port": "gtpc", "protocol": "UDP"}]}],
                "egress": [{"to": block, "ports": [{"port": 2123, "protocol": "UDP"}]}],
            },
        }  # fmt: skip
        before, self.edges = self.edges, edges([service] if leaves else [], [pod])
        rules = translations(self.edges, f"{{ {PODS}, {SERVICES} }}")
        self.in_node("nft", "-f", "-", stdin=compile_rules([pod], {"b": {}}, [policy], PODS, SERVICES, rules))
        return forgotten(before, self.edges)

    def forget(self, addresses: list[str]) -> None:
        for address in addresses:
            self.in_node("conntrack", "-D", "-p", "udp", "--reply-dst", address, check=False)

    def prepare(self, script: str) -> None:
        """Run the pod's init script, twice, as a kubelet may."""
        for _ in range(2):
            self.run("ip", "netns", "exec", self.pod, "sh", stdin=script)

    def remove(self) -> None:
        for name in (self.host, self.node, self.pod):
            subprocess.run(["ip", "netns", "del", name], check=False)


@pytest.fixture(scope="module")
def script() -> str:
    brand = load_brand(ROOT / "brands/silverline.yaml")
    outside = Outside("ExternalIPs", None, (BrandEdge(brand.name, PGW, "203.0.113.21"),))
    epc = Epc("epc.example.net", (brand.name,), host_networks=("198.51.100.0/24",), outside=outside)
    plan = BrandPlan("dev", brand, Images("a:1", "b:1", "c:1"), core="open5gs", epc=epc)
    functions = [one for release in brand_releases(plan) for one in release.values.get("functions", [])]
    return str(next(one["prepare"] for one in functions if one["name"] == "pgwc"))


@pytest.fixture
def net(script: str) -> Iterator[Net]:
    if reason := _why_not():
        pytest.skip(reason)
    made = Net()
    try:
        made.prepare(script)
        made.proxy()
        yield made
    finally:
        made.remove()


@pytest.fixture
def peers(net: Net) -> Iterator[dict[str, Peer]]:
    """`pgw` is bound as Open5GS is: to the address that it names in F-TEIDs."""
    made = {
        "pgw": Peer(net.pod, PGW, 2123),
        "sgw": Peer(net.host, SGW, 2123),
        "from another port": Peer(net.host, SGW, 40123),
        "stranger": Peer(net.host, STRANGER, 2123),
    }
    yield made
    for one in made.values():
        one.end()


def test_a_host_network_and_a_packet_gateway_know_each_other_by_their_own_addresses(
    net: Net, peers: dict[str, Peer]
) -> None:
    net.agent()
    pgw, sgw = peers["pgw"], peers["sgw"]
    for who, port in (("sgw", 2123), ("from another port", 40123)):
        peers[who].send("ask", PGW, 2123)
        assert pgw.next() == ["ask", SGW, port]
        assert peers[who].next() == ["answer", PGW, 2123]
    # What nobody has asked for: Delete Bearer, after the node has forgotten the connection.
    net.in_node("conntrack", "-F")
    pgw.send("first", SGW, 2123)
    assert sgw.next() == ["first", PGW, 2123]
    sgw.send("ask", PGW, 2123)
    assert pgw.next() == ["ask", SGW, 2123] and sgw.next() == ["answer", PGW, 2123]


def test_the_policy_sees_the_true_source(net: Net, peers: dict[str, Peer]) -> None:
    net.agent()
    peers["stranger"].send("ask", PGW, 2123)
    peers["sgw"].send("ask", PGW, 2123)
    # In order over one way: had the stranger been let in, it would be the first.
    assert peers["pgw"].next() == ["ask", SGW, 2123]


def test_without_the_agents_part_it_would_come_from_the_node(net: Net, peers: dict[str, Peer]) -> None:
    net.agent(leaves=False)
    peers["pgw"].send("first", SGW, 2123)
    assert peers["sgw"].next() == ["first", NODE, 2123]


def test_a_pod_in_another_ones_place_gets_what_comes_next(net: Net, peers: dict[str, Peer], script: str) -> None:
    assert net.agent() == [PGW]
    pgw, sgw = peers["pgw"], peers["sgw"]
    pgw.send("first", SGW, 2123)
    assert sgw.next() == ["first", PGW, 2123]
    net.cluster_pod("10.244.0.6")
    net.prepare(script)
    net.proxy()
    net.forget(net.agent())
    sgw.send("ask", PGW, 2123)
    assert pgw.next() == ["ask", SGW, 2123]
