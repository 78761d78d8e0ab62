"""The core's own JSON protocol with rubbish, and the commands and servers without a core."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mvnobox.core.sim import causes
from mvnobox.core.sim.dn import DataNetwork
from mvnobox.core.sim.phone import Sim, Unusable
from mvnobox.core.sim.pool import AddressPool, Exhausted
from mvnobox.core.sim.settings import Dnn, DnSettings, SmfSettings
from mvnobox.core.sim.smf import Smf


@pytest.fixture
async def n1(directory: Any) -> AsyncIterator[tuple[str, int]]:
    """A control plane without a user plane: its N1 address."""
    settings = SmfSettings.model_validate(
        {
            "listen": "127.0.0.1:0",
            "n4": {"listen": "127.0.0.1", "port": 0, "advertise": "127.0.0.1", "peer": "127.0.0.1", "peerPort": 9},
            "directory": directory.uri, "plmn": {"mcc": "208", "mnc": "93"}, "slice": {"sst": 1, "sd": "000001"},
            "dnns": [{"name": "internet", "pool": "10.45.0.0/29", "gateway": "10.45.0.1"}],
        }
    )  # fmt: skip
    smf = Smf(settings)
    server = await asyncio.start_server(smf._accept, "127.0.0.1", 0, limit=65_536)
    yield server.sockets[0].getsockname()[:2]
    server.close()


async def talk(address: tuple[str, int], *lines: bytes) -> list[dict[str, Any]]:
    reader, writer = await asyncio.open_connection(*address)
    answers = []
    for line in lines:
        writer.write(line + b"\n")
        got = await asyncio.wait_for(reader.readline(), 10)
        if not got:
            break
        answers.append(json.loads(got))
    writer.close()
    return answers


async def test_rubbish_is_answered_with_a_cause_and_the_connection_lives(n1: tuple[str, int]) -> None:
    rng = random.Random(38_413)
    kinds = [
        "RegistrationRequest", "AuthenticationResponse", "AuthenticationFailure", "PDUSessionEstablishmentRequest",
        "PDUSessionResourceSetupResponse", "UEContextReleaseRequest", "ServiceRequest", "DeregistrationRequest", "?",
    ]  # fmt: skip
    values: list[Any] = [None, 0, -1, 1.5, "", "208930000000001", "٢٠٨٩٣٠٠٠", "zz", [], {}, {"sst": "1"}, 2**70, True]
    keys = ["imsi", "resStar", "auts", "cause", "dnn", "snssai", "gtp", "pduSessionId", "pduSessionType"]
    lines = [b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 5000]
    for _ in range(150):
        message = {"type": rng.choice(kinds)} | {key: rng.choice(values) for key in rng.sample(keys, 4)}
        lines.append(json.dumps(message).encode())
    answers = await talk(n1, *lines)
    assert len(answers) == len(lines)
    for answer in answers:
        assert answer["type"] == "AuthenticationRequest" or answer["cause"] in causes.TEXTS, answer


async def test_a_line_without_end_closes_the_connection_only(n1: tuple[str, int]) -> None:
    reader, writer = await asyncio.open_connection(*n1)
    writer.write(b"x" * 200_000)
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()
    assert (await talk(n1, b'{"type": "RegistrationRequest", "imsi": "208930000000001"}'))[0]["rand"]


async def test_nothing_is_allowed_before_authentication(n1: tuple[str, int]) -> None:
    early = {"type": "PDUSessionEstablishmentRequest", "dnn": "internet", "snssai": {"sst": 1, "sd": "000001"}}
    start = {"type": "RegistrationRequest", "imsi": "208930000000001"}
    wrong = {"type": "AuthenticationResponse", "resStar": "00" * 16}
    answers = await talk(n1, *(json.dumps(one).encode() for one in (early, start, early, wrong, wrong, early)))
    assert [answer["type"] for answer in answers] == [
        "Status", "AuthenticationRequest", "Status", "RegistrationReject", "Status", "Status",
    ]  # fmt: skip


def test_a_pool_gives_every_address_once_and_the_returned_ones_last() -> None:
    pool = AddressPool(Dnn(name="internet", pool="10.45.0.0/29", gateway="10.45.0.3"))
    taken = [pool.take() for _ in range(5)]
    assert taken == ["10.45.0.1", "10.45.0.2", "10.45.0.4", "10.45.0.5", "10.45.0.6"]
    with pytest.raises(Exhausted):
        pool.take()
    pool.give_back("10.45.0.4")
    pool.give_back("10.45.0.4")
    pool.give_back("10.45.0.1")
    assert [pool.take(), pool.take()] == ["10.45.0.4", "10.45.0.1"]
    with pytest.raises(Exhausted):
        pool.take()


@pytest.mark.parametrize(
    "spoiled",
    [
        [], {}, {"imsi": "1"}, {"ki": "00"}, {"ki": "xx" * 16}, {"ki": 5}, {"opc": "00" * 15}, {"sst": "1"},
        {"imsi": "20893000000000x"},
    ],
)  # fmt: skip
def test_a_sim_that_cannot_be_used_is_refused_without_its_keys(spoiled: Any) -> None:
    good = {"imsi": "208930000000001", "ki": "ab" * 16, "opc": "cd" * 16, "dnn": "internet", "sst": 1}
    Sim.parse(good)
    data = {**good, **spoiled} if spoiled else spoiled
    with pytest.raises(Unusable) as refused:
        Sim.parse(data)
    assert "abab" not in str(refused.value) and "cdcd" not in str(refused.value)


def test_a_command_without_an_agent_says_so_in_json(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mvnobox.core.sim", "ue", "status", "--state", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    answer = json.loads(done.stdout)
    assert done.returncode == 1 and not answer["ok"] and answer["simulation"] and "FileNotFound" in answer["cause"]


@pytest.mark.parametrize(
    ("text", "said"),
    [("smf: x\ncolour: red", "Known keys: smf, http, state"), ("[]", "Known keys"), ("smf: [", "line")],
)
def test_wrong_settings_end_with_2_and_words(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "ue.yaml"
    path.write_text(text)
    command = [sys.executable, "-m", "mvnobox.core.sim", "ue", "agent", "--config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


async def test_the_data_network_serves_and_turns_rubbish_down() -> None:
    network = DataNetwork(DnSettings())
    server = await asyncio.start_server(network._connection, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()[:2]

    async def get(request: bytes) -> tuple[bytes, bytes]:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(request)
        head, _, body = (await asyncio.wait_for(reader.read(), 10)).partition(b"\r\n\r\n")
        writer.close()
        return head.split(b"\r\n")[0][9:12], body

    assert await get(b"GET /bytes/100000 HTTP/1.1\r\n\r\n") == (b"200", bytes(100_000))
    assert await get(b"GET /ip HTTP/1.1\r\n\r\n") == (b"200", b"127.0.0.1")
    assert await get(b"POST /sink HTTP/1.1\r\nContent-Length: 5\r\n\r\nabcde") == (b"204", b"")
    began = asyncio.get_running_loop().time()
    assert len((await get(b"GET /bytes/60000?rate=100000 HTTP/1.1\r\n\r\n"))[1]) == 60_000
    assert 0.4 < asyncio.get_running_loop().time() - began < 3
    for request, status in (
        (b"GET /bytes/99999999999 HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /bytes/-1 HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /bytes/1?rate=x HTTP/1.1\r\n\r\n", b"400"),
        (b"POST /sink HTTP/1.1\r\n\r\n", b"411"),
        (b"BREW /coffee HTTP/1.1\r\n\r\n", b"404"),
        (b"\r\n\r\n", b"404"),
    ):
        assert (await get(request))[0] == status, request
    assert await get(b"x" * 100_000) == (b"", b"")
    server.close()
