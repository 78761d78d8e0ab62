"""EPS-AKA on the SIM's side (TS 33.401 clause 6.1.1 and annex A.2) and the MME's comparison."""

from __future__ import annotations

import hmac

from mvnobox.core.hostnetwork.s6a import Vector
from mvnobox.core.sim import aka


class NotTheSim(Exception):
    """What SIM and network have derived differs: the network would reject the phone."""


def k_asme(ck: bytes, ik: bytes, network: bytes, concealed: bytes) -> bytes:
    """K_ASME, 32 octets, of the serving network's PLMN (3 octets) and SQN xor AK (6 octets)."""
    return aka.kdf(ck + ik, 0x10, network, concealed)


def answer(
    k: bytes, opc: bytes, numbers: aka.SequenceNumbers, network: bytes, rand: bytes, autn: bytes
) -> tuple[bytes, bytes]:
    """(RES, K_ASME); the sequence number is then used up.

    Raises aka.MacFailure, also where AMF's separation bit is not set, and aka.SynchronisationFailure.
    """
    v = aka.opened(k, opc, numbers, rand, autn, separated=True)
    return v.res, k_asme(v.ck, v.ik, network, autn[:6])


def compare(vector: Vector, res: bytes, kasme: bytes) -> None:
    """What an MME compares at the answer, and what NAS security would show at once. Raises NotTheSim."""
    if not hmac.compare_digest(res, vector.xres):
        raise NotTheSim("Authentication Reject: RES is not XRES")
    if not hmac.compare_digest(kasme, vector.kasme):
        raise NotTheSim("Security Mode Reject: the HSS derived K_ASME for another network")
