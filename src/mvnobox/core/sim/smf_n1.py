"""One UE's connection to the simulated control plane: what stands in the place of N1 and N2."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from prometheus_client import Counter

from mvnobox.core.sim import aka, causes
from mvnobox.core.sim.causes import Refused
from mvnobox.core.sim.subscribers import DirectoryUnavailable, Malformed

if TYPE_CHECKING:
    from mvnobox.core.sim.smf import Context, Smf

REGISTRATIONS = Counter("sim_smf_registrations_total", "Registrations", ["result"])


class Connection:
    """One UE's (or its gNB's) connection, in the place of N1 and N2."""

    def __init__(self, smf: Smf, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._smf, self._reader, self._writer = smf, reader, writer
        self._context: Context | None = None
        # The IMSI that is being authenticated, its challenge, and whether it has resynchronised once.
        self._wanted = ""
        self._challenge: aka.Challenge | None = None
        self._resynchronised = False
        network = smf.settings.plmn
        self._network = aka.serving_network(network.mcc, network.mnc)

    async def serve(self) -> None:
        """Answer messages until the connection ends; the UE's session ends with it."""
        try:
            while line := await self._reader.readline():
                await self._take(line)
                await self._writer.drain()
        except (OSError, ValueError, asyncio.LimitOverrunError):
            # A line that is too long (ValueError), or a peer that is gone.
            pass
        finally:
            if self._context is not None:
                await self._smf.leave(self._context)
            self.close()

    def close(self) -> None:
        self._writer.close()

    def send(self, kind: str, **members: Any) -> None:
        """Send a message; a connection that is gone takes none."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps({"type": kind, **members}).encode() + b"\n")

    def detach(self, cause: int, detail: str) -> None:
        """The network deregisters the UE (TS 24.501 clause 5.5.2.3)."""
        self._context = None
        self.send("DeregistrationRequest", cause=cause, detail=detail)

    async def _take(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            self.send("Status", cause=causes.PROTOCOL_ERROR, detail="a message is one JSON object a line")
            return
        handler, rejection = self._handlers().get(str(message.get("type")), (None, "Status"))
        try:
            if handler is None:
                raise Refused(causes.NOT_COMPATIBLE_WITH_STATE, f"{str(message.get('type'))[:60]}")
            await handler(message)
        except Refused as refusal:
            self.send(rejection, cause=refusal.cause, detail=refusal.detail)
            if rejection == "RegistrationReject":
                REGISTRATIONS.labels("rejected").inc()

    def _handlers(self) -> dict[str, tuple[Callable[[dict[str, Any]], Awaitable[None]], str]]:
        """What can be said now, and how it is turned down."""
        known: dict[str, tuple[Callable[[dict[str, Any]], Awaitable[None]], str]] = {
            "RegistrationRequest": (self._registration, "RegistrationReject"),
        }
        if self._challenge is not None:
            known["AuthenticationResponse"] = (self._authentication_response, "RegistrationReject")
            known["AuthenticationFailure"] = (self._authentication_failure, "RegistrationReject")
        if self._context is not None:
            known["PDUSessionEstablishmentRequest"] = (self._session, "PDUSessionEstablishmentReject")
            known["PDUSessionResourceSetupResponse"] = (self._session_setup, "PDUSessionResourceSetupFailure")
            known["UEContextReleaseRequest"] = (self._idle, "Status")
            known["ServiceRequest"] = (self._service, "ServiceReject")
            known["DeregistrationRequest"] = (self._deregistration, "Status")
        return known

    @property
    def _registered(self) -> Context:
        if self._context is None:
            raise Refused(causes.NOT_COMPATIBLE_WITH_STATE, "the UE is not registered")
        return self._context

    # Authentication ------------------------------------------------------------------------------------------------

    async def _registration(self, message: dict[str, Any]) -> None:
        imsi = message.get("imsi")
        if not isinstance(imsi, str) or not (imsi.isascii() and imsi.isdecimal()) or not 5 <= len(imsi) <= 15:
            raise Refused(causes.SEMANTICALLY_INCORRECT, "an IMSI is 5 to 15 digits")
        self._wanted, self._resynchronised = imsi, False
        await self._authenticate()

    async def _authenticate(self) -> None:
        self._challenge = None
        subscriber = await self._smf.subscriber(self._wanted)
        try:
            keys = subscriber.keys()
            await self._smf.subscribers.advance(self._wanted)
        except Malformed as error:
            raise Refused(causes.ILLEGAL_UE, str(error)) from None
        except DirectoryUnavailable as error:
            raise Refused(causes.CONGESTION, f"the directory does not answer: {error}") from None
        sqn = (keys.sqn + aka.SQN_STEP) % aka.SQN_MODULUS
        self._challenge = aka.challenge(keys.k, keys.opc, keys.amf, sqn, self._network)
        self.send(
            "AuthenticationRequest",
            rand=self._challenge.rand.hex(), autn=self._challenge.autn.hex(), servingNetwork=self._network,
        )  # fmt: skip

    async def _authentication_response(self, message: dict[str, Any]) -> None:
        challenge, self._challenge = self._challenge, None
        if challenge is None or not challenge.accepts(_octets(message.get("resStar"))):
            raise Refused(causes.ILLEGAL_UE, "RES* is wrong")
        # Once more: the subscriber may have been barred in the meantime.
        await self._smf.subscriber(self._wanted)
        if self._context is not None and self._context.imsi != self._wanted:
            await self._smf.leave(self._context)
        self._context = await self._smf.register(self._wanted, self)
        REGISTRATIONS.labels("accepted").inc()
        self.send("RegistrationAccept", simulation=True)

    async def _authentication_failure(self, message: dict[str, Any]) -> None:
        challenge, self._challenge = self._challenge, None
        cause = message.get("cause")
        if cause != causes.SYNCH_FAILURE or challenge is None:
            known = cause if isinstance(cause, int) and cause in causes.TEXTS else causes.PROTOCOL_ERROR
            raise Refused(causes.ILLEGAL_UE, f"authentication failed: {causes.words(known)}")
        if self._resynchronised:
            raise Refused(causes.ILLEGAL_UE, "authentication failed: the sequence numbers do not meet")
        self._resynchronised = True
        try:
            keys = (await self._smf.subscriber(self._wanted)).keys()
            sqn = aka.resynchronised(keys.k, keys.opc, challenge.rand, _octets(message.get("auts")))
            if sqn is None:
                raise Refused(causes.ILLEGAL_UE, "authentication failed: AUTS is wrong")
            await self._smf.subscribers.resynchronise(self._wanted, sqn)
        except Malformed as error:
            raise Refused(causes.ILLEGAL_UE, str(error)) from None
        except DirectoryUnavailable as error:
            raise Refused(causes.CONGESTION, f"the directory does not answer: {error}") from None
        await self._authenticate()

    # Sessions ------------------------------------------------------------------------------------------------------

    async def _session(self, message: dict[str, Any]) -> None:
        self.send(
            "PDUSessionEstablishmentAccept", **await self._smf.establish(self._registered, message), simulation=True
        )

    async def _session_setup(self, message: dict[str, Any]) -> None:
        context = self._registered
        gtp = message.get("gtp")
        gtp = gtp if isinstance(gtp, dict) else {}
        address, teid = gtp.get("address"), gtp.get("teid")
        if not _is_ipv4(address) or not isinstance(teid, int) or not 0 < teid < 1 << 32:
            raise Refused(causes.SEMANTICALLY_INCORRECT, "gtp is {address: IPv4, teid: 1 to 2^32-1}")
        if context.session is None:
            raise Refused(causes.NOT_COMPATIBLE_WITH_STATE, "there is no PDU session")
        context.session.gnb = (str(address), teid)
        await self._smf.set_active(context, active=True)
        self.send("PDUSessionResourceSetupComplete")

    async def _idle(self, message: dict[str, Any]) -> None:
        await self._smf.set_active(self._registered, active=False)
        self.send("UEContextReleaseComplete")

    async def _service(self, message: dict[str, Any]) -> None:
        await self._smf.set_active(self._registered, active=True)
        self.send("ServiceAccept")

    async def _deregistration(self, message: dict[str, Any]) -> None:
        context, self._context = self._registered, None
        await self._smf.leave(context)
        self.send("DeregistrationAccept")


def _octets(value: object) -> bytes:
    try:
        return bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        return b""


def _is_ipv4(value: object) -> bool:
    parts = value.split(".") if isinstance(value, str) else []
    return len(parts) == 4 and all(
        part.isascii() and part.isdecimal() and len(part) <= 3 and int(part) <= 255 for part in parts
    )
