"""Charts: lint, values that are refused, what every rendered pod promises, and what a real API server says of them."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mvnobox.deploy.rendering import manifests
from mvnobox.render import Release

sys.path.insert(0, str(Path(__file__).parent))
from releases import RELEASES, ROOT, objects

CHARTS = sorted(path.parent.name for path in (ROOT / "charts").glob("*/values.schema.json"))


def by_name(release: Release) -> str:
    return f"{release.chart}-{release.namespace}-{release.name}"


def test_every_chart_is_used() -> None:
    assert {release.chart for release in RELEASES} == set(CHARTS)


@pytest.mark.parametrize("chart", CHARTS)
def test_lint(helm: Path, chart: str) -> None:
    # A chart whose configurations have no default is linted with those of a release.
    values = yaml.safe_dump(dict(next(release for release in RELEASES if release.chart == chart).values))
    command = [str(helm), "lint", "--strict", str(ROOT / "charts" / chart), "--values", "-"]
    done = subprocess.run(command, input=values, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("chart", CHARTS)
def test_an_unknown_value_is_refused_by_its_name(helm: Path, chart: str) -> None:
    command = [str(helm), "template", "x", str(ROOT / "charts" / chart), "--set", "imagee=1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0 and "imagee" in done.stderr


@pytest.mark.parametrize("release", RELEASES, ids=by_name)
def test_pods_are_restricted_and_bounded(helm: Path, release: Release) -> None:
    planes = 0
    for one in objects(helm, release):
        assert one["metadata"]["namespace"] == release.namespace
        if one["kind"] not in ("Deployment", "StatefulSet", "Job"):
            continue
        spec = one["spec"]["template"]["spec"]
        assert spec["automountServiceAccountToken"] is False and not spec.get("hostNetwork")
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            # UERANSIM notes its UEs' routing tables in /etc; it is for laboratories only.
            assert context.get("readOnlyRootFilesystem") is True or container["name"] == "ran"
            assert context["capabilities"]["drop"] == ["ALL"] and not context.get("privileged")
            assert container["resources"]["requests"] and container["resources"]["limits"]["memory"]
            if context["capabilities"].get("add"):
                planes += 1
                assert set(context["capabilities"]["add"]) <= {"NET_ADMIN", "NET_RAW"}
            else:
                assert {**spec["securityContext"], **context}["runAsNonRoot"] is True
        if one["kind"] == "Deployment":
            assert {"livenessProbe", "readinessProbe", "startupProbe"} <= set(spec["containers"][0])
    assert bool(planes) == release.namespace.endswith("-up")


@pytest.mark.parametrize("release", RELEASES, ids=by_name)
def test_every_pod_is_under_a_policy_in_both_directions(helm: Path, release: Release) -> None:
    found = objects(helm, release)
    policies = [one["spec"] for one in found if one["kind"] == "NetworkPolicy"]
    for one in found:
        if one["kind"] in ("Deployment", "StatefulSet", "Job"):
            labels = one["spec"]["template"]["metadata"]["labels"]
            mine = [p for p in policies if p["podSelector"]["matchLabels"].items() <= labels.items()]
            assert {kind for policy in mine for kind in policy["policyTypes"]} == {"Ingress", "Egress"}


def test_another_config_rolls_the_pods(helm: Path) -> None:
    release = next(r for r in RELEASES if r.name == "ocs")
    other = Release(release.name, release.chart, release.namespace, {**release.values, "config": "listen: x\n"})

    def annotations(one: Release) -> dict[str, str]:
        deployment = next(o for o in objects(helm, one) if o["kind"] == "Deployment")
        return dict(deployment["spec"]["template"]["metadata"]["annotations"])

    assert annotations(release)["checksum/config"] != annotations(other)["checksum/config"]


def test_the_directorys_certificate_is_mounted_where_asked(helm: Path) -> None:
    release = next(r for r in RELEASES if r.name == "directory")
    asked = dataclasses.replace(release, values={**release.values, "tlsSecret": "directory-tls"})

    def mounts(one: Release) -> list[str]:
        pod = next(o for o in objects(helm, one) if o["kind"] == "Deployment")["spec"]["template"]["spec"]
        assert ("tls" in [volume["name"] for volume in pod["volumes"]]) == bool(one.values.get("tlsSecret"))
        return [mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]]

    assert "/etc/mvno-tls" in mounts(asked) and "/etc/mvno-tls" not in mounts(release)


def test_no_secret_is_in_what_is_rendered(helm: Path) -> None:
    for release in RELEASES:
        assert not [one for one in objects(helm, release) if one["kind"] == "Secret"]


@pytest.mark.cluster
def test_a_real_api_server_takes_all_of_it(helm: Path, cluster: Any) -> None:
    from mvnobox.deploy.cluster import EmbeddedCluster

    kubectl = EmbeddedCluster().kubectl
    needed = {release.namespace for release in RELEASES}
    there = {n["metadata"]["name"] for n in json.loads(kubectl("get", "ns", "-o", "json").stdout)["items"]}
    made = sorted(needed - there)
    try:
        for name in made:
            kubectl("create", "namespace", name)
        for release in RELEASES:
            done = kubectl("apply", "--dry-run=server", "-f", "-", stdin=manifests(helm, release), check=False)
            assert done.returncode == 0, f"{by_name(release)}: {done.stderr}"
    finally:
        for name in made:
            kubectl("delete", "namespace", name, "--wait=false")


def test_notifications_reach_the_ctf_from_the_ocs_alone(helm: Path) -> None:
    release = next(release for release in RELEASES if release.chart == "ctf")
    (policy,) = [one["spec"] for one in objects(helm, release) if one["kind"] == "NetworkPolicy"]
    (told,) = [rule for rule in policy["ingress"] if {"port": "http"} in rule["ports"]]
    (peer,) = told["from"]
    assert peer["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "ocs"}
    assert peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"].startswith("platform-")


@pytest.mark.parametrize("forwarding", ["node", "sysctl"])
@pytest.mark.parametrize("release", [one for one in RELEASES if one.name == "user-plane"], ids=by_name)
def test_only_where_it_is_asked_for_a_pod_has_an_unsafe_sysctl(helm: Path, release: Release, forwarding: str) -> None:
    changed = dataclasses.replace(release, values={**release.values, "forwarding": forwarding})
    pods = {
        one["metadata"]["name"]: one["spec"]["template"]["spec"]
        for one in objects(helm, changed)
        if one["kind"] == "Deployment"
    }
    ipv6 = any(one.get("ipv6") for one in [release.values.get("upf", {}), *release.values.get("functions", [])])
    names = ["net.ipv4.ip_forward", *(["net.ipv6.conf.all.forwarding"] if ipv6 else [])]
    wanted = [{"name": name, "value": "1"} for name in names] if forwarding == "sysctl" else None
    assert pods["upf"]["securityContext"].get("sysctls") == wanted
    assert all("sysctls" not in pod["securityContext"] for name, pod in pods.items() if name != "upf")


def test_the_labs_count_of_ues_is_a_value(helm: Path) -> None:
    release = next(one for one in RELEASES if one.chart == "ueransim")
    changed = dataclasses.replace(release, values={**release.values, "ues": 8})
    agents = []
    for one in (release, changed):
        config = next(found for found in objects(helm, one) if found["kind"] == "ConfigMap")
        agents.append(yaml.safe_load(config["data"]["agent.yaml"]))
    assert [agent["ues"] for agent in agents] == [1, 8]
    assert {key: value for key, value in agents[0].items() if key != "ues"}.keys() == {"plmn", "http"}
