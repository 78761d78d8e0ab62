"""Whether a Secret of the user's own can be the certificate of functions, before anything waits for it."""

from __future__ import annotations

import base64
import datetime as dt
import itertools
from collections.abc import Mapping, Sequence

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from mvnobox.deploy.journey.access import Kubectl
from mvnobox.errors import BadInput

# Without one of them no function starts.
_FILES = ("tls.crt", "tls.key", "ca.crt")


def faults(files: Mapping[str, bytes], hosts: Sequence[str], now: dt.datetime, *, diameter: bool = False) -> list[str]:
    """What keeps tls.crt, tls.key and ca.crt from being those of functions with these names; in words.

    `diameter`: freeDiameter reads them, and ends at files that are no single chain, from the issued to the root.
    """
    if lacking := [name for name in _FILES if not files.get(name)]:
        return [f"there is no {', '.join(lacking)}"]
    try:
        chain = x509.load_pem_x509_certificates(files["tls.crt"])
        authorities = x509.load_pem_x509_certificates(files["ca.crt"])
        key = serialization.load_pem_private_key(files["tls.key"], None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return ["tls.crt and ca.crt have to be certificates, and tls.key a key without a passphrase, all in PEM"]
    found, said = chain[0], []
    if found.public_key() != key.public_key():
        said.append("tls.key is not its key")
    if not found.not_valid_before_utc <= now <= found.not_valid_after_utc:
        said.append(f"it is good from {found.not_valid_before_utc:%Y-%m-%d} to {found.not_valid_after_utc:%Y-%m-%d}")
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        known = {name.lower() for name in names.get_values_for_type(x509.DNSName)}
    except x509.ExtensionNotFound:
        known = set()
    if unnamed := [host for host in hosts if not {host.lower(), f"*.{host.lower().partition('.')[2]}"} & known]:
        said.append(f"it lacks the names {', '.join(unnamed)}")
    try:
        usages = set(found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        usages = {ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}
    both = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    if not both <= usages and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE not in usages:
        said.append("it is not for servers and clients both")
    issuers = {one.subject for one in authorities}
    # Intermediates come with the certificate; who ends its chain has to be known.
    if chain[-1].issuer not in issuers and chain[-1].subject not in issuers:
        said.append(f"ca.crt does not have its issuer, {chain[-1].issuer.rfc4514_string()}")
    for name, listed in (("tls.crt", chain), ("ca.crt", authorities)) if diameter else ():
        if any(one.issuer != above.subject for one, above in itertools.pairwise(listed)):
            said.append(f"{name} is not one chain, each certificate before its issuer's, as freeDiameter reads it")
    return said


def namespaces_of(kubectl: Kubectl) -> set[str]:
    """The names of the cluster's namespaces. Raises Failed."""
    return {one["metadata"]["name"] for one in kubectl.json("get", "namespaces")["items"]}


def check_secret(
    kubectl: Kubectl, namespace: str, secret: str, hosts: Sequence[str], what: str, *, diameter: bool = False
) -> None:
    """Refuse a Secret that is not there or cannot secure `what` under these names. Raises BadInput, Failed."""
    found = kubectl.json("-n", namespace, "get", "secrets", f"--field-selector=metadata.name={secret}")["items"]
    data = (found[0].get("data") or {}) if found else {}
    files = {name: base64.b64decode(data.get(name, "")) for name in _FILES}
    if said := faults(files, hosts, dt.datetime.now(dt.UTC), diameter=diameter):
        raise BadInput(
            f"the Secret {secret} in {namespace} cannot secure {what}: {'; '.join(said)}",
            "docs/open5gs.md says what has to be in it; nothing was changed",
        )
