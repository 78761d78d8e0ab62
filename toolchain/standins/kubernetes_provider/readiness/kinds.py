"""The question "is it ready?" for each kind that is awaited."""

from __future__ import annotations

from collections.abc import Callable

from .. import objects
from ..cluster import Cluster
from ..errors import ApiError
from .verdict import READY, Verdict, failed, waiting

Check = Callable[[Cluster, objects.Object], Verdict]


def _seen(obj: objects.Object) -> bool:
    return int(objects.get(obj, "status", "observedGeneration", default=0)) >= int(
        objects.get(obj, "metadata", "generation", default=0)
    )


def _number(obj: objects.Object, *path: str, default: int = 0) -> int:
    return int(objects.get(obj, *path, default=default))


def deployment(cluster: Cluster, obj: objects.Object) -> Verdict:
    """Every replica is of the newest template and available, none of an older one is left."""
    if not _seen(obj):
        return waiting("the controller to see the change")
    progressing = objects.condition(obj, "Progressing")
    if progressing.get("reason") == "ProgressDeadlineExceeded":
        return failed(
            f"the rollout made no progress in time: {progressing.get('message', '')}",
            since=progressing.get("lastUpdateTime", "always"),
        )
    stopped = objects.condition(obj, "ReplicaFailure")
    wanted = _number(obj, "spec", "replicas", default=1)
    updated = _number(obj, "status", "updatedReplicas")
    if stopped.get("status") == "True" and updated < wanted:
        return waiting(f"pods that cannot be made: {stopped.get('message', '')}")
    if updated < wanted:
        return waiting(f"{updated} of {wanted} pods are of the new version")
    if _number(obj, "status", "replicas") > updated:
        return waiting("pods of the old version to end")
    available = _number(obj, "status", "availableReplicas")
    if available < wanted:
        return waiting(f"{available} of {wanted} pods are ready")
    return READY


def stateful_set(cluster: Cluster, obj: objects.Object) -> Verdict:
    """Every replica is ready and of the newest revision."""
    if not _seen(obj):
        return waiting("the controller to see the change")
    wanted = _number(obj, "spec", "replicas", default=1)
    ready = _number(obj, "status", "readyReplicas")
    strategy = objects.get(obj, "spec", "updateStrategy", "type", default="RollingUpdate")
    if strategy == "RollingUpdate":
        partition = _number(obj, "spec", "updateStrategy", "rollingUpdate", "partition")
        updated = _number(obj, "status", "updatedReplicas")
        if updated < wanted - partition:
            return waiting(f"{updated} of {wanted - partition} pods are of the new version")
        same = objects.get(obj, "status", "currentRevision") == objects.get(obj, "status", "updateRevision")
        if not partition and not same and wanted:
            return waiting("the new version to become the current one")
    if ready < wanted:
        return waiting(f"{ready} of {wanted} pods are ready")
    return READY


def daemon_set(cluster: Cluster, obj: objects.Object) -> Verdict:
    """A ready pod of the newest template on every node that it is meant for."""
    if not _seen(obj):
        return waiting("the controller to see the change")
    wanted = _number(obj, "status", "desiredNumberScheduled")
    updated = _number(obj, "status", "updatedNumberScheduled")
    available = _number(obj, "status", "numberAvailable")
    on_delete = objects.get(obj, "spec", "updateStrategy", "type") == "OnDelete"
    if updated < wanted and not on_delete:
        return waiting(f"{updated} of {wanted} pods are of the new version")
    if available < wanted:
        return waiting(f"{available} of {wanted} pods are ready")
    return READY


def job(cluster: Cluster, obj: objects.Object) -> Verdict:
    """The Job has completed."""
    if objects.condition(obj, "Complete").get("status") == "True":
        return READY
    ended = objects.condition(obj, "Failed")
    if ended.get("status") == "True":
        return failed(f"the Job failed: {ended.get('reason', '')}: {ended.get('message', '')}")
    if objects.get(obj, "spec", "suspend") is True:
        return READY
    done = _number(obj, "status", "succeeded")
    return waiting(f"{done} of {_number(obj, 'spec', 'completions', default=1)} pods have succeeded")


