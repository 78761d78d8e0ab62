"""5G-AKA (TS 33.501 clause 6.1.3.2 and annex A): the home network's side and the SIM's side."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field

from mvnobox.core.sim.milenage import Vector, milenage

# A sequence number is SEQ || IND (TS 33.102 annex C.1.1.1). With 5 bits of IND, steps of 32 keep IND at 0, as Open5GS does.
IND_BITS = 5
SQN_STEP = 1 << IND_BITS
SQN_MODULUS = 1 << 48
# How far SEQ may jump ahead (annex C.2.1, C.3): against numbers that would wear the counter out.
SEQ_LEAP = 1 << 28


class MacFailure(Exception):
    """The network does not know the key (TS 24.501 cause 20)."""


class SynchronisationFailure(Exception):
    """The sequence number is not fresh (cause 21); `auts` lets the network catch up."""

    def __init__(self, auts: bytes) -> None:
        super().__init__("the sequence number is not fresh")
        self.auts = auts


@dataclass
class SequenceNumbers:
    """What a SIM remembers of accepted sequence numbers: the highest SEQ per IND (TS 33.102 annex C.2.2)."""

    seq: list[int] = field(default_factory=lambda: [0] * SQN_STEP)

    @property
    def highest(self) -> int:
        """SQN_MS: the highest number accepted so far."""
        index = max(range(SQN_STEP), key=self.seq.__getitem__)
        return self.seq[index] << IND_BITS | index if self.seq[index] else 0

    def accept(self, sqn: int) -> bool:
        """Take a number if it is fresh; False leaves everything as it was."""
        seq, index = sqn >> IND_BITS, sqn & (SQN_STEP - 1)
        if seq <= self.seq[index] or seq - max(self.seq) > SEQ_LEAP:
            return False
        self.seq[index] = seq
        return True


def _xor(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


def kdf(key: bytes, fc: int, *parameters: bytes) -> bytes:
    """The key derivation function of TS 33.220 annex B.2."""
    text = bytes([fc]) + b"".join(p + len(p).to_bytes(2, "big") for p in parameters)
    return hmac.new(key, text, hashlib.sha256).digest()


def serving_network(mcc: str, mnc: str) -> str:
    """The serving network's name (TS 24.501 clause 9.12.1)."""
    return f"5G:mnc{mnc.zfill(3)}.mcc{mcc}.3gppnetwork.org"


def k_ausf(ck: bytes, ik: bytes, network: str, sqn_xor_ak: bytes) -> bytes:
    """K_AUSF, 32 octets (TS 33.501 annex A.2)."""
    return kdf(ck + ik, 0x6A, network.encode(), sqn_xor_ak)


def res_star(ck: bytes, ik: bytes, network: str, rand: bytes, res: bytes) -> bytes:
    """RES* or XRES*, 16 octets (TS 33.501 annex A.4)."""
    return kdf(ck + ik, 0x6B, network.encode(), rand, res)[16:]


def hres_star(rand: bytes, star: bytes) -> bytes:
    """HRES* or HXRES*, 16 octets: what the visited network compares (TS 33.501 annex A.5)."""
    return hashlib.sha256(rand + star).digest()[16:]


def k_seaf(ausf: bytes, network: str) -> bytes:
    """K_SEAF, 32 octets (TS 33.501 annex A.6)."""
    return kdf(ausf, 0x6C, network.encode())


@dataclass(frozen=True)
class Challenge:
    """What goes to the UE (rand, autn), what has to come back (xres_star, or hxres_star of it) and the anchor key."""

    rand: bytes
    autn: bytes
    xres_star: bytes
    hxres_star: bytes
    k_ausf: bytes

    def accepts(self, given: bytes) -> bool:
        """Whether RES* is right: by HRES* in the serving network, then by XRES* at home (clause 6.1.3.2.0)."""
        return hmac.compare_digest(hres_star(self.rand, given), self.hxres_star) and hmac.compare_digest(
            given, self.xres_star
        )


def challenge(k: bytes, opc: bytes, amf: bytes, sqn: int, network: str, rand: bytes | None = None) -> Challenge:
    """The home network's authentication vector for a sequence number."""
    rand = rand if rand is not None else secrets.token_bytes(16)
    number = sqn.to_bytes(6, "big")
    v = milenage(k, opc, rand, number, amf)
    concealed = _xor(number, v.ak)
    xres = res_star(v.ck, v.ik, network, rand, v.res)
    return Challenge(
        rand, concealed + amf + v.mac_a, xres, hres_star(rand, xres), k_ausf(v.ck, v.ik, network, concealed)
    )


def opened(
    k: bytes, opc: bytes, numbers: SequenceNumbers, rand: bytes, autn: bytes, *, separated: bool = False
) -> Vector:
    """A challenge on the SIM, by whatever access it came; the number is then used up.

    `separated`: AMF's separation bit has to be set (TS 33.401 clause 6.1.1). Raises MacFailure, SynchronisationFailure.
    """
    if len(rand) != 16 or len(autn) != 16:
        raise MacFailure
    amf = autn[6:8]
    ak = milenage(k, opc, rand, bytes(6), amf).ak
    number = _xor(autn[:6], ak)
    v = milenage(k, opc, rand, number, amf)
    if not hmac.compare_digest(v.mac_a, autn[8:16]) or (separated and not amf[0] & 0x80):
        raise MacFailure
    if not numbers.accept(int.from_bytes(number, "big")):
        own = numbers.highest.to_bytes(6, "big")
        # AUTS is made with AMF 0000 (TS 33.102 clause 6.3.3).
        w = milenage(k, opc, rand, own, b"\0\0")
        raise SynchronisationFailure(_xor(own, w.ak_star) + w.mac_s)
    return v


def answer(k: bytes, opc: bytes, numbers: SequenceNumbers, network: str, rand: bytes, autn: bytes) -> bytes:
    """The SIM's side: RES*; the number is then used up. Raises MacFailure, SynchronisationFailure."""
    v = opened(k, opc, numbers, rand, autn)
    return res_star(v.ck, v.ik, network, rand, v.res)


def resynchronised(k: bytes, opc: bytes, rand: bytes, auts: bytes) -> int | None:
    """The SIM's own sequence number out of AUTS; None where its MAC is wrong or it is no AUTS."""
    if len(auts) != 14:
        return None
    ak = milenage(k, opc, rand, bytes(6), b"\0\0").ak_star
    number = _xor(auts[:6], ak)
    expected = milenage(k, opc, rand, number, b"\0\0").mac_s
    return int.from_bytes(number, "big") if hmac.compare_digest(expected, auts[6:14]) else None
