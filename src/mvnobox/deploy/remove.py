"""`mvno down`: a brand, or everything. Idempotent; removes only what `up` made."""

from __future__ import annotations

import shutil

from mvnobox.deploy.cluster import ClusterChoice, EmbeddedCluster
from mvnobox.deploy.cluster.teardown import unmount_below
from mvnobox.deploy.install import only_one
from mvnobox.deploy.installation import Installation
from mvnobox.deploy.paths import cache_dir, home_dir, project_root
from mvnobox.deploy.pulumi import Workspace
from mvnobox.deploy.report import Reporter
from mvnobox.errors import EnvironmentUnfit


def down(*, brand: str | None, env: str, everything: bool, report: Reporter) -> None:
    """Remove a brand's stack, or all stacks and an embedded cluster; with `everything` also caches and packages."""
    installation = Installation(env)
    with only_one():
        if brand is not None:
            choice = installation.cluster()
            stack = f"{installation.brand(brand).name}.{env}"
            workspace = Workspace(choice.kubeconfig, report)
            workspace.destroy(stack)
            workspace.remove(stack)
            report.note(f"{brand} is removed; its customers' data stays in the database until the platform goes")
            return
        _stacks(installation, report)
        EmbeddedCluster().down(report, everything=everything)
        # State and passphrase belong to what is gone; a new `up` makes new ones.
        for settings in home_dir().glob("stacks/Pulumi.*.yaml"):
            link = project_root() / settings.name
            if link.is_symlink():
                link.unlink()
        shutil.rmtree(home_dir(), ignore_errors=True)
    if everything:
        with report.task("Removing built tools and images"):
            unmount_below(cache_dir())
            shutil.rmtree(cache_dir(), ignore_errors=True)


def _stacks(installation: Installation, report: Reporter) -> None:
    """Destroy the stacks of a cluster that stays; on an embedded one they go with it."""
    try:
        choice: ClusterChoice = installation.cluster()
    except EnvironmentUnfit:
        return
    if choice.kind == "embedded":
        return
    workspace = Workspace(choice.kubeconfig, report)
    stacks = [f"{one.name}.{installation.env}" for one in installation.brands()]
    for stack in [*stacks, f"platform.{installation.env}"]:
        if workspace.exists(stack):
            workspace.destroy(stack)
            workspace.remove(stack)
