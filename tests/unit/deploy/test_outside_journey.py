"""4G's journey from outside of the cluster: where it is refused, and the phone in a network namespace of its own."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mvnobox.cli.main import app
from mvnobox.core.hostnetwork.settings import HostNetworkSettings
from mvnobox.deploy.epc import check_outside_peer, epc_setting
from mvnobox.deploy.installation import PROJECT, Installation
from mvnobox.deploy.journey.outside import OutsidePhone
from mvnobox.errors import BadInput, EnvironmentUnfit
from mvnobox.render import BrandEdge, DiameterPeer, Epc, Outside
from mvnobox.render.hostnetwork import outside_stand_in, stand_in_address
from mvnobox.spec import load_brand

ROOT = Path(__file__).resolve().parents[3]
SPEC = load_brand(ROOT / "brands/silverline.yaml")
OUTSIDE = Outside("ExternalIPs", "203.0.113.19", (BrandEdge(SPEC.name, "203.0.113.20", "203.0.113.21"),))
EPC = Epc(
    "epc.mnc093.mcc208.3gppnetwork.org",
    (SPEC.name,),
    host_networks=("198.51.100.0/24",),
    test_peers=True,
    outside=OUTSIDE,
)


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes the platform's setting `epc`, as Pulumi keeps it."""
    monkeypatch.setenv("MVNO_HOME", str(tmp_path))
    (tmp_path / "stacks").mkdir()

    def write(epc: Epc) -> Installation:
        config = {f"{PROJECT}:core": "open5gs", f"{PROJECT}:epc": epc_setting(epc)}
        (tmp_path / "stacks/Pulumi.platform.dev.yaml").write_text(yaml.safe_dump({"config": config}))
        return Installation("dev")

    return write


@pytest.mark.parametrize(
    "outside", [None, dataclasses.replace(OUTSIDE, hss=None), dataclasses.replace(OUTSIDE, brands=())]
)
def test_a_brand_that_is_not_reached_from_outside(platform: Any, outside: Outside | None) -> None:
    with pytest.raises(EnvironmentUnfit, match="no 4G outside of the cluster in 'dev'") as refused:
        check_outside_peer(platform(dataclasses.replace(EPC, outside=outside)), SPEC.name, "embedded")
    assert "docs/open5gs.md" in str(refused.value.remedy)


def test_where_it_can_be_run(platform: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = platform(EPC)
    with pytest.raises(EnvironmentUnfit, match="this one is existing"):
        check_outside_peer(installed, SPEC.name, "existing")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(EnvironmentUnfit, match="needs root"):
        check_outside_peer(installed, SPEC.name, "embedded")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert check_outside_peer(installed, SPEC.name, "embedded") == EPC


@pytest.mark.parametrize("words", [["--from", "outside"], ["--access", "4g", "--from", "abroad"]])
def test_where_there_is_none(words: list[str]) -> None:
    with pytest.raises(BadInput, match="there is no"):
        app(["verify", *words], standalone_mode=False)


def test_it_has_an_address_of_the_host_network_that_is_nobodys() -> None:
    assert stand_in_address(EPC) == "198.51.100.254"
    peer = DiameterPeer("mme.host.example", "host.example", "198.51.100.6")
    small = dataclasses.replace(EPC, host_networks=("198.51.100.4/30",), peers=(peer,))
    assert stand_in_address(small) == "198.51.100.5"
    one = dataclasses.replace(small, host_networks=("198.51.100.6/32", "198.51.100.8/32"))
    assert stand_in_address(one) == "198.51.100.8"
    with pytest.raises(BadInput, match="no address left"):
        stand_in_address(dataclasses.replace(small, host_networks=("198.51.100.6/32",)))


def test_it_dials_what_a_host_network_dials(tmp_path: Path) -> None:
    made = HostNetworkSettings(**yaml.safe_load(outside_stand_in(SPEC, EPC, "198.51.100.254", tmp_path)))
    assert (made.hss.address, made.pgw, made.listen) == ("203.0.113.19", "203.0.113.20", "198.51.100.254")
    assert (made.hss.host, made.state) == (f"hss.{EPC.realm}", str(tmp_path))
    # Beside the stand-in in the cluster, which has its connection to the HSS; under what the HSS lets in.
    assert made.mme.host != EPC.test_peer(SPEC.name) and made.mme.host.endswith(f".{EPC.test_realm}")


class Services:
    """kubectl, as far as Services are looked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def json(self, *arguments: str) -> Any:
        self.asked.append(arguments)
        return {"spec": {"clusterIP": "10.96.0.7"}}


def test_the_clusters_names_mean_nothing_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    services = Services()
    phone = OutsidePhone(services, tmp_path)  # type: ignore[arg-type]
    said: list[tuple[str, ...]] = []
    monkeypatch.setattr(phone, "_run", lambda *arguments, **_: said.append(arguments) or {"ok": True})
    phone.download("dn.platform-dev.svc.cluster.local", 10, stall=2)
    phone.download("10.45.0.1", 10)
    assert services.asked == [("-n", "platform-dev", "get", "service", "dn")]
    assert [one[one.index("--host") + 1] for one in said] == ["10.96.0.7", "10.45.0.1"]
    assert said[0][said[0].index("--stall") + 1] == "2"


# In network and mount namespaces of the test's own: names of namespaces and links are the machine's.
SCRIPT = """
import json, subprocess, sys
from mvnobox.deploy.journey.outside import NAMESPACE, outside_phone
from tests.unit.deploy.test_outside_journey import EPC, SPEC, Services
subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
def seen(*command):
    return subprocess.run(command, capture_output=True, text=True).stdout
for _ in range(2):
    with outside_phone(SPEC, EPC, Services()) as phone:
        status = phone.status()
        address = json.loads(seen("ip", "-n", NAMESPACE, "-j", "-4", "address", "show", "dev", "eth0"))
        route = seen("ip", "route", "get", "198.51.100.254")
        way = seen("ip", "-n", NAMESPACE, "route", "get", "203.0.113.20")
    left = seen("ip", "netns") + seen("ip", "-br", "link", "show", "type", "veth")
print(json.dumps([status, address[0]["addr_info"][0]["local"], route, way, left]))
"""


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="network namespaces need root")
def test_a_phone_in_a_namespace_that_is_gone_afterwards(tmp_path: Path) -> None:
    environment = {**os.environ, "MVNO_HOME": str(tmp_path), "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    done = subprocess.run(
        ["unshare", "--net", "--mount", sys.executable, "-c", SCRIPT],
        env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    status, address, route, way, left = json.loads(done.stdout)
    assert status["testPeer"] is True and status["registered"] is False
    assert address == "198.51.100.254" and "dev mvno-hostnet" in route
    assert "via 169.254.113.1" in way and "src 198.51.100.254" in way
    assert left.strip() == ""
