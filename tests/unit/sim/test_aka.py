"""Milenage against TS 35.208's first test sets, and 5G-AKA between network and SIM."""

from __future__ import annotations

import pytest

from mvnobox.core.sim import aka, gtpu
from mvnobox.core.sim.milenage import derive_opc, milenage

K, OPC = bytes.fromhex("465b5ce8b199b49faa5f0a2ee238a6bc"), bytes.fromhex("cd63cb71954a9f4e48a5994e37a02baf")
RAND = bytes.fromhex("23553cbe9637a89d218ae64dae47bf35")
NETWORK = aka.serving_network("208", "93")


def test_set_1_of_ts_35_208() -> None:
    assert derive_opc(K, bytes.fromhex("cdc202d5123e20f62b6d676ac72cb318")) == OPC
    v = milenage(K, OPC, RAND, bytes.fromhex("ff9bb4d0b607"), bytes.fromhex("b9b9"))
    assert v.mac_a.hex() == "4a9ffac354dfafb3"
    assert v.mac_s.hex() == "01cfaf9ec4e871e9"
    assert v.res.hex() == "a54211d5e3ba50bf"
    assert v.ck.hex() == "b40ba9a3c58b2a05bbf0d987b21bf8cb"
    assert v.ik.hex() == "f769bcd751044604127672711c6d3441"
    assert v.ak.hex() == "aa689c648370"
    assert v.ak_star.hex() == "451e8beca43b"


def test_a_sim_with_the_right_key_answers_and_takes_no_number_twice() -> None:
    vector = aka.challenge(K, OPC, b"\x80\0", 64, NETWORK)
    res_star, sqn = aka.answer(K, OPC, 32, NETWORK, vector.rand, vector.autn)
    assert res_star == vector.xres_star and sqn == 64
    with pytest.raises(aka.SynchronisationFailure) as failure:
        aka.answer(K, OPC, 64, NETWORK, vector.rand, vector.autn)
    assert aka.resynchronised(K, OPC, vector.rand, failure.value.auts) == 64


def test_a_wrong_key_is_noticed_by_the_sim() -> None:
    vector = aka.challenge(K, OPC, b"\x80\0", 64, NETWORK)
    with pytest.raises(aka.MacFailure):
        aka.answer(bytes(16), OPC, 0, NETWORK, vector.rand, vector.autn)


@pytest.mark.parametrize("uplink", [True, False])
def test_gtpu_carries_what_was_given(uplink: bool) -> None:
    data = gtpu.g_pdu(0x01020304, b"packet", 1, uplink=uplink)
    kind, teid, offset = gtpu.payload(data)
    assert (kind, teid, data[offset:]) == (gtpu.G_PDU, 0x01020304, b"packet")


@pytest.mark.parametrize(
    "data",
    [b"", b"\x34\xff", bytes(12), b"\x34\xff\0\x08\0\0\0\1\0\0\0\x85\x09", b"\x34\xff\0\x08\0\0\0\1\0\0\0\x85\x00\0"],
)
def test_gtpu_that_is_cut_off_is_nothing(data: bytes) -> None:
    assert gtpu.payload(data)[0] in (0, gtpu.G_PDU) and gtpu.payload(data)[2] <= len(data)
