"""Neutral inputs become resources, and what the operator cannot do is refused with cause and remedy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mvnobox.core.operator import (
    CoreInput,
    IpVersion,
    Need,
    Refused,
    Slice,
    SubscribedSlice,
    SubscriberInput,
    to_open5gs,
    to_open5gs_user,
)

CORE = CoreInput("core", "lab", "262", "98", (Slice(1, "00000A"), Slice(2)), region=3, set_id=4, tac=70)
KEY, OPC = "000102030405060708090a0b0c0d0e0f", "101112131415161718191a1b1c1d1e1f"
USER = SubscriberInput("262980000000001", key=KEY, opc=OPC, slices=(SubscribedSlice(Slice(1, "00000a")),))


def test_a_core() -> None:
    made = to_open5gs(replace(CORE, open5gs_image="docker.io/gradiant/open5gs:2.7.5", labels={"brand": "a"}))
    off = {"metrics": True, "serviceMonitor": False}
    assert made.to_object() == {
        "apiVersion": "net.gradiant.org/v1",
        "kind": "Open5GS",
        "metadata": {"name": "core", "namespace": "lab", "labels": {"brand": "a"}},
        "spec": {
            "open5gsImage": "docker.io/gradiant/open5gs:2.7.5",
            "amf": off,
            "pcf": off,
            "smf": off,
            "upf": off,
            "configuration": {
                "mcc": "262",
                "mnc": "98",
                "region": "3",
                "set": "4",
                "tac": "70",
                "slices": [{"sst": "1", "sd": "0x00000a"}, {"sst": "2", "sd": "0xffffff"}],
            },
        },
    }


def test_a_subscriber() -> None:
    made = to_open5gs_user(USER, CORE, keys_in_plain_text=True)
    assert made.to_object()["metadata"] == {"name": "imsi-262980000000001", "namespace": "lab"}
    assert made.to_object()["spec"] == {
        "imsi": "262980000000001",
        "key": KEY.upper(),
        "opc": OPC.upper(),
        "sst": "1",
        "sd": "00000a",
        "apn": "internet",
        "open5gs": {"name": "core", "namespace": "lab"},
    }


def test_a_slice_without_sd_is_said_and_not_left_empty() -> None:
    user = replace(USER, slices=(SubscribedSlice(Slice(2)),))
    assert to_open5gs_user(user, CORE, keys_in_plain_text=True).spec.sd == "ffffff"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        *(({"needs": frozenset({need})}, need.value) for need in Need),
        ({"ip": IpVersion.IPV6}, "ipv6"),
        ({"ip": IpVersion.IPV4V6}, "ipv6"),
        ({"dnns": ("internet", "ims")}, "second-dnn"),
        ({"dnns": ("ims",)}, "other-dnn"),
        ({"dnns": ()}, "no-dnn"),
        ({"pool": "10.46.0.0/16"}, "pool"),
        ({"slices": ()}, "no-slice"),
        ({"slices": (Slice(1, "00000a"), Slice(1, "00000A"))}, "same-slice"),
        ({"slices": (Slice(256),)}, "bad-slice"),
        ({"slices": (Slice(1, '1"\n  x'),)}, "bad-slice"),
        ({"mcc": "26"}, "bad-plmn"),
        ({"mcc": "٢٦٢"}, "bad-plmn"),
        ({"mnc": '98"\nx: "'}, "bad-plmn"),
        ({"mnc": "98\n"}, "bad-plmn"),
        ({"region": 256}, "bad-amf-id"),
        ({"set_id": 1024}, "bad-amf-id"),
        ({"tac": 0}, "bad-tac"),
        ({"tac": 0xFFFFFE}, "bad-tac"),
        ({"name": "Core"}, "bad-name"),
        ({"name": "c" * 52}, "bad-name"),
        ({"name": "core\n"}, "bad-name"),
        ({"namespace": ""}, "bad-name"),
        ({"open5gs_image": "no image"}, "bad-image"),
    ],
)
def test_a_core_that_cannot_be(change: dict[str, Any], code: str) -> None:
    with pytest.raises(Refused) as caught:
        to_open5gs(replace(CORE, **change))
    assert [item.code for item in caught.value.refusals] == [code]
    assert all(item.cause and item.remedy for item in caught.value.refusals)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"key": "465b5ce8b199b49faa5f0a2ee238a6bc"}, "public-key"),
        ({"opc": "E8ED289DEBA952E4283B54E88E6183CA"}, "public-key"),
        ({"key": ""}, "bad-key"),
        ({"opc": OPC[:-1]}, "bad-key"),
        ({"imsi": "26298"}, "bad-imsi"),
        ({"imsi": "262010000000001"}, "foreign-imsi"),
        ({"suspended": True}, "suspended"),
        ({"ip": IpVersion.IPV6}, "ipv6"),
        ({"slices": ()}, "no-slice"),
        ({"slices": (SubscribedSlice(Slice(1, "00000a")), SubscribedSlice(Slice(2)))}, "second-slice"),
        ({"slices": (SubscribedSlice(Slice(3)),)}, "foreign-slice"),
        ({"slices": (SubscribedSlice(Slice(2), ("internet", "ims")),)}, "second-dnn"),
        ({"slices": (SubscribedSlice(Slice(2), ("ims",)),)}, "other-dnn"),
    ],
)
def test_a_subscriber_that_cannot_be(change: dict[str, Any], code: str) -> None:
    with pytest.raises(Refused) as caught:
        to_open5gs_user(replace(USER, **change), CORE, keys_in_plain_text=True)
    assert [item.code for item in caught.value.refusals] == [code]
    assert all(item.cause and item.remedy for item in caught.value.refusals)


def test_plain_keys_must_be_acknowledged() -> None:
    with pytest.raises(Refused) as caught:
        to_open5gs_user(USER, CORE)
    assert [item.code for item in caught.value.refusals] == ["plain-keys"]


def test_all_reasons_at_once_and_no_key_in_them() -> None:
    with pytest.raises(Refused) as caught:
        to_open5gs_user(replace(USER, imsi=KEY, suspended=True), CORE)
    assert {item.code for item in caught.value.refusals} == {"plain-keys", "bad-imsi", "suspended"}
    assert KEY not in str(caught.value) and KEY not in repr(USER)
