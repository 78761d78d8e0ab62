"""Charts: lint, values that are refused, what every rendered pod promises, and what a real API server says of them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from mvnobox.deploy.images import references
from mvnobox.deploy.rendering import manifests
from mvnobox.deploy.report import PlainReporter
from mvnobox.deploy.toolchain import ensure_tool
from mvnobox.render import (
    BrandPlan,
    Images,
    PlatformPlan,
    Release,
    brand_namespaces,
    brand_releases,
    platform_namespaces,
    platform_releases,
)
from mvnobox.spec import load_brand

ROOT = Path(__file__).resolve().parents[2]
IMAGES = Images(**references())
PLATFORM = PlatformPlan("dev", IMAGES)
BRAND = BrandPlan("dev", load_brand(ROOT / "brands/silverline.yaml"), IMAGES)
RELEASES = [*platform_releases(PLATFORM), *brand_releases(BRAND)]
CHARTS = sorted(path.parent.name for path in (ROOT / "charts").glob("*/values.schema.json"))


@pytest.fixture(scope="session")
def helm() -> Path:
    return ensure_tool("helm", PlainReporter())


def objects(helm: Path, release: Release) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(manifests(helm, release)) if one]


def by_name(release: Release) -> str:
    return f"{release.namespace}-{release.name}"


def test_every_chart_is_used() -> None:
    assert {release.chart for release in RELEASES} == set(CHARTS)


@pytest.mark.parametrize("chart", CHARTS)
def test_lint(helm: Path, chart: str) -> None:
    done = subprocess.run([str(helm), "lint", "--strict", str(ROOT / "charts" / chart)], capture_output=True, text=True)
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
            assert context["allowPrivilegeEscalation"] is False and context["readOnlyRootFilesystem"] is True
            assert context["capabilities"]["drop"] == ["ALL"] and not context.get("privileged")
            assert container["resources"]["requests"] and container["resources"]["limits"]["memory"]
            if context["capabilities"].get("add"):
                planes += 1
                assert set(context["capabilities"]["add"]) <= {"NET_ADMIN", "NET_RAW"}
            else:
                assert spec["securityContext"]["runAsNonRoot"] is True
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


def test_no_secret_is_in_what_is_rendered(helm: Path) -> None:
    for release in RELEASES:
        assert not [one for one in objects(helm, release) if one["kind"] == "Secret"]


@pytest.mark.cluster
def test_a_real_api_server_takes_all_of_it(helm: Path, cluster: Any) -> None:
    from mvnobox.deploy.cluster import EmbeddedCluster

    kubectl = EmbeddedCluster().kubectl
    namespaces = [*platform_namespaces(PLATFORM), *brand_namespaces(BRAND)]
    there = {n["metadata"]["name"] for n in json.loads(kubectl("get", "ns", "-o", "json").stdout)["items"]}
    made = [n.name for n in namespaces if n.name not in there]
    try:
        for name in made:
            kubectl("create", "namespace", name)
        for release in RELEASES:
            done = kubectl("apply", "--dry-run=server", "-f", "-", stdin=manifests(helm, release), check=False)
            assert done.returncode == 0, f"{by_name(release)}: {done.stderr}"
    finally:
        for name in made:
            kubectl("delete", "namespace", name, "--wait=false")
