"""TLS between Open5GS's functions: what is mounted where, what is probed how, what a new certificate rolls."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
from releases import EDGE, ROOT, SECURED, placed

PLATFORM = ("nrf", "scp", "udr", "udm", "ausf", "nssf", "bsf", "pcf", "amf", "sepp")
MOUNT = {"name": "sbi-tls", "mountPath": "/etc/mvno-sbi-tls", "readOnly": True}
VOLUME = {"name": "sbi-tls", "secret": {"secretName": "sbi-tls", "defaultMode": 0o440}}
Found = dict[tuple[str, str, str], dict[str, Any]]


@pytest.fixture(scope="session")
def found(helm: Path) -> Found:
    return placed(helm, SECURED)


def pod(found: Found, namespace: str, name: str) -> dict[str, Any]:
    spec: dict[str, Any] = found["Deployment", namespace, name]["spec"]["template"]
    return spec


def test_whoever_has_an_sbi_has_the_certificate_and_nobody_else(found: Found) -> None:
    mounted = set()
    for key in found:
        if key[0] == "Deployment":
            spec = pod(found, *key[1:])["spec"]
            if VOLUME in spec["volumes"]:
                assert MOUNT in spec["containers"][0]["volumeMounts"]
                assert all(MOUNT not in one["volumeMounts"] for one in spec.get("initContainers", []))
                mounted.add(key[1:])
    expected = {("platform-tls", name) for name in (*PLATFORM, "directory")} | {("silverline-tls", "smf")}
    assert mounted == expected
    # N32 has another one.
    assert "sepp-tls" in [
        one.get("secret", {}).get("secretName") for one in pod(found, "platform-tls", "sepp")["spec"]["volumes"]
    ]
    assert not [key for key in found if key[0] == "Secret"]


def test_a_probe_is_no_connection_that_holds_the_function_up(found: Found, tmp_path: Path) -> None:
    """By /proc/net/tcp as Linux writes it: a socket that listens, with nobody waiting for long."""
    line = "   0: 0A00D20A:{port} 00000000:0000 0A 00000000:{waiting} 00:00000000 00000000 65532        0 1 1 0 100 0 0 10 0\n"
    cases = {
        "listens": ({"port": "1E61", "waiting": "00000000"}, 0),
        "holds somebody up": ({"port": "1E61", "waiting": "00000002"}, 1),
        "listens elsewhere": ({"port": "2382", "waiting": "00000000"}, 1),
    }
    for name in PLATFORM:
        container = pod(found, "platform-tls", name)["spec"]["containers"][0]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            command = container[probe]["exec"]["command"]
            assert "tcpSocket" not in container[probe] and command[-2:] == ["/proc/net/tcp", "/proc/net/tcp6"]
            for said, (values, code) in cases.items():
                (tmp_path / "tcp").write_text("  sl  local_address rem_address   st\n" + line.format(**values))
                done = subprocess.run(
                    [*command[:-2], str(tmp_path / "tcp"), str(tmp_path / "none")], capture_output=True
                )
                assert (done.returncode != 0) == (code != 0), said


def test_services_say_what_they_speak(found: Found) -> None:
    for name in PLATFORM:
        ports = {port["name"]: port for port in found["Service", "platform-tls", name]["spec"]["ports"]}
        assert ports["sbi"]["appProtocol"] == "https" and ports["sbi"]["port"] == 7777
        assert all("appProtocol" not in port for key, port in ports.items() if key != "sbi")


def test_another_certificate_rolls_those_who_have_it(helm: Path) -> None:
    def checksums(digest: str) -> dict[tuple[str, str], Any]:
        told = [
            dataclasses.replace(one, values={**one.values, "secretChecksum": digest}) if one.secrets else one
            for one in SECURED
        ]
        return {
            key[1:]: one["spec"]["template"]["metadata"]["annotations"].get("checksum/secret")
            for key, one in placed(helm, told).items()
            if key[0] == "Deployment"
        }

    one, two = checksums("1"), checksums("2")
    rolled = {key for key in one if one[key] != two[key]}
    assert rolled == {("platform-tls", name) for name in (*PLATFORM, "directory")} | {("silverline-tls", "smf")}


def test_without_it_nothing_is_different(helm: Path) -> None:
    text = yaml.safe_dump_all(placed(helm, EDGE).values())
    assert not re.search(r"sbi-tls|appProtocol|checksum/secret|https://nrf", text)


def test_a_secret_that_has_no_name_is_refused(helm: Path) -> None:
    for chart in ("open5gs", "directory"):
        key = "sbiTls"
        values = dict(next(one for one in SECURED if one.chart == chart).values) | {key: {"secret": "No Name"}}
        command = [str(helm), "template", "x", str(ROOT / "charts" / chart), "--values", "-"]
        done = subprocess.run(command, input=yaml.safe_dump(values), capture_output=True, text=True)
        assert done.returncode != 0 and key in done.stderr
