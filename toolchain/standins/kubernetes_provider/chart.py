"""`helm template` of a chart, as data."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import manifests, objects
from .errors import ProviderError


@dataclass(frozen=True)
class ChartArgs:
    """The inputs of `kubernetes.helm.v4.Chart` that a chart on disk or in a repository needs."""

    name: str
    chart: str
    namespace: str
    prefix: str
    values: dict[str, Any] = field(default_factory=dict)
    value_files: Sequence[Any] = ()
    version: str = ""
    repository: str = ""
    skip_crds: bool = False
    skip_await: bool = False


_KNOWN = {
    "name",
    "chart",
    "namespace",
    "resourcePrefix",
    "values",
    "valueYamlFiles",
    "version",
    "repositoryOpts",
    "skipCrds",
    "skipAwait",
    "includeHooks",
    "dependencyUpdate",
    "verify",
    "devel",
    "plainHttp",
}


def chart_args(inputs: dict[str, Any], name: str, default_namespace: str) -> ChartArgs:
    """The arguments from a component's plain inputs. Raises ProviderError for what the stand-in cannot do."""
    unknown = sorted(key for key in inputs if key not in _KNOWN and inputs[key] is not None)
    for key in ("dependencyUpdate", "verify"):
        if inputs.get(key):
            unknown.append(key)
    if unknown:
        raise ProviderError(f"the stand-in provider cannot do this of a Chart: {', '.join(unknown)}")
    repository = inputs.get("repositoryOpts") or {}
    return ChartArgs(
        name=inputs.get("name") or name,
        chart=str(inputs["chart"]),
        namespace=inputs.get("namespace") or default_namespace,
        prefix=name if inputs.get("resourcePrefix") is None else str(inputs["resourcePrefix"]),
        values=inputs.get("values") or {},
        value_files=inputs.get("valueYamlFiles") or (),
        version=inputs.get("version") or "",
        repository=repository.get("repo") or "",
        skip_crds=bool(inputs.get("skipCrds")),
        skip_await=bool(inputs.get("skipAwait")),
    )


def render(args: ChartArgs, kube_version: str | None, api_versions: Sequence[str]) -> list[objects.Object]:
    """The chart's objects, hooks left out as the official provider does."""
    helm = shutil.which("helm")
    if helm is None:
        raise ProviderError("a chart needs the program `helm`, which is not on PATH")
    command = [helm, "template", args.name, args.chart, "--no-hooks", "--namespace", args.namespace]
    if not args.skip_crds:
        command.append("--include-crds")
    if args.version:
        command += ["--version", args.version]
    if args.repository:
        command += ["--repo", args.repository]
    if kube_version:
        command += ["--kube-version", kube_version]
    for version in api_versions:
        command += ["--api-versions", version]
    with tempfile.TemporaryDirectory(prefix="mvno-values-") as place:
        for index, asset in enumerate(args.value_files):
            command += ["--values", _on_disk(asset, Path(place, f"{index}.yaml"))]
        # By the pipe: values hold secrets, and neither a file nor the command line should.
        command += ["--values", "-"]
        done = subprocess.run(
            command,
            input=json.dumps(args.values),
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "HELM_NO_PLUGINS": "1"},
        )
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if "found symbolic link" not in line]
        said = " ".join(filter(None, lines)).removeprefix("Error: ")
        said = said.replace("Use --debug flag to render out invalid YAML", "").strip()
        raise ProviderError(f"chart {args.chart} cannot be rendered: {said}")
    return manifests.parse(done.stdout, f"chart {args.chart}")


def _on_disk(asset: Any, path: Path) -> str:
    if isinstance(asset, str):
        return asset
    content = asset.get("asset", {}) if isinstance(asset, dict) else {}
    if "path" in content:
        return str(content["path"])
    if "text" in content:
        path.touch(mode=0o600)
        path.write_text(content["text"], encoding="utf-8")
        return str(path)
    if "uri" in content:
        return str(content["uri"])
    raise ProviderError("valueYamlFiles takes file, string or remote assets")
