"""What is applied: namespaces and chart releases, as data without any secret in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

CLUSTER_DOMAIN = "cluster.local"
DATABASE = "mvno"
PART_OF = "mvno-in-a-box"

# Octets that one charging request reserves at most: what a session may still use while a part of the core is away.
QUOTA_OCTETS = 20_000_000
# Octets between two usage reports: the largest difference between what the user plane carried and what is charged.
QUANTUM_OCTETS = 10_000_000

# Pod Security Standards (kubernetes.io/docs/concepts/security/pod-security-standards).
PodSecurity = Literal["restricted", "privileged"]

# How net.ipv4.ip_forward comes to be 1 in a user plane's pod: asked for as an unsafe sysctl, which the kubelet has to
# allow, or taken over from the node, whose value a pod's network namespace begins with.
Forwarding = Literal["sysctl", "node"]


@dataclass(frozen=True)
class Images:
    """Full references (`repository:tag`): images that the kit builds, and published ones that it pins."""

    services: str
    coresim: str
    postgresql: str
    # SCTP over TCP, for nodes without SCTP; empty where it is not needed.
    sctp: str = ""
    open5gs: str = "docker.io/gradiant/open5gs:2.7.5"
    ueransim: str = "docker.io/gradiant/ueransim:3.2.6"


@dataclass(frozen=True)
class Namespace:
    """A namespace with the labels that NetworkPolicies select by."""

    name: str
    pod_security: PodSecurity
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def all_labels(self) -> dict[str, str]:
        return {
            "app.kubernetes.io/part-of": PART_OF,
            "pod-security.kubernetes.io/enforce": self.pod_security,
            "pod-security.kubernetes.io/warn": self.pod_security,
            **self.labels,
        }


@dataclass(frozen=True)
class Release:
    """One chart with its values. `secrets` names the Secret objects that must exist before it."""

    name: str
    chart: str
    namespace: str
    values: Mapping[str, Any]
    secrets: tuple[str, ...] = ()


def image_values(reference: str) -> dict[str, str]:
    """A chart's `image` block from `repository:tag`."""
    repository, _, tag = reference.rpartition(":")
    return {"repository": repository, "tag": tag, "pullPolicy": "IfNotPresent"}
