"""`mvno status`: what is installed and whether it is healthy."""

from __future__ import annotations

from typing import Any

from mvnobox.deploy.installation import Installation
from mvnobox.deploy.journey.access import Kubectl


def status(env: str) -> dict[str, Any]:
    """The cluster, the stacks and their workloads. Raises EnvironmentUnfit where nothing is installed."""
    installation = Installation(env)
    choice = installation.cluster()
    kubectl = Kubectl(choice)
    workloads = []
    selector = "app.kubernetes.io/part-of=mvno-in-a-box"
    for item in kubectl.json("get", "deployments,statefulsets", "-A", "-l", selector)["items"]:
        meta, wanted = item["metadata"], item["spec"].get("replicas", 1)
        ready = item["status"].get("readyReplicas", 0)
        layer = meta["labels"].get("mvno.box/brand") or "platform"
        workloads.append(
            {
                "stack": f"{layer}.{env}",
                "name": meta["name"],
                "namespace": meta["namespace"],
                "replicas": f"{ready}/{wanted}",
                "ready": ready == wanted,
                "image": item["spec"]["template"]["spec"]["containers"][0]["image"],
            }
        )
    healthy = bool(workloads) and all(one["ready"] for one in workloads)
    return {
        "env": env,
        "healthy": healthy,
        "cluster": {
            "kind": choice.kind,
            "context": choice.context,
            "detail": f"{choice.kind}, context {choice.context}",
        },
        "core": installation.settings(f"platform.{env}").get("core"),
        "brands": [one.name for one in installation.brands()],
        "workloads": sorted(workloads, key=lambda one: (one["stack"], one["name"])),
    }
