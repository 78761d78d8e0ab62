"""The agent beside UERANSIM: what it reads in logs, what it writes, and its commands with a scripted gNB and UE."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mvnobox.core.ueransim.agent import Agent, ue_document
from mvnobox.core.ueransim.log import cell_is_up, progress
from mvnobox.core.ueransim.settings import AgentSettings, PlmnSettings

SIM = {"imsi": "208930000000001", "ki": "0" * 32, "opc": "f" * 32, "dnn": "internet", "sst": 1, "sd": "00000a"}
CELL = "[2026-11-24 00:00:00.000] [ngap] [info] NG Setup procedure is successful\n"
UP = (
    "[2026-11-24 00:00:00.100] [nas] [info] Initial Registration is successful\n"
    "[2026-11-24 00:00:00.200] [nas] [info] PDU Session establishment is successful PSI[1]\n"
    "[2026-11-24 00:00:00.300] [app] [info] Connection setup for PDU session[1] is successful,"
    " TUN interface[lo, 10.45.0.7] is up.\n"
)


def test_a_log_tells_how_far_a_ue_has_come() -> None:
    assert progress("").address is None
    found = progress(UP)
    assert (found.registered, found.address, found.device, found.refused) == (True, "10.45.0.7", "lo", None)
    gone = progress(UP + "[2026-11-24 00:01:00.000] [nas] [info] De-registration is successful\n")
    assert not gone.registered and gone.address is None


@pytest.mark.parametrize(
    "line",
    [
        "[nas] [error] AUTN validation MAC mismatch. expected [00] received [11]",
        "[nas] [error] Authentication Reject received",
        "[nas] [error] Initial Registration failed [FIVEG_SERVICES_NOT_ALLOWED]",
        "[nas] [error] PDU Session Establishment Reject received [NETWORK_FAILURE]",
    ],
)
def test_a_refusal_is_kept_in_its_words(line: str) -> None:
    assert progress(f"[2026-11-24 00:00:00.000] {line}\n").refused == line.partition("] ")[2].partition("] ")[2]


def test_a_cell_whose_association_ended_is_not_up() -> None:
    assert cell_is_up(CELL)
    assert not cell_is_up(CELL + "[2026-11-24 00:01:00.000] [sctp] [debug] Association terminated for AMF[2]\n")


def test_a_configuration_has_the_sims_keys_and_slice() -> None:
    made = ue_document(SIM, "208", "93")
    assert made["supi"] == "imsi-208930000000001" and made["opType"] == "OPC" and made["op"] == "f" * 32
    assert made["sessions"] == [{"type": "IPv4", "apn": "internet", "slice": {"sst": 1, "sd": 10}}]
    with pytest.raises(ValueError, match="ki is not 16 octets"):
        ue_document({**SIM, "ki": "00"}, "208", "93")


class Ran:
    """In the place of the pod's script: reads the FIFO, writes what gNB and UE would log."""

    def __init__(self, state: Path, ue_log: str) -> None:
        self.state, self.ue_log, self.words = state, ue_log, list[str]()
        os.mkfifo(state / "control")
        self._end = os.open(state / "control", os.O_RDWR)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        (state / "ready").touch()

    def _serve(self) -> None:
        with open(self._end, encoding="ascii") as control:
            for line in control:
                word = line.strip()
                self.words.append(word)
                if word == "quit":
                    return
                word, _, imsi = word.partition(" ")
                text = {"gnb": CELL, "ue": self.ue_log, "stop": ""}[word]
                (self.state / ("gnb.log" if word == "gnb" else f"ue-{imsi}.log")).write_text(text)

    def close(self) -> None:
        with open(self.state / "control", "w", encoding="ascii") as control:
            control.write("quit\n")
        self._thread.join(5)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path


async def ask(state: Path, **request: Any) -> dict[str, Any]:
    reader, writer = await asyncio.open_unix_connection(str(state / "ue.sock"))
    writer.write(json.dumps(request).encode() + b"\n")
    answer: dict[str, Any] = json.loads(await reader.readline())
    writer.close()
    return answer


@pytest.mark.parametrize(
    ("ue_log", "ok"), [(UP, True), ("[2026-11-24 00:00:00.000] [nas] [error] Authentication Reject received\n", False)]
)
async def test_a_phone_registers_once_there_is_a_cell(state: Path, ue_log: str, ok: bool) -> None:
    ran = Ran(state, ue_log)
    agent = Agent(AgentSettings(plmn=PlmnSettings(mcc="208", mnc="93"), state=str(state)))
    running = asyncio.ensure_future(agent.run())
    while not (state / "ue.sock").exists():
        await asyncio.sleep(0.01)
    answer = await ask(state, command="register", sim=SIM)
    assert answer["ok"] is ok and answer["registered"] is ok
    assert ran.words[:2] == ["gnb", f"ue {SIM['imsi']}"]
    if ok:
        # Keys are the pod's own affair, as long as they are needed.
        assert (state / f"ue-{SIM['imsi']}.yaml").stat().st_mode & 0o777 == 0o600
        assert answer["address"] == "10.45.0.7" and answer["receivedOctets"] >= 0
        assert (await ask(state, command="deregister"))["ok"]
    else:
        assert "Authentication Reject" in answer["cause"]
    assert not list(state.glob("*.yaml"))
    assert ran.words[-1] == f"stop {SIM['imsi']}" and not (await ask(state, command="status"))["registered"]
    assert not (await ask(state, command="fly"))["ok"]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    ran.close()


async def test_as_many_phones_as_there_may_be_each_by_its_name(state: Path) -> None:
    ran = Ran(state, UP)
    agent = Agent(AgentSettings(plmn=PlmnSettings(mcc="208", mnc="93"), state=str(state), ues=2))
    running = asyncio.ensure_future(agent.run())
    while not (state / "ue.sock").exists():
        await asyncio.sleep(0.01)
    first, second, third = (f"20893000000000{n}" for n in (1, 2, 3))

    async def register(imsi: str, *, beside: bool = True) -> dict[str, Any]:
        return await ask(state, command="register", sim={**SIM, "imsi": imsi}, beside=beside)

    assert (await register(first))["ok"] and (await register(second))["ok"]
    refused = await register(third)
    assert not refused["ok"] and "as many as the chart's value `ues`" in refused["cause"]
    # The last one is meant where none is named.
    assert (await ask(state, command="status"))["imsi"] == second
    assert (await ask(state, command="status", imsi=first))["imsi"] == first
    assert not (await ask(state, command="status", imsi=third))["registered"]
    # The same phone again is no further one; another one without `beside` is alone.
    assert (await register(first))["ok"] and (await ask(state, command="status"))["imsi"] == first
    assert (await ask(state, command="deregister", imsi=second))["ok"]
    assert (await register(third))["ok"]
    assert (await register(second, beside=False))["ok"]
    assert [(await ask(state, command="status", imsi=imsi))["registered"] for imsi in (first, second, third)] == [
        False, True, False,
    ]  # fmt: skip
    # A gNB that starts anew takes its UEs with it.
    (state / "gnb.log").write_text(
        CELL + "[2026-11-24 00:01:00.000] [sctp] [debug] Association terminated for AMF[2]\n"
    )
    assert (await register(first))["ok"]
    assert not (await ask(state, command="status", imsi=second))["registered"]
    # So does its container.
    for imsi in (first, second):
        (state / f"ue-{imsi}.log").unlink(missing_ok=True)
    assert (await register(second))["ok"] and (await register(third))["ok"]
    broken = await register("1; rm -r /")
    assert not broken["ok"] and "digits" in broken["cause"]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    ran.close()
