"""Fields whose change needs a new object, per kind: what the apiserver refuses to update.

Patterns are paths of keys; `*` stands for any list index. A change at or below a pattern replaces.
The list is the official provider's, so that a preview says the same under either.
"""

from __future__ import annotations

from . import objects

Pattern = tuple[str, ...]

_IDENTITY: tuple[Pattern, ...] = (("metadata", "name"), ("metadata", "namespace"))


def _paths(*texts: str) -> tuple[Pattern, ...]:
    return tuple(tuple(text.split(".")) for text in texts)


_CONTAINER_FIELDS = [
    "args",
    "command",
    "env",
    "image",
    "imagePullPolicy",
    "lifecycle",
    "livenessProbe",
    "ports",
    "readinessProbe",
    "resources",
    "securityContext",
    "stdin",
    "stdinOnce",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "tty",
    "volumeDevices",
    "volumeMounts",
    "workingDir",
]
_POD_FIELDS = [
    "affinity",
    "automountServiceAccountToken",
    "dnsConfig",
    "dnsPolicy",
    "enableServiceLinks",
    "hostAliases",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostname",
    "imagePullSecrets",
    "nodeName",
    "nodeSelector",
    "overhead",
    "preemptionPolicy",
    "priority",
    "priorityClassName",
    "readinessGates",
    "restartPolicy",
    "runtimeClassName",
    "schedulerName",
    "securityContext",
    "serviceAccount",
    "serviceAccountName",
    "shareProcessNamespace",
    "subdomain",
    "terminationGracePeriodSeconds",
    "volumes",
]
_VOLUME_SOURCES = [
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "csi",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "glusterfs",
    "hostPath",
    "iscsi",
    "local",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
]

_FIELDS: dict[str, tuple[Pattern, ...]] = {
    "apps/v1/Deployment": _paths("spec.selector"),
    "apps/v1/DaemonSet": _paths("spec.selector"),
    "apps/v1/StatefulSet": _paths(
        "spec.podManagementPolicy",
        "spec.revisionHistoryLimit",
        "spec.selector",
        "spec.serviceName",
        "spec.volumeClaimTemplates",
    ),
    "batch/v1/Job": _paths("spec.completions", "spec.parallelism", "spec.selector", "spec.template"),
    "rbac.authorization.k8s.io/v1/RoleBinding": _paths("roleRef"),
    "rbac.authorization.k8s.io/v1/ClusterRoleBinding": _paths("roleRef"),
    "storage.k8s.io/v1/StorageClass": _paths("parameters", "provisioner"),
    "v1/PersistentVolume": tuple(("spec", source) for source in _VOLUME_SOURCES),
    "v1/PersistentVolumeClaim": _paths("spec.accessModes", "spec.selector", "spec.storageClassName", "spec.volumeName"),
    "v1/Pod": (
        *(("spec", name) for name in _POD_FIELDS),
        *(("spec", part, "*", name) for part in ("containers", "initContainers") for name in _CONTAINER_FIELDS),
    ),
    "v1/ResourceQuota": _paths("spec.scopes"),
    "v1/Secret": _paths("type"),
    "v1/Service": _paths("spec.clusterIP"),
}


def replacing_paths(
    obj: objects.Object, *, patch: bool, config_map_mutable: bool, secret_mutable: bool
) -> tuple[Pattern, ...]:
    """The patterns that hold for this object under the provider's settings."""
    if patch:
        return _IDENTITY
    kind = objects.kind_of(obj)
    fields = _FIELDS.get(kind, ())
    if kind == "v1/Secret" and (not secret_mutable or obj.get("immutable") is True):
        fields = _paths("type", "stringData", "data")
    elif kind == "v1/ConfigMap" and (not config_map_mutable or obj.get("immutable") is True):
        fields = _paths("binaryData", "data")
    return (*_IDENTITY, *fields)


def replaces(path: tuple[str | int, ...], patterns: tuple[Pattern, ...]) -> bool:
    """Whether a change at `path` is at, below or above (the whole parent is new or gone) one of the patterns."""

    def fits(pattern: Pattern) -> bool:
        return all(
            (isinstance(step, int) if wanted == "*" else step == wanted)
            for step, wanted in zip(path, pattern, strict=False)
        )

    return any(fits(pattern) for pattern in patterns)
