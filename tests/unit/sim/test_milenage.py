"""Milenage against every test set of TS 35.208."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mvnobox.core.sim.milenage import derive_opc, milenage

SETS = json.loads((Path(__file__).parent / "data" / "milenage_ts35208.json").read_text())["sets"]


def test_the_sets_are_all_there() -> None:
    assert [one["set"] for one in SETS] == list(range(1, 21))


@pytest.mark.parametrize("given", SETS, ids=lambda one: f"set{one['set']}")
def test_set(given: dict[str, str]) -> None:
    k, op, rand, sqn, amf = (bytes.fromhex(given[name]) for name in ("k", "op", "rand", "sqn", "amf"))
    opc = derive_opc(k, op)
    v = milenage(k, opc, rand, sqn, amf)
    found = {
        "opc": opc, "f1": v.mac_a, "f1star": v.mac_s, "f2": v.res, "f3": v.ck, "f4": v.ik, "f5": v.ak,
        "f5star": v.ak_star,
    }  # fmt: skip
    assert {name: value.hex() for name, value in found.items()} == {name: given[name] for name in found}
