"""Both brands on a real Kubernetes, by the commands that a newcomer types."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def mvno(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run ./mvno; standard error goes where pytest's does."""
    done = subprocess.run([str(ROOT / "mvno"), *arguments], stdout=subprocess.PIPE, text=True, check=False)
    if check:
        assert done.returncode == 0, f"./mvno {' '.join(arguments)}: {done.returncode}"
    return done


@pytest.fixture(scope="session")
def installed() -> Any:
    """`up` of both brands; the function that runs ./mvno."""
    if os.geteuid() != 0:
        pytest.skip("the embedded cluster needs root")
    mvno("up", "--brand", "silverline", "--no-verify")
    mvno("up", "--brand", "encore", "--no-verify")
    return mvno


@pytest.fixture(scope="session")
def kubectl(installed: Any) -> Any:
    """kubectl on the installation's cluster."""
    from mvnobox.deploy.installation import Installation
    from mvnobox.deploy.journey.access import Kubectl

    return Kubectl(Installation("dev").cluster())


@pytest.fixture(scope="session")
def verified(installed: Any) -> Any:
    """The function that has a brand's journey run, and pass; what failed is what an assertion says."""

    def verify(brand: str) -> Any:
        result = json.loads(installed("verify", "--brand", brand, "--json", check=False).stdout)
        failed = [step for step in result["steps"] if step["status"] != "pass"]
        assert result["status"] == "pass" and not failed, failed
        return result

    return verify
