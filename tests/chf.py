"""A scripted charging function behind the real HTTP/2 server, for answers that the OCS gives in rare states only."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from tests.ports import free_port

from mvnobox.service.web import serve_http


class Chf:
    """A scripted charging function: grants as much as it was told to, at the rate that it was told."""

    def __init__(self, octets: int) -> None:
        self.unit: dict[str, Any] = {"grantedUnit": {"totalVolume": octets}}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        # (status, headers, document) that come first, in the place of grants; the last one again and again if `stuck`.
        self.instead: deque[tuple[int, dict[str, str], dict[str, Any]]] = deque()
        self.stuck = False
        # Answers are made and do not go out before this is set.
        self.go = asyncio.Event()
        self.go.set()
        self.contexts = 0

    def used(self) -> list[int]:
        """The octets that were reported, in the order of their coming."""
        found = []
        for _, body in self.asked:
            for unit in body["multipleUnitUsage"]:
                found += [container["totalVolume"] for container in unit.get("usedUnitContainer", ())]
        return found

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
        created = scope["path"].endswith("/chargingdata")
        status = 201 if created else 204 if scope["path"].endswith("/release") else 200
        self.contexts += created
        headers = [(b"location", f"/nchf-convergedcharging/v3/chargingdata/ref-{self.contexts}".encode())]
        if self.instead:
            status, more, document = self.instead[0] if self.stuck else self.instead.popleft()
            headers = [(name.encode(), value.encode()) for name, value in more.items()]
            answer = json.dumps(document).encode()
        elif status == 204:
            answer = b""
        await self.go.wait()
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


def failed(handling: str | None = None, **headers: str) -> tuple[int, dict[str, str], dict[str, Any]]:
    """A 503 with header fields, and perhaps with what is to be done with the traffic (FailureHandling); for `instead`."""
    result = {"invocationResult": {"error": {"status": 503}, "failureHandling": handling}} if handling else {}
    return 503, {name.replace("_", "-"): value for name, value in headers.items()}, {"status": 503, **result}
