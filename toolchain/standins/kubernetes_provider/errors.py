"""The errors of this plug-in."""

from __future__ import annotations

from typing import Any


class ProviderError(Exception):
    """An operation that cannot be done, in words for the person who ran Pulumi."""


class Cancelled(ProviderError):
    """The engine was asked to stop while an object was awaited."""


class ApiError(ProviderError):
    """The apiserver's refusal: an HTTP status and its own words."""

    def __init__(self, status: int, reason: str, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.details = details or {}


class Unreachable(ProviderError):
    """No apiserver answers at the address of the kubeconfig."""


class NoSuchKind(ProviderError):
    """The apiserver serves no such kind: most often a custom resource before its definition."""


class NotReady(ProviderError):
    """The object exists and did not become ready: its last state and why, one reason a line."""

    def __init__(self, live: dict[str, Any], reasons: list[str]) -> None:
        super().__init__("; ".join(reasons))
        self.live = live
        self.reasons = reasons
