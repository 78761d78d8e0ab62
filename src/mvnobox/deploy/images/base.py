"""The base image: pulled where a container registry answers, else seeded from Debian's packages."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from mvnobox.deploy.paths import cache_dir
from mvnobox.deploy.report import Reporter
from mvnobox.errors import Failed

BASE = "docker.io/library/debian:bookworm-slim"
PULL_SECONDS = 60


def ensure_base(command: list[str], builder: str, report: Reporter) -> None:
    """See to it that the builder has the base image."""
    if subprocess.run([*command, "inspect", BASE], capture_output=True).returncode == 0:
        return
    if _pull(command):
        report.note("base image: pulled from its registry")
        return
    if builder != "buildah" or shutil.which("mmdebstrap") is None:
        raise Failed(
            f"{BASE} can neither be pulled nor made here",
            "install buildah and mmdebstrap, or reach a container registry",
        )
    report.note("base image: no container registry answers, seeded from Debian's packages")
    with (
        report.task("Seeding the base image") as task,
        tempfile.TemporaryDirectory(prefix="mvno-base-", dir=cache_dir()) as scratch,
    ):
        root = f"{scratch}/root"
        # The host's own sources, so that its mirror is used.
        sources = [
            str(p)
            for p in (Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*")))
            if p.is_file()
        ]
        task.update("mmdebstrap")
        listed = "\n".join(Path(p).read_text() for p in sources if p.endswith(".list"))
        arguments = ["mmdebstrap", "--variant=minbase", "--mode=root", "bookworm", root]
        if "bookworm" in listed:
            arguments.append("-")
        done = subprocess.run(
            arguments, input=listed if arguments[-1] == "-" else None, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise Failed(f"mmdebstrap failed:\n{done.stderr[-800:]}", "Debian's packages must be reachable")
        task.update("committing")
        container = _checked([*command, "from", "scratch"])
        try:
            mount = _checked([*command, "mount", container])
            _checked(["cp", "-a", f"{root}/.", mount])
            _checked([*command, "config", "--cmd", "bash", container])
            _checked([*command, "commit", "-q", container, BASE])
        finally:
            subprocess.run([*command, "rm", container], capture_output=True, check=False)


def _pull(command: list[str]) -> bool:
    try:
        return subprocess.run([*command, "pull", BASE], capture_output=True, timeout=PULL_SECONDS).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _checked(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"{' '.join(command[:6])} failed: {done.stderr.strip()[-500:]}", "see ./mvno doctor")
    return done.stdout.strip()
