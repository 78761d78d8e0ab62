"""UEs of UERANSIM on an installed brand of Open5GS: many at once, a session, and what the CTF does to traffic.

With and without the CTF are measured in turn, session by session and transfer by transfer, on the same SMF, UPF, gNB and UEs:
`paths` has the SMF take either way. A machine's speed changes within minutes.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import Unfit
from lab import AT_ONCE, SUBSCRIBERS, Lab, say
from paths import both_paths

from mvnobox.render.release import CLUSTER_DOMAIN

# A round's sessions, half of them on each way. Its transfers: so often UEs attach anew, so many, half of them on each way, and
# each has so many in each direction. (What one attachment's UEs get differs from the next one's, by a tenth and more.)
SESSIONS = 60
ATTACHMENTS, UES, TRANSFERS = 6, 4, 4
OCTETS = 20_000_000
IPERF3_PORT = 5201
WITH, WITHOUT = "with", "without"
Figures = dict[str, list[float]]


def radio(folder: Path, figure: Any, *, seconds: float, rounds: int) -> dict[str, Any]:
    """Figures of UEs on Open5GS. Raises Unfit."""
    lab = Lab.find()
    sessions, rates = _nothing(), {"down": _nothing(), "up": _nothing()}
    try:
        say(f"radio: {SUBSCRIBERS} subscribers of {lab.spec.display_name}")
        provisioned = lab.provision(ones=2 * SESSIONS * rounds)
        storms = []
        for _ in range(rounds):
            storms.append(lab.storm())
            say(f"radio: {AT_ONCE} UEs at once: {storms[-1][0]:.2f} s, {storms[-1][1]} failed")
        with both_paths(lab):
            # An SMF's first sessions wait for what it has not asked yet.
            for _ in range(4):
                lab.session()
            for _ in range(rounds):
                _sessions(lab, sessions)
                _transfers(lab, rates)
    finally:
        lab.forget()
    figures = {
        "radio: provisioning": figure(provisioned, "subscribers/s", 2000),
        f"radio: {AT_ONCE} UEs at once": figure(statistics.median(one for one, _ in storms), "s", 5, most=True),
        "radio: UEs that failed": figure(sum(failed for _, failed in storms), "UEs", 0, most=True),
        "radio: session, with the CTF": figure(_typical(sessions[WITH]), "ms"),
        "radio: session, with to without the CTF": figure(
            _typical(sessions[WITH]) / _typical(sessions[WITHOUT]), "times", 1.15, most=True
        ),
    }
    for direction, found in rates.items():
        figures[f"radio: iperf3 {direction}, with the CTF"] = figure(statistics.mean(found[WITH]), "Mbit/s")
        figures[f"radio: iperf3 {direction}, with to without the CTF"] = figure(_ratio(found), "times", 0.97)
    return figures


def _nothing() -> Figures:
    return {WITH: [], WITHOUT: []}


def _typical(milliseconds: list[float]) -> float:
    """The median of times that are known to the millisecond only: between those that share the middle one."""
    return statistics.median_grouped(milliseconds, 1.0)


def _ratio(rates: Figures) -> float:
    return statistics.mean(rates[WITH]) / statistics.mean(rates[WITHOUT])


def _spread(values: list[float]) -> str:
    lower, _, upper = statistics.quantiles(values, n=4)
    return f"(quarters {lower:.0f}, {upper:.0f})"


def _sessions(lab: Lab, found: Figures) -> None:
    """A round's sessions, in milliseconds. Raises Unfit."""
    began = lab.moment()
    took = dict(lab.session() for _ in range(SESSIONS))
    through = lab.through_the_ctf(began)
    now = _nothing()
    for imsi, seconds in took.items():
        now[WITH if imsi in through else WITHOUT].append(float(round(1000 * seconds)))
    for way, values in now.items():
        if len(values) < SESSIONS / 4:
            raise Unfit(f"of {SESSIONS} sessions {len(values)} were {way} the CTF, which should be half of them")
        found[way] += values
        say(f"radio: a session {way} the CTF: {_typical(values):.1f} ms {_spread(values)}")


def _transfers(lab: Lab, rates: dict[str, Figures]) -> None:
    """A round's transfers, in Mbit/s. Raises Unfit."""
    now = {direction: _nothing() for direction in rates}
    for _ in range(ATTACHMENTS):
        for direction, way, rate in _attachment(lab):
            now[direction][way].append(rate)
    for direction, found in now.items():
        for way, values in found.items():
            rates[direction][way] += values
        words = ", ".join(f"{way} {statistics.mean(values):.1f} {_spread(values)}" for way, values in found.items())
        say(f"radio: {direction}, Mbit/s: {words}: {_ratio(found):.3f} times")


def _attachment(lab: Lab) -> Iterator[tuple[str, str, float]]:
    """Direction, way and Mbit/s of the transfers of UEs that attach and go again. Raises Unfit."""
    with lab.attached(UES) as (ues, through):
        given = {
            "sources": ues, "host": f"dn.{lab.platform}.svc.{CLUSTER_DOMAIN}", "port": IPERF3_PORT, "octets": OCTETS,
            "rounds": TRANSFERS,
        }  # fmt: skip
        lines = lab.python(lab.plane, "deploy/ran", "ue", "transfers.py", given, timeout=60 * UES * TRANSFERS)
    for line in map(json.loads, lines):
        if "cause" in line:
            raise Unfit(line["cause"])
        yield line["direction"], WITH if line["name"] in through else WITHOUT, line["bitsPerSecond"] / 1e6
