"""5G-AKA (TS 33.501 clause 6.1.3.2 and annex A): the home network's side and the SIM's side."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass

from mvnobox.core.sim.milenage import milenage

# A sequence number's lowest bits are an index (TS 33.102 annex C.3.2); steps are of 32, as Open5GS takes them.
SQN_STEP = 32
SQN_MODULUS = 1 << 48


class MacFailure(Exception):
    """The network does not know the key (TS 24.501 cause 20)."""


class SynchronisationFailure(Exception):
    """The sequence number is not fresh (cause 21); `auts` lets the network catch up."""

    def __init__(self, auts: bytes) -> None:
        super().__init__("the sequence number is not fresh")
        self.auts = auts


def _xor(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


def kdf(key: bytes, fc: int, *parameters: bytes) -> bytes:
    """The key derivation function of TS 33.220 annex B.2."""
    text = bytes([fc]) + b"".join(p + len(p).to_bytes(2, "big") for p in parameters)
    return hmac.new(key, text, hashlib.sha256).digest()


def serving_network(mcc: str, mnc: str) -> str:
    """The serving network's name (TS 24.501 clause 9.12.1)."""
    return f"5G:mnc{mnc.zfill(3)}.mcc{mcc}.3gppnetwork.org"


def res_star(ck: bytes, ik: bytes, network: str, rand: bytes, res: bytes) -> bytes:
    """RES* (TS 33.501 annex A.4)."""
    return kdf(ck + ik, 0x6B, network.encode(), rand, res)[16:]


def k_ausf(ck: bytes, ik: bytes, network: str, sqn_xor_ak: bytes) -> bytes:
    """K_AUSF (TS 33.501 annex A.2)."""
    return kdf(ck + ik, 0x6A, network.encode(), sqn_xor_ak)


@dataclass(frozen=True)
class Challenge:
    """What goes to the UE (rand, autn) and what has to come back (xres_star)."""

    rand: bytes
    autn: bytes
    xres_star: bytes
    k_ausf: bytes


def challenge(k: bytes, opc: bytes, amf: bytes, sqn: int, network: str, rand: bytes | None = None) -> Challenge:
    """The home network's authentication vector for a sequence number."""
    rand = rand if rand is not None else secrets.token_bytes(16)
    number = sqn.to_bytes(6, "big")
    v = milenage(k, opc, rand, number, amf)
    concealed = _xor(number, v.ak)
    return Challenge(
        rand,
        concealed + amf + v.mac_a,
        res_star(v.ck, v.ik, network, rand, v.res),
        k_ausf(v.ck, v.ik, network, concealed),
    )


def answer(k: bytes, opc: bytes, last_sqn: int, network: str, rand: bytes, autn: bytes) -> tuple[bytes, int]:
    """The SIM's side: (RES*, the sequence number that was accepted). Raises MacFailure, SynchronisationFailure."""
    amf = autn[6:8]
    ak = milenage(k, opc, rand, bytes(6), amf).ak
    number = _xor(autn[:6], ak)
    v = milenage(k, opc, rand, number, amf)
    if not hmac.compare_digest(v.mac_a, autn[8:16]):
        raise MacFailure
    sqn = int.from_bytes(number, "big")
    if sqn <= last_sqn:
        own = last_sqn.to_bytes(6, "big")
        # AUTS is made with AMF 0000 (TS 33.102 clause 6.3.3).
        w = milenage(k, opc, rand, own, b"\0\0")
        raise SynchronisationFailure(_xor(own, w.ak_star) + w.mac_s)
    return res_star(v.ck, v.ik, network, rand, v.res), sqn


def resynchronised(k: bytes, opc: bytes, rand: bytes, auts: bytes) -> int | None:
    """The SIM's own sequence number out of AUTS; None where its MAC is wrong."""
    ak = milenage(k, opc, rand, bytes(6), b"\0\0").ak_star
    number = _xor(auts[:6], ak)
    expected = milenage(k, opc, rand, number, b"\0\0").mac_s
    return int.from_bytes(number, "big") if hmac.compare_digest(expected, auts[6:14]) else None
