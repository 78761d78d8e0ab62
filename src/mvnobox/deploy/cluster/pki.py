"""The embedded cluster's certificates: one authority, a certificate a component, kubeconfigs that carry them."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALIDITY = dt.timedelta(days=3650)
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER = ExtendedKeyUsageOID.SERVER_AUTH


@dataclass(frozen=True)
class Identity:
    """A certificate to make: file name, subject (user and groups, as Kubernetes reads it), host names and addresses."""

    name: str
    user: str
    groups: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    usages: tuple[x509.ObjectIdentifier, ...] = (CLIENT,)


def _write(path: Path, data: bytes, mode: int = 0o600) -> None:
    # Made with its mode, not changed to it: a key is never readable by others, not for a moment.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as handle:
        handle.write(data)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + VALIDITY)
    )


class Authority:
    """The cluster's certificate authority, kept in a folder; made at first use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not (folder / "ca.crt").exists():
            key = ec.generate_private_key(ec.SECP256R1())
            name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mvno-in-a-box embedded cluster")])
            certificate = (
                _builder(name, name, key)
                .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
                .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
                .sign(key, hashes.SHA256())
            )
            _write(folder / "ca.key", _key_pem(key))
            _write(folder / "ca.crt", certificate.public_bytes(serialization.Encoding.PEM), 0o644)
        loaded = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        self._key = loaded
        self._certificate = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())

    def issue(self, identity: Identity) -> None:
        """Write `<name>.crt` and `<name>.key` unless they are there."""
        if (self.folder / f"{identity.name}.crt").exists():
            return
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name(
            [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in identity.groups]
            + [x509.NameAttribute(NameOID.COMMON_NAME, identity.user)]
        )
        builder = _builder(subject, self._certificate.subject, key).add_extension(
            x509.ExtendedKeyUsage(list(identity.usages)), critical=False
        )
        if identity.hosts:
            builder = builder.add_extension(x509.SubjectAlternativeName(_names(identity.hosts)), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        _write(self.folder / f"{identity.name}.key", _key_pem(key))
        _write(self.folder / f"{identity.name}.crt", certificate.public_bytes(serialization.Encoding.PEM), 0o644)

    def signing_key(self, name: str) -> None:
        """A key pair `<name>.key`, `<name>.pub` for service account tokens, unless it is there."""
        if (self.folder / f"{name}.pub").exists():
            return
        key = ec.generate_private_key(ec.SECP256R1())
        _write(self.folder / f"{name}.key", _key_pem(key))
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        _write(self.folder / f"{name}.pub", public, 0o644)

    def kubeconfig(self, name: str, server: str, target: Path, context: str) -> None:
        """A kubeconfig (mode 0600) of an issued identity, with everything in it."""

        def embedded(file: str) -> str:
            return base64.b64encode((self.folder / file).read_bytes()).decode()

        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": context, "cluster": {"server": server, "certificate-authority-data": embedded("ca.crt")}}
            ],
            "users": [
                {
                    "name": name,
                    "user": {
                        "client-certificate-data": embedded(f"{name}.crt"),
                        "client-key-data": embedded(f"{name}.key"),
                    },
                }
            ],
            "contexts": [{"name": context, "context": {"cluster": context, "user": name}}],
            "current-context": context,
        }
        text = yaml.safe_dump(document).encode()
        if not target.exists() or target.read_bytes() != text:
            target.parent.mkdir(parents=True, exist_ok=True)
            _write(target, text)


def _names(hosts: Sequence[str]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    return names
