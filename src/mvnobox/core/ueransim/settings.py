"""Settings of the agent."""

from __future__ import annotations

from mvnobox.service.settings import Settings


class PlmnSettings(Settings):
    mcc: str
    mnc: str


class AgentSettings(Settings):
    plmn: PlmnSettings
    state: str = "/run/mvno"
    http: str = "0.0.0.0:8081"
