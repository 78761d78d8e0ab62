"""Causes of 5G's NAS protocols (TS 24.501 clauses 9.11.3.2 and 9.11.4.2) that the simulation gives."""

from __future__ import annotations

ILLEGAL_UE = 3
MAC_FAILURE = 20
SYNCH_FAILURE = 21
CONGESTION = 22
INSUFFICIENT_RESOURCES = 26
UNKNOWN_DNN = 27
NOT_SUBSCRIBED = 33
NETWORK_FAILURE = 38
REACTIVATION_REQUESTED = 39
IPV4_ONLY = 50
IPV6_ONLY = 51
IPV4V6_ONLY = 57
SEMANTICALLY_INCORRECT = 95
NOT_COMPATIBLE_WITH_STATE = 98
PROTOCOL_ERROR = 111

TEXTS = {
    ILLEGAL_UE: "illegal UE",
    MAC_FAILURE: "MAC failure",
    SYNCH_FAILURE: "synch failure",
    CONGESTION: "congestion",
    INSUFFICIENT_RESOURCES: "insufficient resources",
    UNKNOWN_DNN: "missing or unknown DNN",
    NOT_SUBSCRIBED: "requested service option not subscribed",
    NETWORK_FAILURE: "network failure",
    REACTIVATION_REQUESTED: "reactivation requested",
    IPV4_ONLY: "PDU session type IPv4 only allowed",
    IPV6_ONLY: "PDU session type IPv6 only allowed",
    IPV4V6_ONLY: "PDU session type IPv4v6 only allowed",
    SEMANTICALLY_INCORRECT: "semantically incorrect message",
    NOT_COMPATIBLE_WITH_STATE: "message type not compatible with the protocol state",
    PROTOCOL_ERROR: "protocol error, unspecified",
}


class Refused(Exception):
    """A request of the UE is turned down."""

    def __init__(self, cause: int, detail: str = "") -> None:
        super().__init__(f"{TEXTS[cause]}: {detail}" if detail else TEXTS[cause])
        self.cause, self.detail = cause, detail


def words(cause: object, detail: object = "") -> str:
    """A cause for people: its text, its number, and what is known beyond."""
    text = TEXTS.get(cause, "cause") if isinstance(cause, int) else str(cause or "no answer")
    number = f" ({cause})" if isinstance(cause, int) else ""
    return f"{text}{number}: {detail}" if detail else f"{text}{number}"
