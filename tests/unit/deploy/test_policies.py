"""NetworkPolicies compiled to nftables."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import pytest

from mvnobox.deploy.agent.policies import Pod, compile_rules, matches

PODS = [
    Pod("a", "web", "10.244.0.2", {"app": "web"}, (("http", "TCP", 8080),)),
    Pod("a", "db", "10.244.0.3", {"app": "db"}),
    Pod("b", "web", "10.244.0.4", {"app": "web"}),
]
NAMESPACES = {"a": {"team": "one"}, "b": {"team": "two"}}


def policy(name: str, selector: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "a", "name": name}, "spec": {"podSelector": selector, **spec}}


def compiled(*policies: dict[str, Any]) -> str:
    return compile_rules(PODS, NAMESPACES, policies, "10.244.0.0/16", "10.96.0.0/16")


def test_without_policies_nothing_is_dropped() -> None:
    assert "drop" not in compiled()


def test_a_selected_pod_lets_in_only_whom_it_names() -> None:
    rule = {
        "from": [
            {"namespaceSelector": {"matchLabels": {"team": "two"}}, "podSelector": {"matchLabels": {"app": "web"}}}
        ]
    }
    text = compiled(policy("p", {"matchLabels": {"app": "web"}}, ingress=[{**rule, "ports": [{"port": "http"}]}]))
    assert "ip saddr { 10.244.0.4 } tcp dport { 8080 } return" in text
    assert "10.244.0.2 : jump in_" in text and "10.244.0.3 : jump" not in text


def test_default_deny_and_blocks_with_exceptions() -> None:
    block = {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}
    text = compiled(
        policy("deny", {}, policyTypes=["Ingress", "Egress"]),
        policy(
            "out",
            {"matchLabels": {"app": "db"}},
            policyTypes=["Egress"],
            egress=[{"to": [block], "ports": [{"port": 53, "protocol": "UDP", "endPort": 54}]}],
        ),
    )
    assert "ip daddr 0.0.0.0/0 ip daddr != { 10.0.0.0/8 } udp dport { 53-54 } return" in text
    assert text.count("counter drop") == 3


@pytest.mark.parametrize(
    ("selector", "taken"),
    [
        ({}, True),
        ({"matchLabels": {"app": "db"}}, False),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}, False),
        ({"matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]}, True),
        ({"matchExpressions": [{"key": "x", "operator": "Exists"}]}, False),
    ],
)
def test_selectors(selector: dict[str, Any], taken: bool) -> None:
    assert matches(selector, {"app": "web"}) is taken


@pytest.mark.skipif(shutil.which("nft") is None, reason="nftables is not installed")
def test_nftables_takes_the_text() -> None:
    text = compiled(
        policy("p", {}, ingress=[{"from": [{"podSelector": {}}]}], egress=[{}], policyTypes=["Ingress", "Egress"])
    )
    done = subprocess.run(["nft", "-c", "-f", "-"], input=text, text=True, capture_output=True)
    if "Operation not permitted" in done.stderr:
        pytest.skip("nft needs root")
    assert done.returncode == 0, done.stderr
