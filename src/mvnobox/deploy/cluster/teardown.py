"""Ending what an embedded cluster leaves on a machine: containers, processes, mounts, interfaces, rules."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path


def end_containers(ctr: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """Kill every task of the cluster's own containerd and delete its containers."""
    for identity in ctr("tasks", "list", "-q", check=False).stdout.split():
        ctr("tasks", "kill", "--all", "--signal", "SIGKILL", identity, check=False)
    for identity in ctr("tasks", "list", "-q", check=False).stdout.split():
        ctr("tasks", "delete", "--force", identity, check=False)
    for identity in ctr("containers", "list", "-q", check=False).stdout.split():
        ctr("containers", "delete", identity, check=False)


def wait_for_end(pid: int, seconds: float) -> None:
    """Wait until a process that is not our child has ended; kill it if it does not."""
    deadline = time.monotonic() + seconds
    while Path(f"/proc/{pid}").exists():
        if time.monotonic() > deadline:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            return
        time.sleep(0.1)


def _belongs(arguments: list[str], markers: list[str]) -> bool:
    return any(marker in argument for marker in markers for argument in arguments)


def leftovers(cluster: Path, run: Path) -> None:
    """Processes that outlived their supervisor and mounts that outlived their pods. Only what names our folders."""
    markers = [f"{cluster}/", f"{run}/"]
    own = os.getpid()
    ended = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == own:
            continue
        try:
            arguments = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        program = os.path.basename(arguments[0])
        names = ("containerd", "containerd-shim-runc-v2", "etcd", "kubernetes", "coredns")
        ours = program in names or "mvnobox.deploy.agent" in arguments or "supervisor.supervisord" in arguments
        if ours and _belongs(arguments, markers):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(entry.name), signal.SIGKILL)
            ended.append(int(entry.name))
    for pid in ended:
        wait_for_end(pid, 5)
    unmount_below(cluster)
    unmount_below(run)


def unmount_below(folder: Path) -> None:
    """Unmount everything below a folder, the deepest first, so that removing it removes no more than it."""
    mounts = {line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()}
    for mount in sorted((m for m in mounts if m.startswith(f"{folder}/")), key=len, reverse=True):
        subprocess.run(["umount", "-l", mount], capture_output=True, check=False)


def pod_links(pod_cidr: str) -> None:
    """Links of pods that are gone: a network namespace may outlive its pod, and its route would catch a new pod's packets."""
    routes = subprocess.run(
        ["ip", "route", "show", "root", pod_cidr], capture_output=True, text=True, check=False
    ).stdout
    for line in routes.splitlines():
        words = line.split()
        if "dev" in words and words[words.index("dev") + 1].startswith("veth"):
            device = words[words.index("dev") + 1]
            subprocess.run(["ip", "link", "delete", device], capture_output=True, check=False)


# Places outside our own folders that a kubelet and CNI plugins write to, whatever their configuration says.
_ELSEWHERE = (
    Path("/etc/cni"),
    Path("/opt/cni"),
    Path("/run/containerd"),
    Path("/var/lib/calico"),
    Path("/var/lib/cni"),
    Path("/var/lib/kubelet"),
    Path("/var/log/containers"),
    Path("/var/log/pods"),
)


def note_elsewhere(record: Path) -> None:
    """Write down, once, which of those places were there before us."""
    if not record.exists():
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text("".join(f"{place}\n" for place in _ELSEWHERE if place.exists()))


def remove_elsewhere(record: Path) -> None:
    """Remove those places that were not there before us. Without a record nothing is touched."""
    if record.exists():
        found = record.read_text().splitlines()
        for place in _ELSEWHERE:
            if str(place) not in found:
                unmount_below(place)
                shutil.rmtree(place, ignore_errors=True)


def network(interface: str) -> None:
    """The cluster's interface and its tables of rules."""
    subprocess.run(["ip", "link", "delete", interface], capture_output=True, check=False)
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False).stdout
    for line in tables.splitlines():
        family, name = line.split()[1:3]
        if name in ("kube-proxy", "mvno-netpol"):
            subprocess.run(["nft", "delete", "table", family, name], capture_output=True, check=False)
