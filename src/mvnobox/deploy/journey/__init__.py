"""The customer's journey, end to end: what `verify` proves."""

from mvnobox.deploy.journey.run import verify
from mvnobox.deploy.journey.steps import Journey, Step

__all__ = ["Journey", "Step", "verify"]
