"""Certificates out of one key: the same octets on every run of a calendar year, so that nothing is rolled for nothing.

Keys are P-256, which TS 33.210 clause 6.2 asks every function to know, and which is the only curve that Open5GS's server
offers (lib/sbi/nghttp2-server.c). Signatures are deterministic (RFC 6979), serial numbers are digests, and the times of
validity are those of the calendar.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Iterable

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mvnobox.errors import BadInput, EnvironmentUnfit
from mvnobox.render.release import CLUSTER_DOMAIN, PART_OF

# The order of P-256's group (FIPS 186-4 appendix D.1.2.3).
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
# The authority's times never change: what it signed in one year is trusted by those who start in another.
_AUTHORITY_FROM = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
_AUTHORITY_UNTIL = dt.datetime(2049, 12, 31, 23, 59, 59, tzinfo=dt.UTC)
# Full years for which a certificate is good, that of its making included.
YEARS = 2


def _key(seed: str, what: str) -> ec.EllipticCurvePrivateKey:
    # 16 octets more than the order has: no number is likelier than another (FIPS 186-5 appendix A.2.1).
    octets = HKDF(hashes.SHA256(), 48, salt=b"mvno-in-a-box SBI", info=what.encode()).derive(bytes.fromhex(seed))
    return ec.derive_private_key(int.from_bytes(octets, "big") % (_ORDER - 1) + 1, ec.SECP256R1())


def _serial(*parts: str) -> int:
    """A positive number of at most 20 octets (RFC 5280 section 4.1.2.2)."""
    digest = hashlib.sha256("|".join(parts).encode()).digest()
    return int.from_bytes(digest[:19], "big") | 1 << 144


def _name(organisation: str, common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _signed(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    try:
        return builder.sign(key, hashes.SHA256(), ecdsa_deterministic=True)
    except UnsupportedAlgorithm:
        raise EnvironmentUnfit(
            "the Python package cryptography was built with an OpenSSL before 3.2, which cannot sign deterministically",
            "use the wheel that requirements.lock names, or certificates of your own: docs/open5gs.md",
        ) from None


def _authority(seed: str, env: str) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = _key(seed, "authority")
    public = key.public_key()
    name = _name(PART_OF, f"SBI of {env}")
    names = x509.NameConstraints(permitted_subtrees=[x509.DNSName(f"svc.{CLUSTER_DOMAIN}")], excluded_subtrees=None)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(_serial(env, "authority"))
        .not_valid_before(_AUTHORITY_FROM)
        .not_valid_after(_AUTHORITY_UNTIL)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        # Even a stolen key of this authority speaks for nobody outside of the cluster.
        .add_extension(names, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )
    return key, _signed(builder, key)


def issue(seed: str, env: str, namespace: str, hosts: Iterable[str], year: int) -> dict[str, str]:
    """`tls.crt`, `tls.key` and `ca.crt` in PEM: a certificate for a namespace's functions, as server and as client.

    `seed`: the authority's, 32 octets in hexadecimal. Good from the year's first day to the last of the next. Raises
    BadInput, EnvironmentUnfit.
    """
    if not isinstance(seed, str) or not re.fullmatch(r"[0-9a-f]{64}", seed):
        raise BadInput(
            "the platform's setting sbiAuthorityKey is not 32 octets in hexadecimal",
            './mvno up --sbi-tls sets it; or pulumi config set --secret sbiAuthorityKey "$(openssl rand -hex 32)"',
        )
    signer, authority = _authority(seed, env)
    key = _key(seed, f"{namespace}|{year}")
    public = key.public_key()
    names = [x509.DNSName(host) for host in hosts]
    usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    builder = (
        x509.CertificateBuilder()
        # A common name has 64 characters, which a host name may exceed: names are in the extension alone.
        .subject_name(_name(namespace, "SBI"))
        .issuer_name(authority.subject)
        .public_key(public)
        .serial_number(_serial(env, namespace, str(year), *(name.value for name in names)))
        # A day earlier, for clocks that are behind.
        .not_valid_before(dt.datetime(year, 1, 1, tzinfo=dt.UTC) - dt.timedelta(days=1))
        .not_valid_after(dt.datetime(year + YEARS, 1, 1, tzinfo=dt.UTC) - dt.timedelta(seconds=1))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(usages, critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    pem, none = serialization.Encoding.PEM, serialization.NoEncryption()
    return {
        "tls.crt": _signed(builder, signer).public_bytes(pem).decode(),
        "tls.key": key.private_bytes(pem, serialization.PrivateFormat.PKCS8, none).decode(),
        "ca.crt": authority.public_bytes(pem).decode(),
    }
