"""By which address pods leave the cluster: those that a Service gives an address outside leave by that one.

Peers know a function by it: what the function sends first, or after a connection is forgotten (UDP: two minutes), would
else come from the node, whom no peer and none of its firewalls knows. Kubernetes leaves that to egress gateways. Pure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mvnobox.deploy.agent.policies import Pod


@dataclass(frozen=True, order=True)
class Edge:
    """A pod that is reached from outside at `address` and `port`, and takes it at `target`."""

    pod: str
    protocol: str
    target: int
    address: str
    port: int


def _address(service: Mapping[str, Any]) -> str | None:
    """The first IPv4 address outside of a Service; None without one."""
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    found = [one["ip"] for one in ingress if one.get("ip")] + list(service["spec"].get("externalIPs") or [])
    return next((one for one in found if ipaddress.ip_address(one).version == 4), None)


def _target(port: Mapping[str, Any], pod: Pod) -> int | None:
    wanted = port.get("targetPort", port["port"])
    if isinstance(wanted, int):
        return wanted
    protocol = port.get("protocol", "TCP")
    return next((number for name, proto, number in pod.ports if (name, proto) == (wanted, protocol)), None)


def edges(services: Iterable[Mapping[str, Any]], pods: Sequence[Pod]) -> tuple[Edge, ...]:
    """Who is reached from outside, and where."""
    found = set()
    for service in services:
        selector, address = service["spec"].get("selector"), _address(service)
        if not selector or address is None:
            continue
        for pod in pods:
            if pod.namespace != service["metadata"]["namespace"] or not selector.items() <= pod.labels.items():
                continue
            for port in service["spec"].get("ports") or []:
                target = _target(port, pod)
                if target is not None:
                    found.add(Edge(pod.address, port.get("protocol", "TCP"), target, address, port["port"]))
    return tuple(sorted(found))


def translations(found: Iterable[Edge], inside: str) -> list[str]:
    """Rules of a source translation, for what goes elsewhere than `inside` (an nftables set).

    UDP: what the port itself sends, for GTP has one port on both sides; TCP and SCTP: all that the pod opens.
    """
    lines = {}
    for one in found:
        where = f"ip saddr {one.pod} ip daddr != {inside}"
        if one.protocol == "UDP":
            lines[f"{where} udp sport {one.target}"] = f"snat ip to {one.address}:{one.port}"
        else:
            lines[f"{where} meta l4proto {one.protocol.lower()}"] = f"snat ip to {one.address}"
    return [f"{match} {action}" for match, action in lines.items()]


def forgotten(before: Iterable[Edge] | None, now: Iterable[Edge]) -> list[str]:
    """Addresses whose UDP connections have to be forgotten: they are, or may be, of pods that are there no more."""
    old = set(now) if before is None else set(before) ^ set(now)
    return sorted({one.address for one in old if one.protocol == "UDP"})
