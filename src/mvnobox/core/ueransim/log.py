"""What UERANSIM says in its log, as far as the agent has to know."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_ADDRESS = re.compile(r"TUN interface\[(?P<device>[\w-]+), (?P<address>[0-9a-fA-F.:]+)\] is up")
# A line is `[time] [layer] [level] text`.
_LINE = re.compile(r"^\[[^\]]*\] \[(?P<layer>[\w-]+)\] \[(?P<level>\w+)\] (?P<text>.*)$")
_REFUSED = re.compile(r"failed \[|AUTN validation|Authentication Reject|[Rr]eject received|not allowed")


@dataclass
class Progress:
    """How far a UE has come."""

    registered: bool = False
    address: str | None = None
    device: str | None = None
    # Why it was refused, in UERANSIM's words; None while it was not.
    refused: str | None = None
    steps: list[str] = field(default_factory=list)


def progress(text: str) -> Progress:
    """Read a UE's log from its start."""
    found = Progress()
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        said = match["text"]
        if address := _ADDRESS.search(said):
            found.device, found.address = address["device"], address["address"]
        elif "Initial Registration is successful" in said:
            found.registered = True
        elif _REFUSED.search(said):
            found.refused = f"{found.refused}; {said}" if found.refused else said
        elif found.registered and "de-registration" in said.lower():
            found.registered = False
            found.address = found.device = None
        if match["layer"] in ("nas", "app"):
            found.steps.append(said)
    return found


def cell_is_up(text: str) -> bool:
    """Whether the gNB is served by an AMF, by its log."""
    up = text.rfind("NG Setup procedure is successful")
    return up >= 0 and text.rfind("Association terminated") < up
