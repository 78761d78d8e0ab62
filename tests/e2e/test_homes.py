"""Two users of one machine, two machines on one cluster: nobody's installation is touched by mistake."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


def from_another_home(home: Path, *arguments: str, **variables: str) -> str:
    """What ./mvno says from a home that has installed nothing; it has to refuse, and to touch nothing."""
    environment = {**os.environ, "MVNO_HOME": str(home), **variables}
    done = subprocess.run(
        [str(ROOT / "mvno"), *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3 and "Traceback" not in done.stderr, done.stderr
    assert not list(home.glob("cluster.*.json")) and not (home / "pulumi").exists()
    return done.stderr


@pytest.mark.parametrize("command", ["up", "down"])
def test_an_installation_of_another_home_is_named_and_left_alone(installed: Any, tmp_path: Path, command: str) -> None:
    from mvnobox.deploy.installation import Installation
    from mvnobox.deploy.paths import home_dir

    if Installation("dev").cluster().kind != "embedded":
        pytest.skip("a cluster of one's own is told apart by its kubeconfig")
    said = from_another_home(tmp_path / "home", command)
    assert f"whose state is in {home_dir()}" in said and f"MVNO_HOME={home_dir()} ./mvno {command}" in said
    assert json.loads(installed("status", "--json").stdout)["healthy"]


def test_namespaces_that_the_state_does_not_know_are_refused_at_once(installed: Any, tmp_path: Path) -> None:
    from mvnobox.deploy.installation import Installation

    choice = Installation("dev").cluster()
    reached = {"KUBECONFIG": str(choice.kubeconfig)}
    said = from_another_home(tmp_path / "home", "up", "--cluster", choice.context, **reached)
    assert "platform-dev and silverline-dev and silverline-dev-up already" in said, said
    assert "Building" not in said and "Stack" not in said
    assert json.loads(installed("status", "--json").stdout)["healthy"]
