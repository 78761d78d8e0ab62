"""What can go wrong with the operator's resources: each error names its cause and the remedy, and never a key."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Ki and OPc are 32 hexadecimal digits. Servers quote refused values, so whatever is told to a user goes through here.
_KEY = re.compile(r"(?<![0-9A-Za-z])(?:0[xX])?[0-9A-Fa-f]{32}(?![0-9A-Za-z])")


def without_keys(text: str) -> str:
    """`text` with everything that has the form of a 128-bit key replaced."""
    return _KEY.sub("(hidden)", text)


class OperatorError(Exception):
    """Base of this package's errors. `cause` says what is wrong, `remedy` what to do about it."""

    def __init__(self, cause: str, remedy: str = "") -> None:
        self.cause = without_keys(cause)
        self.remedy = without_keys(remedy)
        super().__init__(self.cause)

    def __str__(self) -> str:
        return f"{self.cause}\n  remedy: {self.remedy}" if self.remedy else self.cause


class NotInstalled(OperatorError):
    """The cluster does not serve the operator's kinds: its CRDs are missing."""


class NotFound(OperatorError):
    """The resource, or the namespace it is to be in, does not exist."""


@dataclass(frozen=True)
class FieldConflict:
    """A field (path as the server writes it, e.g. `.spec.configuration.mcc`) that another manager owns."""

    field: str
    manager: str


class Conflict(OperatorError):
    """Somebody else owns a field that was to be changed, or the object changed in between. Nothing was written."""

    def __init__(self, cause: str, remedy: str = "", conflicts: tuple[FieldConflict, ...] = ()) -> None:
        super().__init__(cause, remedy)
        self.conflicts = conflicts


class AlreadyExists(Conflict):
    """A resource of this name exists; `create` changes none."""


class Forbidden(OperatorError):
    """The credentials are missing, expired or do not allow this."""


class Unreachable(OperatorError):
    """No answer from the API server, or it cannot serve now; the same call may succeed later."""


@dataclass(frozen=True)
class FieldError:
    """What the server has against one field. `field` is empty where it named none."""

    field: str
    message: str


class Invalid(OperatorError):
    """The server refused the object; `fields` says what it has against which field."""

    def __init__(self, cause: str, remedy: str = "", fields: tuple[FieldError, ...] = ()) -> None:
        super().__init__(cause, remedy)
        self.fields = fields


class TimedOut(OperatorError):
    """What was waited for did not happen within the time given; the cluster goes on with it."""


@dataclass(frozen=True)
class Refusal:
    """One thing that the operator cannot do, or must not be given. `code` is stable, for programs."""

    code: str
    cause: str
    remedy: str


class Refused(OperatorError):
    """The input asks for what the operator cannot do; nothing was sent. All reasons at once."""

    def __init__(self, refusals: tuple[Refusal, ...]) -> None:
        self.refusals = tuple(Refusal(r.code, without_keys(r.cause), without_keys(r.remedy)) for r in refusals)
        super().__init__("; ".join(r.cause for r in self.refusals), "; ".join(r.remedy for r in self.refusals))

    def __str__(self) -> str:
        return "\n".join(f"{r.cause}\n  remedy: {r.remedy}" for r in self.refusals)
