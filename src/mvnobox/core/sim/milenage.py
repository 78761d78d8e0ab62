"""Milenage (TS 35.206): f1, f1*, f2, f3, f4, f5, f5* over AES-128."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

_R = (64, 0, 32, 64, 96)
_C = (0, 1, 2, 4, 8)


def _aes(key: bytes, block: bytes) -> bytes:
    # One block at a time is what the specification asks for; there is no message here that ECB could leak.
    encryptor = Cipher(algorithms.AES128(key), modes.ECB()).encryptor()
    return encryptor.update(block) + encryptor.finalize()


def _xor(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


def _rotate(block: bytes, bits: int) -> bytes:
    shift = bits // 8
    return block[shift:] + block[:shift]


def derive_opc(k: bytes, op: bytes) -> bytes:
    """OPc of an operator's OP (TS 35.206 clause 4.1)."""
    return _xor(_aes(k, op), op)


@dataclass(frozen=True)
class Vector:
    """The outputs for one RAND, SQN and AMF."""

    mac_a: bytes
    mac_s: bytes
    res: bytes
    ck: bytes
    ik: bytes
    ak: bytes
    ak_star: bytes


def milenage(k: bytes, opc: bytes, rand: bytes, sqn: bytes, amf: bytes) -> Vector:
    """All functions at once; k, opc, rand 16 octets, sqn 6, amf 2."""
    temp = _aes(k, _xor(rand, opc))
    in1 = (sqn + amf) * 2

    def out(index: int) -> bytes:
        rotated = _rotate(_xor(temp, opc), _R[index])
        return _xor(_aes(k, _xor(rotated, _C[index].to_bytes(16, "big"))), opc)

    out1 = _xor(_aes(k, _xor(temp, _rotate(_xor(in1, opc), _R[0]))), opc)
    out2, out3, out4, out5 = out(1), out(2), out(3), out(4)
    return Vector(out1[:8], out1[8:], out2[8:], out3, out4, out2[:6], out5[:6])
