"""The agent beside UERANSIM: writes a UE's configuration, starts gNB and UE through the pod's FIFO, reads their logs.

It answers the same commands on the same socket as the simulated core's phone, so that whoever tests need not know which
of the two is there. As many phones at a time as its settings allow, each with a process and keys of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
from pathlib import Path
from typing import Any

import yaml

from mvnobox.core.ueransim.log import Progress, cell_is_up, progress
from mvnobox.core.ueransim.settings import AgentSettings

log = logging.getLogger(__name__)
REQUEST_SECONDS = 10.0
CELL_SECONDS, ATTACH_SECONDS, GOODBYE_SECONDS = 20.0, 30.0, 6.0
LOOK_SECONDS = 0.1
_IMSI = re.compile(r"[0-9]{6,15}")
_NOBODY: dict[str, Any] = {
    "registered": False, "imsi": None, "address": None, "interface": None, "receivedOctets": 0, "sentOctets": 0,
}  # fmt: skip


class Agent:
    """The phones of one pod."""

    def __init__(self, settings: AgentSettings) -> None:
        self._settings = settings
        self._state = Path(settings.state)
        # Who is registered, the last one last.
        self._imsis: list[str] = []
        self._busy = asyncio.Lock()

    async def ready(self) -> str | None:
        """None, or what is missing."""
        return None if (self._state / "ready").exists() else "UERANSIM's container has not started"

    async def run(self) -> None:
        """Serve commands until cancelled."""
        path = self._state / "ue.sock"
        path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            server = await asyncio.start_unix_server(self._command, path)
        finally:
            os.umask(before)
        log.info("waiting for commands")
        async with server:
            await server.serve_forever()

    async def _command(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = json.loads(await asyncio.wait_for(reader.readline(), REQUEST_SECONDS))
            async with self._busy:
                answer = await self._run(request)
        except (ValueError, KeyError, TypeError, TimeoutError, OSError) as error:
            answer = {"ok": False, "cause": f"{type(error).__name__}: {error}"}
        with contextlib.suppress(OSError):
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        writer.close()

    async def _run(self, request: dict[str, Any]) -> dict[str, Any]:
        match request["command"]:
            case "register":
                return await self._register(request["sim"], beside=bool(request.get("beside")))
            case "status":
                return {"ok": True, **self._status(self._meant(request))}
            case "deregister":
                imsi = self._meant(request)
                if imsi is not None:
                    await self._stop(imsi)
                return {"ok": True}
        return {"ok": False, "cause": f"no such command: {str(request['command'])[:60]}"}

    def _meant(self, request: dict[str, Any]) -> str | None:
        """Which phone: the one that is named, else the one that registered last; None where there is none."""
        named = request.get("imsi")
        if named is not None:
            return str(named) if str(named) in self._imsis else None
        return self._imsis[-1] if self._imsis else None

    # UERANSIM ------------------------------------------------------------------------------------------------------

    def _tell(self, word: str) -> None:
        with open(self._state / "control", "w", encoding="ascii") as control:
            control.write(f"{word}\n")

    def _said(self, who: str) -> str:
        try:
            return (self._state / f"{who}.log").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    async def _cell(self) -> bool:
        """Whether the gNB is up; started anew where it is not (it does not reconnect to an AMF that was away)."""
        if cell_is_up(self._said("gnb")):
            return True
        # Its UEs end with it.
        self._imsis.clear()
        self._tell("gnb")
        return await self._until(CELL_SECONDS, lambda: cell_is_up(self._said("gnb")))

    @staticmethod
    async def _until(seconds: float, look: Any) -> bool:
        deadline = asyncio.get_running_loop().time() + seconds
        while not look():
            if asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(LOOK_SECONDS)
        return True

    async def _register(self, sim: dict[str, Any], *, beside: bool) -> dict[str, Any]:
        imsi = str(sim["imsi"])
        if not _IMSI.fullmatch(imsi):
            raise ValueError("the IMSI is not 6 to 15 digits")
        document = ue_document(sim, self._settings.plmn.mcc, self._settings.plmn.mnc)
        # Whoever ended with UERANSIM's container is nobody's business any more.
        self._imsis = [other for other in self._imsis if self._said(f"ue-{other}")]
        for other in list(self._imsis):
            if other == imsi or not beside:
                await self._stop(other)
        if len(self._imsis) >= self._settings.ues:
            cause = f"{len(self._imsis)} UEs are registered, as many as the chart's value `ues`: deregister one, or raise it"
            return {"ok": False, "registered": False, "cause": cause}
        path = self._config(imsi)
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(document))
        if not await self._cell():
            lines = self._said("gnb").strip().splitlines()
            return {
                "ok": False,
                "registered": False,
                "cause": f"no cell: {lines[-1] if lines else 'no word of the gNB'}",
            }
        self._imsis.append(imsi)
        self._tell(f"ue {imsi}")
        now = Progress()

        def settled() -> bool:
            nonlocal now
            now = progress(self._said(f"ue-{imsi}"))
            return now.address is not None or now.refused is not None

        await self._until(ATTACH_SECONDS, settled)
        if now.address is None:
            await self._stop(imsi)
            cause = now.refused or f"no session within {ATTACH_SECONDS:.0f} s: {'; '.join(now.steps[-2:])}"
            return {"ok": False, "registered": False, "cause": cause}
        return {"ok": True, **self._status(imsi), "steps": now.steps[-6:]}

    def _config(self, imsi: str) -> Path:
        return self._state / f"ue-{imsi}.yaml"

    async def _stop(self, imsi: str) -> None:
        self._imsis.remove(imsi)
        self._tell(f"stop {imsi}")
        await self._until(GOODBYE_SECONDS, lambda: not self._said(f"ue-{imsi}"))
        self._config(imsi).unlink(missing_ok=True)

    def _status(self, imsi: str | None) -> dict[str, Any]:
        now = progress(self._said(f"ue-{imsi}")) if imsi else Progress()
        if now.address is None or now.device is None:
            return _NOBODY
        counters = Path("/sys/class/net") / now.device / "statistics"
        try:
            received, sent = (int((counters / name).read_text()) for name in ("rx_bytes", "tx_bytes"))
        except OSError:
            return _NOBODY
        return {
            "registered": now.registered,
            "imsi": imsi,
            "address": now.address,
            "interface": now.device,
            "receivedOctets": received,
            "sentOctets": sent,
        }


def ue_document(sim: dict[str, Any], mcc: str, mnc: str) -> dict[str, Any]:
    """UERANSIM's configuration of a UE. Raises KeyError for what the SIM lacks, ValueError for a broken key."""
    for name in ("ki", "opc"):
        if len(bytes.fromhex(sim[name])) != 16:
            raise ValueError(f"{name} is not 16 octets")
    slice_: dict[str, Any] = {"sst": int(sim["sst"])}
    if sim.get("sd"):
        slice_["sd"] = int(sim["sd"], 16)
    return {
        "supi": f"imsi-{sim['imsi']}",
        "mcc": mcc,
        "mnc": mnc,
        "protectionScheme": 0,
        "homeNetworkPublicKeyId": 1,
        "routingIndicator": "0000",
        "key": sim["ki"],
        "op": sim["opc"],
        "opType": "OPC",
        "amf": "8000",
        "imei": "356938035643803",
        "imeiSv": "4370816125816151",
        "tunNetmask": "255.255.255.255",
        "gnbSearchList": ["127.0.0.1"],
        "uacAic": {"mps": False, "mcs": False},
        "uacAcc": {
            "normalClass": 0,
            "class11": False,
            "class12": False,
            "class13": False,
            "class14": False,
            "class15": False,
        },
        "sessions": [{"type": "IPv4", "apn": sim["dnn"], "slice": slice_}],
        "configured-nssai": [slice_],
        "default-nssai": [slice_],
        "integrity": {"IA1": True, "IA2": True, "IA3": True},
        "ciphering": {"EA1": True, "EA2": True, "EA3": True},
        "integrityMaxRate": {"uplink": "full", "downlink": "full"},
    }
