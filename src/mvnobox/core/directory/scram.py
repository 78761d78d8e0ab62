"""SCRAM-SHA-256 on the server's side: RFC 5802 and RFC 7677, without channel binding, as MongoDB's clients use it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from dataclasses import dataclass

MECHANISM = "SCRAM-SHA-256"
ITERATIONS = 15_000
_LONGEST_MESSAGE = 2048


class Refused(Exception):
    """The client is not who it says, or does not speak the mechanism. The reason is for the log only."""


def _digest(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


@dataclass(frozen=True)
class Credential:
    """What the server keeps of a password."""

    salt: bytes
    stored_key: bytes
    server_key: bytes

    @classmethod
    def of(cls, password: str) -> Credential:
        """Derive from a password of printable ASCII (others would need SASLprep). Raises ValueError."""
        if not password or not (password.isascii() and password.isprintable()):
            raise ValueError("a password is made of printable ASCII characters")
        salt = secrets.token_bytes(28)
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, ITERATIONS)
        client_key = _digest(salted, b"Client Key")
        return cls(salt, hashlib.sha256(client_key).digest(), _digest(salted, b"Server Key"))


def _attributes(message: str) -> dict[str, str]:
    parts = [part.partition("=") for part in message.split(",")]
    if any(len(name) != 1 or not sign for name, sign, _ in parts):
        raise Refused("a message that is no list of attributes")
    return {name: value for name, _, value in parts}


def _text(payload: bytes) -> str:
    if len(payload) > _LONGEST_MESSAGE:
        raise Refused("a message that is too long")
    try:
        return payload.decode()
    except UnicodeDecodeError:
        raise Refused("a message that is not UTF-8") from None


class Conversation:
    """One authentication: `first`, then `final`. An unknown user takes the same steps and fails at the end."""

    def __init__(self, credentials: dict[str, Credential]) -> None:
        self._credentials = credentials
        self._nonce = self._first = self._header = ""
        self._known = False
        self._credential = Credential(b"", b"", b"")
        self.user = ""

    def first(self, payload: bytes) -> bytes:
        """The answer to client-first-message. Raises Refused."""
        message = _text(payload)
        binding, _, rest = message.partition(",")
        identity, _, bare = rest.partition(",")
        if binding not in ("n", "y") or identity:
            raise Refused("channel binding and other identities are not offered")
        attributes = _attributes(bare)
        nonce = attributes.get("r", "")
        if not nonce or not nonce.isascii() or "n" not in attributes:
            raise Refused("a first message without user or nonce")
        self.user = attributes["n"].replace("=2C", ",").replace("=3D", "=")
        found = self._credentials.get(self.user)
        self._known = found is not None
        self._credential = found or Credential(*map(secrets.token_bytes, (28, 32, 32)))
        self._nonce = nonce + base64.b64encode(secrets.token_bytes(24)).decode()
        self._header = f"{binding},,"
        salt = base64.b64encode(self._credential.salt).decode()
        answer = f"r={self._nonce},s={salt},i={ITERATIONS}"
        self._first = f"{bare},{answer}"
        return answer.encode()

    def final(self, payload: bytes) -> bytes:
        """The answer to client-final-message. Raises Refused."""
        message = _text(payload)
        without_proof, _, proof = message.rpartition(",p=")
        attributes = _attributes(without_proof)
        try:
            given = base64.b64decode(proof, validate=True)
            header = base64.b64decode(attributes.get("c", ""), validate=True)
        except (binascii.Error, ValueError):
            raise Refused("a final message that is not base64") from None
        if not secrets.compare_digest(attributes.get("r", "").encode(), self._nonce.encode()):
            raise Refused("another nonce")
        if header != self._header.encode() or len(given) != 32:
            raise Refused("another channel binding, or a proof of the wrong length")
        whole = f"{self._first},{without_proof}".encode()
        signature = _digest(self._credential.stored_key, whole)
        client_key = bytes(a ^ b for a, b in zip(given, signature, strict=True))
        right = secrets.compare_digest(hashlib.sha256(client_key).digest(), self._credential.stored_key)
        if not (right and self._known):
            raise Refused("a wrong user or password")
        return b"v=" + base64.b64encode(_digest(self._credential.server_key, whole))
