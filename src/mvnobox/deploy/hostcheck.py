"""`mvno doctor`: whether this machine can run the kit, each check with its remedy."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mvnobox.deploy.cluster.embedded import MINIMUM_DISK
from mvnobox.deploy.kernel import TUN, TUN_REMEDY, kernel_has_sctp, tun_trouble
from mvnobox.deploy.paths import cache_dir, cluster_dir


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


def _root() -> Check:
    root = os.geteuid() == 0
    return Check("root", root, "yes" if root else "no", "run as root, or use a cluster of yours with --cluster CONTEXT")


def _tun() -> Check:
    trouble = tun_trouble()
    return Check("TUN device", trouble is None, trouble or str(TUN), TUN_REMEDY)


def _nftables() -> Check:
    if shutil.which("nft") is None:
        installable = shutil.which("apt-get") is not None
        return Check("nftables", installable, "not installed; `up` installs it", "install nftables")
    done = subprocess.run(["nft", "-c", "add table inet mvno-check"], capture_output=True, text=True, check=False)
    said = "works" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["refused"])[0][:200]
    return Check("nftables", done.returncode == 0, said, "run as root on a kernel with nf_tables")


def _cgroups() -> Check:
    two = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    one = Path("/sys/fs/cgroup/memory").is_dir()
    return Check("cgroups", two or one, "v2" if two else "v1" if one else "none", "mount cgroups")


def _overlay() -> Check:
    there = "overlay" in Path("/proc/filesystems").read_text()
    return Check("overlay file system", there, "there" if there else "missing", "load the overlay module")


def _sctp() -> Check:
    # As `up` finds out.
    detail = (
        "there"
        if kernel_has_sctp()
        else "missing: the simulated core needs none; N2 of Open5GS would be carried over TCP (laboratories only)"
    )
    return Check("SCTP", True, detail)


def _disk() -> Check:
    places = {path if path.exists() else path.parent for path in (cluster_dir(), cache_dir().parent, Path.home())}
    free = min(shutil.disk_usage(place if place.exists() else "/").free for place in places)
    return Check("disk", free >= MINIMUM_DISK, f"{free / 2**30:.0f} GiB free", "make room, or set MVNO_CACHE")


def _memory() -> Check:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable"):
            available = int(line.split()[1]) * 1024
            return Check("memory", available > 4 * 2**30, f"{available / 2**30:.1f} GiB available", "4 GiB are needed")
    return Check("memory", True, "unknown")


def _builder() -> Check:
    found = next((name for name in ("buildah", "docker", "podman") if shutil.which(name)), None)
    installable = shutil.which("apt-get") is not None
    return Check("image builder", bool(found) or installable, found or "`up` installs buildah", "install buildah")


CHECKS: tuple[Callable[[], Check], ...] = (
    _root, _tun, _nftables, _cgroups, _overlay, _sctp, _disk, _memory, _builder,
)  # fmt: skip


def checks() -> list[Check]:
    """All checks, each on its own: one that breaks is one that failed."""
    found = []
    for check in CHECKS:
        try:
            found.append(check())
        except OSError as error:
            found.append(
                Check(check.__name__.strip("_"), False, f"{error.filename}: {error.strerror}", "see the cause")
            )
    return found
