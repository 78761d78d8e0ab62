"""A scripted charging function behind the real HTTP/2 server, for answers that the OCS gives in rare states only."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from tests.ports import free_port

from mvnobox.service.web import serve_http


class Chf:
    """A scripted charging function: grants as much as it was told to, at the rate that it was told."""

    def __init__(self, octets: int) -> None:
        self.unit: dict[str, Any] = {"grantedUnit": {"totalVolume": octets}}
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def slow(self, downlink: int, uplink: int) -> None:
        """From the next answer on: so many bit/s."""
        restriction = {"finalUnitAction": "RESTRICT_ACCESS", "filterIdList": [f"throttle;dl={downlink};ul={uplink}"]}
        self.unit["finalUnitIndication"] = restriction

    def free(self) -> None:
        """From the next answer on: no throttle."""
        self.unit.pop("finalUnitIndication", None)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            event = await receive()
            body, more = body + event.get("body", b""), event.get("more_body", False)
        self.asked.append((scope["path"], json.loads(body)))
        information = [{"ratingGroup": 1, "resultCode": "SUCCESS", **self.unit}]
        answer = json.dumps({"invocationSequenceNumber": 0, "multipleUnitInformation": information}).encode()
        status = 201 if scope["path"].endswith("/chargingdata") else 200
        headers = [(b"location", b"/nchf-convergedcharging/v3/chargingdata/ref-1")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


@contextlib.asynccontextmanager
async def serving(chf: Chf) -> AsyncIterator[str]:
    """Its address."""
    port = free_port()
    running = asyncio.ensure_future(serve_http(chf, "127.0.0.1", port))
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            break
        except OSError:
            await asyncio.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
