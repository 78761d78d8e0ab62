"""The programs that build: buildah, docker or podman, whichever is there. One command line each."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from mvnobox.deploy.paths import cache_dir
from mvnobox.errors import EnvironmentUnfit


@dataclass(frozen=True)
class Builder:
    """A builder's program with the options that every call takes."""

    name: str
    command: tuple[str, ...]

    def has(self, reference: str) -> bool:
        """Whether its store has an image."""
        done = self._run("inspect", "--type", "image", reference)
        return done.returncode == 0

    def build(
        self, reference: str, containerfile: Path, context: Path, arguments: dict[str, str], secrets: dict[str, Path]
    ) -> list[str]:
        """The command line that builds one image into the store."""
        line = [*self.command, "build", "--file", str(containerfile), "--tag", reference]
        if self.name == "docker":
            line += ["--progress", "plain"]
        else:
            line += ["--layers", "--format", "docker", "--isolation", "chroot"]
        line += [part for key, value in arguments.items() for part in ("--build-arg", f"{key}={value}")]
        line += [part for key, path in secrets.items() for part in ("--secret", f"id={key},src={path}")]
        return [*line, str(context)]

    def never_pull(self) -> list[str]:
        """Options of `build` where no registry answers."""
        return {"buildah": ["--pull-never"], "podman": ["--pull=never"]}.get(self.name, [])

    def save(self, reference: str, archive: Path) -> list[str]:
        """The command line that writes an image as a docker archive, which every cluster's tools can read."""
        if self.name == "buildah":
            return [*self.command, "push", reference, f"docker-archive:{archive}:{reference}"]
        if self.name == "podman":
            return [*self.command, "save", "--format", "docker-archive", "--output", str(archive), reference]
        return [*self.command, "save", "--output", str(archive), reference]

    def push(self, archive: Path, source: str, target: str) -> list[list[str]]:
        """The command lines that bring an archive's image into a registry under another name."""
        if self.name == "buildah":
            return [
                [*self.command, "pull", f"docker-archive:{archive}"],
                [*self.command, "push", source, f"docker://{target}"],
            ]
        return [
            [*self.command, "load", "--input", str(archive)],
            [*self.command, "tag", source, target],
            [*self.command, "push", target],
        ]

    def remove(self, reference: str) -> None:
        """Take an image out of the store; another image's layers stay."""
        self._run("rmi", reference)

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*self.command, *arguments], capture_output=True, text=True, check=False)


def _works(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _buildah(program: str) -> Builder | None:
    """Buildah with a store of our own: nothing of the user's images is touched."""
    store = cache_dir() / "containers"
    for driver in ("overlay", "vfs"):
        # The drivers' folders differ, so that a machine that changes its mind finds a clean one.
        root = store / driver
        command = (
            program,
            "--root",
            str(root / "storage"),
            "--runroot",
            str(root / "run"),
            "--storage-driver",
            driver,
        )
        root.mkdir(parents=True, exist_ok=True)
        if _works([*command, "info"]):
            return Builder("buildah", command)
    return None


def find_builder() -> Builder:
    """The first builder that works here: buildah, docker, podman. Raises EnvironmentUnfit."""
    present = []
    for name in ("buildah", "docker", "podman"):
        program = shutil.which(name)
        if program is None:
            continue
        present.append(name)
        if name == "buildah":
            found = _buildah(program)
            if found is not None:
                return found
        elif _works([program, "info"]):
            return Builder(name, (program,))
    if present:
        raise EnvironmentUnfit(
            f"container images cannot be built: {' and '.join(present)} {'is' if len(present) == 1 else 'are'} "
            "installed and not usable",
            "start the docker daemon, or install buildah (`buildah info` says what it lacks)"
            + ("" if os.geteuid() == 0 else "; without root, buildah needs entries in /etc/subuid and /etc/subgid"),
        )
    raise EnvironmentUnfit(
        "container images cannot be built: none of buildah, docker and podman is installed",
        "install one of them, as in: apt-get install buildah",
    )
