"""The apiserver: discovery and the few verbs that the provider needs, over one pool of connections."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

import urllib3

from . import objects
from .errors import ApiError, NoSuchKind, Unreachable
from .kubeconfig import Connection

APPLY = "application/apply-patch+yaml"
JSON_PATCH = "application/json-patch+json"
FIELD_MANAGER = "pulumi-kubernetes"


class Cluster:
    """Requests to one apiserver; safe to use from many threads."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        # No retries of writes: the engine's own error is better than a doubled POST.
        common: dict[str, Any] = {
            "maxsize": 64,
            "block": False,
            "retries": False,
            "timeout": urllib3.Timeout(connect=10, read=120),
        }
        if connection.tls is not None:
            common["ssl_context"] = connection.tls
            if connection.server_name:
                common["server_hostname"] = connection.server_name
        self._http: Any = (
            urllib3.ProxyManager(connection.proxy, **common) if connection.proxy else urllib3.PoolManager(**common)
        )
        self._kinds: dict[str, dict[str, dict[str, Any]]] = {}
        self._lock = threading.Lock()
        self._version: str | None = None

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        text: bool = False,
        warnings: list[str] | None = None,
    ) -> Any:
        """One request; the decoded answer. Raises ApiError, or Unreachable when nobody answers."""
        url = self.connection.server + path
        if query:
            url += "?" + urlencode({key: value for key, value in query.items() if value is not None})
        headers = {"Accept": "application/json", "User-Agent": "mvno-in-a-box", **self.connection.headers}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = content_type
        try:
            answer = self._http.request(method, url, body=data, headers=headers)
        except urllib3.exceptions.HTTPError as error:
            raise Unreachable(f"the Kubernetes API server {self.connection.server} does not answer: {error}") from error
        if warnings is not None:
            warnings += [item.split('"')[1] for item in answer.headers.getlist("warning") if item.count('"') >= 2]
        if answer.status >= 400:
            raise _refusal(answer.status, answer.data)
        return answer.data.decode(errors="replace") if text else json.loads(answer.data)

    def version(self) -> str:
        """The server's gitVersion, as `v1.34.4`."""
        if self._version is None:
            self._version = str(self.request("GET", "/version")["gitVersion"])
        return self._version

    def api_versions(self) -> list[str]:
        """Every group/version that is served, as helm's --api-versions wants them."""
        groups = self.request("GET", "/apis")["groups"]
        return ["v1", *(version["groupVersion"] for group in groups for version in group["versions"])]

    def forget_kinds(self) -> None:
        """Ask again what is served: after a new CustomResourceDefinition."""
        with self._lock:
            self._kinds.clear()

    def kind(self, api_version: str, kind: str) -> dict[str, Any]:
        """Discovery's entry (name, namespaced) of a kind. Raises NoSuchKind."""
        with self._lock:
            known = self._kinds.get(api_version)
        if known is None:
            prefix = "/apis/" if "/" in api_version else "/api/"
            try:
                listed = self.request("GET", prefix + api_version)["resources"]
            except ApiError as error:
                if error.status != 404:
                    raise
                listed = []
            known = {item["kind"]: item for item in listed if "/" not in item["name"]}
            with self._lock:
                if known:
                    self._kinds[api_version] = known
        if kind not in known:
            raise NoSuchKind(f"the Kubernetes API server serves no kind {kind} in {api_version}")
        return known[kind]

    def is_namespaced(self, api_version: str, kind: str) -> bool:
        """Whether objects of the kind live in a namespace. Raises NoSuchKind."""
        return bool(self.kind(api_version, kind)["namespaced"])

    def path(self, obj: objects.Object, name: str | None = None) -> str:
        """The object's path, or its collection's when `name` is an empty string."""
        api_version, kind = str(obj["apiVersion"]), str(obj["kind"])
        entry = self.kind(api_version, kind)
        path = ("/apis/" if "/" in api_version else "/api/") + api_version
        if entry["namespaced"]:
            path += f"/namespaces/{quote(objects.namespace_of(obj) or self.connection.namespace)}"
        path += f"/{entry['name']}"
        wanted = objects.name_of(obj) if name is None else name
        return f"{path}/{quote(wanted)}" if wanted else path

    def read(self, obj: objects.Object, name: str | None = None) -> objects.Object:
        """The live object. Raises ApiError with status 404 when there is none."""
        return dict(self.request("GET", self.path(obj, name)))

    def create(self, obj: objects.Object, dry_run: bool, warnings: list[str] | None = None) -> objects.Object:
        """POST the object."""
        query = {"fieldManager": FIELD_MANAGER, "dryRun": "All" if dry_run else None}
        return dict(self.request("POST", self.path(obj, ""), query, obj, warnings=warnings))

    def replace(self, obj: objects.Object, dry_run: bool) -> objects.Object:
        """PUT the object; its resourceVersion must be the live one's."""
        query = {"fieldManager": FIELD_MANAGER, "dryRun": "All" if dry_run else None}
        return dict(self.request("PUT", self.path(obj), query, obj))

    def apply(
        self, obj: objects.Object, manager: str, *, force: bool, dry_run: bool, warnings: list[str] | None = None
    ) -> objects.Object:
        """Apply the object server-side under a field manager's name."""
        query = {"fieldManager": manager, "force": str(force).lower(), "dryRun": "All" if dry_run else None}
        return dict(self.request("PATCH", self.path(obj), query, obj, APPLY, warnings=warnings))

    def json_patch(self, obj: objects.Object, operations: list[dict[str, Any]]) -> objects.Object:
        """Apply an RFC 6902 patch."""
        return dict(self.request("PATCH", self.path(obj), None, operations, JSON_PATCH))

    def delete(self, obj: objects.Object, propagation: str) -> None:
        """Ask for the object's deletion. Raises ApiError with status 404 when there is none."""
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation}
        self.request("DELETE", self.path(obj), None, options)

    def list(self, api_version: str, kind: str, namespace: str, labels: str = "", fields: str = "") -> list[Any]:
        """The objects of a kind in a namespace that fit the selectors."""
        anything = {"apiVersion": api_version, "kind": kind, "metadata": {"namespace": namespace}}
        query = {"labelSelector": labels or None, "fieldSelector": fields or None}
        return list(self.request("GET", self.path(anything, ""), query)["items"])

    def log_tail(self, namespace: str, pod: str, container: str, previous: bool, lines: int = 5) -> list[str]:
        """A container's last lines, or nothing when there are none to be had."""
        path = f"/api/v1/namespaces/{quote(namespace)}/pods/{quote(pod)}/log"
        query = {"container": container, "tailLines": lines, "previous": "true" if previous else None}
        try:
            said = self.request("GET", path, query, text=True)
        except (ApiError, Unreachable):
            return []
        return [line for line in str(said).splitlines() if line.strip()][-lines:]


def _refusal(status: int, body: bytes) -> ApiError:
    try:
        said = json.loads(body)
        return ApiError(status, said.get("reason", ""), said.get("message") or f"HTTP {status}", said.get("details"))
    except ValueError:
        return ApiError(status, "", f"HTTP {status}: {body[:300].decode(errors='replace')}")
