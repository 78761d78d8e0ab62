"""TLS between Open5GS's functions: on for all of them or for none, everybody by a name that is in its certificate."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from mvnobox.errors import BadInput
from mvnobox.render import (
    BrandPlan,
    CoreSlice,
    Images,
    Partner,
    PlatformPlan,
    Release,
    Roaming,
    SbiTls,
    brand_releases,
    platform_releases,
)
from mvnobox.render.sbi_tls import BRAND_FUNCTIONS, PLATFORM_FUNCTIONS, check_agreement, sbi_hosts
from mvnobox.spec import load_brand

IMAGES = Images("kit/services:1", "kit/coresim:1", "kit/postgresql:1")
BRAND = load_brand(Path(__file__).resolve().parents[3] / "brands/silverline.yaml")
ROAMING = Roaming("208", "93", "sepp-tls", (Partner("262", "01", ("203.0.113.0/28",)),))
HOSTS = {*sbi_hosts("platform-dev", PLATFORM_FUNCTIONS), *sbi_hosts("silverline-dev", BRAND_FUNCTIONS)}


def releases(tls: SbiTls | None) -> list[Release]:
    platform = PlatformPlan("dev", IMAGES, core="open5gs", slices=(CoreSlice.of(BRAND),), roaming=ROAMING, sbi_tls=tls)
    return [
        *platform_releases(platform),
        *brand_releases(BrandPlan("dev", BRAND, IMAGES, core="open5gs", sbi_tls=tls)),
    ]


def configs(tls: SbiTls | None) -> dict[str, Any]:
    """The functions' configurations, the directory's among them."""
    found = {}
    for release in releases(tls):
        if release.chart == "open5gs":
            found |= {one["name"]: yaml.safe_load(one["config"]) for one in release.values["functions"]}
        elif release.chart == "directory":
            found["directory"] = yaml.safe_load(release.values["config"])
    return found


def called(config: Any) -> list[str]:
    """The addresses that a configuration has of others on the SBI, and its own name there."""
    text = yaml.safe_dump(config)
    return re.findall(r"https?://[^\s'\"]+", text) + re.findall(r"advertise: (\S+)", text)


FUNCTIONS = (*(one for one in PLATFORM_FUNCTIONS if one != "directory"), *BRAND_FUNCTIONS)


def test_every_function_serves_and_calls_with_certificates_on_both_sides() -> None:
    found = configs(SbiTls())
    for name in FUNCTIONS:
        tls = found[name][name]["default"]["tls"]
        at = "/etc/mvno-sbi-tls"
        files = f"{at}/tls.key", f"{at}/tls.crt", f"{at}/ca.crt"
        server, client = tls["server"], tls["client"]
        assert server["scheme"] == client["scheme"] == "https" and server["verify_client"] is True, name
        assert (server["private_key"], server["cert"], server["verify_client_cacert"]) == files
        assert (client["client_private_key"], client["client_cert"], client["cacert"]) == files
        assert "insecure_skip_verify" not in yaml.safe_dump(found[name])


def test_everybody_is_called_by_a_name_of_its_certificate() -> None:
    found = configs(SbiTls())
    for name in (*FUNCTIONS, "directory"):
        config = found[name] if name == "directory" else {"sbi": found[name][name]["sbi"]}
        for address in called(config):
            host = address.removeprefix("https://").partition(":")[0]
            assert host in HOSTS, f"{name}: {address}"
    assert called({"nssf": found["nssf"]["nssf"]["sbi"]["client"]["nsi"]})[0].startswith("https://nrf.")
    assert found["directory"]["amf"] == "https://amf.platform-dev.svc.cluster.local:7777"
    assert found["directory"]["amfTls"] == {
        "ca": "/etc/mvno-sbi-tls/ca.crt",
        "cert": "/etc/mvno-sbi-tls/tls.crt",
        "key": "/etc/mvno-sbi-tls/tls.key",
    }


def test_subscribers_are_read_over_tls_too() -> None:
    found = configs(SbiTls())
    assert found["directory"]["tls"] == {"cert": "/etc/mvno-sbi-tls/tls.crt", "key": "/etc/mvno-sbi-tls/tls.key"}
    for name in ("udr", "pcf"):
        uri = found[name]["db_uri"]
        assert uri.endswith(":27017/open5gs?tls=true&tlsCAFile=/etc/mvno-sbi-tls/ca.crt")
        assert uri.removeprefix("mongodb://").partition(":")[0] in HOSTS


def test_without_it_nothing_of_it_is_there() -> None:
    found = configs(None)
    for name in FUNCTIONS:
        assert "default" not in found[name][name]
        assert not [one for one in called(found[name][name]["sbi"]) if one.startswith("https")]
    assert "amfTls" not in found["directory"] and "tls" not in found["directory"]
    assert "tls" not in found["udr"]["db_uri"]
    assert not [one for one in releases(None) if "sbiTls" in one.values or "sbi-tls" in one.secrets]


def test_n32_has_certificates_of_its_own() -> None:
    for tls in (None, SbiTls()):
        n32 = configs(tls)["sepp"]["sepp"]["n32"]
        (server,), (partner,) = n32["server"], n32["client"]["sepp"]
        assert server["cert"] == partner["client_cert"] == "/etc/mvno-tls/tls.crt"
        assert server["verify_client_cacert"] == partner["cacert"] == "/etc/mvno-tls/ca.crt"


def test_secrets_are_awaited_where_the_kit_makes_them() -> None:
    for tls, made, name in ((SbiTls(), ("sbi-tls",), "sbi-tls"), (SbiTls("ours"), (), "ours")):
        found = {(one.namespace, one.name): one for one in releases(tls)}
        for place in ("platform-dev", "silverline-dev"):
            core = found[place, "core"]
            assert core.secrets == made and core.values["sbiTls"] == {"secret": name}
        directory = found["platform-dev", "directory"]
        assert directory.secrets == ("directory-env", *made) and directory.values["sbiTls"] == {"secret": name}
        assert "sbiTls" not in found["silverline-dev-up", "user-plane"].values


@pytest.mark.parametrize("setting", [{"automatic": True}, {"secret": "our-sbi"}])
def test_settings_there_and_back(setting: dict[str, Any]) -> None:
    found = SbiTls.of_setting(setting)
    assert found is not None and found.setting == setting
    assert found.secret == setting.get("secret", "sbi-tls")
    assert SbiTls.of_setting(None) is None


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"secret": "Not_A_Name"}, "lower-case letters"),
        ({"secret": "../etc"}, "lower-case letters"),
        ({"secret": "x" * 64}, "lower-case letters"),
        ({"secret": 5}, "lower-case letters"),
        ({"secret": "sbi-tls"}, "the kit's own"),
        ({"secret": None}, "docs/open5gs.md"),
        ({"automatic": False}, "docs/open5gs.md"),
        ({"automatic": True, "secret": "x"}, "docs/open5gs.md"),
        ({}, "docs/open5gs.md"),
        (True, "docs/open5gs.md"),
        ("automatic", "docs/open5gs.md"),
    ],
)
def test_what_is_refused_says_why(value: Any, said: str) -> None:
    with pytest.raises(BadInput) as refused:
        SbiTls.of_setting(value)
    assert said in f"{refused.value} {refused.value.remedy}"


@pytest.mark.parametrize("core", ["simulated", "operator"])
def test_a_core_without_an_sbi_has_no_tls_on_it(core: str) -> None:
    with pytest.raises(BadInput, match=f"the core is {core}"):
        SbiTls.of_setting({"automatic": True}, core)
    assert SbiTls.of_setting(None, core) is None


def test_brand_and_platform_agree_or_nothing_is_made() -> None:
    check_agreement(None, None)
    check_agreement(SbiTls(), {"automatic": True})
    check_agreement(SbiTls("ours"), {"secret": "ours"})
    for brand, platform in ((None, {"automatic": True}), (SbiTls(), None), (SbiTls("ours"), {"automatic": True})):
        with pytest.raises(BadInput, match="the platform's SBI is") as refused:
            check_agreement(brand, platform)
        assert "same setting sbiTls" in refused.value.remedy
