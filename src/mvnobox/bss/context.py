"""What every domain works with, and the errors that they raise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import asyncpg
import httpx
from nacl.public import PublicKey, SealedBox

from mvnobox.service.settings import Settings
from mvnobox.spec import BrandSpec


class BssSettings(Settings):
    brand_spec: str
    ocs: str
    listen: str = "0.0.0.0:8080"
    public_url: str = ""


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

    @staticmethod
    def box(public_key: str) -> Any:
        return SealedBox(PublicKey(bytes.fromhex(public_key)))


class TmfError(Exception):
    """An error as TM Forum's APIs answer it (TMF630 part 1)."""

    def __init__(self, status: int, reason: str, message: str = "") -> None:
        super().__init__(reason)
        self.status, self.reason, self.message = status, reason, message

    def body(self) -> dict[str, Any]:
        return {"code": str(self.status), "reason": self.reason, "message": self.message, "status": str(self.status)}
