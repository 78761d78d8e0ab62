"""4G's configurations: every file against what the others expect of it, and input that is refused."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from mvnobox.charging.settings import OcsSettings
from mvnobox.core.hostnetwork.settings import HostNetworkSettings
from mvnobox.errors import BadInput
from mvnobox.render import (
    BrandPlan,
    CoreSlice,
    DiameterPeer,
    Epc,
    Images,
    PlatformPlan,
    brand_releases,
    platform_releases,
)
from mvnobox.render.epc import pool_ranges
from mvnobox.spec import load_brand

ROOT = Path(__file__).resolve().parents[3]
IMAGES = Images("kit/services:1", "kit/coresim:1", "kit/postgresql:1")
BRANDS = {file.stem: load_brand(file) for file in sorted((ROOT / "brands").glob("*.yaml"))}
REALM = "epc.mnc093.mcc208.3gppnetwork.org"
PEERS = (
    DiameterPeer("mme.host.example", "host.example", "198.51.100.7", 3869),
    DiameterPeer("dra.host.example", "host.example"),
)
EPC = Epc(REALM, tuple(BRANDS), PEERS, ("198.51.100.0/24",), True)
PLATFORM = PlatformPlan(
    "dev", IMAGES, core="open5gs", slices=tuple(CoreSlice.of(one) for one in BRANDS.values()), epc=EPC
)


def functions(plan: PlatformPlan | BrandPlan) -> dict[str, dict[str, Any]]:
    releases = platform_releases(plan) if isinstance(plan, PlatformPlan) else brand_releases(plan)
    return {one["name"]: one for release in releases for one in release.values.get("functions", [])}


def brand_plan(name: str, epc: Epc | None = EPC) -> BrandPlan:
    return BrandPlan("dev", BRANDS[name], IMAGES, core="open5gs", epc=epc)


def config(function: dict[str, Any]) -> dict[str, Any]:
    return dict(yaml.safe_load(function["config"]))


def identity(conf: str) -> tuple[str, str]:
    found = re.search(r'^Identity = "([^"]+)";\nRealm = "([^"]+)";$', conf, re.MULTILINE)
    assert found
    return found[1], found[2]


def connects(conf: str) -> dict[str, str]:
    return dict(re.findall(r'ConnectPeer = "([^"]+)" \{ ConnectTo = "([^"]+)";', conf))


def allowed(acl: str) -> list[str]:
    return re.findall(r"^ALLOW_IPSEC (\S+)$", acl, re.MULTILINE)


def test_off_by_default() -> None:
    names = functions(dataclasses.replace(PLATFORM, epc=None)).keys()
    assert not {"hss", "pcrf", "sgwc", "sgwu"} & names
    for name in BRANDS:
        assert "pgwc" not in functions(brand_plan(name, None))
        assert "range" not in config(functions(brand_plan(name, None))["smf"])["smf"]["session"][0]


def test_a_simulated_core_has_no_4g() -> None:
    releases = platform_releases(dataclasses.replace(PLATFORM, core="simulated"))
    ocs = next(one for one in releases if one.name == "ocs")
    assert "diameter" not in ocs.values and OcsSettings(**yaml.safe_load(ocs.values["config"])).diameter is None


def test_a_brand_that_is_not_named_has_none() -> None:
    first, second = list(BRANDS)[:2]
    only = dataclasses.replace(EPC, brands=(first,))
    assert "pgwc" in functions(brand_plan(first, only)) and "pgwc" not in functions(brand_plan(second, only))


def test_the_serving_gateway_is_an_option() -> None:
    names = functions(dataclasses.replace(PLATFORM, epc=dataclasses.replace(EPC, serving_gateway=False))).keys()
    assert {"hss", "pcrf"} <= names and not {"sgwc", "sgwu"} & names


@pytest.mark.parametrize("name", BRANDS)
def test_a_packet_gateway_reaches_its_peers_under_their_names(name: str) -> None:
    """Open5GS sends CCRs to its own realm, so PCRF and OCS have to be of it; both have to know the gateway."""
    conf = functions(brand_plan(name))["pgwc"]["files"]["pgwc.conf"]
    host, realm = identity(conf)
    pcrf = functions(PLATFORM)["pcrf"]["files"]
    ocs = next(one for one in platform_releases(PLATFORM) if one.name == "ocs")
    settings = OcsSettings(**yaml.safe_load(ocs.values["config"])).diameter
    assert settings is not None and settings.peers is not None
    assert connects(conf) == {
        identity(pcrf["pcrf.conf"])[0]: "pcrf.platform-dev.svc.cluster.local",
        settings.origin_host: "ocs.platform-dev.svc.cluster.local",
    }
    assert realm == identity(pcrf["pcrf.conf"])[1] == settings.origin_realm == REALM
    (peer,) = (one for one in settings.peers if one.host == host)
    assert (peer.brand, peer.final_units, peer.refuses_whole) == (name, False, True)
    assert 0 < peer.refusal_delay_seconds < 1
    (pattern,) = allowed(pcrf["pcrf.acl"])
    assert pattern.startswith("*.") and host.endswith(pattern[1:])


@pytest.mark.parametrize("name", BRANDS)
def test_the_packet_gateway_stands_apart_from_5g(name: str) -> None:
    mine = functions(brand_plan(name))
    smf, pgwc, upf = (config(mine[one])[key] for one, key in (("smf", "smf"), ("pgwc", "smf"), ("upf", "upf")))
    # An AMF finds SMFs in the NRF: this one is in none. Gy is on here and off there.
    assert "sbi" not in pgwc and pgwc["ctf"]["enabled"] is True and smf["ctf"]["enabled"] is False
    (server,) = upf["pfcp"]["server"]
    (client,) = pgwc["pfcp"]["client"]["upf"]
    assert client["address"] == server["advertise"]
    assert client["dnn"] == [one.name for one in BRANDS[name].data_networks]


@pytest.mark.parametrize("name", BRANDS)
def test_two_smfs_never_give_one_address(name: str) -> None:
    mine = functions(brand_plan(name))
    for network in BRANDS[name].data_networks:
        seen = []
        for function in ("smf", "pgwc"):
            sessions = config(mine[function])["smf"]["session"]
            (session,) = (one for one in sessions if one["dnn"] == network.name)
            (part,) = session["range"]
            low, high = (ipaddress.IPv4Address(one) for one in part.split("-"))
            assert low <= high and {low, high} <= set(map(ipaddress.IPv4Address, (low, high)))
            assert low in network.network and high in network.network and session["gateway"] == network.gateway
            seen.append((low, high))
        (_, end_of_5g), (start_of_4g, end) = seen
        assert end_of_5g + 1 == start_of_4g and end < network.network.broadcast_address
        assert seen[0][0] > ipaddress.IPv4Address(network.gateway)


def test_the_smallest_pool_has_room_for_both() -> None:
    brand = next(iter(BRANDS.values()))
    small = brand.model_copy(
        update={"data_networks": [brand.data_networks[0].model_copy(update={"pool": "10.60.0.0/29"})]}
    )
    (ranges,) = pool_ranges(small).values()
    assert (ranges.of_5g, ranges.of_4g) == ("10.60.0.2-10.60.0.3", "10.60.0.4-10.60.0.6")


@pytest.mark.parametrize("name", BRANDS)
def test_a_test_peer_finds_hss_and_packet_gateway(name: str) -> None:
    asked = dataclasses.replace(EPC, test_peers=True)
    (release,) = (one for one in brand_releases(brand_plan(name, asked)) if one.chart == "hostnetwork")
    settings = HostNetworkSettings(**yaml.safe_load(release.values["config"]))
    platform = functions(dataclasses.replace(PLATFORM, epc=asked))
    assert (settings.hss.host, settings.hss.realm) == identity(platform["hss"]["files"]["hss.conf"])
    assert settings.hss.address == "hss.platform-dev.svc.cluster.local"
    assert settings.pgw == f"pgwc.{name}-dev.svc.cluster.local"
    assert settings.plmn.mcc + settings.plmn.mnc == BRANDS[name].plmn.mcc + BRANDS[name].plmn.mnc
    # freeDiameter's list knows wildcards: a new brand does not restart the HSS.
    (pattern,) = (one for one in allowed(platform["hss"]["files"]["hss.acl"]) if one.startswith("*."))
    assert settings.mme.host.endswith(pattern[1:]) and settings.mme.host.endswith(settings.mme.realm)
    assert "hostnetwork" not in {one.chart for one in brand_releases(brand_plan(name))}


def test_peers_of_the_host_network() -> None:
    files = functions(PLATFORM)["hss"]["files"]
    assert identity(files["hss.conf"]) == (f"hss.{REALM}", REALM)
    assert connects(files["hss.conf"]) == {"mme.host.example": "198.51.100.7"} and "Port = 3869" in files["hss.conf"]
    # Whoever connects by itself has to be in the list, and nobody else is.
    assert allowed(files["hss.acl"]) == ["dra.host.example"]


def test_a_new_brand_does_not_restart_the_pcrf() -> None:
    first = next(iter(BRANDS))
    fewer = functions(dataclasses.replace(PLATFORM, epc=dataclasses.replace(EPC, brands=(first,))))
    assert fewer["pcrf"] == functions(PLATFORM)["pcrf"] and fewer["hss"] == functions(PLATFORM)["hss"]


@pytest.mark.parametrize("name", ["hss", "pcrf"])
def test_subscribers_are_the_directorys(name: str) -> None:
    assert config(functions(PLATFORM)[name])["db_uri"].startswith("mongodb://directory.platform-dev.svc.")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: Epc("realm"), "the realm of 4G"),
        (lambda: Epc('a.b"; No_TLS'), "the realm of 4G"),
        (lambda: Epc(REALM, brands=("A b",)), "a brand with 4G is called 'A b'"),
        (lambda: Epc(REALM, brands=("alpha", "alpha")), "a brand with 4G is there twice"),
        (lambda: Epc(REALM, host_networks=("0.0.0.0/0",)), "open to everybody"),
        (lambda: Epc(REALM, host_networks=("10.0.0.1/8",)), "host bits"),
        (lambda: Epc(REALM, peers=(PEERS[0], PEERS[0])), "twice"),
        (lambda: DiameterPeer("mme", "host.example"), "peer's host"),
        (lambda: DiameterPeer("mme.host.example", "x\n"), "the realm of the Diameter peer mme.host.example"),
        (lambda: DiameterPeer("mme.host.example", "host.example", "nowhere"), "the address"),
        (lambda: DiameterPeer("mme.host.example", "host.example", port=0), "the port"),
    ],
)
def test_refused(wrong: Any, said: str) -> None:
    with pytest.raises(BadInput, match=re.escape(said)):
        wrong()


@pytest.fixture
def epc_from(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The reader of the stacks' setting."""
    monkeypatch.syspath_prepend(str(ROOT / "stacks"))
    from components.settings import epc_from

    return epc_from


