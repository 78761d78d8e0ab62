"""The subscriber directory from 1,000 to 1,000,000 subscribers: a bench of its own, `directory_lookup`, as a part of this one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import Unfit

LOOK_UPS = Path(__file__).resolve().parents[1] / "directory_lookup.py"
MOST = 1_000_000


def directory(folder: Path, figure: Any, *, seconds: float, rounds: int) -> dict[str, Any]:
    """Its figures; rounds are its own. Raises Unfit."""
    done = subprocess.run(
        [sys.executable, str(LOOK_UPS), "--most", str(MOST)], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        raise Unfit(f"{LOOK_UPS.name} ended with exit code {done.returncode}")
    return {
        f"directory: {name}": figure(one["value"], one["unit"], one["target"], most=one["unit"] != "1/s")
        for name, one in json.loads(done.stdout)["figures"].items()
    }