def pod(cluster: Cluster, obj: objects.Object) -> Verdict:
    """The pod is ready, or has done its work."""
    phase = objects.get(obj, "status", "phase")
    if phase == "Succeeded" or objects.condition(obj, "Ready").get("status") == "True":
        return READY
    if phase == "Failed" and objects.get(obj, "spec", "restartPolicy") == "Never":
        return failed(f"the pod failed: {objects.get(obj, 'status', 'message', default='')}".rstrip(": "))
    return waiting(f"the pod is {phase or 'new'}")


def claim(cluster: Cluster, obj: objects.Object) -> Verdict:
    """The claim is bound, or its class binds only when a pod uses it."""
    phase = objects.get(obj, "status", "phase")
    if phase == "Bound":
        return READY
    if phase == "Lost":
        return failed("the volume of the claim is gone")
    classes = {item["metadata"]["name"]: item for item in cluster.list("storage.k8s.io/v1", "StorageClass", "")}
    name = objects.get(obj, "spec", "storageClassName")
    if name is None:
        default = "storageclass.kubernetes.io/is-default-class"
        name = next((key for key, item in classes.items() if objects.is_true(item, default)), "")
    if classes.get(name, {}).get("volumeBindingMode") == "WaitForFirstConsumer":
        return READY
    return waiting("the claim to be bound to a volume")


def service(cluster: Cluster, obj: objects.Object) -> Verdict:
    """A pod answers behind the service, and a load balancer has its address."""
    kind = objects.get(obj, "spec", "type", default="ClusterIP")
    if kind == "ExternalName":
        return READY
    if kind == "LoadBalancer" and not objects.get(obj, "status", "loadBalancer", "ingress"):
        return waiting("the load balancer to get an address")
    if not objects.get(obj, "spec", "selector") or objects.get(obj, "spec", "clusterIP") == "None":
        return READY
    name = objects.name_of(obj)
    slices = cluster.list(
        "discovery.k8s.io/v1", "EndpointSlice", objects.namespace_of(obj), f"kubernetes.io/service-name={name}"
    )
    for item in slices:
        for endpoint in item.get("endpoints") or []:
            if objects.get(endpoint, "conditions", "ready", default=True):
                return READY
    return waiting("a ready pod behind the service")


def ingress(cluster: Cluster, obj: objects.Object) -> Verdict:
    """An ingress controller has given the ingress an address."""
    if objects.get(obj, "status", "loadBalancer", "ingress"):
        return READY
    return waiting("an ingress controller to give it an address")


def definition(cluster: Cluster, obj: objects.Object) -> Verdict:
    """The new kind is served."""
    if objects.condition(obj, "Established").get("status") == "True":
        cluster.forget_kinds()
        try:
            for version in objects.get(obj, "spec", "versions", default=[]):
                if version.get("served"):
                    kind = objects.get(obj, "spec", "names", "kind")
                    cluster.kind(f"{objects.get(obj, 'spec', 'group')}/{version['name']}", kind)
        except Exception:
            return waiting("the new kind to be served")
        return READY
    refused = objects.condition(obj, "NamesAccepted")
    if refused.get("status") == "False":
        return failed(f"the definition's names are taken: {refused.get('message', '')}")
    return waiting("the definition to be established")


def namespace(cluster: Cluster, obj: objects.Object) -> Verdict:
    """The namespace is active and pods can run in it."""
    if objects.get(obj, "status", "phase") == "Terminating":
        return failed("the namespace is being deleted")
    try:
        cluster.read(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": objects.name_of(obj)}}, "default"
        )
    except ApiError as error:
        if error.status == 404:
            return waiting("its default service account")
        if error.status != 403:
            raise
    return READY


CHECKS: dict[str, Check] = {
    "apps/v1/Deployment": deployment,
    "apps/v1/StatefulSet": stateful_set,
    "apps/v1/DaemonSet": daemon_set,
    "batch/v1/Job": job,
    "v1/Pod": pod,
    "v1/PersistentVolumeClaim": claim,
    "v1/Service": service,
    "v1/Namespace": namespace,
    "networking.k8s.io/v1/Ingress": ingress,
    "apiextensions.k8s.io/v1/CustomResourceDefinition": definition,
}

SELECTORS: dict[str, tuple[str, ...]] = {
    "apps/v1/Deployment": ("spec", "selector"),
    "apps/v1/StatefulSet": ("spec", "selector"),
    "apps/v1/DaemonSet": ("spec", "selector"),
    "batch/v1/Job": ("spec", "selector"),
}
