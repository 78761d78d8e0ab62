"""What goes into an image, and the tag that follows from it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mvnobox.deploy.paths import project_root

# The packages of `mvnobox` that services need; the kit's own rooms stay out of the images.
SERVICE_PACKAGES = ("bss", "charging", "core", "diameter", "n4", "pfcp", "service", "spec")
SERVICE_FILES = ("__init__.py", "errors.py", "py.typed")


@dataclass(frozen=True)
class Recipe:
    """An image: its folder, its parent among ours, and what is copied in (name in the context → source)."""

    name: str
    parent: str | None
    copies: dict[str, Path]

    @property
    def containerfile(self) -> Path:
        return project_root() / "images" / self.name / "Containerfile"


def recipes() -> dict[str, Recipe]:
    """All images in the order in which they build on each other."""
    root = project_root()
    sources = {f"mvnobox/{name}": root / "src/mvnobox" / name for name in (*SERVICE_PACKAGES, *SERVICE_FILES)}
    return {
        "services": Recipe(
            "services",
            None,
            {
                "requirements-services.lock": root / "requirements-services.lock",
                "templates/portal": root / "templates/portal",
                **sources,
            },
        ),
        "coresim": Recipe("coresim", "services", {}),
        "sctp": Recipe("sctp", None, {"sctp_over_tcp.c": root / "images/sctp/sctp_over_tcp.c"}),
        "postgresql": Recipe("postgresql", None, {"entrypoint.sh": root / "images/postgresql/entrypoint.sh"}),
    }


def _files(path: Path) -> Iterable[Path]:
    if path.is_file():
        return [path]
    return sorted(p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts)


def tag_of(recipe: Recipe, parent_tag: str) -> str:
    """12 hex digits over everything that decides the image."""
    sha = hashlib.sha256(parent_tag.encode())
    sha.update(recipe.containerfile.read_bytes())
    for name, source in sorted(recipe.copies.items()):
        for path in _files(source):
            inside = name if source.is_file() else f"{name}/{path.relative_to(source)}"
            sha.update(f"\0{inside}\0{path.stat().st_mode & 0o111}\0".encode() + path.read_bytes())
    return sha.hexdigest()[:12]


def write_context(recipe: Recipe, folder: Path) -> None:
    """The build context: exactly what the tag was taken over."""
    shutil.copy(recipe.containerfile, folder / "Containerfile")
    for name, source in recipe.copies.items():
        for path in _files(source):
            target = folder / name if source.is_file() else folder / name / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
