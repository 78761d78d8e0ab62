"""The API server's and the connection's failures as this package's errors."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import urllib3
from kubernetes.client.exceptions import ApiException

from .errors import (
    AlreadyExists,
    Conflict,
    FieldConflict,
    FieldError,
    Forbidden,
    Invalid,
    NotFound,
    NotInstalled,
    OperatorError,
    TimedOut,
    Unreachable,
)
from .models import API_VERSION

_MANAGER = re.compile(r'conflict with "([^"]+)"')
# How a strict server names fields that its schema does not have; the second form is server-side apply's.
_UNKNOWN = re.compile(r'unknown field "([^"]+)"|(\.[^\s:]+): field not declared in schema')
_INSTALL = (
    "install the operator (helm install open5gs-operator oci://registry-1.docker.io/gradiantcharts/open5gs-operator"
    " --version 1.0.7), or choose another cluster"
)


class Gone(OperatorError):
    """The history asked for, or a list's continuation, is no longer kept (HTTP 410). Stays within this package."""


@contextmanager
def told(what: str) -> Iterator[None]:
    """Raise this package's errors for those of the Kubernetes client; `what` says what was being done."""
    try:
        yield
    except ApiException as error:
        raise from_api(error, what) from None
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise from_connection(error, what) from None


def from_connection(error: Exception, what: str) -> Unreachable:
    """No HTTP answer: refused, reset, timed out, or a certificate that is not trusted."""
    reason = getattr(error, "reason", None) or error
    if isinstance(reason, urllib3.exceptions.SSLError) or "CERTIFICATE" in str(reason).upper():
        return Unreachable(
            f"{what}: the API server's certificate is not trusted: {reason}",
            "use the kubeconfig of this cluster, with its certificate authority",
        )
    return Unreachable(
        f"{what}: the API server does not answer: {reason}",
        "see that the cluster runs and that the kubeconfig's server address is reachable from here",
    )


def _status(error: ApiException) -> dict[str, Any]:
    """The Status object in the answer, {} if it holds none (a path that nobody serves)."""
    body = error.body
    try:
        status = json.loads(body) if body else {}
    except ValueError:
        return {}
    return status if isinstance(status, dict) and status.get("kind") == "Status" else {}


def from_api(error: ApiException, what: str) -> OperatorError:
    """The typed error for an answer that is not 2xx."""
    status = _status(error)
    details = status.get("details") or {}
    causes = details.get("causes") or []
    message = str(status.get("message") or error.reason or "no reason given")
    match int(error.status or 0):
        case 404 if not status or details.get("kind") is None:
            return NotInstalled(f"{what}: the cluster does not serve {API_VERSION}", _INSTALL)
        case 404 if details.get("kind") == "namespaces":
            return NotFound(f"{what}: namespace {details.get('name')} does not exist", "create the namespace first")
        case 404:
            return NotFound(f"{what}: {message}", "look at the name and namespace; list what there is")
        case 401:
            return Forbidden(
                f"{what}: the API server does not accept the credentials",
                "renew the kubeconfig's certificate or token",
            )
        case 403 if any(cause.get("reason") == "NamespaceTerminating" for cause in causes):
            return Conflict(f"{what}: {message}", "wait until the namespace is gone, then create it again")
        case 403 | 405 if "custom resource definition is terminating" in message:
            return NotInstalled(f"{what}: the CRD is being removed from the cluster", _INSTALL)
        case 403:
            return Forbidden(f"{what}: {message}", "have an administrator grant this verb on the kind named (RBAC)")
        case 409 if status.get("reason") == "AlreadyExists":
            return AlreadyExists(f"{what}: it exists already", "update it, or choose another name")
        case 409:
            return _conflict(what, message, causes)
        case 410:
            return Gone(f"{what}: {message}", "list again")
        case 400 | 415 | 422:
            return _invalid(what, message, causes)
        case 500 if _UNKNOWN.search(message):
            return _invalid(what, message, causes)
        case 504:
            return TimedOut(f"{what}: {message}", "try again")
        case code:
            return Unreachable(
                f"{what}: the API server cannot serve now (HTTP {code}): {message}", "try again in a while"
            )


def _conflict(what: str, message: str, causes: list[dict[str, Any]]) -> Conflict:
    conflicts = []
    for cause in causes:
        if cause.get("reason") == "FieldManagerConflict":
            found = _MANAGER.search(str(cause.get("message")))
            conflicts.append(FieldConflict(str(cause.get("field")), found.group(1) if found else "somebody"))
    if not conflicts:
        return Conflict(f"{what}: {message}", "read the object again and repeat; somebody changed it in between")
    named = ", ".join(f"{item.field} (owned by {item.manager})" for item in conflicts)
    return Conflict(
        f"{what}: other managers own fields with other values: {named}",
        "have the owner give the field up, take its value over, or update with force=True to take the fields",
        tuple(conflicts),
    )


def _invalid(what: str, message: str, causes: list[dict[str, Any]]) -> Invalid:
    fields = [FieldError(str(c.get("field") or ""), str(c.get("message") or "")) for c in causes]
    unknown = [FieldError((a or b).lstrip("."), "unknown field") for a, b in _UNKNOWN.findall(message)]
    fields = [f for f in fields if f.field and f.field != "<nil>"] + unknown
    remedy = "correct the fields named"
    if unknown:
        remedy = "the operator installed has no such field: leave it out, or upgrade the operator and its CRDs"
    return Invalid(f"{what}: the API server refuses it: {message}", remedy, tuple(fields))
