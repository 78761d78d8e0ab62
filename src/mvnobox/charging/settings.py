"""Settings of the OCS."""

from __future__ import annotations

from pydantic import Field

from mvnobox.charging.schemas import Unit
from mvnobox.service.settings import Settings


class Quota(Settings):
    """How much one charging request reserves where it asks for no amount, and at most."""

    octets: int = Field(default=5_000_000, gt=0, le=10**12)


class OcsSettings(Settings):
    listen: str = "0.0.0.0:8080"
    quota: Quota = Quota()
    validity_seconds: int = Field(default=3600, ge=10, le=86_400)
    quota_threshold_percent: int = Field(default=20, ge=0, le=90)
    session_seconds: int = Field(default=86_400, ge=60, description="a session without a sign of life is closed after")
    rating_groups: dict[int, Unit] = Field(default={1: "octets"})
