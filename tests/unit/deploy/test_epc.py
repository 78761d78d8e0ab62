"""4G of an installation: what `up --epc` sets, whom `verify --access 4g` refuses, what its own steps ask for."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from mvnobox.cli.main import app
from mvnobox.deploy.epc import (
    check_epc,
    check_outside,
    check_pools,
    check_test_peer,
    epc_setting,
    home_realm,
    installed_epc,
    wanted_epc,
)
from mvnobox.deploy.installation import PROJECT, Installation
from mvnobox.deploy.journey import run as journey
from mvnobox.deploy.journey.steps import StepFailed
from mvnobox.errors import BadInput, EnvironmentUnfit
from mvnobox.render import BrandEdge, DiameterPeer, Epc, Outside
from mvnobox.spec import load_brand

ROOT = Path(__file__).resolve().parents[3]
SPEC = load_brand(ROOT / "brands/silverline.yaml")
OTHER = load_brand(ROOT / "brands/encore.yaml")
REALM = "epc.mnc093.mcc208.3gppnetwork.org"


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes the platform's setting `epc`, as Pulumi keeps it."""
    monkeypatch.setenv("MVNO_HOME", str(tmp_path))
    (tmp_path / "stacks").mkdir()

    def write(value: Any) -> Installation:
        config = {f"{PROJECT}:core": "open5gs"} | ({f"{PROJECT}:epc": value} if value is not None else {})
        (tmp_path / "stacks/Pulumi.platform.dev.yaml").write_text(yaml.safe_dump({"config": config}))
        return Installation("dev")

    return write


def test_the_first_brand_gives_the_realm_and_the_next_joins(platform: Any) -> None:
    assert home_realm(SPEC) == REALM
    first = wanted_epc(installed_epc(platform(None)), SPEC, "open5gs", asked=True)
    assert first == Epc(REALM, (SPEC.name,), test_peers=True)
    # Pulumi keeps what was given as text; what was set by path is an object.
    for kept in (epc_setting(first), json.loads(epc_setting(first))):
        there = installed_epc(platform(kept))
        assert there == first
        both = wanted_epc(there, OTHER, "open5gs", asked=True)
        assert both is not None and (both.realm, both.brands) == (REALM, (SPEC.name, OTHER.name))
        assert wanted_epc(both, OTHER, "open5gs", asked=True) == both
        # Not asked for again, it stays.
        assert (
            wanted_epc(there, OTHER, "open5gs", asked=False)
            == there
            == wanted_epc(there, SPEC, "simulated", asked=False)
        )


def test_what_an_operator_has_set_stays(platform: Any) -> None:
    own = Epc("epc.example.net", peers=(DiameterPeer("mme.host.example", "host.example", "198.51.100.7"),),
              host_networks=("198.51.100.0/24",), serving_gateway=True)  # fmt: skip
    found = wanted_epc(installed_epc(platform(epc_setting(own))), SPEC, "open5gs", asked=True)
    assert found is not None and (found.realm, found.peers, found.host_networks) == (
        own.realm,
        own.peers,
        own.host_networks,
    )
    assert found.test_peers and found.brands == (SPEC.name,)


def test_a_host_network_outside_stays_and_needs_a_way_in_that_the_cluster_has(platform: Any) -> None:
    outside = Outside("LoadBalancer", "203.0.113.19", (BrandEdge(SPEC.name, "203.0.113.20", "203.0.113.21"),))
    epc = Epc(REALM, (SPEC.name,), host_networks=("198.51.100.0/24",), outside=outside)
    installed = installed_epc(platform(epc_setting(epc)))
    assert installed == epc
    asked = wanted_epc(installed, OTHER, "open5gs", asked=True)
    assert asked is not None and asked.outside == outside and asked.brands == (SPEC.name, OTHER.name)
    with pytest.raises(EnvironmentUnfit, match="the embedded cluster has no load balancer") as refused:
        check_outside(installed, "embedded")
    assert "ExternalIPs" in str(refused.value.remedy)
    check_outside(installed, "existing")
    check_outside(dataclasses.replace(epc, outside=dataclasses.replace(outside, service="ExternalIPs")), "embedded")
    check_outside(dataclasses.replace(epc, outside=None), "embedded")
    check_outside(None, "embedded")


