"""The core network's own parts under load.

`python bench/core.py [--part setups] [--seconds 10] [--rounds 3]`

Parts: `setups`, PFCP session establishments through the CTF pinned to one core, before a responder that grants everything
and before the OCS (needs PostgreSQL's programs); `radio`, UEs of UERANSIM on an installed brand of Open5GS, many at once,
and iperf3 with and without the CTF; `directory`, look-ups at up to 1,000,000 subscribers (needs PostgreSQL's programs). A part
that cannot run here is named with its reason. Run by `./mvno bench core --json`; progress goes to standard error, one JSON
document to standard output.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "core"), str(HERE / "ocs"), str(HERE.parent / "src")]

import shipped  # noqa: E402
from common import Unfit  # noqa: E402
from directory import directory  # noqa: E402
from radio import radio  # noqa: E402
from setups import setups  # noqa: E402

PARTS = {"directory": directory, "radio": radio, "setups": setups}


def figure(value: float, unit: str, target: float | None = None, most: bool = False) -> dict[str, Any]:
    """One figure; `most`: the target must not be passed, else it has to be reached."""
    met = None if target is None else (value <= target if most else value >= target)
    return {"value": round(value, 3), "unit": unit, "target": target, "met": met}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--part", choices=sorted(PARTS), action="append", help="one of them; all by default")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="accepted: the output is JSON anyway")
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    # Not /tmp, which may be memory: the databases have to write through to a disk.
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR", "/var/tmp")) as folder:
        Path(folder).chmod(0o755)
        for part in options.part or sorted(PARTS):
            try:
                figures |= PARTS[part](Path(folder) / part, figure, seconds=options.seconds, rounds=options.rounds)
            except Unfit as error:
                print(f"{part} cannot run here: {error}", file=sys.stderr, flush=True)
                left_out[part] = str(error)
    if not figures:
        return 3
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {shipped.said()}"
    document = {
        "bench": "core",
        "machine": machine,
        "figures": figures,
        "notRun": left_out,
        "peer": None,
        "ratio": None,
    }
    print(json.dumps(document))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
