"""The roles on this host, by pytest-testinfra: what they leave, that a second run changes nothing, bad input refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mvnobox.deploy.ansible import run_role
from mvnobox.deploy.cluster.embedded import API_PORT, NODE_ADDRESS, RUN_DIR
from mvnobox.deploy.paths import cluster_dir
from mvnobox.deploy.report import PlainReporter
from mvnobox.errors import KitError

pytestmark = pytest.mark.cluster


def test_the_host_is_prepared_and_a_second_run_changes_nothing(cluster: Any) -> None:
    run_role("host", "deploy", {"host_state_dir": str(cluster_dir())}, PlainReporter())
    assert run_role("host", "deploy", {"host_state_dir": str(cluster_dir())}, PlainReporter()) == 0


@pytest.mark.parametrize(
    ("role", "variables", "said"),
    [
        ("host", {}, "host_state_dir"),
        ("container_runtime", {"cluster_dir": "/x", "run_dir": "/y", "sandbox_image": "i"}, "pod_cidr"),
        ("host", {"host_state_dir": "/x", "verb": "dance"}, "dance"),
    ],
)
def test_bad_arguments_are_refused_by_name(cluster: Any, role: str, variables: dict[str, str], said: str) -> None:
    with pytest.raises(KitError, match=said):
        run_role(role, variables.pop("verb", "deploy"), variables, PlainReporter())


def test_the_host_has_what_the_cluster_needs(cluster: Any, host: Any) -> None:
    for package in ("containerd", "etcd-server", "nftables", "containernetworking-plugins"):
        assert host.package(package).is_installed
    assert host.sysctl("net.ipv4.ip_forward") == 1
    # A container with a network namespace of its own has none of them.
    for name in ("net.core.rmem_default", "net.core.rmem_max"):
        if host.file(f"/proc/sys/{name.replace('.', '/')}").exists:
            assert host.sysctl(name) >= 4 << 20
    assert host.file("/etc/sysctl.d/90-mvno-in-a-box.conf").mode == 0o644
    assert host.socket(f"tcp://{NODE_ADDRESS}:{API_PORT}").is_listening


def test_keys_are_nobody_elses_to_read(cluster: Any, host: Any) -> None:
    for name in ("ca.key", "admin.key", "service-accounts.key"):
        assert host.file(f"{cluster_dir()}/pki/{name}").mode == 0o600
    assert host.file(cluster.kubeconfig).mode == 0o600


def test_every_process_of_the_cluster_runs(cluster: Any, host: Any) -> None:
    assert Path(RUN_DIR / "supervisord.pid").exists()
    rules = host.check_output("nft list table inet mvno-netpol")
    assert "chain forward" in rules and "masquerade" in rules


def test_an_up_cluster_is_left_alone(cluster: Any) -> None:
    from mvnobox.deploy.cluster import EmbeddedCluster

    before = EmbeddedCluster().supervisor_pid()
    EmbeddedCluster().up(PlainReporter())
    assert EmbeddedCluster().supervisor_pid() == before
