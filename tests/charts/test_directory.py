"""Who reads the directory: its URI with a password from a Secret, the authority of its certificate, and the way to it."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from releases import LOGIN, SIMULATED, objects

READERS = {"udr", "pcf", "hss", "pcrf"}
Found = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="session")
def found(helm: Path) -> Found:
    """The objects by kind and name."""
    return {(one["kind"], one["metadata"]["name"]): one for release in LOGIN for one in objects(helm, release)}


def pods(found: Found) -> dict[str, dict[str, Any]]:
    return {name: one["spec"]["template"] for (kind, name), one in found.items() if kind == "Deployment"}


def test_readers_alone_have_the_password(found: Found) -> None:
    reference = {"name": "DB_URI", "valueFrom": {"secretKeyRef": {"name": "subscribers", "key": "DB_URI"}}}
    with_it = {name for name, pod in pods(found).items() if reference in pod["spec"]["containers"][0].get("env", [])}
    assert with_it == READERS
    assert "mongodb-tls" not in str(pods(found))


def test_readers_without_an_sbi_know_the_authority_too(found: Found) -> None:
    mount = {"name": "sbi-tls", "mountPath": "/etc/mvno-sbi-tls", "readOnly": True}
    volume = {"name": "sbi-tls", "secret": {"secretName": "sbi-tls", "defaultMode": 0o440}}
    for name in (*READERS, "directory"):
        spec = pods(found)[name]["spec"]
        assert mount in spec["containers"][0]["volumeMounts"] and volume in spec["volumes"], name
    # Serving gateways speak neither.
    for name in ("sgwc", "sgwu"):
        assert "sbi-tls" not in str(pods(found)[name])
    # Those without an SBI are probed by the port of their metrics, as ever.
    for name in ("hss", "pcrf"):
        assert pods(found)[name]["spec"]["containers"][0]["readinessProbe"]["tcpSocket"] == {"port": "metrics"}


def test_readers_go_to_the_directory_and_nowhere_else_for_it(found: Found) -> None:
    for name in READERS:
        egress = found["NetworkPolicy", name]["spec"]["egress"]
        (rule,) = [one for one in egress if one.get("ports") == [{"port": 27017}]]
        assert rule["to"][0]["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "directory"}


def test_another_password_rolls_those_who_have_it(helm: Path) -> None:
    def sums(checksum: str, chart: str, releases: Any) -> dict[str, Any]:
        release = next(one for one in releases if one.chart == chart and one.secrets)
        release = dataclasses.replace(release, values={**release.values, "secretChecksum": checksum})
        made = [one for one in objects(helm, release) if one["kind"] == "Deployment"]
        annotations = {one["metadata"]["name"]: one["spec"]["template"]["metadata"]["annotations"] for one in made}
        return {name: one.get("checksum/secret") for name, one in annotations.items()}

    for chart, releases, rolled in (
        ("coresim", SIMULATED, {"smf"}),
        ("directory", LOGIN, {"directory"}),
        ("open5gs", LOGIN, READERS | {"nrf", "scp", "udm", "ausf", "nssf", "bsf", "amf"}),
    ):
        one, other = sums("1", chart, releases), sums("2", chart, releases)
        assert {name for name in one if one[name] != other[name]} == rolled


def test_a_simulated_core_has_the_uri_in_its_environment(helm: Path) -> None:
    release = next(one for one in SIMULATED if one.chart == "coresim" and one.secrets)
    (pod,) = [one["spec"]["template"]["spec"] for one in objects(helm, release) if one["kind"] == "Deployment"]
    assert pod["containers"][0]["envFrom"] == [{"secretRef": {"name": "smf-env"}}]
