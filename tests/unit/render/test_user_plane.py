"""User planes' own rules, in network namespaces; and what prepares a pod says what its node lacks, with the remedy."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from mvnobox.core.sim.settings import UpfSettings
from mvnobox.core.sim.tun import user_plane_rules
from mvnobox.deploy.kernel import tun_trouble
from mvnobox.render import BrandPlan, Images, brand_releases
from mvnobox.spec import load_brand

ROOT = Path(__file__).resolve().parents[3]
PLAN = BrandPlan("dev", load_brand(ROOT / "brands/silverline.yaml"), Images("s:1", "c:1", "p:1"), core="open5gs")


def script(plan: BrandPlan = PLAN) -> str:
    [release] = [one for one in brand_releases(plan) if one.name == "user-plane"]
    prepare: str = release.values["functions"][0]["prepare"]
    return prepare


@pytest.mark.parametrize(
    ("before", "cause"),
    [
        ("echo 0 > /proc/sys/net/ipv4/ip_forward", "net.ipv4.ip_forward is 0 in the pod"),
        ("echo 1 > /proc/sys/net/ipv4/ip_forward; mount -t tmpfs none /dev/net", "this node's kernel makes no TUN devices"),
        ("echo 1 > /proc/sys/net/ipv4/ip_forward; echo 0 > /proc/sys/net/ipv6/conf/all/forwarding", "net.ipv6.conf.all.forwarding is 0 in the pod"),
        ("echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6", "IPv6 is off in the pod"),
    ],
)  # fmt: skip
def test_a_node_that_cannot_carry_a_user_plane(before: str, cause: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: network and mount namespaces")
    command = ["unshare", "-nm", "sh", "-c", f"{before}; exec sh -s"]
    [network, *others] = PLAN.brand.data_networks
    networks = [network.model_copy(update={"pool6": "fd45:6a70:1c00::/48" if "ipv6" in before else None}), *others]
    plan = dataclasses.replace(PLAN, brand=PLAN.brand.model_copy(update={"data_networks": networks}))
    done = subprocess.run(command, input=script(plan), text=True, capture_output=True)
    assert done.returncode == 1
    assert re.fullmatch(rf"{re.escape(cause)}.*; remedy: .+\n", done.stderr), done.stderr


POOL, ROUTED = "10.45.0.0/16", "81.2.0.0/16"
UES = {POOL: "10.45.0.9", ROUTED: "81.2.0.9"}
UPF, OUTSIDE = "198.51.100.2", "198.51.100.1"
SPACES = ("up-ue", "up-upf", "up-dn")
# Tells everybody what address it sees.
ECHO = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("0.0.0.0", 7))
print("listening", flush=True)
while True:
    text, peer = s.recvfrom(100); s.sendto(peer[0].encode(), peer)
"""
ASK = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1); s.bind((sys.argv[1], 0))
try:
    s.sendto(b"x", (sys.argv[2], 7)); print(s.recv(100).decode())
except OSError:
    print("nothing")
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def inside(space: str, *command: str, stdin: str | None = None) -> str:
    """Run in a network namespace; its output."""
    done = subprocess.run(["ip", "netns", "exec", space, *command], input=stdin, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def wires() -> Iterator[None]:
    """A node of UEs, the user plane's, and one of the world, which knows the way to the routed pool alone."""
    if os.geteuid() != 0 or not shutil.which("nft"):
        pytest.skip("needs root and nftables: network namespaces")
    if tun_trouble() is not None:
        pytest.skip(f"needs TUN devices: {tun_trouble()}")
    for space in SPACES:
        subprocess.run(["ip", "netns", "delete", space], capture_output=True, check=False)
    try:
        for space in SPACES:
            ip("netns", "add", space)
        for space, device, address, other, far, there in (
            ("up-ue", "eth0", "192.0.2.9", "up-upf", "eth1", "192.0.2.1"),
            ("up-dn", "eth0", OUTSIDE, "up-upf", "eth0", UPF),
        ):
            ip("-n", space, "link", "add", device, "type", "veth", "peer", "name", far, "netns", other)
            for name, link, own in ((space, device, address), (other, far, there)):
                ip("-n", name, "address", "add", f"{own}/24", "dev", link)
                ip("-n", name, "link", "set", link, "up")
        for ue in UES.values():
            ip("-n", "up-ue", "address", "add", f"{ue}/32", "dev", "eth0")
        ip("-n", "up-ue", "route", "add", "default", "via", "192.0.2.1")
        ip("-n", "up-dn", "route", "add", "default", "via", UPF)
        inside("up-upf", "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        yield
    finally:
        for space in SPACES:
            subprocess.run(["ip", "netns", "delete", space], capture_output=True, check=False)


@contextlib.contextmanager
def echoing(space: str) -> Iterator[None]:
    with subprocess.Popen(
        ["ip", "netns", "exec", space, sys.executable, "-c", ECHO], stdout=subprocess.PIPE, text=True
    ) as echo:
        assert echo.stdout is not None and echo.stdout.readline() == "listening\n"
        try:
            yield
        finally:
            echo.kill()


def seen(space: str, source: str, target: str) -> str:
    """Whom the echo at a target sees when a source asks it."""
    return inside(space, sys.executable, "-c", ASK, source, target)


@pytest.mark.parametrize("core", ["open5gs", "simulated"])
def test_routed_pools_keep_their_addresses_and_others_do_not(core: str, wires: None, tmp_path: Path) -> None:
    data = yaml.safe_load((ROOT / "brands/silverline.yaml").read_text())
    [network, *_] = data["dataNetworks"]
    networks = [
        {**network, "pool": POOL},
        {**network, "name": "routed", "pool": ROUTED, "routed": True},
    ]
    file = tmp_path / "brand.yaml"
    file.write_text(json.dumps({**data, "dataNetworks": networks}))
    plan = dataclasses.replace(PLAN, brand=load_brand(file), core=core)
    if core == "open5gs":
        inside("up-upf", "sh", "-s", stdin=script(plan).replace("dn.platform-dev.svc.cluster.local", "203.0.113.1"))
    else:
        [release] = [one for one in brand_releases(plan) if one.name == "user-plane"]
        settings = UpfSettings.model_validate(yaml.safe_load(release.values["upf"]["config"]))
        routed = [dnn.pool for dnn in settings.dnns if dnn.routed]
        rules = user_plane_rules([dnn.pool for dnn in settings.dnns], [], settings.deny, routed=routed)
        inside("up-upf", "nft", "-f", "-", stdin=rules)
    for ue in UES.values():
        ip("-n", "up-upf", "route", "add", f"{ue}/32", "via", "192.0.2.9")
    with echoing("up-dn"):
        assert seen("up-ue", UES[POOL], OUTSIDE) == UPF
        assert seen("up-ue", UES[ROUTED], OUTSIDE) == UES[ROUTED]
    with echoing("up-ue"):
        # Who was not asked gets nowhere.
        assert seen("up-dn", OUTSIDE, UES[ROUTED]) == "nothing"
