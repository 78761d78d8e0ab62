"""The SEPP's configuration, and what is refused before it is applied."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from mvnobox.errors import BadInput
from mvnobox.render import CoreSlice, Images, Plmn, Roaming
from mvnobox.render.open5gs import control_plane

OURS = {"mcc": "208", "mnc": "93"}
THEIRS: dict[str, Any] = {"plmn": {"mcc": "262", "mnc": "01"}, "networks": ["203.0.113.0/28"]}
SETTING: dict[str, Any] = {"plmn": OURS, "tlsSecret": "sepp-tls", "partners": [THEIRS]}
IMAGES = Images(services="s:1", coresim="c:1", postgresql="p:1")


def core(setting: dict[str, Any], *slices: CoreSlice) -> dict[str, Any]:
    known = slices or (CoreSlice(Plmn("208", "93"), 1, "000001"),)
    return control_plane("platform-x", known, IMAGES, roaming=Roaming.of_setting(setting))


def test_a_sepp_speaks_tls_on_both_sides_or_not_at_all() -> None:
    second = {**THEIRS, "plmn": {"mcc": "310", "mnc": "260"}, "address": "203.0.113.9", "port": 8443}
    values = core({**SETTING, "partners": [THEIRS, second]})
    (sepp,) = [one for one in values["functions"] if one["name"] == "sepp"]
    config = yaml.safe_load(sepp["config"])["sepp"]
    (server,) = config["n32"]["server"]
    assert server["verify_client"] is True and server["verify_client_cacert"] == "/etc/mvno-tls/ca.crt"
    assert (server["sender"], server["scheme"]) == ("sepp.5gc.mnc093.mcc208.3gppnetwork.org", "https")
    one, two = config["n32"]["client"]["sepp"]
    ours = {"client_private_key": "/etc/mvno-tls/tls.key", "client_cert": "/etc/mvno-tls/tls.crt"}
    assert one == {
        **ours,
        "cacert": "/etc/mvno-tls/ca.crt",
        "receiver": "sepp.5gc.mnc001.mcc262.3gppnetwork.org",
        "target_plmn_id": {"mcc": "262", "mnc": "01"},
        "uri": "https://sepp.5gc.mnc001.mcc262.3gppnetwork.org:443",
    }
    assert (two["resolve"], two["uri"]) == ("203.0.113.9", "https://sepp.5gc.mnc260.mcc310.3gppnetwork.org:8443")
    assert values["roaming"] == {"networks": ["203.0.113.0/28"], "ports": [443, 8443]}
    assert sepp["tlsSecret"] == "sepp-tls"


def test_without_the_setting_there_is_no_sepp() -> None:
    assert Roaming.of_setting(None) is None
    values = control_plane("platform-x", [CoreSlice(Plmn("208", "93"), 1, None)], IMAGES)
    assert "sepp" not in {one["name"] for one in values["functions"]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tlsSecret": ""}, "never without TLS"),
        ({"tlsSecret": "../x"}, "never without TLS"),
        ({"partners": []}, "no partners"),
        ({"partners": [{**THEIRS, "plmn": OURS}]}, "our own network"),
        ({"partners": [THEIRS, THEIRS]}, "there twice"),
        ({"partners": [{**THEIRS, "networks": []}]}, "no networks"),
        ({"partners": [{**THEIRS, "networks": ["0.0.0.0/0"]}]}, "open to everybody"),
        ({"partners": [{**THEIRS, "networks": ["::/0"]}]}, "open to everybody"),
        ({"partners": [{**THEIRS, "networks": ["203.0.113.1/28"]}]}, "host bits"),
        ({"partners": [{**THEIRS, "address": "198.51.100.1"}]}, "none of its networks"),
        ({"partners": [{**THEIRS, "address": "sepp.example"}]}, "an IP address"),
        ({"partners": [{**THEIRS, "port": 0}]}, "1 to 65535"),
        ({"partners": [{**THEIRS, "fqdn": "sepp\nx: y.example"}]}, "a host name in full"),
        ({"partners": [{**THEIRS, "plmn": {"mcc": 262, "mnc": 1}}]}, "in quotes"),
        ({"partners": [{**THEIRS, "surprise": 1}]}, "docs/open5gs.md"),
        ({"partners": "all"}, "docs/open5gs.md"),
        ({"service": "ExternalName"}, "one of ClusterIP"),
        ({"plmn": {"mcc": "262", "mnc": "02"}}, "no brand has this PLMN"),
    ],
)
def test_what_is_refused_says_why(change: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput) as refused:
        core({**SETTING, **change})
    assert said in f"{refused.value} {refused.value.remedy}"
