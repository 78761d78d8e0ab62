"""An unchanged program gives an empty difference: every kind that the charts use, with the traps of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

PROGRAM = """
def made(cls, name, **arguments):
    metadata = {"name": name, **inside, **arguments.pop("metadata", {})}
    return cls(name, metadata=metadata, opts=opts, **arguments)

core, apps, net = k8s.core.v1, k8s.apps.v1, k8s.networking.v1
made(core.Secret, "opaque", type="Opaque", string_data={"a": "b", "empty": ""}, data={"c": "ZA=="})
made(core.ConfigMap, "config", data={"a": "", "number": "1", "date": "2026-11-23"}, metadata={"annotations": {}})
made(core.ServiceAccount, "account", automount_service_account_token=False)
made(k8s.rbac.v1.Role, "role", rules=[{"api_groups": [""], "resources": ["pods"], "verbs": ["get", "list"]}])
made(k8s.rbac.v1.RoleBinding, "binding", role_ref={"api_group": "rbac.authorization.k8s.io", "kind": "Role", "name": "role"},
     subjects=[{"kind": "ServiceAccount", "name": "account", "namespace": NAME}])
made(core.PersistentVolumeClaim, "claim", spec={"access_modes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1024Mi"}}})
made(k8s.policy.v1.PodDisruptionBudget, "budget", spec={"min_available": "50%", "selector": {"match_labels": {"app": "web"}}})
made(net.NetworkPolicy, "closed", spec={"pod_selector": {}, "policy_types": ["Ingress", "Egress"], "ingress": [], "egress": []})
made(net.NetworkPolicy, "open", spec={
    "pod_selector": {"match_labels": {"app": "web"}}, "policy_types": ["Ingress"],
    "ingress": [{"from_": [{"namespace_selector": {}}, {"ip_block": {"cidr": "10.0.0.0/8", "except_": ["10.1.0.0/16"]}}],
                 "ports": [{"port": 80, "protocol": "TCP"}, {"port": "http"}]}]})
made(net.Ingress, "ingress", metadata={"annotations": {"pulumi.com/skipAwait": "true"}}, spec={"rules": [{"host": "a.example",
    "http": {"paths": [{"path": "/", "path_type": "Prefix", "backend": {"service": {"name": "web", "port": {"name": "http"}}}}]}}]})
made(core.Service, "headless", spec={"cluster_ip": "None", "selector": {"app": "web"}, "ports": [{"port": 80}]})
made(core.Service, "web", spec={"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "target_port": "http"}]})
k8s.storage.v1.StorageClass(NAME + "-class", metadata={"name": NAME + "-class"}, provisioner="mvno.box/none",
    volume_binding_mode="WaitForFirstConsumer", parameters={"a": "b"}, opts=opts)

def pod(name, **more):
    return {"metadata": {"labels": {"app": name}, "annotations": {"checksum": "1"}}, "spec": {
        "automount_service_account_token": False, "host_network": False, "termination_grace_period_seconds": 0,
        "security_context": {"run_as_user": 65532, "run_as_non_root": True, "seccomp_profile": {"type": "RuntimeDefault"}},
        "volumes": [{"name": "tmp", "empty_dir": {}}, {"name": "mem", "empty_dir": {"medium": "Memory", "size_limit": "1024Ki"}},
                    {"name": "config", "config_map": {"name": "config", "default_mode": 0o440}}],
        "containers": [{"name": name, "image": IMAGE, "image_pull_policy": "IfNotPresent", "args": [],
            "env": [{"name": "EMPTY", "value": ""}, {"name": "SECRET", "value_from": {"secret_key_ref": {"name": "opaque", "key": "a"}}},
                    {"name": "CPU", "value_from": {"resource_field_ref": {"resource": "limits.cpu", "divisor": "1"}}}],
            "ports": [{"name": "http", "container_port": 80}],
            "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}, "requests": {"cpu": "0.01", "memory": "16777216"}},
            "security_context": {"allow_privilege_escalation": False, "read_only_root_filesystem": True, "capabilities": {"drop": ["ALL"]}},
            "volume_mounts": [{"name": "tmp", "mount_path": "/tmp"}, {"name": "config", "mount_path": "/etc/mvno", "read_only": True}]}],
        **more}}

made(apps.Deployment, "web", spec={"replicas": 1, "selector": {"match_labels": {"app": "web"}}, "template": pod("web"),
     "strategy": {"type": "RollingUpdate", "rolling_update": {"max_surge": 1, "max_unavailable": 0}}})
made(apps.Deployment, "none", spec={"replicas": 0, "paused": False, "selector": {"match_labels": {"app": "none"}}, "template": pod("none")})
made(apps.StatefulSet, "base", spec={"replicas": 1, "service_name": "headless", "selector": {"match_labels": {"app": "base"}},
     "template": pod("base"), "volume_claim_templates": [{"metadata": {"name": "data", "labels": {"a": "b"}}, "spec": {
         "access_modes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "0.5Gi"}}}}]})
made(apps.DaemonSet, "every", spec={"selector": {"match_labels": {"app": "every"}}, "template": pod("every")})
made(k8s.batch.v1.Job, "job", metadata={"annotations": {"pulumi.com/skipAwait": "true"}}, spec={"backoff_limit": 0,
     "ttl_seconds_after_finished": None, "template": pod("job", restart_policy="Never")})
made(k8s.batch.v1.CronJob, "cron", spec={"schedule": "@yearly", "suspend": True,
     "job_template": {"spec": {"template": pod("cron", restart_policy="OnFailure")}}})
made(k8s.autoscaling.v2.HorizontalPodAutoscaler, "scaler", spec={"max_replicas": 2, "scale_target_ref": {
    "api_version": "apps/v1", "kind": "Deployment", "name": "none"}, "metrics": [{"type": "Resource", "resource": {
    "name": "cpu", "target": {"type": "AverageValue", "average_value": "0.5"}}}]})
crd = k8s.apiextensions.v1.CustomResourceDefinition("crd", metadata={"name": f"widgets.{NAME}.mvno.box"}, spec={
    "group": f"{NAME}.mvno.box", "scope": "Namespaced", "preserve_unknown_fields": False,
    "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
    "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"open_apiv3_schema": {"type": "object", "properties": {
        "spec": {"type": "object", "x_kubernetes_preserve_unknown_fields": True}}}}}]}, opts=opts)
k8s.apiextensions.CustomResource("widget", api_version=f"{NAME}.mvno.box/v1", kind="Widget", metadata={**inside, "name": "widget"},
    spec={"empty": {}, "list": [], "zero": 0, "no": False, "ratio": 0.25, "text": "", "limits": {"cpu": 0.5}},
    opts=pulumi.ResourceOptions(provider=provider, depends_on=[crd]))
"""


def test_nothing_changes_without_a_change(project: Any, pause_image: Callable[[], str]) -> None:
    project.write(f"IMAGE = {pause_image()!r}\n{PROGRAM}")
    project.up("--parallel", "64")

    def unchanged() -> None:
        plan = project.preview()
        moved = {
            step["urn"].split("::")[-1]: step.get("detailedDiff") for step in plan["steps"] if step["op"] != "same"
        }
        assert not moved
        assert set(plan["changeSummary"]) == {"same"}

    unchanged()
    # What the cluster has filled in since (bound claims, used ports) is no difference either.
    said = project.run("refresh", "--yes", "--skip-preview")
    assert said.code == 0, said.text
    unchanged()
    project.up("--parallel", "64")
    unchanged()
