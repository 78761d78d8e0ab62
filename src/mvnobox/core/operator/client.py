"""The client for the operator's resources, over the official `kubernetes` client. Calls block; use a thread each."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from kubernetes import client, config
from kubernetes.config.config_exception import ConfigException

from .drift import Difference, differences
from .errors import AlreadyExists, Conflict, NotFound, Refusal, Refused, TimedOut, Unreachable
from .failures import Gone, told
from .models import GROUP, USER_FINALIZER, VERSION, Open5GS, Open5GSUser, Resource
from .ready import INSTANCE_LABEL, Readiness, by_deployments, by_finalizer, by_status
from .watching import Listing, Watching

T = TypeVar("T", bound=Resource)
Differences = list[Difference]

FIELD_MANAGER = "mvno-box"
_new_client: Any = config.new_client_from_config
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_PAGE = 500
_ATTEMPTS = 3


class OperatorClient:
    """Create, read, change, delete and follow Open5GS and Open5GSUser resources.

    All methods raise this package's errors: NotInstalled, Forbidden, Unreachable and those that they name.
    `request_timeout` is in seconds, for one request.
    """

    def __init__(
        self, api: client.ApiClient, *, field_manager: str = FIELD_MANAGER, request_timeout: float = 15.0
    ) -> None:
        self._api = api
        # Any: the client declares what it answers as `object`.
        self._objects: Any = client.CustomObjectsApi(api)
        self._apps: Any = client.AppsV1Api(api)
        self._manager = field_manager
        self._timeout = request_timeout

    @classmethod
    def from_kubeconfig(
        cls, path: Path | str | None = None, context: str | None = None, **options: Any
    ) -> OperatorClient:
        """A client for a kubeconfig's context; without a path as kubectl does. Raises Unreachable if it has none."""
        try:
            api = _new_client(str(path) if path else None, context)
        except (ConfigException, OSError) as error:
            raise Unreachable(f"no cluster to talk to: {error}", "give a kubeconfig and a context in it") from None
        return cls(api, **options)

    def check_installed(self, namespace: str) -> None:
        """Raise NotInstalled unless the cluster serves both kinds (seen by listing them in the namespace)."""
        for kind in (Open5GS, Open5GSUser):
            with told(f"look for {kind.PLURAL}.{GROUP}"):
                self._objects.list_namespaced_custom_object(
                    **self._where(kind, namespace), limit=1, _request_timeout=self._timeout
                )

    # Reading ------------------------------------------------------------------------------------------------------

    def get(self, kind: type[T], namespace: str, name: str) -> T:
        """One resource. Raises NotFound."""
        with told(f"read {kind.KIND} {namespace}/{name}"):
            return kind.from_object(
                self._objects.get_namespaced_custom_object(
                    **self._where(kind, namespace, name), _request_timeout=self._timeout
                )
            )

    def list(self, kind: type[T], namespace: str | None = None, *, label_selector: str | None = None) -> Listing[T]:
        """All resources of a namespace, or of all, read in pages. The version is the one to watch from."""
        for _ in range(_ATTEMPTS):
            try:
                return self._list(kind, namespace, label_selector)
            except Gone:  # the pages' snapshot was compacted away half way
                continue
        raise Unreachable(f"list {kind.PLURAL}: it changes faster than it can be read", "try again in a while")

    def _list(self, kind: type[T], namespace: str | None, label_selector: str | None) -> Listing[T]:
        items: list[T] = []
        query: dict[str, Any] = {"limit": _PAGE, "_request_timeout": self._timeout}
        if label_selector:
            query["label_selector"] = label_selector
        while True:
            with told(f"list {kind.PLURAL}"):
                if namespace is None:
                    page = self._objects.list_cluster_custom_object(GROUP, VERSION, kind.PLURAL, **query)
                else:
                    page = self._objects.list_namespaced_custom_object(**self._where(kind, namespace), **query)
            items += [kind.from_object(document) for document in page["items"]]
            if not (following := page["metadata"].get("continue")):
                return Listing(items, page["metadata"]["resourceVersion"])
            query["_continue"] = following

    def watch(
        self,
        kind: type[T],
        namespace: str | None = None,
        *,
        resource_version: str | None = None,
        label_selector: str | None = None,
        timeout: float | None = None,
        patience: float = 60.0,
        window: int = 240,
    ) -> Watching[T]:
        """Follow a kind, in one namespace or all: what is there as ADDED, a BOOKMARK, then each change.

        With `resource_version` (of an earlier BOOKMARK, event or list) only what came after it. Ends after `timeout`
        seconds, or never; raises Unreachable when the server has not answered for `patience` seconds. `window` is how
        long one connection lasts, in seconds.
        """

        def stream(**query: Any) -> Any:
            if label_selector:
                query["label_selector"] = label_selector
            if namespace is None:
                return self._objects.list_cluster_custom_object(GROUP, VERSION, kind.PLURAL, **query)
            return self._objects.list_namespaced_custom_object(**self._where(kind, namespace), **query)

        return Watching(
            kind,
            lambda: self.list(kind, namespace, label_selector=label_selector),
            stream,
            resource_version=resource_version,
            timeout=timeout,
            patience=patience,
            window=window,
        )

    def drift(self, desired: Resource) -> Differences:
        """What differs between the desired resource and the live one. Raises NotFound."""
        return differences(desired, self.get(type(desired), desired.namespace, desired.name))

    # Writing ------------------------------------------------------------------------------------------------------

    def create(self, resource: T) -> T:
        """Create it. Raises AlreadyExists, Invalid, NotFound (the namespace)."""
        kind, what = type(resource), self._what("create", resource)
        with told(what):
            made = self._objects.create_namespaced_custom_object(
                **self._where(kind, resource.namespace),
                body=_wanted(resource),
                field_manager=self._manager,
                field_validation="Strict",
                _request_timeout=self._timeout,
            )
        return self._own(kind.from_object(made))

    def update(self, resource: T, *, force: bool = False) -> T:
        """Make an existing resource as desired by server-side apply: what was ours and is no longer desired goes.

        `force` takes fields that others own. Raises NotFound, Conflict (with the fields and their owners), Invalid,
        Refused (a change that the operator does not carry out).
        """
        live = self.get(type(resource), resource.namespace, resource.name)
        _refuse_move(resource, live)
        return self._apply(resource, live.metadata.uid, force)

    def apply(self, resource: T, *, force: bool = False) -> T:
        """Create or update, whichever it takes. Raises as they do."""
        try:
            return self.create(resource)
        except AlreadyExists:
            return self.update(resource, force=force)

    def _apply(self, resource: T, uid: str | None, force: bool) -> T:
        kind, body = type(resource), _wanted(resource)
        # With the uid an object that was deleted in between is not made again, nor another of the same name changed.
        body["metadata"]["uid"] = uid
        for _ in range(_ATTEMPTS):
            try:
                with told(self._what("update", resource)):
                    made = kind.from_object(self._patch(resource, body, _APPLY, force=force))
            except Conflict as conflict:
                # Our own creation may have been cut off before its fields were made over to apply.
                if not any(item.manager == self._manager for item in conflict.conflicts):
                    raise
                made = self.get(kind, resource.namespace, resource.name)
            if not _own_updates(made, self._manager):
                return made
            self._own(made)
        raise Conflict(self._what("update", resource) + ": it is being changed all the time", "try again")

    def _own(self, made: T) -> T:
        """Make the fields that a creation set over to server-side apply, under the same manager.

        Kubernetes tells a manager's creations from its applications; without this every update would conflict with,
        or leave behind, what the creation set.
        """
        if not (ours := _own_updates(made, self._manager)):
            return made
        entries = [dict(entry) for entry in made.metadata.managedFields or []]
        applied = any(e.get("manager") == self._manager and e.get("operation") == "Apply" for e in entries)
        kept = []
        for entry in entries:
            if entry in ours:
                if applied:
                    continue
                entry["operation"] = "Apply"
            kept.append(entry)
        body = {"metadata": {"resourceVersion": made.metadata.resourceVersion, "managedFields": kept}}
        try:
            with told(self._what("update", made)):
                return type(made).from_object(self._patch(made, body, _MERGE))
        except Conflict:
            # Somebody, the operator's finalizer say, was quicker; the next update does it.
            return self.get(type(made), made.namespace, made.name)

    def _patch(self, resource: Resource, body: dict[str, Any], content_type: str, *, force: bool = False) -> Any:
        options: dict[str, Any] = {"force": force} if content_type == _APPLY else {}
        return self._objects.patch_namespaced_custom_object(
            **self._where(type(resource), resource.namespace, resource.name),
            body=body,
            field_manager=self._manager,
            field_validation="Strict",
            _content_type=content_type,
            _request_timeout=self._timeout,
            **options,
        )

    def delete(
        self, kind: type[T], namespace: str, name: str, *, timeout: float = 120.0, interval: float = 0.5
    ) -> bool:
        """Delete it, what it owns first, and wait until it is gone; False if it was not there.

        Looks every `interval` seconds; after `timeout` seconds raises TimedOut, which names what holds it.
        """
        what = f"delete {kind.KIND} {namespace}/{name}"
        try:
            live = self.get(kind, namespace, name)
            self._delete(live, what)
        except NotFound:
            return False
        for _ in _looks(timeout, interval):
            try:
                current = self.get(kind, namespace, name)
            except NotFound:
                return True
            if current.metadata.uid != live.metadata.uid:
                return True
            live = current
        raise TimedOut(f"{what}: not gone after {timeout:.0f} s; held by {_holders(live)}", _release(live))

    def _delete(self, live: Resource, what: str) -> None:
        options = client.V1DeleteOptions(
            propagation_policy="Foreground",
            # Not another of the same name that was made in between.
            preconditions=client.V1Preconditions(uid=live.metadata.uid),
        )
        with told(what):
            self._objects.delete_namespaced_custom_object(
                **self._where(type(live), live.namespace, live.name), body=options, _request_timeout=self._timeout
            )

    def wait_until_ready(
        self, kind: type[T], namespace: str, name: str, *, timeout: float = 300.0, interval: float = 1.0
    ) -> Readiness:
        """Wait until the operator has done it; the answer says by what that was judged.

        By `status.ready` where there is one. Operator 1.0.7 writes none: then a core is ready when the Deployments of
        its enabled functions are available, and a user when the operator has taken it up. Looks every `interval`
        seconds; raises TimedOut after `timeout` seconds, NotFound, Conflict if it is being deleted.
        """
        last = Readiness(False, "not looked at")
        for _ in _looks(timeout, interval):
            resource = self.get(kind, namespace, name)
            if resource.metadata.deletionTimestamp:
                raise Conflict(f"{kind.KIND} {namespace}/{name} is being deleted", "create it again when it is gone")
            last = self.readiness(resource)
            if last.ready:
                return last
        raise TimedOut(
            f"{kind.KIND} {namespace}/{name} is not ready after {timeout:.0f} s: {last.reason}",
            f"look at the operator's log and at the pods labelled {INSTANCE_LABEL}={name}",
        )

    def readiness(self, resource: Resource) -> Readiness:
        """See `wait_until_ready`, for now."""
        if (told_by_status := by_status(resource)) is not None:
            return told_by_status
        if isinstance(resource, Open5GSUser):
            return by_finalizer(resource)
        if not isinstance(resource, Open5GS):
            return Readiness(False, "its status says nothing")
        with told(f"list the Deployments of {resource.namespace}/{resource.name}"):
            found = self._apps.list_namespaced_deployment(
                resource.namespace,
                label_selector=f"{INSTANCE_LABEL}={resource.name}",
                _request_timeout=self._timeout,
            )
        return by_deployments(resource, found.items)

    @staticmethod
    def _where(kind: type[Resource], namespace: str, name: str | None = None) -> dict[str, str]:
        where = {"group": GROUP, "version": VERSION, "namespace": namespace, "plural": kind.PLURAL}
        return where | ({"name": name} if name is not None else {})

    @staticmethod
    def _what(verb: str, resource: Resource) -> str:
        return f"{verb} {resource.KIND} {resource.namespace}/{resource.name}"


