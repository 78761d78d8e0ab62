"""networking.k8s.io/v1 NetworkPolicies compiled to one nftables table. Pure: objects in, text out.

Every pod packet crosses the host's forward hook (each pod has a routed link of its own), after kube-proxy's DNAT.
The first direction of a connection is judged at every packet, so that a policy that is taken away ends what it had
allowed; replies follow their connection. Packets of the node itself (probes) do not pass this hook.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

TABLE = "mvno-netpol"
Selector = Mapping[str, Any]


@dataclass(frozen=True)
class Pod:
    """What a policy needs to know of a pod."""

    namespace: str
    name: str
    address: str
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[tuple[str, str, int], ...] = ()
    """Named container ports: (name, protocol, number)."""


def matches(selector: Selector | None, labels: Mapping[str, str]) -> bool:
    """Whether labels satisfy a LabelSelector (an empty one takes everything)."""
    if selector is None:
        return False
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for expression in selector.get("matchExpressions") or []:
        key, operator, values = expression["key"], expression["operator"], expression.get("values") or []
        present = key in labels
        satisfied = {
            "In": present and labels.get(key) in values,
            "NotIn": not present or labels[key] not in values,
            "Exists": present,
            "DoesNotExist": not present,
        }[operator]
        if not satisfied:
            return False
    return True


class _Compiler:
    def __init__(self, pods: Sequence[Pod], namespaces: Mapping[str, Mapping[str, str]]) -> None:
        self.pods = pods
        self.namespaces = namespaces

    def _peer_pods(self, peer: Mapping[str, Any], own: str) -> list[Pod]:
        chosen = []
        for pod in self.pods:
            if peer.get("namespaceSelector") is not None:
                if not matches(peer["namespaceSelector"], self.namespaces.get(pod.namespace, {})):
                    continue
            elif pod.namespace != own:
                continue
            if peer.get("podSelector") is None or matches(peer["podSelector"], pod.labels):
                chosen.append(pod)
        return chosen

    def _peer_matches(self, peers: Sequence[Mapping[str, Any]], own: str, side: str) -> list[str]:
        """nftables expressions, any of which lets a packet's other end pass."""
        if not peers:
            return [""]
        addresses: list[str] = []
        expressions = []
        for peer in peers:
            block = peer.get("ipBlock")
            if block is None:
                addresses += [pod.address for pod in self._peer_pods(peer, own)]
                continue
            family = "ip6" if ipaddress.ip_network(block["cidr"]).version == 6 else "ip"
            expression = f"{family} {side} {block['cidr']}"
            if block.get("except"):
                expression += f" {family} {side} != {{ {', '.join(sorted(block['except']))} }}"
            expressions.append(expression)
        if addresses:
            expressions.append(f"ip {side} {{ {', '.join(sorted(set(addresses), key=ipaddress.ip_address))} }}")
        return expressions

    def _port_matches(self, ports: Sequence[Mapping[str, Any]], targets: Iterable[Pod]) -> list[str]:
        if not ports:
            return [""]
        numbers: dict[str, set[str]] = {}
        for port in ports:
            protocol = (port.get("protocol") or "TCP").lower()
            wanted = port.get("port")
            known = numbers.setdefault(protocol, set())
            if wanted is None:
                known.add("0-65535")
            elif isinstance(wanted, int):
                known.add(f"{wanted}-{port['endPort']}" if port.get("endPort") else str(wanted))
            else:
                for pod in targets:
                    known |= {str(n) for name, proto, n in pod.ports if name == wanted and proto.lower() == protocol}
        return [f"{p} dport {{ {', '.join(sorted(values))} }}" for p, values in sorted(numbers.items()) if values]

    def rules(self, policy: Mapping[str, Any], direction: str, subjects: Sequence[Pod]) -> list[str]:
        """The `return` rules that one policy adds for its subjects in a direction."""
        spec, own = policy["spec"], policy["metadata"]["namespace"]
        peer_key, side = ("from", "saddr") if direction == "Ingress" else ("to", "daddr")
        made = []
        for rule in spec.get(direction.lower()) or []:
            peers = rule.get(peer_key) or []
            targets = subjects if direction == "Ingress" else self.pods
            for who in self._peer_matches(peers, own, side):
                for what in self._port_matches(rule.get("ports") or [], targets):
                    made.append(" ".join(part for part in (who, what, "return") if part))
        return made


def _types(spec: Mapping[str, Any]) -> list[str]:
    declared = spec.get("policyTypes")
    if declared:
        return list(declared)
    return ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]


def compile_rules(
    pods: Sequence[Pod],
    namespaces: Mapping[str, Mapping[str, str]],
    policies: Sequence[Mapping[str, Any]],
    pod_cidr: str,
    service_cidr: str,
    translations: Sequence[str] = (),
) -> str:
    """The whole table as input of `nft -f -`; replaces the one before in one transaction.

    `translations`: rules by which pods leave by an address of their own (`edges`); all others by the node's.
    """
    compiler = _Compiler(pods, namespaces)
    chains: dict[str, list[str]] = {}
    jumps: dict[str, dict[str, str]] = {"Ingress": {}, "Egress": {}}
    for direction, prefix in (("Ingress", "in"), ("Egress", "eg")):
        # Pods that the same policies select share a chain.
        groups: dict[tuple[int, ...], list[Pod]] = {}
        for pod in pods:
            selecting = tuple(
                index
                for index, policy in enumerate(policies)
                if policy["metadata"]["namespace"] == pod.namespace
                and direction in _types(policy["spec"])
                and matches(policy["spec"].get("podSelector") or {}, pod.labels)
            )
            if selecting:
                groups.setdefault(selecting, []).append(pod)
        for selecting, members in groups.items():
            names = [f"{policies[i]['metadata']['namespace']}/{policies[i]['metadata']['name']}" for i in selecting]
            chain = f"{prefix}_{hashlib.sha256('|'.join(names).encode()).hexdigest()[:12]}"
            body = [f"# {', '.join(sorted(names))}"]
            for index in selecting:
                body += compiler.rules(policies[index], direction, members)
            chains[chain] = [*dict.fromkeys(body), "counter drop"]
            for pod in members:
                jumps[direction][pod.address] = chain
    lines = [f"table inet {TABLE}", f"delete table inet {TABLE}", f"table inet {TABLE} {{"]
    for chain, body in sorted(chains.items()):
        lines += [f"  chain {chain} {{", *(f"    {rule}" for rule in body), "  }"]
    lines += [
        "  chain forward {",
        "    type filter hook forward priority filter; policy accept;",
        "    ct direction reply ct state established,related accept",
        "    ct state related accept",
    ]
    for direction, side in (("Egress", "saddr"), ("Ingress", "daddr")):
        if jumps[direction]:
            entries = ", ".join(
                f"{address} : jump {chain}"
                for address, chain in sorted(jumps[direction].items(), key=lambda item: ipaddress.ip_address(item[0]))
            )
            lines.append(f"    ip {side} vmap {{ {entries} }}")
    lines += [
        "  }",
        "  chain postrouting {",
        "    type nat hook postrouting priority srcnat; policy accept;",
        *(f"    {rule}" for rule in translations),
        f"    ip saddr {pod_cidr} ip daddr != {{ {pod_cidr}, {service_cidr} }} masquerade",
        "  }",
        "}",
        "",
    ]
    return "\n".join(lines)