def test_the_setting_of_stacks(epc_from: Any) -> None:
    peers = [
        {"host": "mme.host.example", "realm": "host.example", "address": "198.51.100.7", "port": 3869},
        {"host": "dra.host.example", "realm": "host.example"},
    ]
    given = {"realm": REALM, "brands": list(BRANDS), "peers": peers, "hostNetworks": ["198.51.100.0/24"]}
    assert epc_from({**given, "servingGateway": True}) == EPC
    assert epc_from({"realm": REALM}) == Epc(REALM) and epc_from(None) is None
    tested = dataclasses.replace(EPC, test_peers=True)
    assert epc_from(tested.setting) == tested and epc_from(EPC.setting) == EPC


@pytest.mark.parametrize(
    "wrong",
    [
        "x",
        {"brands": ["alpha"]},
        {"realm": REALM, "brands": "alpha"},
        {"realm": REALM, "servingGateway": "yes"},
        {"realm": REALM, "testPeers": 1},
        {"realm": REALM, "hostNetwork": []},
        {"realm": REALM, "peers": [{"hosst": "mme.host.example"}]},
    ],
)
def test_settings_that_are_refused(epc_from: Any, wrong: Any) -> None:
    with pytest.raises(BadInput, match="the setting epc is"):
        epc_from(wrong)


