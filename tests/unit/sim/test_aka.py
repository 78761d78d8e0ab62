"""5G-AKA between network and SIM: keys, sequence numbers, resynchronisation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvnobox.core.sim import aka
from mvnobox.core.sim.aka import SequenceNumbers

K, OPC = bytes.fromhex("465b5ce8b199b49faa5f0a2ee238a6bc"), bytes.fromhex("cd63cb71954a9f4e48a5994e37a02baf")
RAND = bytes.fromhex("23553cbe9637a89d218ae64dae47bf35")
NETWORK = aka.serving_network("208", "93")
AMF = b"\x80\0"


def test_derived_keys_are_what_another_implementation_derives() -> None:
    # CK, IK, RES, SQN and AK of TS 35.208's set 1; the results come from a program that is not ours.
    ck, ik = bytes.fromhex("b40ba9a3c58b2a05bbf0d987b21bf8cb"), bytes.fromhex("f769bcd751044604127672711c6d3441")
    concealed = (0xFF9BB4D0B607 ^ 0xAA689C648370).to_bytes(6, "big")
    ausf = aka.k_ausf(ck, ik, NETWORK, concealed)
    star = aka.res_star(ck, ik, NETWORK, RAND, bytes.fromhex("a54211d5e3ba50bf"))
    assert NETWORK == "5G:mnc093.mcc208.3gppnetwork.org"
    assert ausf.hex() == "f2e35260f85194d4f891504d02111e56689ac23dd393bee3abbcc5bfbc013ef9"
    assert star.hex() == "5cc9527f4d21c43bee83a15443acf1c4"
    assert aka.hres_star(RAND, star).hex() == "6970075e3c8245fdc2073003cf166279"
    assert aka.k_seaf(ausf, NETWORK).hex() == "cfddde483bd1318a412e98870f556410905be4fb7500abed93ee16af71bbb3fa"


def test_a_challenge_is_that_of_test_set_1() -> None:
    vector = aka.challenge(K, OPC, b"\xb9\xb9", 0xFF9BB4D0B607, NETWORK, RAND)
    assert vector.autn.hex() == "55f328b43577" + "b9b9" + "4a9ffac354dfafb3"
    assert vector.xres_star.hex() == "5cc9527f4d21c43bee83a15443acf1c4"


def test_a_sim_with_the_right_key_answers_and_takes_no_number_twice() -> None:
    numbers = SequenceNumbers()
    vector = aka.challenge(K, OPC, AMF, 64, NETWORK)
    star = aka.answer(K, OPC, numbers, NETWORK, vector.rand, vector.autn)
    assert vector.accepts(star) and not vector.accepts(bytes(16)) and not vector.accepts(b"")
    assert numbers.highest == 64
    with pytest.raises(aka.SynchronisationFailure) as failure:
        aka.answer(K, OPC, numbers, NETWORK, vector.rand, vector.autn)
    assert aka.resynchronised(K, OPC, vector.rand, failure.value.auts) == 64
    next_one = aka.challenge(K, OPC, AMF, 64 + aka.SQN_STEP, NETWORK)
    assert next_one.accepts(aka.answer(K, OPC, numbers, NETWORK, next_one.rand, next_one.autn))


@pytest.mark.parametrize("spoiled", [0, 5, 6, 7, 8, 15])
def test_any_changed_octet_of_autn_is_noticed(spoiled: int) -> None:
    vector = aka.challenge(K, OPC, AMF, 64, NETWORK)
    autn = bytearray(vector.autn)
    autn[spoiled] ^= 1
    with pytest.raises(aka.MacFailure):
        aka.answer(K, OPC, SequenceNumbers(), NETWORK, vector.rand, bytes(autn))


@pytest.mark.parametrize("autn", [b"", bytes(15), bytes(17)])
def test_an_autn_of_the_wrong_length_is_a_failure(autn: bytes) -> None:
    with pytest.raises(aka.MacFailure):
        aka.answer(K, OPC, SequenceNumbers(), NETWORK, RAND, autn)


def test_a_wrong_key_is_noticed_by_the_sim_and_a_wrong_auts_by_the_network() -> None:
    vector = aka.challenge(K, OPC, AMF, 64, NETWORK)
    with pytest.raises(aka.MacFailure):
        aka.answer(bytes(16), OPC, SequenceNumbers(), NETWORK, vector.rand, vector.autn)
    numbers = SequenceNumbers()
    numbers.accept(1 << 20)
    with pytest.raises(aka.SynchronisationFailure) as failure:
        aka.answer(K, OPC, numbers, NETWORK, vector.rand, vector.autn)
    auts = failure.value.auts
    assert aka.resynchronised(K, OPC, vector.rand, auts) == 1 << 20
    assert aka.resynchronised(bytes(16), OPC, vector.rand, auts) is None
    assert aka.resynchronised(K, OPC, bytes(16), auts) is None
    assert aka.resynchronised(K, OPC, vector.rand, auts[:-1]) is None
    assert aka.resynchronised(K, OPC, vector.rand, b"") is None


def test_numbers_are_fresh_per_index() -> None:
    """TS 33.102 annex C.2.2: numbers of different indices may overtake each other."""
    numbers = SequenceNumbers()
    assert numbers.accept(10 << 5 | 1)
    assert numbers.accept(9 << 5 | 2)
    assert not numbers.accept(9 << 5 | 1)
    assert not numbers.accept(10 << 5 | 1)
    assert numbers.highest == 10 << 5 | 1


def test_a_leap_that_would_wear_the_counter_out_is_refused() -> None:
    numbers = SequenceNumbers()
    assert not numbers.accept((aka.SEQ_LEAP + 1) << 5)
    assert numbers.accept(aka.SEQ_LEAP << 5)
    assert numbers.highest == aka.SEQ_LEAP << 5


@given(st.lists(st.integers(0, 40 << 5), max_size=200))
def test_no_number_is_ever_accepted_twice(tried: list[int]) -> None:
    numbers = SequenceNumbers()
    accepted = [sqn for sqn in tried if numbers.accept(sqn)]
    assert len(accepted) == len(set(accepted))
    assert numbers.highest == max(accepted, key=lambda sqn: (sqn >> 5, -(sqn & 31)), default=0) or not accepted
