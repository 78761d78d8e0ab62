"""Which cluster, and why: always said aloud."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kubernetes import client, config

from mvnobox.deploy.cluster.embedded import CONTEXT, EmbeddedCluster
from mvnobox.deploy.paths import home_dir
from mvnobox.errors import EnvironmentUnfit

Kind = Literal["existing", "k3d", "kind", "embedded"]


@dataclass(frozen=True)
class ClusterChoice:
    """The cluster that a run uses."""

    kind: Kind
    context: str
    kubeconfig: Path
    reason: str


def _user_kubeconfig() -> Path:
    return Path(config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION.split(":")[0]).expanduser()


def _existing(context: str) -> ClusterChoice:
    path = _user_kubeconfig()
    try:
        contexts = [entry["name"] for entry in config.list_kube_config_contexts(str(path))[0]]  # type: ignore[no-untyped-call]
    except config.ConfigException as error:
        raise EnvironmentUnfit(f"{path} cannot be used: {error}", "set KUBECONFIG to your kubeconfig") from None
    if context not in contexts:
        raise EnvironmentUnfit(
            f"{path} has no context {context!r}; it has {', '.join(contexts) or 'none'}",
            "name one of these with --cluster, or take --cluster embedded",
        )
    try:
        api = config.new_client_from_config(str(path), context)  # type: ignore[no-untyped-call]
        client.VersionApi(api).get_code(_request_timeout=10)
    except Exception as error:  # the client raises urllib3's, TLS's and its own errors alike
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EnvironmentUnfit(
            f"the cluster of context {context!r} does not answer: {said[:300]}",
            f"see that `kubectl --context {context} version` works, or take --cluster embedded",
        ) from None
    return ClusterChoice("existing", context, path, "you named it")


def _local_tool(name: Literal["k3d", "kind"]) -> ClusterChoice | None:
    """A cluster that k3d or kind already runs under the name `mvno` (not tested where the kit is built)."""
    if shutil.which(name) is None:
        return None
    listed = subprocess.run(
        [name, "get", "clusters"] if name == "kind" else [name, "cluster", "list", "--no-headers"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    if not any(line.split()[:1] == ["mvno"] for line in listed.splitlines()):
        return None
    return ClusterChoice(name, f"{name}-mvno", _user_kubeconfig(), f"{name} runs a cluster called mvno")


def choose(requested: str) -> ClusterChoice:
    """Decide for `--cluster auto|embedded|CONTEXT`. Raises EnvironmentUnfit with the remedy."""
    if requested not in ("auto", "embedded"):
        return _existing(requested)
    if requested == "auto" and not EmbeddedCluster().installed():
        for name in ("k3d", "kind"):
            found = _local_tool(name)
            if found is not None:
                return found
    reason = (
        "you asked for it" if requested == "embedded" else "no context was named and no cluster `mvno` of k3d or kind"
    )
    return ClusterChoice("embedded", CONTEXT, home_dir() / "kubeconfig", reason)
