"""Building images with what the machine has: buildah, docker or podman. Unchanged images are not built."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from mvnobox.deploy.images.base import BASE, ensure_base
from mvnobox.deploy.images.content import Recipe, recipes, tag_of, write_context
from mvnobox.deploy.paths import cache_dir
from mvnobox.deploy.report import Reporter, Task
from mvnobox.errors import EnvironmentUnfit, Failed

NAMES = ("services", "coresim", "postgresql")
# Built only where a node needs it.
OPTIONAL = ("sctp",)
PREFIX = "localhost/mvno"
# Settings of the host's package clients that a build needs and an image must not keep.
PASSED = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "PIP_INDEX_URL")
CA_INSIDE = "/run/host-ca.crt"
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")


def tags() -> dict[str, str]:
    """Image name → tag."""
    found: dict[str, str] = {}
    for name, recipe in recipes().items():
        found[name] = tag_of(recipe, found[recipe.parent] if recipe.parent else BASE)
    return found


def references(optional: Iterable[str] = ()) -> dict[str, str]:
    """Image name → full reference; with the optional images that are named."""
    wanted = {*NAMES, *optional}
    return {name: f"{PREFIX}/{name}:{tag}" for name, tag in tags().items() if name in wanted}


def archive_of(reference: str) -> Path:
    """Where an image's archive is cached."""
    return cache_dir() / "images" / (reference.rsplit("/", 1)[1].replace(":", "-") + ".tar")


def ensure_images(report: Reporter, optional: Iterable[str] = ()) -> dict[str, str]:
    """Build what is not in the cache; image name → reference. Raises EnvironmentUnfit or Failed."""
    wanted = references(optional)
    folder = cache_dir() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    if all(archive_of(reference).exists() for reference in wanted.values()):
        return wanted
    with open(folder / ".lock", "w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        builder = Builder(report)
        for name, reference in wanted.items():
            if not archive_of(reference).exists():
                builder.build(recipes()[name], reference, wanted)
    return wanted


class Builder:
    """One of the machine's image builders, with storage of its own where it lets itself be told so."""

    def __init__(self, report: Reporter) -> None:
        self._report = report
        for name in ("buildah", "docker", "podman"):
            path = shutil.which(name)
            # A docker client without an engine is no builder.
            usable = path and (name != "docker" or subprocess.run([path, "info"], capture_output=True).returncode == 0)
            if usable:
                self.name = name
                break
        else:
            raise EnvironmentUnfit(
                "there is no builder for images on this machine", "install buildah (apt-get install buildah)"
            )
        self.command = [self.name]
        if self.name == "buildah":
            root = cache_dir() / "containers"
            driver = "vfs" if os.environ.get("MVNO_STORAGE_DRIVER") == "vfs" else "overlay"
            self.command += ["--root", str(root), "--runroot", str(root / "run"), "--storage-driver", driver]
        ensure_base(self.command, self.name, report)

    def build(self, recipe: Recipe, reference: str, all_references: dict[str, str]) -> None:
        """Build one image and keep it as an archive."""
        log = cache_dir() / "logs" / f"image-{recipe.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with (
            self._report.task(f"Building image {recipe.name}") as task,
            tempfile.TemporaryDirectory(prefix="mvno-image-") as context,
        ):
            write_context(recipe, Path(context))
            command = [*self.command, "build", "-t", reference, "-f", f"{context}/Containerfile"]
            if self.name == "buildah":
                command += ["--isolation", "chroot", "--pull-never", "--layers", "--network", "host"]
                # Package clients trust what the host trusts; only for the time of the build.
                if CA_BUNDLE.exists():
                    command += ["--volume", f"{CA_BUNDLE}:{CA_INSIDE}:ro", "--build-arg", f"PIP_CERT={CA_INSIDE}"]
            if recipe.parent:
                if self.name != "buildah":
                    command += ["--pull=false"]
                self._ensure_parent(all_references[recipe.parent])
                command += ["--build-arg", f"SERVICES={all_references[recipe.parent]}"]
            for variable in PASSED:
                if os.environ.get(variable):
                    command += ["--build-arg", variable]
            self._run([*command, context], log, task)
            task.update("writing the archive")
            archive = archive_of(reference)
            partial = archive.with_suffix(".partial")
            partial.unlink(missing_ok=True)
            if self.name == "buildah":
                self._run([*self.command, "push", reference, f"oci-archive:{partial}:{reference}"], log, task)
            else:
                self._run([*self.command, "save", "-o", str(partial), reference], log, task)
            partial.rename(archive)

    def _ensure_parent(self, reference: str) -> None:
        """A parent that is cached as an archive may be gone from the builder's storage."""
        if subprocess.run([*self.command, "inspect", reference], capture_output=True).returncode == 0:
            return
        log = cache_dir() / "logs" / "image-parent.log"
        with self._report.task("Loading the parent image") as task:
            if self.name == "buildah":
                self._run([*self.command, "pull", f"oci-archive:{archive_of(reference)}"], log, task)
            else:
                self._run([*self.command, "load", "-i", str(archive_of(reference))], log, task)

    @staticmethod
    def _run(command: list[str], log: Path, task: Task) -> None:
        with open(log, "wb") as out:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
            try:
                while True:
                    try:
                        code = process.wait(2)
                        break
                    except subprocess.TimeoutExpired:
                        steps = [x for x in log.read_text(errors="replace").splitlines() if x.startswith("STEP")]
                        task.update(steps[-1][:60] if steps else "")
            except BaseException:
                process.terminate()
                process.wait()
                raise
        if code != 0:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            full = " The disk is full." if "No space left" in tail else ""
            raise Failed(
                f"{command[0]} failed.{full}\n{tail}",
                f"the whole log is {log}; Debian's and PyPI's packages must be reachable",
            )
