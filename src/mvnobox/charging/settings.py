"""Settings of the OCS."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from mvnobox.charging.diameter.settings import DiameterSettings
from mvnobox.charging.schemas import Unit
from mvnobox.service.settings import Settings

# FailureHandling of TS 32.291 clause 6.1.6.3; in the order of Credit-Control-Failure-Handling's numbers (RFC 8506 section 8.14).
FailureHandling = Literal["TERMINATE", "CONTINUE", "RETRY_AND_TERMINATE"]
FAILURE_HANDLING: tuple[FailureHandling, ...] = get_args(FailureHandling)


class Quota(Settings):
    """How much one charging request reserves where it asks for no amount, and at most: octets, seconds, …"""

    octets: int = Field(default=5_000_000, gt=0, le=10**12)
    seconds: int = Field(default=600, gt=0, le=10**7)
    messages: int = Field(default=1, gt=0, le=10**6)
    minor: int = Field(default=100, gt=0, le=10**9)

    def of(self, unit: Unit) -> int:
        """The slice of a unit."""
        return int(getattr(self, unit))


class OcsSettings(Settings):
    listen: str = "0.0.0.0:8080"
    quota: Quota = Quota()
    validity_seconds: int = Field(default=3600, ge=10, le=86_400, description="a quota has to be renewed within")
    grace_seconds: int = Field(default=60, ge=0, le=3600, description="and what it holds is given back so much later")
    quota_threshold_percent: int = Field(default=20, ge=0, le=90)
    session_seconds: int = Field(
        default=86_400, ge=60, le=10**8, description="a session that holds no quota and stays quiet is closed after"
    )
    replies_kept_seconds: int = Field(
        default=604_800, ge=3600, le=10**8, description="an ended session's replies are forgotten after"
    )
    rating_groups: dict[int, Unit] = Field(
        default={1: "octets", 2: "seconds", 3: "messages"}, description="a rating group's unit: data, calls, messages"
    )
    failure_handling: FailureHandling = Field(
        default="RETRY_AND_TERMINATE",
        description="what a network element does that hears nothing from any replica; told with a session's first answer. "
        "CONTINUE gives service away",
    )
    database_connections: int = Field(default=8, ge=2, le=50)
    diameter: DiameterSettings | None = Field(default=None, description="Gy and Ro; absent: not served")
    requests_at_once: int = Field(default=256, ge=1, le=10_000, description="more are answered 503 NF_CONGESTION")

    @property
    def terms(self) -> tuple[int, int, int, int]:
        """A session's terms as `charge` and `charge_batch` take them (see the migrations)."""
        return self.validity_seconds, self.grace_seconds, self.quota_threshold_percent, self.session_seconds
