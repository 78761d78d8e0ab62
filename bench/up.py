"""How long `up` takes: warm (tools and images there, cluster gone), the second brand, `verify`, memory. Prints JSON.

Takes the embedded cluster down first. Run by `./mvno bench up --json`; the cold time is that of a first `./mvno up`.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def timed(*arguments: str) -> float:
    """Seconds that a command of the kit takes; ends the bench if it fails."""
    started = time.monotonic()
    done = subprocess.run([str(ROOT / "mvno"), *arguments], stdout=sys.stderr, check=False)
    if done.returncode != 0:
        raise SystemExit(f"./mvno {' '.join(arguments)}: exit code {done.returncode}")
    return round(time.monotonic() - started, 1)


def resident() -> int:
    """Octets of memory (proportional shares) of the cluster's processes and of its pods'."""
    total = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
                ours = b"mvno-box" in command or b"mvnobox" in command or "kubepods" in (entry / "cgroup").read_text()
                if ours:
                    total += 1024 * int((entry / "smaps_rollup").read_text().split("Pss:")[1].split()[0])
            except (OSError, IndexError):
                continue
    return total


def main() -> None:
    timed("down")
    warm = timed("up", "--no-verify")
    second = timed("up", "--brand", "encore", "--no-verify")
    verify = timed("verify")
    again = timed("up", "--no-verify")
    figures = {
        "warm up": (warm, "s", 180),
        "second brand": (second, "s", 45),
        "verify": (verify, "s", 90),
        "up again, nothing to change": (again, "s", None),
        "resident": (round(resident() / 2**30, 2), "GiB", 6),
    }
    document = {
        "bench": "up",
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "figures": {
            name: {"value": value, "unit": unit, "target": target, "met": None if target is None else value <= target}
            for name, (value, unit, target) in figures.items()
        },
        "peer": None,
        "ratio": None,
    }
    print(json.dumps(document))


main()
