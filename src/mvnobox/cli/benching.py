"""`mvno bench NAME`: run one of `bench/`, which prints one JSON document."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from mvnobox.deploy.paths import project_root
from mvnobox.deploy.report import Reporter
from mvnobox.errors import BadInput, Failed


def run_bench(name: str, report: Reporter) -> dict[str, Any]:
    """The bench's result. Raises BadInput for an unknown one, Failed where it did not finish."""
    known = sorted(path.stem for path in (project_root() / "bench").glob("[a-z]*.py"))
    if name not in known:
        raise BadInput(f"there is no bench {name!r}", f"one of {', '.join(known)}")
    with report.task(f"Bench {name}"):
        done = subprocess.run(
            [sys.executable, str(project_root() / "bench" / f"{name}.py")],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        raise Failed(f"bench {name} did not finish (exit code {done.returncode})", "see what it said above")
    result: dict[str, Any] = json.loads(done.stdout)
    return result
