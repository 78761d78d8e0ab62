"""One phone: its SIM, its registration, its PDU session."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvnobox.core.sim import aka, causes, gtpu
from mvnobox.core.sim.milenage import derive_opc
from mvnobox.core.sim.tun import HostError
from mvnobox.core.sim.ue_tunnel import Tunnel, Tunnels

log = logging.getLogger(__name__)
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 15.0
# Pauses between attempts to get back what the network took away.
RECOVERY_PAUSES = (0.5, 1, 2, 2, 4, 4, 8, 8, 15, 15, 30, 30)
# What the network says unasked.
_UNASKED = ("DeregistrationRequest", "PDUSessionReleaseCommand", "Paging")


class Lost(Exception):
    """The connection to the core has ended, or the core does not answer."""


class Unusable(ValueError):
    """A SIM's data cannot be used."""


@dataclass(frozen=True)
class Sim:
    """What is on a SIM and what its owner wants: `dnn` in slice `sst`/`sd`, IPv6 too where it can be had."""

    imsi: str
    k: bytes
    opc: bytes
    dnn: str
    sst: int
    sd: str | None
    type: str = "IPv4v6"

    @classmethod
    def parse(cls, data: Any) -> Sim:
        """From `{imsi, ki, opc | op, dnn, sst, sd?, type?}`. Raises Unusable, which never repeats a key."""
        if not isinstance(data, dict):
            raise Unusable("a SIM is a JSON object")
        missing = [key for key in ("imsi", "ki", "dnn", "sst") if key not in data]
        if missing or not ("opc" in data or "op" in data):
            raise Unusable(f"a SIM needs imsi, ki, opc (or op), dnn, sst; missing: {', '.join(missing) or 'opc'}")
        try:
            k = bytes.fromhex(data["ki"])
            operator = bytes.fromhex(data.get("opc") or data["op"])
        except (TypeError, ValueError):
            raise Unusable("ki, opc and op are hexadecimal") from None
        if len(k) != 16 or len(operator) != 16:
            raise Unusable("ki, opc and op are 16 octets")
        imsi, sst, sd = str(data["imsi"]), data["sst"], data.get("sd")
        if not (imsi.isascii() and imsi.isdecimal() and 5 <= len(imsi) <= 15) or not isinstance(sst, int):
            raise Unusable("imsi is 5 to 15 digits and sst a number")
        opc = operator if data.get("opc") else derive_opc(k, operator)
        return cls(imsi, k, opc, str(data["dnn"]), sst, sd, str(data.get("type", cls.type)))


class Numbers:
    """A SIM's sequence numbers, kept in a file as a SIM keeps them in its memory."""

    def __init__(self, directory: Path, imsi: str) -> None:
        self._path = directory / f"sqn-{imsi}.json"
        self.state = aka.SequenceNumbers()
        with contextlib.suppress(OSError, ValueError, TypeError):
            seq = json.loads(self._path.read_text())
            if len(seq) == aka.SQN_STEP and all(isinstance(one, int) for one in seq):
                self.state.seq = seq

    def keep(self) -> None:
        """Write them down before RES* goes out: a number is never taken twice."""
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(self.state.seq))
        fresh.replace(self._path)