def test_a_pool_whose_half_has_no_room_for_all_lines_is_refused_with_4g(tmp_path: Path) -> None:
    data = yaml.safe_load((ROOT / "brands/silverline.yaml").read_text())
    numbers = {"first": "+33639980000", "last": "+33639980199"}

    def brand(pool: str) -> BrandPlan:
        networks = [{**data["dataNetworks"][0], "pool": pool}, *data["dataNetworks"][1:]]
        file = tmp_path / "brand.yaml"
        file.write_text(yaml.safe_dump({**data, "numberRange": numbers, "dataNetworks": networks}))
        return BrandPlan("dev", load_brand(file), IMAGES, core="open5gs", epc=EPC)

    # 200 lines, 253 addresses: room for 5G alone, 126 of them with 4G.
    small = brand("10.45.7.0/24")
    assert brand_releases(dataclasses.replace(small, epc=None))
    with pytest.raises(BadInput, match=r"room for 126 UEs.*200 lines") as found:
        brand_releases(small)
    assert "a /23" in found.value.remedy
    assert brand_releases(brand("10.45.6.0/23"))
    halves = pool_ranges(brand("10.45.6.0/23").brand).popitem()[1]
    for half, room in ((halves.of_5g, 254), (halves.of_4g, 255)):
        first, last = (int(ipaddress.IPv4Address(end)) for end in half.split("-"))
        assert last - first + 1 == room
