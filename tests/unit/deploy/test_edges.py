"""By which address pods leave the cluster."""

from __future__ import annotations

from typing import Any

from mvnobox.deploy.agent.edges import Edge, edges, forgotten, translations
from mvnobox.deploy.agent.policies import Pod, compile_rules

LABELS = {"app.kubernetes.io/name": "upf", "app.kubernetes.io/instance": "user-plane"}
UPF = Pod("a", "upf", "10.244.0.5", LABELS, (("gtpu", "UDP", 2152),))
HSS = Pod("p", "hss", "10.244.0.6", {"app": "hss"}, (("diameter", "TCP", 3868),))
INSIDE = "{ 10.244.0.0/16, 10.96.0.0/16 }"


def service(namespace: str, selector: dict[str, str] | None, port: dict[str, Any], **more: Any) -> dict[str, Any]:
    status = more.pop("status", {})
    spec = {"selector": selector, "ports": [port], **more}
    return {"metadata": {"namespace": namespace, "name": "s"}, "spec": spec, "status": status}


GTPU = {"port": 2152, "targetPort": "gtpu", "protocol": "UDP"}
OF_UPF = service("a", LABELS, GTPU, externalIPs=["203.0.113.21"])
OF_HSS = service(
    "p", {"app": "hss"}, {"port": 3868, "targetPort": 3868}, status={"loadBalancer": {"ingress": [{"ip": "203.0.113.19"}]}}
)  # fmt: skip


def test_who_is_reached_from_outside() -> None:
    assert edges([OF_UPF, OF_HSS], [UPF, HSS]) == (
        Edge("10.244.0.5", "UDP", 2152, "203.0.113.21", 2152),
        Edge("10.244.0.6", "TCP", 3868, "203.0.113.19", 3868),
    )


def test_who_is_not() -> None:
    stranger = Pod("b", "upf", "10.244.0.9", LABELS, UPF.ports)
    other = Pod("a", "smf", "10.244.0.8", {"app.kubernetes.io/name": "smf"})
    assert edges([OF_UPF], [stranger, other]) == ()
    inside = service("a", LABELS, GTPU)
    pending = service("a", LABELS, GTPU, type="LoadBalancer", status={"loadBalancer": {}})
    v6 = service("a", LABELS, GTPU, externalIPs=["2001:db8::21"])
    endpoints = service("a", None, GTPU, externalIPs=["203.0.113.21"])
    nameless = service("a", LABELS, {**GTPU, "targetPort": "gtpc"}, externalIPs=["203.0.113.21"])
    by_name = service("a", LABELS, GTPU, type="LoadBalancer", status={"loadBalancer": {"ingress": [{"hostname": "x"}]}})
    assert edges([inside, pending, v6, endpoints, nameless, by_name], [UPF]) == ()


def test_a_function_leaves_by_its_own_address() -> None:
    rules = translations(edges([OF_UPF, OF_HSS], [UPF, HSS]), INSIDE)
    assert rules == [
        f"ip saddr 10.244.0.5 ip daddr != {INSIDE} udp sport 2152 snat ip to 203.0.113.21:2152",
        f"ip saddr 10.244.0.6 ip daddr != {INSIDE} meta l4proto tcp snat ip to 203.0.113.19",
    ]
    text = compile_rules([UPF, HSS], {}, [], "10.244.0.0/16", "10.96.0.0/16", rules)
    # Before what everybody leaves by.
    assert text.index(rules[0]) < text.index(rules[1]) < text.index("masquerade")
    assert "snat" not in compile_rules([UPF, HSS], {}, [], "10.244.0.0/16", "10.96.0.0/16")


def test_sctp_leaves_by_it_too() -> None:
    streams = Pod("p", "hss", "10.244.0.6", {"app": "hss"}, (("diameter-sctp", "SCTP", 3868),))
    port = {"port": 3868, "targetPort": "diameter-sctp", "protocol": "SCTP"}
    of_hss = service("p", {"app": "hss"}, port, externalIPs=["203.0.113.19"])
    assert translations(edges([of_hss], [streams]), INSIDE) == [
        f"ip saddr 10.244.0.6 ip daddr != {INSIDE} meta l4proto sctp snat ip to 203.0.113.19"
    ]


def test_what_has_to_be_forgotten() -> None:
    before = edges([OF_UPF, OF_HSS], [UPF, HSS])
    moved = edges([OF_UPF, OF_HSS], [Pod("a", "upf-2", "10.244.0.7", LABELS, UPF.ports), HSS])
    assert forgotten(before, before) == [] and forgotten(before, moved) == ["203.0.113.21"]
    assert forgotten(before, ()) == ["203.0.113.21"]
    # An agent that has just started knows nothing of the pods before.
    assert forgotten(None, before) == ["203.0.113.21"]
