"""Putting images where the cluster finds them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping

from mvnobox.deploy.cluster import ClusterChoice, EmbeddedCluster
from mvnobox.deploy.images.build import archive_of
from mvnobox.deploy.report import Reporter
from mvnobox.errors import EnvironmentUnfit, Failed


def load_images(images: Mapping[str, str], choice: ClusterChoice, report: Reporter) -> dict[str, str]:
    """Load or push what the cluster lacks; the references by which it knows the images."""
    if choice.kind == "embedded":
        cluster = EmbeddedCluster()
        missing = [reference for reference in images.values() if not cluster.has_image(reference)]
        if missing:
            with report.task("Putting images on the node") as task:
                for reference in missing:
                    task.update(reference)
                    cluster.import_image(archive_of(reference))
        return dict(images)
    if choice.kind in ("kind", "k3d"):
        for reference in images.values():
            load = (
                ["kind", "load", "image-archive", str(archive_of(reference)), "--name", "mvno"]
                if choice.kind == "kind"
                else ["k3d", "image", "import", str(archive_of(reference)), "-c", "mvno"]
            )
            _run(load)
        return dict(images)
    registry = os.environ.get("MVNO_REGISTRY")
    if not registry:
        raise EnvironmentUnfit(
            f"the cluster of context {choice.context!r} has to get the kit's images from a registry",
            "set MVNO_REGISTRY to a registry that you may push to and that the cluster may pull from",
        )
    pushed = {}
    for name, reference in images.items():
        target = f"{registry.rstrip('/')}/{reference.rsplit('/', 1)[1]}"
        with report.task(f"Pushing {target}"):
            _run(["skopeo", "copy", f"oci-archive:{archive_of(reference)}", f"docker://{target}"])
        pushed[name] = target
    return pushed


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise EnvironmentUnfit(f"{command[0]} is not installed", f"install {command[0]}") from None
    if done.returncode != 0:
        raise Failed(f"{' '.join(command[:3])}: {done.stderr.strip()[-400:]}", "see that the tool works by itself")
