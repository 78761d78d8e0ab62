"""The OCS learns what the brand sells by the unit: at the start, and again from time to time, should it have forgotten."""

from __future__ import annotations

import asyncio
import logging
import random

import httpx

from mvnobox.bss.context import Context
from mvnobox.spec import rating_document

log = logging.getLogger(__name__)
PATH = "/ocs/v1/rating"
AGAIN_SECONDS = 300.0
RETRY_SECONDS = 1.0


async def tell_forever(context: Context) -> None:
    """Tell until cancelled."""
    document = rating_document(context.brand)
    while True:
        told = await tell(context, document)
        await asyncio.sleep((AGAIN_SECONDS if told else RETRY_SECONDS) * random.uniform(0.5, 1.5))


async def tell(context: Context, document: dict[str, object]) -> bool:
    """Once; whether the OCS has it."""
    try:
        answer = await context.ocs.put(PATH, json=document)
    except httpx.HTTPError as error:
        log.info("the OCS has no rating yet: %s", type(error).__name__)
        return False
    if answer.is_success:
        return True
    log.warning("the OCS refused the rating", extra={"status": answer.status_code, "answer": answer.text[:300]})
    return False
