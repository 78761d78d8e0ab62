"""`mvno render`: what will be applied, as files. No secret is among them: Secrets are named, not shown."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

from mvnobox.deploy.brands import find_brand
from mvnobox.deploy.core import check_core, forwarding_of
from mvnobox.deploy.epc import check_epc, check_pools, wanted_epc
from mvnobox.deploy.images import references
from mvnobox.deploy.installation import Installation
from mvnobox.deploy.paths import project_root
from mvnobox.deploy.report import Reporter
from mvnobox.deploy.sbi_tls import check_sbi_tls, wanted_sbi_tls
from mvnobox.deploy.toolchain import ensure_tool
from mvnobox.errors import BadInput, EnvironmentUnfit, Failed
from mvnobox.render import (
    BrandPlan,
    CoreSlice,
    Images,
    PlatformPlan,
    Release,
    brand_namespaces,
    brand_releases,
    brand_resources,
    platform_namespaces,
    platform_releases,
)


def manifests(helm: Path, release: Release) -> str:
    """The objects of a release, by `helm template`. Raises Failed."""
    done = subprocess.run(
        [
            str(helm),
            "template",
            release.name,
            str(project_root() / "charts" / release.chart),
            "--namespace",
            release.namespace,
            "--values",
            "-",
        ],
        input=yaml.safe_dump(dict(release.values)),
        text=True,
        capture_output=True,
        check=False,
    )
    if done.returncode != 0:
        raise Failed(f"chart {release.chart}: {done.stderr.strip().splitlines()[-1]}", "see the chart's values")
    return done.stdout


def render_to(
    folder: Path, *, brand: str, env: str, core: str, report: Reporter, epc: bool = False, sbi_tls: bool = False
) -> int:
    """Write values and manifests of the platform and a brand; how many files. Raises BadInput for a folder in use."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} is not an empty folder", "name a folder that does not exist yet")
    _, spec = find_brand(brand)
    images = Images(**references())
    check_core(core)
    chosen = "simulated" if core == "auto" else core
    check_epc(chosen, epc)
    check_pools(None, spec, chosen, epc)
    check_sbi_tls(chosen, sbi_tls)
    has_4g, has_tls = wanted_epc(None, spec, chosen, epc), wanted_sbi_tls(None, chosen, sbi_tls)
    slices = (CoreSlice.of(spec),)
    shared = "open5gs" if chosen == "open5gs" else "simulated"
    more = {"env": env, "images": images, "epc": has_4g, "sbi_tls": has_tls}
    platform = PlatformPlan(core=shared, slices=slices, **more)  # type: ignore[arg-type]
    try:
        kind = Installation(env).cluster().kind
    except EnvironmentUnfit:
        # What `up` takes where nothing else is named.
        kind = "embedded"
    layer = BrandPlan(brand=spec, core=chosen, forwarding=forwarding_of(kind), **more)  # type: ignore[arg-type]
    helm = ensure_tool("helm", report)
    count = 0
    for name, namespaces, releases in (
        ("platform", platform_namespaces(platform), platform_releases(platform)),
        (spec.name, brand_namespaces(layer), brand_releases(layer)),
    ):
        place = folder / f"{name}.{env}"
        place.mkdir(parents=True)
        documents = [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": n.name, "labels": n.all_labels}}
            for n in namespaces
        ]
        if name == spec.name and (beside := brand_resources(layer)):
            (place / "resources.yaml").write_text(yaml.safe_dump_all(beside, sort_keys=False), encoding="utf-8")
            count += 1
        (place / "namespaces.yaml").write_text(yaml.safe_dump_all(documents, sort_keys=False), encoding="utf-8")
        count += 1
        for release in releases:
            stem = f"{release.namespace}-{release.name}"
            values = yaml.safe_dump(dict(release.values), sort_keys=False, allow_unicode=True)
            (place / f"{stem}.values.yaml").write_text(values, encoding="utf-8")
            (place / f"{stem}.yaml").write_text(manifests(helm, release), encoding="utf-8")
            count += 2
    return count