def test_no_4g_without_open5gs(platform: Any) -> None:
    for core in ("simulated", "operator"):
        with pytest.raises(BadInput, match="has no 4G"):
            check_epc(core, True)
        check_epc(core, False)
    check_epc("auto", True)
    with pytest.raises(EnvironmentUnfit, match="4G needs Open5GS, and the core here is simulated"):
        wanted_epc(None, SPEC, "simulated", asked=True)


@pytest.mark.parametrize("value", ["{", '{"realm": "x"}', "[]", '{"realms": "epc.example.net"}'])
def test_a_setting_that_cannot_be_used(platform: Any, value: str) -> None:
    with pytest.raises(BadInput, match=r"epc|realm of 4G"):
        installed_epc(platform(value))


@pytest.mark.parametrize(
    "epc",
    [None, Epc(REALM, (SPEC.name,)), Epc(REALM, (OTHER.name,), test_peers=True)],
    ids=["none", "no peer", "other"],
)
def test_a_journey_over_4g_needs_a_test_peer(platform: Any, epc: Epc | None) -> None:
    with pytest.raises(EnvironmentUnfit) as refused:
        check_test_peer(platform(epc_setting(epc) if epc else None), SPEC.name)
    assert "--epc --brand silverline" in str(refused.value.remedy)


def test_an_access_that_there_is_not() -> None:
    with pytest.raises(BadInput, match="there is no access '3g'"):
        app(["verify", "--access", "3g"], standalone_mode=False)


class Line:
    """BSS and phone of a customer who has used `used` octets, of which the phone carried `carried`."""

    def __init__(self, used: int, carried: int) -> None:
        self.used, self.carried, self.said = used, carried, list[str]()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        return [{"totalBalance": [{"units": "octets", "used": self.used if "deregister" in self.said else 0}]}]

    def exec_json(self, namespace: str, target: str, *command: str, stdin: str = "", timeout: float = 0) -> Any:
        assert (namespace, target) == ("silverline-dev-up", "deploy/hostnetwork")
        self.said.append(command[4])
        return {"ok": True, "address": "10.45.128.7", "receivedOctets": self.carried, "sentOctets": 0}


def run_of(line: Line) -> journey._Run4g:
    run = journey._Run4g(SPEC, "dev", line, line, "open5gs", [])  # type: ignore[arg-type]
    run.sim = {"address": "10.45.128.7"}
    return run


def test_the_address_is_of_4gs_half() -> None:
    run = run_of(Line(0, 0))
    assert run.address() == "10.45.128.7 of 10.45.128.0 to 10.45.255.254"
    run.sim["address"] = "10.45.127.255"
    with pytest.raises(StepFailed, match=r"not in 4G's part"):
        run.address()


def test_charged_is_what_was_carried_when_the_session_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(21_000_000, 21_000_000)
    run = run_of(line)
    assert run.charged() == "21000000 charged, 21000000 carried: 0 apart at the session's end"
    # Detached, and there again for what follows; what was carried before counts on.
    assert line.said == ["status", "deregister", "register"] and run.before == 21_000_000
    assert run.journey.document()["access"] == "4g"
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr(journey.time, "monotonic", lambda: float(next(clock)))
    with pytest.raises(StepFailed, match="16000000 charged, 21000000 carried"):
        run_of(Line(16_000_000, 21_000_000)).charged()


def test_pools_too_small_for_4g_are_refused_before_anything_is_touched() -> None:
    # Ten thousand lines, and 8,190 addresses in either half.
    networks = [SPEC.data_networks[0].model_copy(update={"pool": "10.45.0.0/18"}), *SPEC.data_networks[1:]]
    small = SPEC.model_copy(update={"data_networks": networks})
    assert small.lines == 10_000
    there = Epc(REALM, (SPEC.name,))
    for installed, core, asked in ((None, "open5gs", True), (there, "auto", False), (there, "open5gs", False)):
        check_pools(installed, SPEC, core, asked)
        with pytest.raises(BadInput, match="room for 8190 UEs") as found:
            check_pools(installed, small, core, asked)
        assert "a /17" in found.value.remedy
    for installed, core in ((None, "open5gs"), (there, "simulated"), (Epc(REALM, (OTHER.name,)), "open5gs")):
        check_pools(installed, small, core, asked=False)
