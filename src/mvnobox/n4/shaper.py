"""The CTF's word to the shaper beside a UPF that keeps no maximum bit rates (Open5GS): all slowed sessions, each time.

The whole state, again and again: whoever of the two starts anew, or misses one, has it at the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from typing import Any

import httpx

from mvnobox.n4.store import Store
from mvnobox.service.database import TROUBLE

log = logging.getLogger(__name__)
AGAIN_SECONDS = 5.0
RETRY_SECONDS = 1.0


class ShaperClient:
    """Tells the shaper at `url` whenever `changed` is set, and every few seconds."""

    def __init__(self, url: str, store: Store, changed: asyncio.Event) -> None:
        self._url, self._store, self._changed = f"{url}/v1/throttles", store, changed
        self._well: bool | None = None

    async def run(self) -> None:
        """Until cancelled."""
        async with httpx.AsyncClient(timeout=10) as client:
            while True:
                self._changed.clear()
                told = await self.tell(client)
                seconds = (AGAIN_SECONDS if told else RETRY_SECONDS) * random.uniform(0.8, 1.2)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), seconds)

    async def tell(self, client: httpx.AsyncClient) -> bool:
        """Once; whether the shaper does it."""
        try:
            answer = await client.put(self._url, json={"throttles": document(await self._store.throttled())})
            trouble = None if answer.is_success else f"{answer.status_code} {answer.text[:200]}"
        except (httpx.HTTPError, *TROUBLE) as error:
            trouble = type(error).__name__
        if trouble is not None and self._well is not False:
            log.warning("sessions cannot be slowed at the moment: %s", trouble)
        elif trouble is None and self._well is False:
            log.info("sessions are slowed again")
        self._well = trouble is None
        return self._well


def document(throttled: list[tuple[list[str], Any]]) -> list[dict[str, Any]]:
    """The shaper's lines. An address belongs to the newest session that has it: an older one is about to go."""
    owners = {address: number for number, (addresses, _) in enumerate(throttled) for address in addresses}
    made = []
    for number, (addresses, throttle) in enumerate(throttled):
        own = [address for address in addresses if owners[address] == number]
        if own:
            made.append({"addresses": own, "uplink": throttle.uplink, "downlink": throttle.downlink})
    return made
