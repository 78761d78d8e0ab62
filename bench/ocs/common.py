"""What both systems of the bench need: programs, ports, numbers."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
FIRST_IMSI = 208_930_000_000_000
# Octets that every account starts with: more than a run can use, and exact in a double.
GRANT = 10**14


class Unfit(Exception):
    """This machine cannot run the bench; the words say what is missing."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    """Until a process listens. Raises Unfit if it ends before."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Unfit(f"{process.args!r} ended with exit code {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise Unfit(f"{process.args!r} does not listen")


def build(module: str, package: str, program: str) -> Path:
    """A Go program of a module in this folder, built once for what its files say."""
    sources = sorted(p for p in (HERE / module).iterdir() if p.suffix in (".go", ".mod", ".sum"))
    digest = hashlib.sha256(b"".join(p.name.encode() + p.read_bytes() for p in sources)).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mvno-box" / "bench"
    made = cache / f"{program}-{digest}"
    if made.exists():
        return made
    go = shutil.which("go")
    if go is None:
        raise Unfit("Go is not installed: the bench builds its peer and its client")
    cache.mkdir(parents=True, exist_ok=True)
    print(f"building {program}", file=sys.stderr, flush=True)
    partial = made.with_suffix(".partial")
    done = subprocess.run(
        ["nice", "-n", "15", go, "build", "-trimpath", "-o", str(partial), package],
        cwd=HERE / module,
        env={**os.environ, "GOFLAGS": "-mod=readonly -buildvcs=false", "CGO_ENABLED": "0"},
        stdout=sys.stderr,
        check=False,
    )
    if done.returncode != 0:
        raise Unfit(f"{program} was not built (exit code {done.returncode})")
    partial.rename(made)
    return made
