"""A brand with a pool6: what of it is in whose configuration, and that a brand without one is as it was."""

from __future__ import annotations

import ipaddress
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from mvnobox.core.sim.settings import SmfSettings, UpfSettings
from mvnobox.errors import BadInput
from mvnobox.n4.settings import CtfSettings
from mvnobox.render import BrandPlan, Epc, Images, brand_releases
from mvnobox.render.epc import pool_ranges
from mvnobox.spec import BrandSpec, parse_brand

ROOT = Path(__file__).resolve().parents[3]
IMAGES = Images("kit/services:1", "kit/coresim:1", "kit/postgresql:1")
EPC = Epc("epc.mnc093.mcc208.3gppnetwork.org", ("silverline",))
POOL6, GATEWAY6 = "fd45:6a70:1c00::/48", "fd45:6a70:1c00::1"
SILVERLINE = (ROOT / "brands/silverline.yaml").read_text(encoding="utf-8")


def brand(pool6: str | None = POOL6, dns: str = "[9.9.9.9]") -> BrandSpec:
    text = SILVERLINE.replace("dns: [9.9.9.9]", f"dns: {dns}")
    if pool6 is not None:
        text = text.replace("    mtu: 1400", f"    pool6: {pool6}\n    mtu: 1400")
    return parse_brand(text, "silverline.yaml")


def releases(spec: BrandSpec, core: Any = "open5gs", epc: Epc | None = None) -> dict[str, dict[str, Any]]:
    """Functions by name, and what the other charts' configurations are."""
    found: dict[str, dict[str, Any]] = {}
    for release in brand_releases(BrandPlan("dev", spec, IMAGES, core=core, epc=epc)):
        found |= {one["name"]: one for one in release.values.get("functions", [])}
        found |= {part: release.values[part] for part in ("smf", "upf") if part in release.values}
        if release.chart == "ctf":
            found["ctf"] = dict(release.values)
    return found


def config(function: dict[str, Any]) -> dict[str, Any]:
    return dict(yaml.safe_load(function["config"]))


def test_session_management_and_user_plane_agree() -> None:
    mine = releases(brand())
    for name, more in (("smf", {}), ("upf", {"dev": "tun0"})):
        sessions = config(mine[name])[name]["session"]
        assert sessions == [
            {"subnet": "10.45.0.0/16", "gateway": "10.45.0.1", "dnn": "silverline", **more},
            {"subnet": POOL6, "gateway": GATEWAY6, "dnn": "silverline", **more},
        ]
        assert mine[name]["ipv6"] is True
    # Router solicitations come to the SMF by GTP-U.
    assert {"name": "gtpu", "port": 2152, "protocol": "UDP"} in mine["smf"]["ports"]


def test_without_a_pool6_nothing_is_different() -> None:
    mine = releases(brand(None), epc=EPC)
    for name in ("smf", "upf", "pgwc"):
        assert "ipv6" not in mine[name] and "::" not in mine[name]["config"]
    assert "ip6" not in mine["upf"]["prepare"] and "gtpu" not in {one["name"] for one in mine["smf"]["ports"]}
    assert "ipv6" not in releases(brand(None), core="simulated")["upf"]


@pytest.mark.parametrize(
    ("dns", "expected"),
    [
        ("[9.9.9.9]", ["9.9.9.9"]),
        ("[9.9.9.9, '2620:fe::fe']", ["9.9.9.9", "2620:fe::fe"]),
        ("[]", ["9.9.9.9", "149.112.112.112", "2620:fe::fe", "2620:fe::9"]),
    ],
)
def test_resolvers(dns: str, expected: list[str]) -> None:
    assert config(releases(brand(dns=dns))["smf"])["smf"]["dns"] == expected


