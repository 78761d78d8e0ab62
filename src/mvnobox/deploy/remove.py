"""`mvno down`: a brand, or everything. Idempotent; removes only what `up` made."""

from __future__ import annotations

import shutil

from mvnobox.deploy.cluster import ClusterChoice, EmbeddedCluster, owner
from mvnobox.deploy.cluster.teardown import unmount_below
from mvnobox.deploy.install import only_one
from mvnobox.deploy.installation import PROJECT, Installation, all_clusters
from mvnobox.deploy.paths import cache_dir, home_dir, project_root
from mvnobox.deploy.pulumi import Workspace, state
from mvnobox.deploy.report import Reporter
from mvnobox.errors import EnvironmentUnfit


def down(*, brand: str | None, env: str, everything: bool, report: Reporter) -> None:
    """Remove a brand's stack, or all stacks and an embedded cluster; with `everything` also caches and packages.

    What another home's installation runs on stays, and so does the state of this home's other environments, on clusters of
    one's own. Raises EnvironmentUnfit.
    """
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
        clusters = all_clusters()
        if env not in clusters and any(choice.kind == "embedded" for choice in clusters.values()):
            raise EnvironmentUnfit(
                f"nothing is installed in {env!r}; {home_dir()} has {', '.join(clusters)}",
                f"name the one to remove: ./mvno down --env {next(iter(clusters))}",
            )
        other = owner.elsewhere()
        embedded = [name for name, choice in clusters.items() if choice.kind == "embedded"]
        if other is not None and (not clusters or (env in embedded and _holds_anything(env))):
            raise owner.refusal(other, "down")
        _stacks(installation, report)
        if other is None:
            EmbeddedCluster().down(report, everything=everything)
        else:
            report.note(f"the embedded cluster stays: the installation that it runs has its state in {other}")
        gone = {env, *(name for name in embedded if other is None or not _holds_anything(name))}
        if clusters.keys() - gone:
            _forget(gone, report)
        else:
            # State and passphrase belong to what is gone; a new `up` makes new ones.
            for settings in home_dir().glob("stacks/Pulumi.*.yaml"):
                link = project_root() / settings.name
                if link.is_symlink():
                    link.unlink()
            shutil.rmtree(home_dir(), ignore_errors=True)
    if everything and other is not None:
        report.note(f"built tools and images stay in {cache_dir()}: the embedded cluster may run them")
    elif everything:
        with report.task("Removing built tools and images"):
            unmount_below(cache_dir())
            shutil.rmtree(cache_dir(), ignore_errors=True)


def _stacks_of(env: str) -> list[str]:
    return [stack for stack in state.stacks(PROJECT) if stack.endswith(f".{env}")]


def _holds_anything(env: str) -> bool:
    return any(state.resource_count(PROJECT, stack) for stack in _stacks_of(env))


def _forget(environments: set[str], report: Reporter) -> None:
    """Forget environments that are gone, in a home that has others."""
    workspace = Workspace(None, report)
    for env in sorted(environments):
        for stack in _stacks_of(env):
            workspace.remove(stack, force=True)
        Installation(env).forget_cluster()


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
