"""A brand's SMF that reaches its UPF in two ways at once, through the CTF and directly; its sessions take them in turn."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import yaml
from common import Unfit
from lab import Lab

# The policies of SMF and UPF while they speak to each other.
DIRECT = "bench-n4-direct"


def _policy(function: str, namespace: str, peer: str) -> dict[str, Any]:
    """A NetworkPolicy that lets a function and its peer in another namespace speak PFCP."""
    who = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": peer}},
    }
    ports = [{"port": 8805, "protocol": "UDP"}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": DIRECT},
        "spec": {
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": function}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [who], "ports": ports}],
            "egress": [{"to": [who], "ports": ports}],
        },
    }


def _restart(lab: Lab, namespace: str, name: str) -> None:
    """A function anew; waits until it is there."""
    lab.run("-n", namespace, "rollout", "restart", f"deploy/{name}")
    lab.run("-n", namespace, "rollout", "status", f"deploy/{name}", "--timeout=90s")


def _patch(lab: Lab, namespace: str, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the PFCP part of a function's configuration, and start it anew."""
    config = lab.kubectl.json("-n", namespace, "get", "configmap", f"{name}-config")
    document = yaml.safe_load(config["data"][f"{name}.yaml"])
    try:
        change(document[name]["pfcp"])
    except (KeyError, IndexError) as error:
        raise Unfit(f"{namespace}/{name}-config is not as this bench knows it: {error}") from None
    config["data"][f"{name}.yaml"] = yaml.safe_dump(document)
    config["metadata"] = {"name": f"{name}-config", "namespace": namespace}
    lab.run("replace", "-f", "-", stdin=json.dumps(config))
    _restart(lab, namespace, name)


def _address(lab: Lab, namespace: str, name: str) -> str:
    pods = lab.kubectl.json("-n", namespace, "get", "pods", "-l", f"app.kubernetes.io/name={name}")["items"]
    return str(next(pod["status"]["podIP"] for pod in pods if "deletionTimestamp" not in pod["metadata"]))


@contextlib.contextmanager
def both_paths(lab: Lab) -> Iterator[None]:
    """SMF and UPF speak to each other, too. Whatever happens, they are put back."""
    ends = {"upf": lab.plane, "smf": lab.home}
    saved = [
        (name, lab.kubectl.json("-n", space, "get", "configmap", f"{name}-config", "--show-managed-fields"))
        for name, space in ends.items()
    ]

    def known_by_its_pod(pfcp: dict[str, Any]) -> None:
        # One address each: Open5GS sends to all that it knows of a peer in turn.
        del pfcp["server"][0]["advertise"]

    def towards_both(pfcp: dict[str, Any]) -> None:
        known_by_its_pod(pfcp)
        through = pfcp["client"]["upf"][0]
        pfcp["client"]["upf"].append({**through, "address": _address(lab, lab.plane, "upf")})

    try:
        # Beside the policies that are there: packets of both ways pass the same filters.
        for name, other in (("smf", "upf"), ("upf", "smf")):
            policy = json.dumps(_policy(name, ends[other], other))
            lab.run("-n", ends[name], "apply", "-f", "-", stdin=policy)
        _patch(lab, lab.plane, "upf", known_by_its_pod)
        _patch(lab, lab.home, "smf", towards_both)
        yield
    finally:
        for space in ends.values():
            lab.kubectl.run("-n", space, "delete", "networkpolicy", DIRECT, "--ignore-not-found")
        for name, document in saved:
            owner = document["metadata"]["managedFields"][0]
            for key in ("resourceVersion", "uid", "creationTimestamp", "generation", "managedFields"):
                document["metadata"].pop(key, None)
            lab.kubectl.run("-n", ends[name], "delete", "configmap", f"{name}-config")
            # As whoever made it, and in the same way, or the next `up` would find its fields another's.
            way = ("apply", "--server-side") if owner["operation"] == "Apply" else ("create",)
            back = (*way, f"--field-manager={owner['manager']}", "-f", "-")
            lab.run("-n", ends[name], *back, stdin=json.dumps(document))
            _restart(lab, ends[name], name)
