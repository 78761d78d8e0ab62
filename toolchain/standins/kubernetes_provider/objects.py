"""Small questions about Kubernetes objects as dictionaries."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]

AUTONAMED = "pulumi.com/autonamed"
SKIP_AWAIT = "pulumi.com/skipAwait"
TIMEOUT_SECONDS = "pulumi.com/timeoutSeconds"
PATCH_FORCE = "pulumi.com/patchForce"
PATCH_FIELD_MANAGER = "pulumi.com/patchFieldManager"
DELETION_PROPAGATION = "pulumi.com/deletionPropagationPolicy"
REPLACE_UNREADY = "pulumi.com/replaceUnready"


def get(obj: Any, *path: str, default: Any = None) -> Any:
    """The value under a path of keys, or the default where the path ends early."""
    for key in path:
        if not isinstance(obj, dict) or key not in obj:
            return default
        obj = obj[key]
    return default if obj is None else obj


def name_of(obj: Object) -> str:
    """metadata.name, or an empty string (also when it is unknown)."""
    name = get(obj, "metadata", "name", default="")
    return name if isinstance(name, str) else ""


def namespace_of(obj: Object) -> str:
    """metadata.namespace, or an empty string."""
    namespace = get(obj, "metadata", "namespace", default="")
    return namespace if isinstance(namespace, str) else ""


def kind_of(obj: Object) -> str:
    """`<apiVersion>/<Kind>`, as `apps/v1/Deployment`."""
    return f"{obj.get('apiVersion', '')}/{obj.get('kind', '')}"


def annotation(obj: Object, key: str) -> str:
    """An annotation's value, or an empty string."""
    value = get(obj, "metadata", "annotations", key, default="")
    return value if isinstance(value, str) else ""


def is_true(obj: Object, key: str) -> bool:
    """Whether an annotation says "true"."""
    return annotation(obj, key) == "true"


def identity(obj: Object) -> str:
    """The id in a state: `namespace/name`, or the name alone for kinds without a namespace."""
    namespace = namespace_of(obj)
    return f"{namespace}/{name_of(obj)}" if namespace else name_of(obj)


def split_identity(identity: str) -> tuple[str, str]:
    """(namespace or "", name) of an id."""
    namespace, slash, name = identity.rpartition("/")
    return (namespace, name) if slash else ("", identity)


def condition(obj: Object, name: str) -> Object:
    """The status condition of a type, or an empty object."""
    for item in get(obj, "status", "conditions", default=[]):
        if item.get("type") == name:
            return dict(item)
    return {}


def is_builtin(api_version: str) -> bool:
    """Whether the group is one of Kubernetes' own, whose defaults and forms are known here."""
    group = api_version.rpartition("/")[0]
    return group in _BUILTIN_GROUPS


_BUILTIN_GROUPS = {
    "",
    "apps",
    "autoscaling",
    "batch",
    "policy",
    *(
        f"{name}.k8s.io"
        for name in (
            "admissionregistration",
            "apiextensions",
            "apiregistration",
            "authentication",
            "authorization",
            "certificates",
            "coordination",
            "discovery",
            "events",
            "flowcontrol.apiserver",
            "networking",
            "node",
            "rbac.authorization",
            "resource",
            "scheduling",
            "storage",
        )
    ),
}


def type_of_urn(urn: str) -> str:
    """The resource's own type token of a URN, without its parents'."""
    return urn.split("::")[2].split("$")[-1]


def is_patch(urn: str, kind: str) -> bool:
    """Whether the resource is one of the SDK's `…Patch` kinds, which manage fields of somebody else's object."""
    return type_of_urn(urn).endswith(f":{kind}Patch")


def api_of_type(token: str) -> tuple[str, str]:
    """(apiVersion, kind) of a type token such as `kubernetes:apps/v1:Deployment`."""
    _, version, kind = token.split(":")
    return version.removeprefix("core/"), kind
