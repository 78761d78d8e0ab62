"""The resource provider: what each of the engine's calls does."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from . import apply, checkpoint, objects
from .cluster import Cluster
from .diffing import Change, Difference, difference, seen_inputs
from .engine import Engine
from .errors import ApiError, NoSuchKind, NotReady, ProviderError, Unreachable
from .immutable import replacing_paths
from .kubeconfig import connect
from .naming import name_object
from .normal import normalise
from .readiness import await_gone, await_ready, is_awaited, timeout_of
from .settings import Settings
from .values import UNKNOWN, as_secret, dashed, has_unknowns, mark_secrets, plain, underscored

State = dict[str, Any]
_HELM_RELEASE = "kubernetes:helm.sh/v3:Release"


class InitialisationFailed(ProviderError):
    """The object exists, so the state must know it, and it is not ready."""

    def __init__(self, identity: str, outputs: State, reasons: list[str], inputs: State | None = None) -> None:
        super().__init__(reasons[0])
        self.identity, self.outputs, self.reasons, self.inputs = identity, outputs, reasons, inputs


class Provider:
    """One provider resource: a cluster and its settings."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.settings = Settings()
        self.cancelled = threading.Event()
        self._cluster: Cluster | None = None
        self._lock = threading.Lock()

    @property
    def cluster(self) -> Cluster:
        """The cluster, connected when it is first needed. Raises ProviderError."""
        with self._lock:
            if self._cluster is None:
                if not self.settings.reachable:
                    raise Unreachable("the provider's kubeconfig is not known yet")
                settings = self.settings
                self._cluster = Cluster(connect(settings.kubeconfig, settings.context, settings.cluster))
                if settings.namespace:
                    self._cluster.connection.namespace = settings.namespace
            return self._cluster

    @property
    def default_namespace(self) -> str:
        """Where objects without a namespace go."""
        return self.settings.namespace or self.cluster.connection.namespace

    def check(self, urn: str, olds: State, news: State, seed: bytes, autonaming: Any) -> State:
        """Inputs completed: canonical forms, a name, a namespace."""
        token = objects.type_of_urn(urn)
        if token == _HELM_RELEASE:
            raise ProviderError("the stand-in provider has no helm.sh/v3 Release: use helm.sh/v4 Chart")
        inputs, old = normalise(dashed(plain(news))), dashed(plain(olds))
        if objects.is_patch(urn, str(inputs.get("kind", ""))):
            if not objects.name_of(inputs) and not has_unknowns(inputs.get("metadata")):
                raise ProviderError("a Patch resource needs metadata.name")
        else:
            inputs = {**inputs, "metadata": dict(inputs.get("metadata") or {})} if _known(inputs) else inputs
            name_object(inputs, old, urn, seed, autonaming)
        metadata = inputs.get("metadata")
        if isinstance(metadata, dict) and not metadata.get("namespace") and self._is_namespaced(inputs):
            metadata["namespace"] = self.default_namespace
        return mark_secrets(inputs, _with_data(dashed(news)))

    def _is_namespaced(self, inputs: objects.Object) -> bool:
        try:
            return self.cluster.is_namespaced(str(inputs.get("apiVersion")), str(inputs.get("kind")))
        except NoSuchKind:
            return True  # a custom resource before its definition
        except Unreachable:
            return objects.kind_of(inputs) not in _CLUSTER_WIDE

    def diff(self, urn: str, olds: State, news: State, ignored: list[str]) -> tuple[Difference, bool]:
        """(what changed, whether the old object must go before the new one comes)."""
        new = dashed(plain(news))
        old_inputs, live = checkpoint.opened(olds)
        found = difference(
            old_inputs,
            live,
            new,
            namespaced=self._is_namespaced({**live, **new}),
            immutable=replacing_paths(
                new,
                patch=objects.is_patch(urn, str(new.get("kind", ""))),
                config_map_mutable=self.settings.config_map_mutable,
                secret_mutable=self.settings.secret_mutable,
            ),
            ignored=ignored,
        )
        if objects.is_true(new, objects.REPLACE_UNREADY) and new.get("kind") == "Job" and self._unready(live):
            path = ("metadata", "annotations", objects.REPLACE_UNREADY)
            found.changes[path] = Change.UPDATE
            found.replacing.add(path)
        same_name = objects.name_of(new) == objects.name_of(live) and (
            (objects.namespace_of(new) or "default") == (objects.namespace_of(live) or "default")
        )
        first = bool(found.replacing) and bool(objects.name_of(new)) and same_name
        return found, first and not objects.is_true(new, objects.AUTONAMED)

    def _unready(self, live: objects.Object) -> bool:
        try:
            return objects.condition(self.cluster.read(live), "Complete").get("status") != "True"
        except (ApiError, Unreachable):
            return False

    def create(self, urn: str, news: State, timeout: float, preview: bool) -> tuple[str, State]:
        """(id, outputs) of a new object, ready. Raises InitialisationFailed when it exists and is not."""
        inputs = dashed(plain(news))
        patch = objects.is_patch(urn, str(inputs.get("kind", "")))
        manager = checkpoint.manager_of({}, inputs)
        version = str(inputs.get("apiVersion", ""))
        warnings: list[str] = []
        if preview:
            return "", self._preview_create(inputs, news, patch, manager, version)
        if patch:
            live = apply.patch_create(self.cluster, inputs, manager)
        else:
            live = apply.create(
                self.cluster,
                inputs,
                manager,
                self.cancelled,
                upsert=self.settings.upsert,
                force=self.settings.patch_force or objects.is_true(inputs, objects.PATCH_FORCE),
                warnings=warnings,
            )
        self._warn(urn, warnings)
        live = self._ready(urn, inputs, live, live, news, timeout, manager, version)
        if inputs.get("kind") == "CustomResourceDefinition":
            self.cluster.forget_kinds()
        return objects.identity(live), checkpoint.checkpoint(inputs, live, news, version, manager)

    def _preview_create(self, inputs: objects.Object, news: State, patch: bool, manager: str, version: str) -> State:
        if has_unknowns(inputs) or patch:
            return news
        try:
            live = self.cluster.create(inputs, dry_run=True)
        except (NoSuchKind, Unreachable):
            return news
        except ApiError as error:
            if error.status in (403, 404, 409) or "dry run" in str(error):
                return news  # not possible yet: the namespace or a policy's subject is made by the same update
            raise
        live.pop("status", None)
        return checkpoint.checkpoint(inputs, live, news, version, manager)

    def _ready(
        self,
        urn: str,
        inputs: objects.Object,
        live: objects.Object,
        known: objects.Object,
        news: State,
        timeout: float,
        manager: str,
        version: str,
    ) -> objects.Object:
        if not is_awaited({**live, "metadata": inputs.get("metadata", {})}):
            return live
        try:
            return await_ready(
                self.cluster,
                live,
                timeout_of(inputs, timeout),
                self.cancelled,
                lambda text: self.engine.status(urn, f"waiting for {text}" if not text[:1].isdigit() else text),
            )
        except NotReady as error:
            outputs = checkpoint.checkpoint(inputs, error.live, news, version, manager)
            what = f"{live.get('kind')} {objects.identity(live)}"
            reasons = [f"{what} was made but is not ready: {error.reasons[0]}", *error.reasons[1:]]
            raise InitialisationFailed(objects.identity(live), outputs, reasons) from error

    def _warn(self, urn: str, warnings: list[str]) -> None:
        for text in dict.fromkeys(warnings):
            self.engine.warning(urn, text)

    def update(self, urn: str, olds: State, news: State, timeout: float, preview: bool) -> State:
        """Outputs of the changed object, ready again."""
        inputs = dashed(plain(news))
        old_inputs, old_live = checkpoint.opened(olds)
        patch = objects.is_patch(urn, str(inputs.get("kind", "")))
        manager = checkpoint.manager_of(olds, inputs)
        version = checkpoint.initial_version(olds, old_inputs)
        if preview and (has_unknowns(inputs) or patch):
            return news
        warnings: list[str] = []
        try:
            live = apply.update(
                self.cluster,
                inputs,
                objects.name_of(old_live),
                manager,
                patch=patch,
                force=self.settings.patch_force or objects.is_true(inputs, objects.PATCH_FORCE),
                dry_run=preview,
                warnings=warnings,
            )
        except (NoSuchKind, Unreachable):
            if preview:
                return news
            raise
        except ApiError as error:
            if preview and (error.status in (403, 404) or "dry run" in str(error)):
                return news
            if error.status == 404:
                raise ProviderError(
                    f"{error}: it is in the state and not in the cluster; run `pulumi refresh`, then again"
                ) from error
            raise
        if preview:
            live.pop("status", None)
        else:
            self._warn(urn, warnings)
            live = self._ready(urn, inputs, live, old_live, news, timeout, manager, version)
        return checkpoint.checkpoint(inputs, live, news, version, manager)

    def read(self, urn: str, identity: str, state: State, old_inputs: State) -> tuple[str, State, State] | None:
        """(id, outputs, inputs) of what the cluster has now, or None when it is gone. Also imports by id."""
        namespace, name = objects.split_identity(identity)
        inputs, source = normalise(dashed(plain(old_inputs))), dict(old_inputs)
        _, live = checkpoint.opened(state)
        imported = not inputs.get("kind")
        if imported:
            version, kind = objects.api_of_type(objects.type_of_urn(urn))
            inputs = {
                "apiVersion": live.get("apiVersion", version),
                "kind": live.get("kind", kind),
                "metadata": {"name": name, **({"namespace": namespace} if namespace else {})},
            }
        wanted = {**inputs, "metadata": {**(inputs.get("metadata") or {}), "name": name}}
        if namespace:
            wanted["metadata"]["namespace"] = namespace
        try:
            live = self.cluster.read(wanted)
        except NoSuchKind:
            return None
        except Unreachable:
            if self.settings.delete_unreachable:
                return None
            raise
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        manager = checkpoint.manager_of(state, inputs)
        version = checkpoint.initial_version(state, inputs)
        seen = normalise(_importable(live)) if imported else seen_inputs(live, inputs)
        seen = {"apiVersion": live["apiVersion"], "kind": live["kind"], **seen}
        outputs = checkpoint.checkpoint(seen, live, source, version, manager)
        return identity or objects.identity(live), outputs, mark_secrets(underscored(seen), _with_data(source))

    def delete(self, urn: str, identity: str, state: State, timeout: float) -> None:
        """Remove the object and wait until it is gone."""
        inputs, live = checkpoint.opened(state)
        namespace, name = objects.split_identity(identity)
        target = {
            "apiVersion": live.get("apiVersion") or inputs.get("apiVersion"),
            "kind": live.get("kind") or inputs.get("kind"),
            "metadata": {"name": name, **({"namespace": namespace} if namespace else {})},
        }
        try:
            if objects.is_patch(urn, str(target["kind"])):
                apply.relinquish(self.cluster, target, checkpoint.manager_of(state, inputs))
                return
            self.cluster.delete(target, apply.propagation(inputs))
        except NoSuchKind:
            return
        except Unreachable as error:
            if self.settings.delete_unreachable:
                self.engine.warning(urn, f"forgotten without being deleted: {error}")
                return
            raise ProviderError(
                f"{error}. If the cluster is gone for good, run again with PULUMI_K8S_DELETE_UNREACHABLE=true"
            ) from error
        except ApiError as error:
            if error.status == 404:
                return
            raise
        if objects.is_true(inputs, objects.SKIP_AWAIT):
            return
        uid = str(objects.get(live, "metadata", "uid", default=""))
        try:
            await_gone(
                self.cluster,
                target,
                uid,
                timeout_of(inputs, timeout),
                self.cancelled,
                lambda text: self.engine.status(urn, text),
            )
        except NotReady as error:
            outputs = checkpoint.checkpoint(
                inputs,
                error.live,
                state,
                checkpoint.initial_version(state, inputs),
                checkpoint.manager_of(state, inputs),
            )
            what = f"{target['kind']} {identity} could not be deleted"
            raise InitialisationFailed(identity, outputs, [f"{what}: {error.reasons[0]}"]) from error


