"""What goes wrong on a real machine: the power, an impatient operator, two of them at once."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]


def start(*arguments: str) -> subprocess.Popen[str]:
    """./mvno in a process group of its own, as a terminal would have it."""
    return subprocess.Popen(
        [str(ROOT / "mvno"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """What the process prints up to and including a line with these words."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if words in line:
            return said
    raise AssertionError(f"{words!r} was never said:\n{said}")


def test_ctrl_c_in_the_middle_leaves_nothing_half_owned(installed: Any, verified: Any) -> None:
    installed("down", "--brand", "encore")
    first = start("up", "--brand", "encore", "--no-verify")
    try:
        said = read_until(first, "Stack encore.dev")
        second = installed("up", "--brand", "encore", "--no-verify", check=False)
        assert second.returncode == 3
        os.killpg(first.pid, signal.SIGINT)
        said += first.communicate(timeout=120)[0]
    finally:
        if first.poll() is None:
            os.killpg(first.pid, signal.SIGKILL)
    assert first.returncode == 1 and "Traceback" not in said, said
    assert "run the same again" in said, said
    installed("up", "--brand", "encore", "--no-verify")
    verified("encore")


def test_a_machine_that_lost_its_power_comes_back_with_its_customers(
    installed: Any, verified: Any, kubectl: Any
) -> None:
    from mvnobox.deploy.cluster import teardown
    from mvnobox.deploy.cluster.embedded import RUN_DIR, EmbeddedCluster
    from mvnobox.deploy.installation import Installation

    if Installation("dev").cluster().kind != "embedded":
        pytest.skip("only the embedded cluster is ours to switch off")

    def customers() -> int:
        query = "SELECT count(*) FROM ocs.account"
        done = kubectl.run("-n", "platform-dev", "exec", "postgresql-0", "--",
                           "psql", "-h", "/run/postgresql", "-U", "postgres", "-d", "mvno", "-Atc", query)  # fmt: skip
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    before = customers()
    cluster = EmbeddedCluster()
    pid = cluster.supervisor_pid()
    assert pid is not None and before > 0
    os.kill(pid, signal.SIGKILL)
    teardown.leftovers(cluster.directory, RUN_DIR)
    assert installed("status", check=False).returncode == 3
    installed("up", "--brand", "silverline", "--no-verify")
    assert customers() == before
    verified("silverline")
