"""Which usage reports were taken into account (UR-SEQN, TS 29.244 clause 8.2.71)."""

from __future__ import annotations

import json
from collections.abc import Iterable

from mvnobox.n4.rules import Report, is_of_dropped


class Seen:
    """Which UR-SEQNs of which URR were taken into account: all up to one, and some beyond it.

    Reports overtake each other when one of them is repeated, so the highest number alone tells nothing of the others.
    """

    # More numbers than this beyond a gap: what is missing there never was (a UPF need not begin with 0).
    WINDOW = 64

    def __init__(self, numbers: dict[str, tuple[int, list[int]]]) -> None:
        self.numbers = numbers

    def add(self, urr: int, sequence: int) -> bool:
        """Note a report; False if it was noted before."""
        upto, beyond = self.numbers.get(str(urr), (-1, []))
        if sequence <= upto or sequence in beyond:
            return False
        beyond = sorted([*beyond, sequence])
        if len(beyond) > self.WINDOW:
            upto = beyond[0]
        while beyond and beyond[0] <= upto + 1:
            upto = max(upto, beyond.pop(0))
        self.numbers[str(urr)] = (upto, beyond)
        return True


class Count:
    """What reports add to those that were taken into account before, in JSON; `closed`: what was dropped behind a gate does
    not count.

    `octets`: (total, uplink, downlink); `counted`: whether any of them counts; `fresh`: whether any is new; `seen`: with them.
    """

    def __init__(self, seen: str, reports: Iterable[Report], *, closed: bool) -> None:
        numbers = Seen(json.loads(seen))
        total = uplink = downlink = 0
        self.fresh = self.counted = False
        for urr, sequence, (all_, up, down) in reports:
            if not numbers.add(urr, sequence):
                continue
            self.fresh = True
            if not (closed and is_of_dropped(all_)):
                total, uplink, downlink, self.counted = total + all_, uplink + up, downlink + down, True
        self.octets = total, uplink, downlink
        self.seen = json.dumps(numbers.numbers)
