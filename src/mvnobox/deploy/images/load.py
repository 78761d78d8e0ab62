"""Bringing images to where pods start: onto the embedded cluster's node, into kind or k3d, or through a registry."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mvnobox.deploy.cluster import ClusterChoice, EmbeddedCluster
from mvnobox.deploy.images.builders import find_builder
from mvnobox.deploy.images.inputs import REPOSITORY, archive_path
from mvnobox.deploy.paths import home_dir
from mvnobox.errors import EnvironmentUnfit, Failed


class ImageTarget(Protocol):
    """What takes images."""

    def has_image(self, reference: str) -> bool:
        """Whether it has an image of this name."""

    def import_image(self, archive: Path) -> None:
        """Take a docker archive's image under the name that it carries."""


def _tool(command: list[str], what: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise EnvironmentUnfit(f"{command[0]} cannot be run: {error.strerror}", "put it on PATH") from None
    if done.returncode != 0:
        tail = "\n".join(f"    {line}" for line in done.stderr.strip().splitlines()[-15:])
        raise Failed(f"{what} failed:\n{tail}", f"the command was: {' '.join(command)}")


@dataclass(frozen=True)
class _LocalTool:
    """kind and k3d: their own command imports an archive into every node (not tested where the kit is built)."""

    name: str
    context: str

    @property
    def _record(self) -> Path:
        return home_dir() / "images-loaded" / self.context

    def has_image(self, reference: str) -> bool:
        # Neither tool can be asked; a record of what was given to this very cluster says it.
        return self._record.is_file() and reference in self._record.read_text(encoding="utf-8").split()

    def import_image(self, archive: Path) -> None:
        cluster = self.context.removeprefix(f"{self.name}-")
        command = {
            "kind": ["kind", "load", "image-archive", str(archive), "--name", cluster],
            "k3d": ["k3d", "image", "import", str(archive), "--cluster", cluster],
        }[self.name]
        _tool(command, f"Importing {archive.name} into {self.name}")
        self._record.parent.mkdir(parents=True, exist_ok=True)
        name, _, tag = archive.stem.rpartition("-")
        with open(self._record, "a", encoding="utf-8") as record:
            record.write(f"{REPOSITORY}/{name}:{tag}\n")


def image_target(choice: ClusterChoice) -> ImageTarget | None:
    """What takes images for a cluster; None for a cluster of the user's, which pulls them from a registry."""
    if choice.kind == "embedded":
        return EmbeddedCluster()
    if choice.kind in ("kind", "k3d"):
        return _LocalTool(choice.kind, choice.context)
    return None


def load_images(references: Mapping[str, str], cluster: ImageTarget | None) -> dict[str, str]:
    """Bring images to a cluster; returns name to the reference that pods have to use there.

    What is there already is not moved again. Without a target the images go to the registry that MVNO_REGISTRY names;
    without that, EnvironmentUnfit. Raises Failed when an import or a push fails.
    """
    if cluster is None:
        return _push(references)
    for reference in references.values():
        if not cluster.has_image(reference):
            cluster.import_image(archive_path(reference))
    return dict(references)


def _push(references: Mapping[str, str]) -> dict[str, str]:
    registry = os.environ.get("MVNO_REGISTRY", "").rstrip("/")
    if not registry:
        raise EnvironmentUnfit(
            "this cluster cannot be given images directly, and no registry is named that it can pull them from",
            "set MVNO_REGISTRY to a repository that you may push to, as in MVNO_REGISTRY=registry.example.org/mvno",
        )
    builder = find_builder()
    pushed = {}
    for name, reference in references.items():
        target = f"{registry}/{reference.removeprefix(f'{REPOSITORY}/')}"
        for command in builder.push(archive_path(reference), reference, target):
            _tool(command, f"Pushing image {name} to {registry}")
        pushed[name] = target
    return pushed
