"""While the OCS does not answer for a session: when it is asked again, and when its gate is decided over without it."""

from __future__ import annotations

import random
import time

from mvnobox.n4.nchf import CONTINUE, TERMINATE, ContextNotFound, OcsUnavailable

# Between attempts: from, to. A Retry-After may be longer.
PAUSES = (0.1, 5.0)
# What was told to come again at one time should not come at one moment.
SPREAD = 1.2


class Outage:
    """Since the last answer; times are those of the monotonic clock."""

    def __init__(self, patience: float) -> None:
        """`patience`: seconds until the gate closes, where the OCS did not say otherwise."""
        self._patience, self._since, self._pause = patience, time.monotonic(), PAUSES[0]
        # What the OCS said is to be done with the traffic meanwhile (TS 32.291's FailureHandling).
        self.handling: str | None = None
        self.decided = False
        # Whether a charging session was begun anew in it: another one would be no better.
        self.begun_anew = False
        self.cause = ""

    def again_at(self, error: OcsUnavailable | ContextNotFound) -> float:
        """An attempt has failed: when the next one is due."""
        self.cause = str(error) or type(error).__name__
        after = 0.0
        if isinstance(error, OcsUnavailable):
            self.handling = error.handling or self.handling
            after = error.after * random.uniform(1, SPREAD)
        pause, self._pause = max(self._pause, after), min(self._pause * 2, PAUSES[1])
        return time.monotonic() + pause

    def decision_at(self) -> float:
        """When the gate has to be decided over."""
        return self._since + (0.0 if self.handling in (TERMINATE, CONTINUE) else self._patience)