def _wanted(resource: Resource) -> dict[str, Any]:
    """What is ours to say: no status, no metadata that the server sets, no nulls."""
    document = resource.to_object()
    metadata = document.get("metadata") or {}
    kept = {key: metadata[key] for key in ("name", "namespace", "labels", "annotations") if metadata.get(key)}
    rest = {key: value for key, value in document.items() if key not in ("metadata", "status")}
    return json.loads(json.dumps(_bare(rest | {"metadata": kept})))  # type: ignore[no-any-return]


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _bare(item) for key, item in value.items() if item is not None}
    return [_bare(item) for item in value] if isinstance(value, list) else value


def _own_updates(resource: Resource, manager: str) -> list[dict[str, Any]]:
    return [
        entry
        for entry in resource.metadata.managedFields or []
        if entry.get("manager") == manager and entry.get("operation") == "Update" and not entry.get("subresource")
    ]


def _refuse_move(resource: Resource, live: Resource) -> None:
    """The operator writes the new subscriber and leaves the old one, with its keys, in the core's database."""
    if not isinstance(resource, Open5GSUser) or not isinstance(live, Open5GSUser):
        return
    old, new = live.spec, resource.spec
    if old.imsi != new.imsi or (old.open5gs and old.open5gs.name) != (new.open5gs and new.open5gs.name):
        cause = f"{resource.namespace}/{resource.name}: IMSI and core of an Open5GSUser cannot change: the operator"
        remedy = "delete the Open5GSUser and create another"
        raise Refused((Refusal("moved-user", f"{cause} would leave the old subscriber in its database", remedy),))


def _looks(timeout: float, interval: float) -> Iterator[None]:
    """Yield at once and then every `interval` seconds until `timeout` seconds are over."""
    deadline = time.monotonic() + timeout
    while True:
        yield
        left = deadline - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(interval, left))


def _holders(resource: Resource) -> str:
    return ", ".join(resource.metadata.finalizers or []) or "nothing that can be seen"


def _release(resource: Resource) -> str:
    if USER_FINALIZER in (resource.metadata.finalizers or []):
        return (
            "the operator removes its finalizer when the subscriber is gone from the core's MongoDB: see that operator"
            " and MongoDB run; if the subscriber is not in MongoDB, operator 1.0.7 waits for ever: take the finalizer"
            " off by hand"
        )
    return "see what it owns and whether the cluster's controller manager runs"
