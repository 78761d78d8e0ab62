"""What decides an image: its Containerfile, the files it copies, its parent. Their hash is the tag."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from mvnobox.deploy.paths import cache_dir, project_root

REPOSITORY = "localhost/mvno"
BASE = "docker.io/library/debian:bookworm-slim"
# The rooms that run on the operator's machine only; a change of them rebuilds no image.
_KIT_ONLY = ("cli", "deploy", "render")


@dataclass(frozen=True)
class Image:
    """One folder of `images/`."""

    name: str
    parent: str | None = None
    argument: str = ""
    """The build argument by which the Containerfile takes its parent's reference; none: the base's fixed name."""
    files: tuple[str, ...] = ()
    """Files and folders that are copied, relative to the project."""


_ALL = {
    image.name: image
    for image in (
        Image("base"),
        Image("runtime", parent="base", files=("requirements-services.lock",)),
        Image("services", parent="runtime", argument="RUNTIME", files=("src/mvnobox",)),
        Image("coresim", parent="runtime", argument="RUNTIME", files=("src/mvnobox",)),
        Image("postgresql", parent="base", files=("images/postgresql",)),
    )
}
IMAGES = ("services", "coresim", "postgresql")
"""The images that pods run; the others are only built upon."""


def image(name: str) -> Image:
    """An image by its folder's name. Raises KeyError."""
    return _ALL[name]


def input_files(wanted: Image) -> list[Path]:
    """Every file that decides an image, absolute, sorted."""
    root = project_root()
    found: set[Path] = set()
    for start in (f"images/{wanted.name}", *wanted.files):
        path = root / start
        if path.is_file():
            found.add(path)
            continue
        for folder, names, files in os.walk(path):
            names[:] = [n for n in names if n != "__pycache__" and not (folder == f"{path}" and n in _excluded(start))]
            found.update(Path(folder) / n for n in files if not n.endswith((".pyc", ".swp", "~")))
    return sorted(found)


def _excluded(start: str) -> tuple[str, ...]:
    return _KIT_ONLY if start == "src/mvnobox" else ()


def digest(name: str) -> str:
    """12 hex digits over every input of an image and of its parents."""
    sha = hashlib.sha256()
    wanted = image(name)
    if wanted.parent:
        sha.update(digest(wanted.parent).encode())
    for path in input_files(wanted):
        executable = b"x" if os.access(path, os.X_OK) else b"-"
        data = path.read_bytes()
        sha.update(f"{path.relative_to(project_root())}\0{len(data)}\0".encode() + executable + data)
    return sha.hexdigest()[:12]


def image_reference(name: str) -> str:
    """`localhost/mvno/<name>:<hash of the inputs>`; the base has the name that Containerfiles start from."""
    return BASE if name == "base" else f"{REPOSITORY}/{name}:{digest(name)}"


def archive_path(reference: str) -> Path:
    """Where the archive of one of our images lies in the cache."""
    name, _, tag = reference.removeprefix(f"{REPOSITORY}/").partition(":")
    return cache_dir() / "images" / f"{name}-{tag}.tar"


def stage(wanted: Image, target: Path) -> None:
    """Copy an image's inputs into an empty build context, laid out as in the project, readable for everybody."""
    root = project_root()
    for path in input_files(wanted):
        copy = target / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        copy.chmod(0o755 if os.access(path, os.X_OK) else 0o644)
        # A fixed time: builders compare what is copied, and ours has to look the same on every machine.
        os.utime(copy, (0, 0))
