"""The image that holds a pod's namespaces: one static binary, packed here, so that no registry is needed for it."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

from mvnobox.deploy.paths import cache_dir


def _digest(binary: Path) -> str:
    return hashlib.sha256(binary.read_bytes()).hexdigest()[:12]


def pause_reference(binary: Path) -> str:
    """The image's name, with the binary's hash as its tag."""
    return f"localhost/mvno/pause:{_digest(binary)}"


def _add(archive: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    archive.addfile(entry, io.BytesIO(data))


def ensure_pause_archive(binary: Path) -> Path:
    """A docker archive (Docker Image Specification v1.2) of the image, in the cache."""
    target = cache_dir() / "images" / f"pause-{_digest(binary)}.tar"
    if target.exists():
        return target
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as files:
        _add(files, "pause", binary.read_bytes(), 0o755)
    blob = layer.getvalue()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(blob).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [pause_reference(binary)], "Layers": ["layer.tar"]}]
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    with tarfile.open(partial, "w") as archive:
        _add(archive, "config.json", json.dumps(config).encode())
        _add(archive, "layer.tar", blob)
        _add(archive, "manifest.json", json.dumps(manifest).encode())
    partial.rename(target)
    return target