@pytest.mark.parametrize("pool6", [POOL6, "fd45:6a70:1c00:8::/61", "2a0e:9e80:100::/40"])
def test_two_smfs_never_give_one_prefix(pool6: str) -> None:
    spec = brand(pool6) if pool6 != "fd45:6a70:1c00:8::/61" else _small(pool6)
    mine = releases(spec, epc=EPC)
    pool = ipaddress.IPv6Network(pool6)
    parts = []
    for function in ("smf", "pgwc"):
        [session] = [one for one in config(mine[function])["smf"]["session"] if ":" in one["subnet"]]
        assert session["subnet"] == pool6 and session["gateway"] == str(pool[1])
        [part] = session["range"]
        low, high = (ipaddress.IPv6Address(one) for one in part.split("-"))
        assert low in pool and high in pool and int(low) % 2**64 == int(high) % 2**64 == 0
        parts.append((int(low) >> 64, int(high) >> 64))
    (first, end_of_5g), (start_of_4g, last) = parts
    base = int(pool[0]) >> 64
    # The gateway's /64 and the last one are nobody's.
    assert (first, last) == (base + 1, base + 2 ** (64 - pool.prefixlen) - 2)
    assert end_of_5g + 1 == start_of_4g and end_of_5g - first < 2 ** (63 - pool.prefixlen)
    assert mine["pgwc"]["ipv6"] is True


def _small(pool6: str) -> BrandSpec:
    """A brand with so few lines that both halves of a /61 have room for them."""
    spec = brand()
    networks = [one.model_copy(update={"pool6": pool6}) for one in spec.data_networks]
    few = spec.msin_range.model_copy(update={"last": "0000000003"})
    return spec.model_copy(update={"data_networks": networks, "msin_range": few})


def test_4g_needs_a_prefix_for_each_line_in_either_half() -> None:
    # Room for 16382 lines, in each half for 8191 of the 10000.
    with pytest.raises(BadInput, match=r"room for 8191 UEs of a /64 each(?s:.*)a /49 in the brand's file"):
        releases(brand("fd45:6a70:1c00::/50"), epc=EPC)
    releases(brand("fd45:6a70:1c00::/50"))
    releases(brand("fd45:6a70:1c00::/49"), epc=EPC)


def test_ranges_without_a_pool6_are_empty() -> None:
    [ranges] = pool_ranges(brand(None)).values()
    assert (ranges.of_5g6, ranges.of_4g6) == ("", "")


def test_the_simulated_core_takes_its_settings() -> None:
    mine = releases(brand(), core="simulated")
    for name, model in (("smf", SmfSettings), ("upf", UpfSettings)):
        settings = model(**yaml.safe_load(mine[name]["config"]))
        assert (settings.dnns[0].pool6, settings.dnns[0].gateway6) == (POOL6, GATEWAY6)  # type: ignore[attr-defined]
        assert mine[name]["ipv6"] is True
    denied = [ipaddress.ip_network(one) for one in UpfSettings(**yaml.safe_load(mine["upf"]["config"])).deny]
    for address, closed in (
        ("fd00::1", True), ("fe80::1", True), ("ff02::1", True), ("::1", True), ("64:ff9b::a60:1", True),
        ("2002:a60:1::1", True), ("2606:4700::1111", False), ("10.96.0.1", True), ("1.1.1.1", False),
    ):  # fmt: skip
        assert any(ipaddress.ip_address(address) in one for one in denied) is closed, address


def test_the_ctf_knows_of_a_user_plane_that_ignores_drop() -> None:
    for core, ignores in (("open5gs", True), ("simulated", False)):
        assert CtfSettings(**config(releases(brand(), core=core)["ctf"])).upf_ignores_drop is ignores


def test_the_script_is_one() -> None:
    for spec in (brand(), brand(None), brand("2a0e:9e80:100::/40")):
        done = subprocess.run(["sh", "-n"], input=releases(spec)["upf"]["prepare"], text=True, capture_output=True)
        assert done.returncode == 0, done.stderr
    # Global addresses are not translated, nor are unique local ones that are routed.
    routed = brand().model_copy(
        update={"data_networks": [one.model_copy(update={"routed": True}) for one in brand().data_networks]}
    )
    for spec, translated in ((brand(), True), (brand("2a0e:9e80:100::/40"), False), (routed, False)):
        assert ("masquerade" in releases(spec)["upf"]["prepare"].split("table ip6")[1]) is translated
