"""Namespaces that `up` would make and that somebody else made: another home's installation, or one whose state is lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mvnobox.deploy.cluster import ClusterChoice
from mvnobox.deploy.installation import PROJECT
from mvnobox.deploy.journey.access import Kubectl
from mvnobox.deploy.paths import home_dir
from mvnobox.deploy.pulumi import state
from mvnobox.errors import EnvironmentUnfit


def namespaces_of(brand: str, env: str) -> dict[str, list[str]]:
    """The namespaces of the platform's stack and of a brand's."""
    return {f"platform.{env}": [f"platform-{env}"], f"{brand}.{env}": [f"{brand}-{env}", f"{brand}-{env}-up"]}


def refuse_unowned(kubectl: Kubectl, choice: ClusterChoice, wanted: Mapping[str, Sequence[str]]) -> None:
    """Raise EnvironmentUnfit where a stack's namespace is in the cluster and the stack's state does not know it.

    Pulumi would say so too, after the images are built and object by object. What a killed run left is not meant:
    its state knows that it was making something.
    """
    there = {item["metadata"]["name"] for item in kubectl.json("get", "namespaces")["items"]}
    unowned = [
        name
        for stack, names in wanted.items()
        if not state.pending(PROJECT, stack)
        for name in names
        if name in there and not state.holds(PROJECT, stack, "kubernetes:core/v1:Namespace", name)
    ]
    if unowned:
        several = len(unowned) > 1
        last = (
            "remove the cluster with all that it holds: ./mvno down"
            if choice.kind == "embedded"
            else f"delete {'them with all that they hold' if several else 'it with all that it holds'}"
        )
        raise EnvironmentUnfit(
            f"the cluster has {' and '.join(unowned)} already, of which the state in {home_dir()} knows nothing: "
            f"made from another machine or home, or the state is lost",
            f"MVNO_HOME=FOLDER ./mvno up with the folder that holds the state; or put it back from a backup; or {last}",
        )
