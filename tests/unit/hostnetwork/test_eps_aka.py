"""EPS-AKA on the SIM's side."""

from __future__ import annotations

import pytest
from hostnetwork_peers import OPC, K

from mvnobox.core.hostnetwork import eps_aka
from mvnobox.core.sim import aka
from mvnobox.core.sim.milenage import milenage

RAND = bytes(range(16))


def autn(amf: bytes, sqn: int = 32) -> bytes:
    v = milenage(K, OPC, RAND, sqn.to_bytes(6), amf)
    return bytes(a ^ b for a, b in zip(sqn.to_bytes(6), v.ak, strict=True)) + amf + v.mac_a


def test_the_separation_bit_is_wanted() -> None:
    """TS 33.401 clause 6.1.1: a vector that is not for E-UTRAN is not taken, however right its MAC."""
    numbers = aka.SequenceNumbers()
    with pytest.raises(aka.MacFailure):
        eps_aka.answer(K, OPC, numbers, b"\0\xf1\x10", RAND, autn(b"\0\0"))
    assert numbers.highest == 0
    res, kasme = eps_aka.answer(K, OPC, numbers, b"\0\xf1\x10", RAND, autn(b"\x80\0"))
    assert (len(res), len(kasme), numbers.highest) == (8, 32, 32)
    with pytest.raises(aka.SynchronisationFailure):
        eps_aka.answer(K, OPC, numbers, b"\0\xf1\x10", RAND, autn(b"\x80\0"))


@pytest.mark.parametrize("wrong", [b"", bytes(15), bytes(17)])
def test_a_challenge_of_another_length_is_refused(wrong: bytes) -> None:
    with pytest.raises(aka.MacFailure):
        eps_aka.answer(K, OPC, aka.SequenceNumbers(), b"\0\xf1\x10", wrong, autn(b"\x80\0"))
    with pytest.raises(aka.MacFailure):
        eps_aka.answer(K, OPC, aka.SequenceNumbers(), b"\0\xf1\x10", RAND, wrong)