class Phone:
    """`register`, `new_session`, `idle`, `service_request` raise Lost and HostError."""

    def __init__(self, sim: Sim, smf: str, state: Path, tunnels: Tunnels) -> None:
        self.sim, self._smf, self._tunnels = sim, smf, tunnels
        self._numbers = Numbers(state, sim.imsi)
        self._writer: asyncio.StreamWriter | None = None
        self._listener: asyncio.Task[None] | None = None
        self._recovery: asyncio.Task[None] | None = None
        self._answers: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        # One question to the core at a time.
        self._turn = asyncio.Lock()
        self.tunnel: Tunnel | None = None
        self._carried = (0, 0)
        self.registered = False
        self.released = ""
        self.recoveries = 0

    # State ---------------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """What is known of the phone; octets since `register`, whatever the network took away in between."""
        received, sent = self._carried
        if self.tunnel is not None:
            more = self.tunnel.octets()
            received, sent = received + more[0], sent + more[1]
        return {
            "registered": self.tunnel is not None,
            "imsi": self.sim.imsi,
            "address": self.tunnel.address if self.tunnel is not None else None,
            "address6": self.tunnel.address6 if self.tunnel is not None else None,
            "interface": self.tunnel.name if self.tunnel is not None else None,
            "released": self.released,
            "recoveries": self.recoveries,
            "receivedOctets": received,
            "sentOctets": sent,
        }

    # Commands ------------------------------------------------------------------------------------------------------

    async def register(self) -> dict[str, Any]:
        """Register and set the PDU session up; what happened, step by step."""
        steps: list[dict[str, Any]] = []
        answer: dict[str, Any] = {"ok": False, "registered": False, "steps": steps}
        try:
            async with self._turn:
                began = time.monotonic()
                await self._connect()
                outcome = await self._authenticate()
                self._step(steps, "registration", began, outcome, "RegistrationAccept")
                if outcome.get("type") != "RegistrationAccept":
                    return answer | {"cause": self._cause(outcome)}
                self.registered = True
                began = time.monotonic()
                outcome = await self._establish()
                self._step(steps, "session", began, outcome, "PDUSessionResourceSetupComplete")
                answer["registered"] = True
                if outcome.get("type") != "PDUSessionResourceSetupComplete":
                    return answer | {"cause": self._cause(outcome)}
                answer |= outcome["accepted"] | {"ok": True, "cause": None}
                return answer
        finally:
            if not answer["registered"] or self.tunnel is None:
                await self._disconnect()

    async def new_session(self) -> dict[str, Any]:
        """Set the PDU session up anew on the registration that there is."""
        async with self._turn:
            outcome = await self._establish()
        verdict = self._verdict(outcome, "PDUSessionResourceSetupComplete")
        verdict |= outcome.get("accepted", {})
        return verdict

    async def deregister(self) -> None:
        """Say good-bye; the phone's device goes, whatever the core answers."""
        if self._recovery is not None:
            self._recovery.cancel()
            self._recovery = None
        with contextlib.suppress(Lost):
            if self.registered:
                async with self._turn:
                    await self._ask({"type": "DeregistrationRequest"})
        await self._disconnect()

    async def idle(self) -> dict[str, Any]:
        """The access network releases the UE's context: the downlink waits until it is paged."""
        async with self._turn:
            return self._verdict(await self._ask({"type": "UEContextReleaseRequest"}), "UEContextReleaseComplete")

    async def service_request(self) -> dict[str, Any]:
        """The UE wants its downlink back."""
        async with self._turn:
            return self._verdict(await self._ask({"type": "ServiceRequest"}), "ServiceAccept")

    # N1 ------------------------------------------------------------------------------------------------------------

    @staticmethod
    def _cause(message: dict[str, Any]) -> str:
        return causes.words(message.get("cause"), message.get("detail"))

    def _verdict(self, answer: dict[str, Any], wanted: str) -> dict[str, Any]:
        done = answer.get("type") == wanted
        return {"ok": done, "cause": None if done else self._cause(answer)}

    def _step(self, steps: list[dict[str, Any]], name: str, began: float, answer: dict[str, Any], wanted: str) -> None:
        step = {"step": name, "seconds": round(time.monotonic() - began, 3), **self._verdict(answer, wanted)}
        steps.append(step)

    async def _connect(self) -> None:
        await self._disconnect()
        self.released = ""
        host, _, port = self._smf.rpartition(":")
        try:
            connecting = asyncio.open_connection(host, int(port))
            reader, self._writer = await asyncio.wait_for(connecting, CONNECT_SECONDS)
        except (OSError, TimeoutError) as error:
            raise Lost(f"the core cannot be reached: {error or 'no answer'}") from None
        self._answers = asyncio.Queue()
        self._listener = asyncio.ensure_future(self._listen(reader, self._answers))

    async def _disconnect(self) -> None:
        if self._listener is not None and self._listener is not asyncio.current_task():
            self._listener.cancel()
        self._listener = None
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self.registered = False
        self._drop_tunnel()

    async def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        if self._writer is None or self._writer.is_closing():
            raise Lost("there is no connection to the core")
        self._writer.write(json.dumps(message).encode() + b"\n")
        try:
            answer = await asyncio.wait_for(self._answers.get(), ANSWER_SECONDS)
        except TimeoutError:
            raise Lost("the core does not answer") from None
        if answer is None:
            raise Lost("the core has ended the connection")
        return answer

    async def _listen(self, reader: asyncio.StreamReader, answers: asyncio.Queue[dict[str, Any] | None]) -> None:
        """Sort what the core sends: what it says unasked, and answers."""
        with contextlib.suppress(OSError, ValueError):
            while line := await reader.readline():
                message = json.loads(line)
                if not isinstance(message, dict):
                    break
                if message.get("type") in _UNASKED:
                    self._unasked(message)
                else:
                    answers.put_nowait(message)
        answers.put_nowait(None)
        if self.registered:
            self.registered = False
            self._drop_tunnel()
            self.released = "the connection to the core has ended"
            self._recover(self._come_back())

    def _unasked(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "Paging":
            self._recover(self._answer_page())
            return
        self.released = self._cause(message)
        log.info("released by the network: %s", self.released, extra={"imsi": self.sim.imsi})
        if kind == "DeregistrationRequest":
            self.registered = False
            self._drop_tunnel()
        elif message.get("cause") == causes.REACTIVATION_REQUESTED:
            self._recover(self._new_session())
        else:
            self._drop_tunnel()

    # Authentication and session ------------------------------------------------------------------------------------

    async def _authenticate(self) -> dict[str, Any]:
        answer = await self._ask({"type": "RegistrationRequest", "imsi": self.sim.imsi})
        # A challenge, a resynchronisation and a second challenge; a network that goes on is left alone.
        for _ in range(3):
            if answer.get("type") != "AuthenticationRequest":
                break
            try:
                rand, autn = bytes.fromhex(answer["rand"]), bytes.fromhex(answer["autn"])
                network = str(answer["servingNetwork"])
            except (KeyError, TypeError, ValueError):
                return {"type": "Status", "cause": causes.PROTOCOL_ERROR}
            try:
                star = aka.answer(self.sim.k, self.sim.opc, self._numbers.state, network, rand, autn)
            except aka.MacFailure:
                refusal = await self._ask({"type": "AuthenticationFailure", "cause": causes.MAC_FAILURE})
                return refusal | {"type": "RegistrationReject"}
            except aka.SynchronisationFailure as failure:
                answer = await self._ask(
                    {"type": "AuthenticationFailure", "cause": causes.SYNCH_FAILURE, "auts": failure.auts.hex()}
                )
            else:
                self._numbers.keep()
                answer = await self._ask({"type": "AuthenticationResponse", "resStar": star.hex()})
        return answer

    async def _establish(self) -> dict[str, Any]:
        accept = await self._ask(
            {
                "type": "PDUSessionEstablishmentRequest",
                "pduSessionId": 1,
                "dnn": self.sim.dnn,
                "snssai": {"sst": self.sim.sst, "sd": self.sim.sd},
                "pduSessionType": self.sim.type,
            }
        )
        if accept.get("type") != "PDUSessionEstablishmentAccept":
            return accept
        self._drop_tunnel()
        tunnel = self._tunnels.open(accept["ueAddress"], accept["mtu"], self._lost)
        self.tunnel = tunnel
        tunnel.upf, tunnel.uplink_teid = (accept["gtp"]["address"], gtpu.PORT), accept["gtp"]["teid"]
        assert self._writer is not None
        # The gNB's side of the tunnel is where this connection comes from.
        own = self._writer.get_extra_info("sockname")[0]
        gtp = {"address": own, "teid": tunnel.downlink_teid}
        done = await self._ask({"type": "PDUSessionResourceSetupResponse", "pduSessionId": 1, "gtp": gtp})
        if done.get("type") != "PDUSessionResourceSetupComplete":
            self._drop_tunnel()
            return done
        if "interfaceIdentifier" in accept:
            await self._tunnels.autoconfigure(tunnel, bytes.fromhex(accept["interfaceIdentifier"]))
        accepted = {
            "address": accept["ueAddress"], "address6": tunnel.address6, "gateway": accept["gateway"],
            "gateway6": accept.get("gateway6"), "mtu": accept["mtu"], "dns": accept.get("dns", []),
            "interface": tunnel.name,
        }  # fmt: skip
        return done | {"accepted": accepted}

    def _drop_tunnel(self) -> None:
        if self.tunnel is not None:
            self._tunnels.close(self.tunnel)
            self._carried = (self._carried[0] + self.tunnel.received, self._carried[1] + self.tunnel.sent)
            self.tunnel = None

    # What the network takes away -----------------------------------------------------------------------------------

    def _lost(self) -> None:
        """The user plane does not know our tunnel (error indication)."""
        self.released = "the user plane does not know the tunnel"
        self._recover(self._new_session())

    def _recover(self, attempt: Coroutine[Any, Any, None]) -> None:
        if self._recovery is not None and not self._recovery.done():
            attempt.close()
            return
        self._recovery = asyncio.ensure_future(attempt)

    async def _answer_page(self) -> None:
        with contextlib.suppress(Lost):
            await self.service_request()

    async def _new_session(self) -> None:
        """Set the session up again on the registration that there is."""
        for pause in RECOVERY_PAUSES:
            try:
                async with self._turn:
                    if (await self._establish()).get("type") == "PDUSessionResourceSetupComplete":
                        self.recoveries += 1
                        log.info("the session is back", extra={"imsi": self.sim.imsi})
                        return
            except (Lost, HostError) as error:
                log.info("the session is not back yet: %s", error, extra={"imsi": self.sim.imsi})
            if not self.registered:
                return
            await asyncio.sleep(pause)
        self._drop_tunnel()

    async def _come_back(self) -> None:
        """Register again after the connection to the core has broken."""
        for pause in RECOVERY_PAUSES:
            await asyncio.sleep(pause)
            with contextlib.suppress(Lost, HostError):
                answer = await self.register()
                if answer["ok"] or answer["steps"]:
                    # Back, or turned down by a core that works: a phone does not insist.
                    self.recoveries += bool(answer["ok"])
                    self.released = "" if answer["ok"] else str(answer["cause"])
                    return
