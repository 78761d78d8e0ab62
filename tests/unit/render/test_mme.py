"""An MME's configuration against what HSS, gateways and subscribers expect of it, and what is refused."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from mvnobox.errors import BadInput
from mvnobox.render import BrandEdge, CoreSlice, Epc, Images, Mme, Outside, PlatformPlan, Plmn, platform_releases
from mvnobox.spec import load_brand

REALM = "epc.mnc093.mcc208.3gppnetwork.org"
BRAND = load_brand(Path(__file__).resolve().parents[3] / "brands/silverline.yaml")
MME = Mme((("gold", "encore"), ("silverline", "silverline")), ("192.0.2.0/24",), tac=7)
EPC = Epc(REALM, brands=("silverline", "encore"), serving_gateway=True, mme=MME)
PLAN = PlatformPlan(
    "dev",
    Images("s:1", "c:1", "p:1"),
    core="open5gs",
    slices=(CoreSlice.of(BRAND), CoreSlice(Plmn("302", "720"), 1, None)),
    epc=EPC,
)


def functions(epc: Epc | None = EPC) -> dict[str, Any]:
    releases = platform_releases(dataclasses.replace(PLAN, epc=epc))
    return {one["name"]: one for one in next(one for one in releases if one.name == "core").values["functions"]}


def test_it_serves_every_plmn_with_its_tracking_area() -> None:
    mme = yaml.safe_load(functions()["mme"]["config"])["mme"]
    plmns = [{"mcc": "208", "mnc": "93"}, {"mcc": "302", "mnc": "720"}]
    assert [one["plmn_id"] for one in mme["gummei"]] == plmns
    assert [(one["plmn_id"], one["tac"]) for one in mme["tai"]] == [(plmn, 7) for plmn in plmns]
    # Never without integrity.
    assert "EIA0" not in mme["security"]["integrity_order"]


def test_each_apn_goes_to_its_brands_packet_gateway() -> None:
    def gateways(epc: Epc) -> dict[str, str]:
        client = yaml.safe_load(functions(epc)["mme"]["config"])["mme"]["gtpc"]["client"]
        assert client["sgwc"] == [{"address": "sgwc.platform-dev.svc.cluster.local"}]
        return {one["apn"]: one["address"] for one in client["smf"]}

    assert gateways(EPC) == {
        "gold": "pgwc.encore-dev.svc.cluster.local",
        "silverline": "pgwc.silverline-dev.svc.cluster.local",
    }
    # One that a host network outside dials is beside its brand's user plane.
    outside = Outside("ExternalIPs", None, (BrandEdge("encore", "203.0.113.20", "203.0.113.21"),))
    moved = dataclasses.replace(EPC, outside=outside, host_networks=("198.51.100.0/24",))
    assert gateways(moved)["gold"] == "pgwc.encore-dev-up.svc.cluster.local"


def test_the_hss_knows_it() -> None:
    found = functions()
    conf = found["mme"]["files"]["mme.conf"]
    host = re.search(r'^Identity = "(.+)";', conf, re.MULTILINE)
    assert host and f"ALLOW_IPSEC {host[1]}\n" in found["hss"]["files"]["hss.acl"] + "\n"
    assert f'ConnectPeer = "hss.{REALM}" {{ ConnectTo = "hss.platform-dev.svc.cluster.local"; No_TLS; }};' in conf
    plain = functions(dataclasses.replace(EPC, mme=None))
    assert "mme" not in plain and "mme" not in plain["hss"]["files"]["hss.acl"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: Mme((), ("192.0.2.0/24",)), "no APNs"),
        (lambda: Mme((("a_b", "silverline"),), ("192.0.2.0/24",)), "an APN of the MME is 'a_b'"),
        (lambda: Mme((("x.gprs", "silverline"),), ("192.0.2.0/24",)), "an APN of the MME"),
        (lambda: Mme((("rack", "silverline"),), ("192.0.2.0/24",)), "an APN of the MME"),
        (lambda: Mme(MME.apns, ()), "policies let nobody in on S1"),
        (lambda: Mme(MME.apns, ("0.0.0.0/0",)), "open to everybody"),
        (lambda: Mme(MME.apns, ("192.0.2.1/24",)), "host bits"),
        (lambda: Mme(MME.apns, MME.enbs, 0), "tac is 0"),
        (lambda: Mme(MME.apns, MME.enbs, True), "tac is True"),
        (lambda: dataclasses.replace(EPC, serving_gateway=False), "no serving gateway here"),
        (lambda: dataclasses.replace(EPC, brands=("silverline",)), "the APN gold is at 'encore'"),
    ],
)
def test_refused(wrong: Any, said: str) -> None:
    with pytest.raises(BadInput, match=re.escape(said)):
        wrong()


def test_the_setting_there_and_back() -> None:
    assert Epc.of_setting(EPC.setting) == EPC
    given = {"realm": REALM, "brands": ["silverline"], "servingGateway": True}
    found = Epc.of_setting({**given, "mme": {"apns": {"silverline": "silverline"}, "enbs": ["192.0.2.0/24"]}})
    assert found is not None and found.mme is not None and found.mme.tac == 1


@pytest.mark.parametrize(
    "wrong", ["x", {"enbs": []}, {"apns": ["a"], "enbs": []}, {"apns": {"a": "b"}, "enbs": "x"}, {"apns": {}, "x": 1}]
)
def test_settings_that_are_refused(wrong: Any) -> None:
    with pytest.raises(BadInput, match="mme of the setting epc is"):
        Epc.of_setting({"realm": REALM, "brands": ["silverline"], "servingGateway": True, "mme": wrong})
