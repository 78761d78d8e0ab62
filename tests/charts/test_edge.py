"""What an operator's platform has besides: the SEPP, metrics for somebody, drains that get through."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
from releases import EDGE, REAL, objects, placed


@pytest.fixture(scope="session")
def found(helm: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    """The objects by kind, namespace and name."""
    return placed(helm, EDGE)


HOME = "platform-edge"


def test_n32_is_open_to_partners_and_to_nobody_else(found: dict[tuple[str, str, str], dict[str, Any]]) -> None:
    policy = found["NetworkPolicy", HOME, "sepp"]["spec"]
    partner = {"ipBlock": {"cidr": "203.0.113.0/28"}}
    assert {"from": [partner], "ports": [{"port": "n32"}]} in policy["ingress"]
    assert {"to": [partner], "ports": [{"port": 443, "protocol": "TCP"}]} in policy["egress"]
    others = [rule for rule in policy["ingress"] if partner not in rule["from"]]
    assert [rule["ports"] for rule in others] == [[{"port": "sbi"}]]


def test_only_n32_is_outside(found: dict[tuple[str, str, str], dict[str, Any]]) -> None:
    service = found["Service", HOME, "sepp-n32"]["spec"]
    assert (service["type"], service["externalTrafficPolicy"]) == ("LoadBalancer", "Local")
    assert [port["name"] for port in service["ports"]] == ["n32"]
    assert "type" not in found["Service", HOME, "sepp"]["spec"]


def test_the_sepps_certificate_is_mounted_and_not_in_the_chart(
    found: dict[tuple[str, str, str], dict[str, Any]],
) -> None:
    pod = found["Deployment", HOME, "sepp"]["spec"]["template"]["spec"]
    assert {"name": "tls", "secret": {"secretName": "sepp-tls", "defaultMode": 0o440}} in pod["volumes"]
    assert {"name": "tls", "mountPath": "/etc/mvno-tls", "readOnly": True} in pod["containers"][0]["volumeMounts"]
    assert ("Secret", HOME, "sepp-tls") not in found


def test_every_function_has_a_budget_that_lets_a_drain_through(
    found: dict[tuple[str, str, str], dict[str, Any]],
) -> None:
    functions = {key[1:] for key in found if key[0] == "Deployment"}
    budgets = {key[1:]: one["spec"] for key, one in found.items() if key[0] == "PodDisruptionBudget"}
    assert set(budgets) == functions
    for (namespace, name), spec in budgets.items():
        assert spec["maxUnavailable"] == 1 and "minAvailable" not in spec
        labels = found["Deployment", namespace, name]["spec"]["template"]["metadata"]["labels"]
        assert spec["selector"]["matchLabels"].items() <= labels.items()


def test_metrics_are_announced_where_they_are_and_read_by_whom_is_told(
    found: dict[tuple[str, str, str], dict[str, Any]], helm: Path
) -> None:
    for key, one in found.items():
        if key[0] != "Deployment":
            continue
        container = one["spec"]["template"]["spec"]["containers"][0]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        notes = one["spec"]["template"]["metadata"]["annotations"]
        assert notes.get("prometheus.io/port") == (str(ports["metrics"]) if "metrics" in ports else None)
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert {"tcpSocket", "exec"} & set(container[probe])
    for namespace in (HOME, "silverline-edge", "silverline-edge-up"):
        rules = found["NetworkPolicy", namespace, "metrics"]["spec"]["ingress"]
        assert rules == [
            {
                "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
                "ports": [{"port": "metrics"}],
            }
        ]
    untold = [one for release in REAL if release.chart == "open5gs" for one in objects(helm, release)]
    assert not [one for one in untold if one["metadata"]["name"] == "metrics"]


def test_lines_are_slowed_beside_the_upf(found: dict[tuple[str, str, str], dict[str, Any]]) -> None:
    """In its network namespace, with what it needs and no more, heard by the CTF alone."""
    pod = found["Deployment", "silverline-edge-up", "upf"]["spec"]["template"]["spec"]
    upf, shaper = pod["containers"]
    assert shaper["args"] == ["-m", "mvnobox.core.shaper", "serve", "--config", "/etc/mvno/shaper.yaml"]
    assert shaper["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN"]}
    assert not shaper["securityContext"]["allowPrivilegeEscalation"] and "privileged" not in shaper["securityContext"]
    config = yaml.safe_load(found["ConfigMap", "silverline-edge-up", "upf-config"]["data"]["shaper.yaml"])
    devices = found["ConfigMap", "silverline-edge-up", "upf-config"]["data"]["prepare.sh"]
    assert config["listen"] == "0.0.0.0:8095" and all(f"dev {device}" in devices for device in config["down"])
    assert {"name": "shaper", "containerPort": 8095, "protocol": "TCP"} in upf["ports"]
    rules = found["NetworkPolicy", "silverline-edge-up", "upf"]["spec"]["ingress"]
    (told,) = [rule for rule in rules if {"port": "shaper"} in rule["ports"]]
    assert [one["podSelector"]["matchLabels"]["app.kubernetes.io/name"] for one in told["from"]] == ["ctf"]


def test_the_amf_has_room_for_all_places_of_gnbs(found: dict[tuple[str, str, str], dict[str, Any]]) -> None:
    limits = {
        name: found["Deployment", HOME, name]["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
        for name in ("amf", "nrf")
    }
    assert limits == {"amf": {"memory": "2Gi"}, "nrf": {"memory": "512Mi"}}


def test_the_user_plane_has_more_of_a_scarce_processor(found: dict[tuple[str, str, str], dict[str, Any]]) -> None:
    def asked(place: str, name: str) -> list[dict[str, str]]:
        pod = found["Deployment", place, name]["spec"]["template"]["spec"]
        return [one["resources"]["requests"] for one in pod["containers"]]

    common = {"cpu": "50m", "memory": "64Mi"}
    assert asked("silverline-edge-up", "upf")[0] == {**common, "cpu": "120m"}
    assert asked("silverline-edge", "smf") == [common]
