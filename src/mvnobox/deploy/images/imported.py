"""Images from elsewhere, handed over as archives: kept in the cache, put on the embedded cluster's node when it is there."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

from mvnobox.deploy.cluster import EmbeddedCluster
from mvnobox.deploy.paths import cache_dir
from mvnobox.deploy.report import Reporter
from mvnobox.errors import BadInput

_NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


def names_in(archive: Path) -> list[str]:
    """The image names that a docker or OCI archive carries. Raises BadInput."""
    try:
        with tarfile.open(archive) as opened:
            members = {member.name.removeprefix("./"): member for member in opened.getmembers()}
            if "manifest.json" in members:
                read = opened.extractfile(members["manifest.json"])
                entries = json.load(read) if read else []
                found = [tag for entry in entries for tag in entry.get("RepoTags") or []]
            elif "index.json" in members:
                read = opened.extractfile(members["index.json"])
                manifests = json.load(read)["manifests"] if read else []
                notes = [one.get("annotations", {}) for one in manifests]
                found = [note[name] for note in notes for name in _NAMES if ":" in note.get(name, "")]
            else:
                found = []
    except (OSError, tarfile.TarError, ValueError, KeyError, AttributeError) as error:
        raise BadInput(f"{archive}: {error}", "name a docker or OCI archive, as `docker save` writes it") from None
    if not found:
        raise BadInput(f"{archive} names no image", "save it with its full name: docker save -o FILE NAME:TAG")
    return sorted(set(found))


def _place(reference: str) -> Path:
    return cache_dir() / "imported" / (reference.replace("/", "_").replace(":", "_") + ".tar")


def keep(archive: Path, report: Reporter) -> list[str]:
    """Take an archive into the cache, and onto the node where the embedded cluster runs; the images' names."""
    names = names_in(archive)
    with report.task(f"Taking {', '.join(names)}"):
        for name in names:
            place = _place(name)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(archive, place.with_suffix(".part"))
            place.with_suffix(".part").rename(place)
        cluster = EmbeddedCluster()
        if cluster.supervisor_pid() is not None:
            cluster.import_image(archive)
    return names


def put_on_node(references: tuple[str, ...]) -> list[str]:
    """Put kept images on the embedded cluster's node; which of the references it still lacks."""
    cluster = EmbeddedCluster()
    for reference in references:
        if not cluster.has_image(reference) and _place(reference).exists():
            cluster.import_image(_place(reference))
    return [reference for reference in references if not cluster.has_image(reference)]
