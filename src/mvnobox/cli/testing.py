"""`mvno test`: set up what the tests need, then pytest."""

from __future__ import annotations

import os
import subprocess
import sys

from mvnobox.deploy.ansible import run_role
from mvnobox.deploy.paths import cluster_dir, project_root
from mvnobox.deploy.report import Reporter
from mvnobox.deploy.toolchain import ensure_tool


def run_tests(arguments: list[str], report: Reporter) -> int:
    """Run pytest with the arguments given; its exit code. Paths are the project's own tests unless some are named."""
    if os.geteuid() == 0:
        # PostgreSQL's server programs and the rest that `up` installs as well.
        run_role("host", "deploy", {"host_state_dir": str(cluster_dir())}, report)
    ensure_tool("helm", report)
    return subprocess.run([sys.executable, "-m", "pytest", *arguments], cwd=project_root(), check=False).returncode
