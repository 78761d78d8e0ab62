"""Which usage reports were taken into account (UR-SEQN, TS 29.244 clause 8.2.71)."""

from __future__ import annotations


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
