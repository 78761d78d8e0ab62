"""`mvno ledger check`: whether the OCS's books balance, asked of the live database by the OCS itself."""

from __future__ import annotations

from dataclasses import dataclass

from mvnobox.deploy.installation import Installation
from mvnobox.deploy.journey.access import Kubectl
from mvnobox.errors import Failed


@dataclass(frozen=True)
class LedgerCheck:
    """What was found; empty where every account balances."""

    differences: list[str]


def check_ledger(env: str) -> LedgerCheck:
    """Ask the OCS for what violates the ledger's invariants. Raises EnvironmentUnfit, Failed."""
    kubectl = Kubectl(Installation(env).cluster())
    done = kubectl.run(
        "-n", f"platform-{env}", "exec", "deploy/ocs", "-c", "ocs", "--",
        "python", "-m", "mvnobox.charging", "check", "--config", "/etc/mvno/ocs.yaml",
        # A large ledger takes its time: every entry is read.
        timeout=6 * 3600,
    )  # fmt: skip
    lines = done.stdout.strip().splitlines()
    if not lines or not lines[-1].endswith("differences"):
        raise Failed(f"the OCS did not answer: {done.stderr.strip()[-300:]}", "./mvno status says what is there")
    return LedgerCheck(lines[:-1])
