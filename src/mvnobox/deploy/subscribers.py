"""`mvno subscribers`: whether a MongoDB of the user's own has what the directory has, asked of the directory."""

from __future__ import annotations

from dataclasses import dataclass

from mvnobox.deploy.installation import Installation
from mvnobox.deploy.journey.access import Kubectl
from mvnobox.errors import BadInput, Failed

_UNSET = "DIRECTORY_MIRROR is missing"


@dataclass(frozen=True)
class SubscribersCheck:
    """What differs, a line a subscriber, and what was compared in words."""

    differences: list[str]
    compared: str


def check_subscribers(env: str) -> SubscribersCheck:
    """Compare the MongoDB with the directory. Raises BadInput, EnvironmentUnfit, Failed."""
    lines = _said(env, "mirror-check")
    if len(lines) < 2 or not lines[-1].endswith("differences"):
        raise Failed(f"the directory said: {' '.join(lines[-1:]) or 'nothing'}", "./mvno status says what is there")
    return SubscribersCheck(lines[:-2], lines[-2])


def resync_subscribers(env: str) -> str:
    """Have every document looked at again; the directory's answer. Raises BadInput, EnvironmentUnfit, Failed."""
    lines = _said(env, "mirror-resync")
    if not lines or not lines[-1].startswith("every"):
        raise Failed(f"the directory said: {' '.join(lines[-1:]) or 'nothing'}", "./mvno status says what is there")
    return lines[-1]


def _said(env: str, verb: str) -> list[str]:
    kubectl = Kubectl(Installation(env).cluster())
    done = kubectl.run(
        "-n", f"platform-{env}", "exec", "deploy/directory", "-c", "directory", "--",
        "python", "-m", "mvnobox.core.directory", verb, "--config", "/etc/mvno/directory.yaml",
        timeout=600,
    )  # fmt: skip
    if _UNSET in done.stderr:
        raise BadInput(
            "no MongoDB follows the directory: Open5GS reads the directory itself",
            "pulumi config set --secret subscribers mongodb://… on the platform's stack: docs/directory.md",
        )
    if not done.stdout.strip():
        raise Failed(f"the directory did not answer: {done.stderr.strip()[-300:]}", "./mvno status says what is there")
    return done.stdout.strip().splitlines()
