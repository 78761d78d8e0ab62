"""Settings of the agent."""

from __future__ import annotations

from pydantic import Field

from mvnobox.service.settings import Settings


class PlmnSettings(Settings):
    mcc: str
    mnc: str


class AgentSettings(Settings):
    plmn: PlmnSettings
    state: str = "/run/mvno"
    # UEs at a time.
    ues: int = Field(default=1, ge=1, le=64)
    http: str = "0.0.0.0:8081"
