"""The pod's script with stand-ins for UERANSIM's programs: each UE is a process of its own, ended by its name."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mvnobox.render import render_template

FIRST, SECOND = "208930000000001", "208930000000002"
# Each says what it was started with and lives until it is ended; the UE of the first one leaves when it is told to.
PROGRAMS = {
    "nr-gnb": 'echo "gnb $$ $*"; exec sleep 60',
    "nr-ue": 'echo "ue $$ $*"; echo $$ > "$2.pid"; exec sleep 60',
    "nr-cli": f'echo "$*" >> cli; [ "$1" != imsi-{FIRST} ] || kill "$(cat ue-{FIRST}.yaml.pid)"',
    "getent": 'echo "192.0.2.7 STREAM amf"',
}


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not what():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


def alive(line: str) -> bool:
    """Whether the process that a log's line names is there and no zombie."""
    try:
        return Path(f"/proc/{line.split()[1]}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def place(tmp_path: Path) -> Path:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in PROGRAMS.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    (tmp_path / "gnb.yaml").write_text("ngapIp: @POD_IP@\namf: @AMF@\n")
    for imsi in (FIRST, SECOND):
        (tmp_path / f"ue-{imsi}.yaml.pid").touch()
    return tmp_path


def drive(running: subprocess.Popen[bytes], place: Path) -> str:
    """Tell the script everything that it knows; what the last gNB said."""
    until(lambda: (place / "ready").exists())

    def tell(line: str) -> None:
        with open(place / "control", "w", encoding="ascii") as control:
            control.write(f"{line}\n")

    def said(name: str) -> str:
        path = place / f"{name}.log"
        return path.read_text() if path.exists() else ""

    tell("gnb")
    until(lambda: bool(said("gnb")))
    gnb = said("gnb")
    assert (place / "bin/gnb.yaml").read_text() == "ngapIp: 192.0.2.9\namf: 192.0.2.7\n"
    for imsi in (FIRST, SECOND):
        tell(f"ue {imsi}")
        until(lambda imsi=imsi: f"-c ue-{imsi}.yaml" in said(f"ue-{imsi}"))
    first, second = said(f"ue-{FIRST}"), said(f"ue-{SECOND}")
    tell(f"stop {FIRST}")
    until(lambda: not said(f"ue-{FIRST}"))
    assert not alive(first) and alive(second) and alive(gnb)
    # One that does not leave by itself is ended all the same; what is no IMSI is nothing.
    tell("ue ;touch${IFS}owned")
    tell(f"stop {SECOND}")
    until(lambda: not said(f"ue-{SECOND}"))
    assert not alive(second) and not (place / "owned").exists()
    assert (place / "cli").read_text().splitlines() == [
        f"imsi-{imsi} -e deregister switch-off" for imsi in (FIRST, SECOND)
    ]
    tell(f"ue {SECOND}")
    until(lambda: bool(said(f"ue-{SECOND}")))
    again = said(f"ue-{SECOND}")
    tell("gnb")
    until(lambda: said("gnb") not in ("", gnb))
    assert not alive(again) and not alive(gnb) and not said(f"ue-{SECOND}")
    last = said("gnb")
    running.terminate()
    assert running.wait(10) == 0
    return last


def test_ues_come_and_go_by_their_names(place: Path) -> None:
    script = render_template("ueransim/ran.sh.j2", amf="amf.example")
    for there, here in (
        ("/tmp/", "TMP/"),
        ("/run/mvno", place),
        ("/etc/mvno/gnb.yaml", place / "gnb.yaml"),
        ("TMP", place / "bin"),
    ):
        script = script.replace(there, str(here))
    environment = {**os.environ, "PATH": f"{place / 'bin'}:{os.environ['PATH']}", "POD_IP": "192.0.2.9"}
    with subprocess.Popen(["sh", "-c", script], env=environment) as running:
        try:
            last = drive(running, place)
        finally:
            running.kill()
    assert not alive(last)
