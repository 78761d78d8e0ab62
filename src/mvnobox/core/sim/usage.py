"""A usage reporting rule (TS 29.244 clause 5.2.2): counters, thresholds, quota, reports."""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from mvnobox.core.sim.elements import Also
from mvnobox.pfcp import codec
from mvnobox.pfcp.codec import Ie, IeType

# Reporting Triggers and Usage Report Trigger (clauses 8.2.19, 8.2.41), the first octet in the low bits.
VOLUME_THRESHOLD = 0x0002
IMMEDIATE = 0x0080
VOLUME_QUOTA = 0x0100
TERMINATION = 0x0800
Volume = tuple[int | None, int | None, int | None]


def _limits(ie: Ie) -> Volume:
    """(total, uplink, downlink) of a Volume Threshold or Quota (clauses 8.2.13, 8.2.50); None: no limit."""
    if not ie.data:
        raise codec.PfcpError("a volume is empty")
    flags, offset, values = ie.data[0], 1, list[int | None]()
    for index in range(3):
        if not flags & 1 << index:
            values.append(None)
            continue
        if offset + 8 > len(ie.data):
            raise codec.PfcpError("a volume is cut off")
        values.append(int.from_bytes(ie.data[offset : offset + 8], "big"))
        offset += 8
    return values[0], values[1], values[2]


def _ntp(seconds: float) -> int:
    return (int(seconds) + codec.NTP_OFFSET) & 0xFFFFFFFF


@dataclass(slots=True)
class Urr:
    """One rule; `total`, `uplink`, `downlink` are octets since the last report."""

    id: int
    triggers: int = 0
    threshold: Volume = (None, None, None)
    total: int = 0
    uplink: int = 0
    downlink: int = 0
    # What is left of the quota (total, uplink, downlink), None: unlimited.
    left: list[int | None] = field(default_factory=lambda: [None, None, None])
    exhausted: bool = False
    sequence: int = 0
    since: float = field(default_factory=time.time)

    def change(self, members: Sequence[Ie]) -> None:
        """Take what a Create URR or Update URR says. Raises PfcpError."""
        triggers = codec.first(members, IeType.REPORTING_TRIGGERS)
        if triggers is not None:
            self.triggers = int.from_bytes(triggers.data[:2].ljust(2, b"\0"), "little")
        threshold = codec.first(members, IeType.VOLUME_THRESHOLD)
        if threshold is not None:
            self.threshold = _limits(threshold)
        quota = codec.first(members, IeType.VOLUME_QUOTA)
        if quota is not None:
            # What was carried since the last report counts against the new quota.
            carried = (self.total, self.uplink, self.downlink)
            self.left = [
                None if limit is None else limit - used for limit, used in zip(_limits(quota), carried, strict=True)
            ]
            self.exhausted = any(left is not None and left <= 0 for left in self.left)

    def count(self, octets: int, *, uplink: bool) -> int:
        """Count a packet; the trigger of the report that is due now, 0 for none."""
        self.total += octets
        if uplink:
            self.uplink += octets
        else:
            self.downlink += octets
        left = self.left
        if left[0] is not None:
            left[0] -= octets
        direction = 1 if uplink else 2
        if (of_direction := left[direction]) is not None:
            left[direction] = of_direction - octets
        return self.due()

    def due(self) -> int:
        """The trigger of the report that is due, 0 for none."""
        total, uplink, downlink = self.left
        if not self.exhausted and (
            (total is not None and total <= 0)
            or (uplink is not None and uplink <= 0)
            or (downlink is not None and downlink <= 0)
        ):
            self.exhausted = True
            if self.triggers & VOLUME_QUOTA:
                return VOLUME_QUOTA
        if self.triggers & VOLUME_THRESHOLD:
            total, uplink, downlink = self.threshold
            if (
                (total and self.total >= total)
                or (uplink and self.uplink >= uplink)
                or (downlink and self.downlink >= downlink)
            ):
                return VOLUME_THRESHOLD
        return 0

    def report(self, trigger: int) -> list[Ie]:
        """The members of a usage report of what was counted; the counters start anew."""
        now = time.time()
        members = [
            codec.u32(IeType.URR_ID, self.id),
            codec.u32(IeType.UR_SEQN, self.sequence),
            Ie(IeType.USAGE_REPORT_TRIGGER, bytes([trigger & 0xFF, trigger >> 8, 0])),
            codec.u32(Also.START_TIME, _ntp(self.since)),
            codec.u32(Also.END_TIME, _ntp(now)),
            Ie(IeType.VOLUME_MEASUREMENT, b"\x07" + struct.pack(">QQQ", self.total, self.uplink, self.downlink)),
        ]
        self.sequence += 1
        self.total = self.uplink = self.downlink = 0
        self.since = now
        return members
