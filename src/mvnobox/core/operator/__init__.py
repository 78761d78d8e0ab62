"""Client for Gradiant's open5gs-operator (`net.gradiant.org/v1`): models, translation, client. See docs/operator.md."""

from .client import FIELD_MANAGER, OperatorClient
from .drift import Difference, DriftKind
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
    Refusal,
    Refused,
    TimedOut,
    Unreachable,
)
from .inputs import CoreInput, IpVersion, Need, Slice, SubscribedSlice, SubscriberInput
from .models import Configuration, CoreSlice, Function, Open5GS, Open5GSSpec, Open5GSUser, Open5GSUserSpec
from .ready import Readiness
from .translate import core_refusals, subscriber_refusals, to_open5gs, to_open5gs_user
from .watching import Event, EventKind, Listing, Watching

__all__ = [
    "FIELD_MANAGER",
    "AlreadyExists",
    "Configuration",
    "Conflict",
    "CoreInput",
    "CoreSlice",
    "Difference",
    "DriftKind",
    "Event",
    "EventKind",
    "FieldConflict",
    "FieldError",
    "Forbidden",
    "Function",
    "Invalid",
    "IpVersion",
    "Listing",
    "Need",
    "NotFound",
    "NotInstalled",
    "Open5GS",
    "Open5GSSpec",
    "Open5GSUser",
    "Open5GSUserSpec",
    "OperatorClient",
    "OperatorError",
    "Readiness",
    "Refusal",
    "Refused",
    "Slice",
    "SubscribedSlice",
    "SubscriberInput",
    "TimedOut",
    "Unreachable",
    "Watching",
    "core_refusals",
    "subscriber_refusals",
    "to_open5gs",
    "to_open5gs_user",
]
