"""Steps with their time and verdict."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["pass", "fail", "skip"]


class StepFailed(Exception):
    """A step did not show what it had to; the text says what was seen instead."""


class StepSkipped(Exception):
    """A step cannot be shown here; the text says why."""


@dataclass
class Step:
    """One step of the journey."""

    name: str
    status: Status = "fail"
    seconds: float = 0.0
    detail: str = ""


@dataclass
class Journey:
    """All steps of one run."""

    brand: str
    core: str
    access: str = "5g"
    # Where the phone's network is: in the cluster, or outside of it.
    origin: Literal["inside", "outside"] = "inside"
    steps: list[Step] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return bool(self.steps) and all(step.status != "fail" for step in self.steps)

    def document(self) -> dict[str, Any]:
        """The JSON of `verify --json`."""
        return {
            "brand": self.brand,
            "core": self.core,
            "access": self.access,
            "from": self.origin,
            "simulation": self.core == "simulated",
            "status": "pass" if self.passed else "fail",
            "steps": [
                {"name": s.name, "status": s.status, "seconds": round(s.seconds, 2), "detail": s.detail}
                for s in self.steps
            ],
        }

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Time a step. A failure is recorded and raised again: what follows builds on it."""
        step = Step(name)
        self.steps.append(step)
        started = time.monotonic()
        try:
            yield step
            step.status = "pass"
        except StepSkipped as reason:
            step.status, step.detail = "skip", str(reason)
        except StepFailed as reason:
            step.detail = str(reason)
            raise
        finally:
            step.seconds = time.monotonic() - started