_CLUSTER_WIDE = {
    "v1/Namespace",
    "v1/PersistentVolume",
    "storage.k8s.io/v1/StorageClass",
    "rbac.authorization.k8s.io/v1/ClusterRole",
    "rbac.authorization.k8s.io/v1/ClusterRoleBinding",
    "scheduling.k8s.io/v1/PriorityClass",
    "apiextensions.k8s.io/v1/CustomResourceDefinition",
    "networking.k8s.io/v1/IngressClass",
}


def _known(inputs: objects.Object) -> bool:
    return inputs.get("metadata") is not UNKNOWN


def _with_data(source: Mapping[str, Any]) -> State:
    # stringData became data: what was secret there is secret here.
    values = dict(source)
    if "stringData" in values:
        values["data"] = as_secret(plain(values.get("data")))
    return values


def _importable(live: objects.Object) -> objects.Object:
    metadata = dict(live.get("metadata") or {})
    annotations = {
        key: value
        for key, value in (metadata.get("annotations") or {}).items()
        if key not in ("deployment.kubernetes.io/revision", "kubectl.kubernetes.io/last-applied-configuration")
    }
    metadata.pop("annotations", None)
    if annotations:
        metadata["annotations"] = annotations
    return {**{key: value for key, value in live.items() if key != "status"}, "metadata": metadata}
