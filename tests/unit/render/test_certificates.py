"""The SBI's certificates: who verifies them, whom they name, and that they are the same on every run of a year."""

from __future__ import annotations

import datetime as dt
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from mvnobox.errors import BadInput
from mvnobox.render.certificates import issue

SEED, OTHER = "11" * 32, "22" * 32
HOSTS = ("amf.platform-dev.svc.cluster.local", "nrf.platform-dev.svc.cluster.local")
PEM = serialization.Encoding.PEM
NEW_YEAR = dt.datetime(2027, 1, 1, tzinfo=dt.UTC)


def made(seed: str = SEED, env: str = "dev", namespace: str = "platform-dev", year: int = 2026) -> dict[str, str]:
    return issue(seed, env, namespace, HOSTS, year)


def parsed(files: dict[str, str]) -> tuple[x509.Certificate, x509.Certificate]:
    leaf, authority = (x509.load_pem_x509_certificate(files[name].encode()) for name in ("tls.crt", "ca.crt"))
    return leaf, authority


def policy(authority: x509.Certificate, at: dt.datetime) -> PolicyBuilder:
    return PolicyBuilder().store(Store([authority])).time(at)


def test_the_same_octets_within_a_year_and_others_in_the_next() -> None:
    assert made() == made()
    later = made(year=2027)
    assert later["ca.crt"] == made()["ca.crt"]
    assert later["tls.key"] != made()["tls.key"] and later["tls.crt"] != made()["tls.crt"]


def test_nothing_is_shared_between_namespaces_environments_and_installations() -> None:
    keys = {one["tls.key"] for one in (made(), made(namespace="silverline-dev"), made(seed=OTHER))}
    assert len(keys) == 3
    assert len({made()["ca.crt"], made(env="prod")["ca.crt"], made(seed=OTHER)["ca.crt"]}) == 3


@pytest.mark.parametrize(
    "at", [NEW_YEAR - dt.timedelta(days=365, hours=1), NEW_YEAR, NEW_YEAR + dt.timedelta(days=364)]
)
def test_servers_and_clients_are_verified_by_their_names(at: dt.datetime) -> None:
    leaf, authority = parsed(made())
    for host in HOSTS:
        policy(authority, at).build_server_verifier(x509.DNSName(host)).verify(leaf, [])
    found = policy(authority, at).build_client_verifier().verify(leaf, [])
    assert [name.value for name in found.subjects or []] == list(HOSTS)
    with pytest.raises(VerificationError):
        stranger = x509.DNSName("udm.platform-dev.svc.cluster.local")
        policy(authority, at).build_server_verifier(stranger).verify(leaf, [])


def test_neither_another_authority_nor_another_time_will_do() -> None:
    leaf, authority = parsed(made())
    host = x509.DNSName(HOSTS[0])
    with pytest.raises(VerificationError):
        policy(parsed(made(seed=OTHER))[1], NEW_YEAR).build_server_verifier(host).verify(leaf, [])
    with pytest.raises(VerificationError):
        policy(authority, NEW_YEAR + dt.timedelta(days=366)).build_server_verifier(host).verify(leaf, [])


def test_the_authority_speaks_for_the_cluster_alone() -> None:
    _, authority = parsed(made())
    names = authority.extensions.get_extension_for_class(x509.NameConstraints)
    assert names.critical and names.value.permitted_subtrees == [x509.DNSName("svc.cluster.local")]
    outside = parsed(issue(SEED, "dev", "x", ("bank.example",), 2026))[0]
    with pytest.raises(VerificationError):
        policy(authority, NEW_YEAR).build_server_verifier(x509.DNSName("bank.example")).verify(outside, [])


def test_keys_are_p256_and_belong_to_their_certificates() -> None:
    files = made()
    leaf, authority = parsed(files)
    key = serialization.load_pem_private_key(files["tls.key"].encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name == "secp256r1"
    assert key.public_key() == leaf.public_key() != authority.public_key()
    assert isinstance(leaf.signature_hash_algorithm, hashes.SHA256)
    assert 0 < leaf.serial_number < 2**159 and leaf.serial_number != parsed(made(year=2027))[0].serial_number


@pytest.mark.parametrize("seed", ["", "11" * 31, "zz" * 32, "AB" * 32, None])
def test_a_key_that_is_none_is_refused(seed: str) -> None:
    with pytest.raises(BadInput, match="sbiAuthorityKey"):
        made(seed)


def test_openssl_is_content_too(tmp_path: Path) -> None:
    """What Open5GS and its curl verify with."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    for name, text in made().items():
        (tmp_path / name).write_text(text)
    for purpose in ("sslserver", "sslclient"):
        command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-verify_hostname", HOSTS[1]]
        command += ["-attime", str(int(NEW_YEAR.timestamp())), "-CAfile", "ca.crt", "tls.crt"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
