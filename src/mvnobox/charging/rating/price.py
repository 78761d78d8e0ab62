"""What units cost, in whole minor currency units. The ledger's functions `rate_cost` and `rate_units` count the same."""

from __future__ import annotations

from typing import Literal, NamedTuple

from mvnobox.charging.rating.document import MICRO, Rule
from mvnobox.charging.schemas import LARGEST_AMOUNT


class Terms(NamedTuple):
    """A price: `price` and `setup` in millionths of a minor unit, the rest in units."""

    price: int
    per: int
    step: int
    minimum: int
    setup: int
    rounding: Literal["half-up", "half-even"]

    @classmethod
    def of(cls, rule: Rule, rounding: Literal["half-up", "half-even"]) -> Terms:
        """A rule's. It has to have a price."""
        assert rule.price is not None
        return cls(rule.price, rule.per, rule.step, rule.minimum, rule.setup, rounding)

    def billed(self, units: int) -> int:
        """What is counted for so many units: none for none, else the minimum, and whole steps beyond it."""
        if units <= 0:
            return 0
        return self.minimum + max(-(-(units - self.minimum) // self.step), 0) * self.step

    def cost(self, units: int) -> int:
        """What so many units of one session cost in sum, rounded once: reports in between never round twice."""
        if units <= 0:
            return 0
        above, below = self.setup * self.per + self.billed(units) * self.price, self.per * MICRO
        whole, rest = divmod(above, below)
        if 2 * rest > below or (2 * rest == below and (self.rounding == "half-up" or whole % 2 == 1)):
            whole += 1
        return whole

    def units(self, budget: int) -> int:
        """How many units a budget pays for certain; whole steps."""
        room = budget * MICRO - self.setup
        if room < 0:
            return 0
        if self.price == 0:
            return LARGEST_AMOUNT
        billed = room * self.per // self.price
        if billed < self.minimum:
            return 0
        return min(self.minimum + (billed - self.minimum) // self.step * self.step, LARGEST_AMOUNT)
