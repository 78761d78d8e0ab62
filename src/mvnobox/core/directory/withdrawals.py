"""Deregistration of subscribers whom the network has to let go of at once: suspended, removed, or on another SIM.

Open5GS's UDM tells its AMF nothing of a changed subscription. The directory does it in the UDM's place, by the callback
that is the UDM's (TS 29.503 clause 5.3.2.3, Nudm_UECM_DeregistrationNotification): the AMF deregisters the UE and has its
sessions released (TS 23.502 clause 4.2.2.3.3). At least once, by any replica: a second word of it changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl

import asyncpg
import httpx
from prometheus_client import Counter

from mvnobox.core.directory.store import QUERY_SECONDS
from mvnobox.service.database import TROUBLE

log = logging.getLogger(__name__)
WITHDRAWALS = Counter("directory_withdrawals_total", "Deregistrations asked of the AMF", ["result"])
PATH = "/namf-callback/v1/imsi-{}/dereg-notify"
BODY = {"deregReason": "SUBSCRIPTION_WITHDRAWN", "accessType": "3GPP_ACCESS"}
IDLE_SECONDS = 0.5
TIMEOUT_SECONDS = 3.0
AT_ONCE = 64
# A registration that was under way may end with keys that were given before: the AMF, which did not know the UE yet, is
# asked again. As long lasts what follows its answer, during which the directory shows keys that open nothing.
AGAIN_SECONDS = 5
# An AMF that was away so long has lost its UEs.
GIVE_UP = "interval '1 hour'"
_OVER = ("done", "not attached", "given up")
_LATER = ("told", "not yet attached")
# `attempts` of a withdrawal that the AMF has taken; the claim adds one.
_TAKEN = -1
# A lease longer than a delivery takes; when its holder dies, another replica takes over. Who has a document in a mirror
# is told of once that is written: until then he could register again. Whoever waited for that has not given up.
_CLAIM = """UPDATE withdrawal w SET attempts = attempts + 1,
        next_at = now() + make_interval(secs => 2 * $2::float + least(60, 0.5 * 2 ^ least(attempts, 10)))
    FROM (SELECT imsi FROM withdrawal p WHERE next_at <= now()
            AND NOT EXISTS (SELECT FROM unmirrored u WHERE u.imsi = p.imsi)
        ORDER BY next_at LIMIT $1 FOR UPDATE OF p SKIP LOCKED) due
    WHERE w.imsi = due.imsi
    RETURNING w.imsi, w.at, w.attempts, w.attempts > 20 AND w.at < now() - """ + GIVE_UP + " AS old"  # fmt: skip


class Withdrawals:
    """Tells an AMF of those whom it has to let go of."""

    def __init__(self, pool: asyncpg.Pool, amf: str | None, tls: ssl.SSLContext | None = None) -> None:
        """`amf`: the root of its SBI, e.g. `http://amf:7777`; None where no AMF is to be told. `tls`: where it is https."""
        self._pool, self._amf, self._tls = pool, amf, tls

    async def run(self) -> None:
        """Tell until cancelled."""
        if self._amf is None:
            await self._forget()
        limits = httpx.Limits(max_connections=1)
        async with httpx.AsyncClient(
            base_url=self._amf or "",
            verify=self._tls or True,
            http1=False,
            http2=True,
            timeout=TIMEOUT_SECONDS,
            limits=limits,
        ) as client:
            while True:
                try:
                    rows = await self._pool.fetch(_CLAIM, AT_ONCE, TIMEOUT_SECONDS, timeout=QUERY_SECONDS)
                except TROUBLE as error:
                    log.warning("withdrawals: %s", type(error).__name__)
                    rows = []
                await asyncio.gather(*(self._tell(client, row) for row in rows))
                # Replicas out of step share the work.
                await asyncio.sleep(0 if rows else IDLE_SECONDS * random.uniform(0.5, 1.5))

    async def _forget(self) -> None:
        while True:
            try:
                await self._pool.execute("DELETE FROM withdrawal", timeout=QUERY_SECONDS)
            except TROUBLE as error:
                log.warning("withdrawals: %s", type(error).__name__)
            await asyncio.sleep(60)

    async def _tell(self, client: httpx.AsyncClient, row: asyncpg.Record) -> None:
        result = await self._told(client, row)
        WITHDRAWALS.labels(result).inc()
        statement = "DELETE FROM withdrawal WHERE imsi = $1 AND at = $2"
        if result not in _OVER:
            seconds = AGAIN_SECONDS if result in _LATER else min(60.0, 0.5 * 2 ** min(row["attempts"], 10))
            attempts = _TAKEN if result == "told" else row["attempts"]
            statement = f"""UPDATE withdrawal SET attempts = {attempts},
                    next_at = now() + interval '{seconds * random.uniform(0.9, 1.1):.3f} s'
                WHERE imsi = $1 AND at = $2"""
        try:
            await self._pool.execute(statement, row["imsi"], row["at"], timeout=QUERY_SECONDS)
        except TROUBLE as error:
            # It will be told once more when the lease ends.
            log.warning("withdrawals: %s", type(error).__name__)

    async def _told(self, client: httpx.AsyncClient, row: asyncpg.Record) -> str:
        if row["attempts"] == _TAKEN + 1:
            return "done"
        try:
            status = (await client.post(PATH.format(row["imsi"]), json=BODY)).status_code
        except (httpx.HTTPError, OSError) as error:
            log.info("the AMF was not told", extra={"attempt": row["attempts"], "error": type(error).__name__})
            status = 0
        if 200 <= status < 300:
            return "told"
        if status == 404:
            return "not attached" if row["attempts"] > 1 else "not yet attached"
        if row["old"]:
            log.warning("the AMF could not be told of a withdrawal for an hour", extra={"status": status})
            return "given up"
        return "to repeat"
