"""The simulated phone: SIM, registration, a tunnel, and commands over a local socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import socket
import time
from pathlib import Path
from typing import Any

from mvnobox.core.sim import aka, gtpu
from mvnobox.core.sim.settings import UeSettings
from mvnobox.core.sim.tun import HostError, counters, open_tun, run

log = logging.getLogger(__name__)
INTERFACE = "uesimtun0"
ROUTING_TABLE = "45"
BATCH = 64
ANSWER_SECONDS = 15.0


class Ue:
    """One phone (a simulation) and the agent that commands it."""

    def __init__(self, settings: UeSettings) -> None:
        self._settings = settings
        self._state = Path(settings.state)
        self._address: str | None = None
        self._upf: tuple[str, int] | None = None
        self._uplink_teid = 0
        self._downlink_teid = 0
        self._tun: int | None = None
        self._gtp: socket.socket | None = None
        self._reader: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._imsi: str | None = None
        self._released = ""

    async def ready(self) -> str | None:
        return None

    @property
    def socket_path(self) -> Path:
        return self._state / "ue.sock"

    async def run(self) -> None:
        """Serve commands until cancelled."""
        self._state.mkdir(parents=True, exist_ok=True)
        self.socket_path.unlink(missing_ok=True)
        self._gtp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            self._gtp.setsockopt(socket.SOL_SOCKET, option, 8 << 20)
        self._gtp.setblocking(False)
        self._gtp.bind(("0.0.0.0", gtpu.PORT))
        asyncio.get_running_loop().add_reader(self._gtp.fileno(), self._from_tunnel)
        server = await asyncio.start_unix_server(self._command, self.socket_path)
        os.chmod(self.socket_path, 0o600)
        log.info("simulated UE is waiting for commands", extra={"simulation": True})
        try:
            await server.serve_forever()
        finally:
            server.close()

    # Commands ------------------------------------------------------------------------------------------------------

    async def _command(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = json.loads(await asyncio.wait_for(reader.readline(), 10))
            answer = await self._run(request)
        except (ValueError, KeyError, TypeError, TimeoutError, OSError, HostError) as error:
            answer = {"ok": False, "cause": f"{type(error).__name__}: {error}"}
        with contextlib.suppress(ConnectionError):
            writer.write(json.dumps({"simulation": True, **answer}).encode() + b"\n")
            await writer.drain()
        writer.close()

    async def _run(self, request: dict[str, Any]) -> dict[str, Any]:
        match request["command"]:
            case "register":
                return await self._register(request["sim"])
            case "deregister":
                return await self._deregister()
            case "idle":
                return self._verdict(await self._ask({"type": "ReleaseRequest"}), "ReleaseAccept")
            case "service-request":
                return self._verdict(await self._ask({"type": "ServiceRequest"}), "ServiceAccept")
            case "status":
                return self._status()
            case "ping":
                return await self._ping(str(request["target"]), int(request["count"]))
            case "download":
                return await self._download(request)
        return {"ok": False, "cause": f"no such command: {request['command']}"}

    @staticmethod
    def _verdict(answer: dict[str, Any], wanted: str) -> dict[str, Any]:
        return {"ok": answer.get("type") == wanted, "cause": answer.get("cause")}

    def _status(self) -> dict[str, Any]:
        received, sent = counters(INTERFACE) if self._address else (0, 0)
        return {
            "ok": True,
            "registered": self._address is not None,
            "address": self._address,
            "imsi": self._imsi,
            "released": self._released,
            "receivedOctets": received,
            "sentOctets": sent,
        }

    # N1 ------------------------------------------------------------------------------------------------------------

    def _send(self, message: dict[str, Any]) -> None:
        if self._writer is None or self._writer.is_closing():
            raise ConnectionError("there is no connection to the core")
        self._writer.write(json.dumps(message).encode() + b"\n")

    async def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        self._send(message)
        return await asyncio.wait_for(self._answers.get(), ANSWER_SECONDS)

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Sort what the core sends: commands of its own, and answers to ours."""
        with contextlib.suppress(ConnectionError, ValueError):
            while line := await reader.readline():
                message = json.loads(line)
                if message.get("type") in ("DeregistrationRequest", "PDUSessionReleaseCommand"):
                    self._released = message.get("cause", "released by the network")
                    self._drop_tunnel()
                elif message.get("type") == "Paging":
                    self._send({"type": "ServiceRequest"})
                    await asyncio.wait_for(self._skip_until("ServiceAccept", reader), ANSWER_SECONDS)
                else:
                    self._answers.put_nowait(message)
        self._drop_tunnel()

    @staticmethod
    async def _skip_until(kind: str, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            if json.loads(line).get("type") == kind:
                return

    def _sqn(self, imsi: str, value: int | None = None) -> int:
        """The SIM's highest sequence number, kept as a SIM keeps it."""
        path = self._state / f"sqn-{imsi}"
        if value is not None:
            path.write_text(str(value))
            return value
        return int(path.read_text()) if path.exists() else 0

    async def _register(self, sim: dict[str, Any]) -> dict[str, Any]:
        await self._deregister()
        self._released = ""
        imsi, k, opc = str(sim["imsi"]), bytes.fromhex(sim["ki"]), bytes.fromhex(sim["opc"])
        host, _, port = self._settings.smf.rpartition(":")
        reader, self._writer = await asyncio.wait_for(asyncio.open_connection(host, int(port)), 10)
        self._answers = asyncio.Queue()
        self._reader = asyncio.ensure_future(self._listen(reader))
        answer = await self._ask({"type": "RegistrationRequest", "imsi": imsi})
        for _ in range(2):
            if answer.get("type") != "AuthenticationRequest":
                break
            rand, autn = bytes.fromhex(answer["rand"]), bytes.fromhex(answer["autn"])
            try:
                res_star, sqn = aka.answer(k, opc, self._sqn(imsi), answer["network"], rand, autn)
            except aka.MacFailure:
                answer = await self._ask({"type": "AuthenticationFailure", "cause": "MAC failure"})
            except aka.SynchronisationFailure as failure:
                answer = await self._ask(
                    {"type": "AuthenticationFailure", "cause": "synch failure", "auts": failure.auts.hex()}
                )
            else:
                self._sqn(imsi, sqn)
                answer = await self._ask({"type": "AuthenticationResponse", "resStar": res_star.hex()})
        if answer.get("type") != "RegistrationAccept":
            await self._deregister()
            return {"ok": False, "registered": False, "cause": answer.get("cause", "no answer")}
        accept = await self._ask(
            {
                "type": "PDUSessionEstablishmentRequest",
                "dnn": sim["dnn"],
                "sst": sim["sst"],
                "sd": sim.get("sd"),
            }
        )
        if accept.get("type") != "PDUSessionEstablishmentAccept":
            await self._deregister()
            return {"ok": False, "registered": True, "cause": accept.get("cause", "no answer")}
        self._imsi = imsi
        self._downlink_teid = secrets.randbits(31) + 1
        self._raise_tunnel(accept["address"], accept["mtu"])
        self._upf, self._uplink_teid = (accept["upf"], gtpu.PORT), accept["teid"]
        own = socket.gethostbyname(socket.gethostname()) if "own" not in sim else sim["own"]
        complete = await self._ask({"type": "PDUSessionResourceSetup", "address": own, "teid": self._downlink_teid})
        done = complete.get("type") == "PDUSessionResourceSetupComplete"
        return {
            "ok": done,
            "registered": True,
            "address": accept["address"],
            "gateway": accept["gateway"],
            "mtu": accept["mtu"],
            "cause": complete.get("cause"),
        }

    async def _deregister(self) -> dict[str, Any]:
        if self._writer is not None:
            with contextlib.suppress(ConnectionError, TimeoutError):
                await self._ask({"type": "DeregistrationRequest"})
            self._writer.close()
            self._writer = None
        if self._reader is not None:
            self._reader.cancel()
            self._reader = None
        self._drop_tunnel()
        return {"ok": True}

    # Tunnel --------------------------------------------------------------------------------------------------------

    def _raise_tunnel(self, address: str, mtu: int) -> None:
        self._drop_tunnel()
        self._tun = open_tun(INTERFACE, f"{address}/32", mtu)
        self._address = address
        # Only what comes from the UE's own address goes through the tunnel; the pod's own traffic does not.
        run("ip", "route", "replace", "default", "dev", INTERFACE, "table", ROUTING_TABLE)
        run("ip", "rule", "add", "from", address, "lookup", ROUTING_TABLE)
        asyncio.get_running_loop().add_reader(self._tun, self._to_tunnel)

    def _drop_tunnel(self) -> None:
        if self._tun is not None:
            asyncio.get_running_loop().remove_reader(self._tun)
            os.close(self._tun)
            self._tun = None
            with contextlib.suppress(HostError):
                run("ip", "rule", "delete", "from", str(self._address), "lookup", ROUTING_TABLE)
        self._address = None
        self._upf = None

    def _to_tunnel(self) -> None:
        assert self._tun is not None and self._gtp is not None
        for _ in range(BATCH):
            try:
                packet = os.read(self._tun, 65535)
            except OSError:
                return
            if self._upf is not None and packet[0] >> 4 == 4:
                with contextlib.suppress(OSError):
                    self._gtp.sendto(gtpu.g_pdu(self._uplink_teid, packet, 1, uplink=True), self._upf)

    def _from_tunnel(self) -> None:
        assert self._gtp is not None
        for _ in range(BATCH):
            try:
                data = self._gtp.recv(65535)
            except OSError:
                return
            kind, teid, offset = gtpu.payload(data)
            if kind == gtpu.G_PDU and teid == self._downlink_teid and self._tun is not None:
                with contextlib.suppress(OSError):
                    os.write(self._tun, data[offset:])

    # Traffic -------------------------------------------------------------------------------------------------------

    async def _ping(self, target: str, count: int) -> dict[str, Any]:
        if self._address is None:
            return {"ok": False, "cause": "not registered"}
        process = await asyncio.create_subprocess_exec(
            "ping", "-n", "-c", str(count), "-i", "0.2", "-W", "2", "-I", self._address, target,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        out = (await process.communicate())[0].decode()
        received = next((int(part.split()[0]) for part in out.split(",") if "received" in part), 0)
        return {"ok": received == count, "sent": count, "received": received, "output": out[-400:]}

    async def _download(self, request: dict[str, Any]) -> dict[str, Any]:
        """Fetch over TCP through the tunnel; what arrived, and what the interface carried in both directions."""
        if self._address is None:
            return {"ok": False, "cause": "not registered"}
        host, port, path = str(request["host"]), int(request["port"]), str(request["path"])
        timeout, stall = float(request.get("timeout", 60)), float(request.get("stall", 5))
        before = counters(INTERFACE)
        started = time.monotonic()
        body, cause, expected = 0, None, None
        try:
            resolved = await asyncio.to_thread(socket.gethostbyname, host)
            async with asyncio.timeout(timeout):
                reader, writer = await asyncio.wait_for(
                    asyncio.open_connection(resolved, port, local_addr=(self._address, 0), limit=1 << 20), stall
                )
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), stall)
                expected = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                while chunk := await asyncio.wait_for(reader.read(1 << 18), stall):
                    body += len(chunk)
                writer.close()
        except TimeoutError:
            cause = "stalled"
        except (OSError, asyncio.IncompleteReadError, IndexError) as error:
            cause = f"{type(error).__name__}: {error}"
        elapsed = time.monotonic() - started
        after = counters(INTERFACE) if self._address is not None else before
        return {
            "ok": cause is None and body == expected,
            "cause": cause,
            "octets": body,
            "seconds": round(elapsed, 3),
            "carriedOctets": after[0] - before[0] + after[1] - before[1],
        }


async def command(state: str, request: dict[str, Any], timeout: float) -> dict[str, Any]:
    """Send a command to the agent of this pod; its answer."""
    reader, writer = await asyncio.open_unix_connection(str(Path(state) / "ue.sock"))
    writer.write(json.dumps(request).encode() + b"\n")
    line = await asyncio.wait_for(reader.readline(), timeout)
    writer.close()
    if not line:
        raise ConnectionError("the agent ended the connection")
    answer: dict[str, Any] = json.loads(line)
    return answer
