"""What every domain works with, and the errors that they raise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx
from nacl.public import PublicKey, SealedBox
from pydantic import Field

from mvnobox.service.settings import Settings
from mvnobox.spec import BrandSpec


class BssSettings(Settings):
    brand_spec: str
    ocs: str
    listen: str = "0.0.0.0:8080"
    public_url: str = ""
    # Days that a telephone number rests after its line has ended.
    number_rest_days: int = Field(default=30, ge=0, le=3650)


@dataclass(frozen=True)
class Context:
    """The brand, its database, its OCS, its keys."""

    brand: BrandSpec
    pool: asyncpg.Pool
    ocs: httpx.AsyncClient
    sealed_box: Any
    sim_key: bytes
    admin_token: str
    public_url: str
    number_rest_days: int = 30

    @staticmethod
    def box(public_key: str) -> Any:
        return SealedBox(PublicKey(bytes.fromhex(public_key)))


class TmfError(Exception):
    """An error as TM Forum's APIs answer it (TMF630 part 1): `reason` is the cause, `message` the remedy."""

    def __init__(self, status: int, reason: str, message: str = "", reference: str = "") -> None:
        super().__init__(reason)
        self.status, self.reason, self.message, self.reference = status, reason, message, reference

    def body(self) -> dict[str, Any]:
        made = {"code": str(self.status), "reason": self.reason, "message": self.message, "status": str(self.status)}
        if self.reference:
            made["referenceError"] = self.reference
        return {**made, "@type": "Error"}


class Exhausted(TmfError):
    """A range of the brand has no identity left."""

    def __init__(self, what: str) -> None:
        super().__init__(409, f"the brand's range of {what} is used up", "extend the range in the brand's file")
