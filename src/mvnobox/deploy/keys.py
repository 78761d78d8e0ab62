"""An installation's generated secrets: derived from its passphrase, so that nothing else has to be kept.

HKDF-SHA256 (RFC 5869) over the passphrase with the stack's and the secret's name: the same on every run and in every
checkout, different for every stack, and gone with the passphrase.
"""

from __future__ import annotations

import base64

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl.public import PrivateKey

from mvnobox.deploy.pulumi.environment import ensure_passphrase


def _derive(stack: str, name: str, octets: int) -> bytes:
    passphrase = ensure_passphrase().read_bytes()
    kdf = HKDF(hashes.SHA256(), octets, salt=b"mvno-in-a-box", info=f"{stack}|{name}".encode())
    return kdf.derive(passphrase)


def key(stack: str, name: str) -> str:
    """32 octets in hexadecimal."""
    return _derive(stack, name, 32).hex()


def password(stack: str, name: str) -> str:
    """A URL-safe password of 32 characters."""
    return base64.urlsafe_b64encode(_derive(stack, name, 24)).decode()


def public_key(private_key: str) -> str:
    """The X25519 public key of a private one, both hexadecimal."""
    return bytes(PrivateKey(bytes.fromhex(private_key)).public_key).hex()
