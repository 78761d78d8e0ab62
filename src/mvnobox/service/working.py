"""Work that a service does beside its requests, again and again."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from mvnobox.service.database import TROUBLE


async def work_forever(
    step: Callable[[], Awaitable[int]], *, name: str, log: logging.Logger, idle_seconds: float,
    trouble: tuple[type[BaseException], ...] = TROUBLE,
) -> None:  # fmt: skip
    """Call `step` until cancelled: at once again while it did something, else after a while, out of step with replicas.

    `trouble`: what is waited out and logged by its kind; everything else ends the service.
    """
    while True:
        try:
            done = await step()
        except trouble as error:
            log.warning("%s: %s", name, type(error).__name__)
            done = 0
        if not done:
            await asyncio.sleep(idle_seconds * random.uniform(0.5, 1.5))
