"""Settings of the Diameter listener; without them there is none."""

from __future__ import annotations

from pydantic import Field

from mvnobox.service.settings import Settings

_IDENTITY = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,253}$"


class DiameterPeer(Settings):
    """A peer that may connect, and whose customers it may charge (absent: every brand's)."""

    host: str = Field(pattern=_IDENTITY, description="its Origin-Host")
    brand: str | None = None
    final_units: bool = Field(default=True, description="whether it is told that a grant is the last one")
    refuses_whole: bool = Field(
        default=False,
        description="whether a first request of which nothing is granted is refused as a whole (the command's Result-Code) "
        "and its session closed: Open5GS's SMF may abort if only its service is refused",
    )
    refusal_delay_seconds: float = Field(
        default=0,
        ge=0,
        le=2,
        description="before a first request is refused: Open5GS's SMF may abort if that comes before the PCRF's answer",
    )
    whole_quota: bool = Field(
        default=False,
        description="whether it gets a whole quota where it asks for less, and no threshold with the last one: Open5GS's "
        "SMF always asks for 1 MB, and may abort if many of its requests are under way at once",
    )


class DiameterTls(Settings):
    """TLS on the listener (RFC 6733 section 13.1): PEM files. Peers have to show a certificate of `clientCa`."""

    certificate: str
    key: str
    client_ca: str


class DiameterSettings(Settings):
    listen: str = "0.0.0.0:3868"
    origin_host: str = Field(pattern=_IDENTITY)
    origin_realm: str = Field(pattern=_IDENTITY)
    served_realms: list[str] | None = Field(
        default=None, description="Destination-Realms that are ours besides originRealm; absent: all are"
    )
    peers: list[DiameterPeer] | None = Field(default=None, description="absent: whoever reaches the port")
    tls: DiameterTls | None = None
    default_rating_group: int = Field(default=1, ge=0, le=2**32 - 1, description="of requests that name none")
    service_contexts: dict[str, int] | None = Field(
        default=None,
        description="by Service-Context-Id without prefixes (32251@3gpp.org) the rating group of requests that name "
        "none; absent: every context is served with defaultRatingGroup",
    )
    free_rating_groups: list[int] = Field(default=[], description="never charged, never refused")
    watchdog_seconds: float = Field(default=30, ge=6, le=600, description="Tw of RFC 3539")
    handshake_seconds: float = Field(default=10, gt=0, le=600, description="until a connection has sent its CER")
    stalled_seconds: float = Field(default=30, gt=0, le=600, description="for how long a peer may leave answers unread")
    largest_message: int = Field(default=65_536, ge=4096, le=2**24 - 4, description="octets")
    connections: int = Field(default=256, ge=1, le=10_000)
    outstanding: int = Field(default=64, ge=1, le=10_000, description="a peer's requests under way; more are not read")
    requests_at_once: int = Field(default=1024, ge=1, le=100_000, description="all peers'; more are answered 3004")
