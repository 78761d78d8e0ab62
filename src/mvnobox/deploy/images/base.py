"""Debian's slim image: pulled where a registry answers, else made here from Debian's packages under the same name."""

from __future__ import annotations

import os
import shutil
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from mvnobox.deploy.images.builders import Builder
from mvnobox.deploy.images.host import RELEASE, apt_sources, ca_bundle
from mvnobox.deploy.images.inputs import BASE, image, stage
from mvnobox.deploy.images.process import run_logged
from mvnobox.deploy.paths import project_root
from mvnobox.deploy.report import Reporter, Task
from mvnobox.errors import EnvironmentUnfit

_REGISTRY = "https://registry-1.docker.io/v2/"
PROBE_SECONDS = 4.0


def registry_answers(url: str = _REGISTRY) -> bool:
    """Whether the container registry that the base comes from answers (OCI Distribution Specification, end-1)."""
    try:
        with urllib.request.urlopen(url, timeout=PROBE_SECONDS) as reply:
            return bool(reply.status == 200)
    except urllib.error.HTTPError as error:
        # Asking who is there is how a registry says that it is one.
        return error.code == 401
    except (OSError, ValueError):
        return False


def ensure_base(builder: Builder, report: Reporter, log: Path) -> bool:
    """See that Containerfiles can start. Returns whether a registry may be asked for images."""
    if builder.has(BASE):
        return False
    if registry_answers():
        report.note(f"Base image: {BASE}, pulled (a container registry answers)")
        return True
    report.note(
        f"Base image: made from Debian's packages with mmdebstrap, named {BASE} (no container registry answers)"
    )
    with report.task("Making the base image") as task:
        _seed(builder, log, task)
    return False


def _seed(builder: Builder, log: Path, task: Task) -> None:
    program = shutil.which("mmdebstrap")
    if program is None:
        raise EnvironmentUnfit(
            "no container registry answers, and mmdebstrap, which makes the base image without one, is not installed",
            "make a registry reachable, or install mmdebstrap (apt-get install mmdebstrap)",
        )
    folder = project_root() / "images" / "base"
    with tempfile.TemporaryDirectory(prefix="mvno-base-") as scratch:
        context = Path(scratch)
        stage(image("base"), context)
        sources = context / "host.sources"
        own = apt_sources()
        sources.write_text(own or (folder / "sources.list").read_text(encoding="utf-8"), encoding="utf-8")
        command = [
            program,
            "--variant=minbase",
            f"--dpkgopt={folder / 'dpkg.cfg'}",
            # The public sources stay in the image, not this machine's.
            '--customize-hook=rm -rf "$1"/etc/apt/sources.list.d/* "$1"/etc/apt/sources.list',
            f"--customize-hook=copy-in {folder / 'sources.list'} /etc/apt",
            RELEASE,
            str(context / "rootfs.tar"),
            str(sources),
        ]
        if os.geteuid() != 0:
            command.insert(1, "--mode=unshare")
        bundle = ca_bundle()
        if bundle is not None:
            command.insert(1, f'--aptopt=Acquire::https::CAInfo "{bundle}"')
        run_logged("Making the base image", command, log, task)
        build = builder.build(BASE, context / "images" / "base" / "Containerfile", context, {}, {})
        run_logged("Storing the base image", build, log, task)
