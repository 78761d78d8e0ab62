"""The OCS beside CGRateS in one run, on Gy, and on Nchf beside JSON-RPC: same client, same machine, both durable.

`python bench/ocs.py [--seconds 10] [--rounds 3] [--outstanding 16] [--accounts 1000,1000000] [--fronts gy,http] [--brief]
[--no-peer]`

Needs Go, redis-server and PostgreSQL's programs; builds CGRateS and the client once. A closed loop keeps so many
requests under way: initial, update and terminate of a session in turn. Rounds of both systems alternate. Then 10 % of the
updates and terminates come twice, then the OCS is killed in the middle; each time what was charged is compared with what
was used. Run by `./mvno bench ocs --json`; progress goes to standard error, one JSON document to standard output.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(Path(__file__).resolve().parent / "ocs"), str(ROOT / "src")]

import shipped  # noqa: E402
from cgrates import Cgrates  # noqa: E402
from common import Unfit, build  # noqa: E402
from ours import Ours  # noqa: E402

MIB = 1 << 20
Found = tuple[dict[str, Any], dict[str, Any], float | None]
FRONTS = {
    (Ours.name, "gy"): "Gy", (Cgrates.name, "gy"): "Gy", (Ours.name, "http"): "Nchf", (Cgrates.name, "http"): "JSON-RPC",
}  # fmt: skip


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def figure(value: float, unit: str, target: float | None = None, most: bool = False) -> dict[str, Any]:
    """One figure; `most`: the target must not be passed, else it has to be reached."""
    met = None if target is None else (value <= target if most else value >= target)
    rounded = round(value, 2)
    return {"value": rounded, "unit": unit, "target": None if target is None else round(target, 2), "met": met}


class Driver:
    """Runs the client."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.client, self.options = build("client", ".", "ocs-client"), options

    def _command(self, system: Any, way: list[str], seconds: float, *more: str) -> list[str]:
        return [
            str(self.client), *way, "-accounts", str(system.accounts), "-outstanding", str(self.options.outstanding),
            "-seconds", str(seconds), *more,
        ]  # fmt: skip

    def run(self, system: Any, seconds: float, *more: str, front: str = "gy") -> dict[str, Any]:
        """One round; what the client found. Raises Unfit if it did not finish."""
        return self._ran(system, self._command(system, system.way(front), seconds, *more))

    def _ran(self, system: Any, command: list[str]) -> dict[str, Any]:
        done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
        if done.returncode != 0:
            raise Unfit(f"the client ended with exit code {done.returncode} against {system.name}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def pair(self, system: Any, seconds: float) -> float:
        """Requests a second of one client at two replicas, half of the requests at each. Raises Unfit."""
        way = [*system.way("gy", 0, 1), "-host", "pgw.bench,pgw2.bench"]
        return float(self._ran(system, self._command(system, way, seconds))["rate"])

    def killed(self, system: Any, seconds: float, front: str) -> dict[str, Any]:
        """A round in whose middle the OCS is killed with signal 9 and started again."""
        timer = threading.Timer(seconds / 2, system.kill)
        timer.start()
        try:
            return self.run(system, seconds, front=front)
        finally:
            timer.join()


def rounds(driver: Driver, systems: list[Any], options: argparse.Namespace, front: str) -> dict[str, dict[str, float]]:
    """Medians of alternating rounds a system, over Gy or what each has on HTTP's side (Nchf, JSON-RPC)."""
    found: dict[str, list[dict[str, Any]]] = {system.name: [] for system in systems}
    for system in systems:
        driver.run(system, min(3, options.seconds), front=front)
    for number in range(options.rounds):
        for system in systems:
            one = driver.run(system, options.seconds, front=front)
            found[system.name].append(one)
            refused = {code: count for code, count in one["results"].items() if code != "done"}
            say(
                f"{FRONTS[system.name, front]} round {number + 1}, {system.name}: {one['rate']:.0f} requests/s, p50 {one['p50']:.1f} ms,"
                f" p99 {one['p99']:.1f} ms{f', {refused}' if refused else ''}"
            )
    return {
        name: {key: statistics.median(one[key] for one in ones) for key in ("rate", "p50", "p99")}
        for name, ones in found.items()
    }


def trouble(driver: Driver, system: Any, options: argparse.Namespace, front: str) -> dict[str, int]:
    """Octets that were charged beyond what was used (below: minus), under duplicates and under a kill."""
    off = {}
    for name, run in (
        ("10 % duplicates", lambda: driver.run(system, options.seconds, "-duplicates", "0.1", front=front)),
        ("kill -9", lambda: driver.killed(system, options.seconds, front)),
    ):
        before = system.charged()
        one = run()
        charged = system.charged() - before
        off[name] = charged - one["used"]
        say(
            f"{FRONTS[system.name, front]}, {name}, {system.name}: used {one['used'] / MIB:.0f} MiB, charged {charged / MIB:.0f} MiB, difference"
            f" {off[name] / MIB:+.2f} MiB; {one['duplicates']} duplicates, {one['lost']} requests sent again,"
            f" results {one['results']}"
        )
    return off


def sizes(driver: Driver, ours: Ours, options: argparse.Namespace) -> dict[str, Any]:
    """The cost of a request with many accounts against that with few, and on one account that all share."""
    figures = {}
    family = driver.run(ours, options.seconds, "-accounts", "1")
    say(f"one shared account: {family['rate']:.0f} requests/s, p99 {family['p99']:.1f} ms")
    figures["one account shared by all: requests"] = figure(family["rate"], "1/s")
    figures["one account shared by all: p99"] = figure(family["p99"], "ms")
    for accounts in options.accounts[1:]:
        say(f"filling {accounts} accounts")
        ours.fill(accounts)
        driver.run(ours, min(3, options.seconds))
        few = driver.run(ours, options.seconds, "-accounts", str(options.accounts[0]))
        many = driver.run(ours, options.seconds)
        again = driver.run(ours, options.seconds, "-accounts", str(options.accounts[0]))
        cost = (few["rate"] + again["rate"]) / 2 / many["rate"]
        say(f"{accounts} accounts: {many['rate']:.0f} requests/s; cost {cost:.2f} of that with {options.accounts[0]}")
        figures[f"{accounts} accounts: requests"] = figure(many["rate"], "1/s")
        figures[f"cost of a request, {accounts} accounts to {options.accounts[0]}"] = figure(cost, "ratio", 1.2, True)
    return figures


def beside(driver: Driver, systems: list[Any], options: argparse.Namespace, front: str) -> Found:
    """Ours and the peer's figures of one front end, undisturbed and in trouble; and the ratio of their requests."""
    medians = rounds(driver, systems, options, front)
    ours, *others = systems
    mine = medians[ours.name]
    theirs = medians[others[0].name] if others else None
    prefix = FRONTS[ours.name, front]
    figures = {
        f"{prefix}: requests": figure(mine["rate"], "1/s", theirs and theirs["rate"]),
        f"{prefix}: p50": figure(mine["p50"], "ms"),
        f"{prefix}: p99": figure(mine["p99"], "ms", theirs and theirs["p99"], most=True),
    }
    for name, value in trouble(driver, ours, options, front).items():
        figures[f"{prefix}, {name}: charged minus used"] = figure(abs(value), "octets", 0, most=True)
    peer: dict[str, Any] = {}
    if theirs is None:
        return figures, peer, None
    prefix = FRONTS[others[0].name, front]
    for key, unit in (("requests", "1/s"), ("p50", "ms"), ("p99", "ms")):
        peer[f"{prefix}: {key}"] = figure(theirs["rate" if key == "requests" else key], unit)
    for name, value in trouble(driver, others[0], options, front).items():
        peer[f"{prefix}, {name}: charged minus used"] = figure(value, "octets")
    return figures, peer, round(mine["rate"] / theirs["rate"], 3)


def replicas(driver: Driver, two: Ours, options: argparse.Namespace) -> dict[str, Any]:
    """Two replicas beside one of them, on the same database and cores.

    Short turns, each way round as often: what a core gets done changes by a third within seconds on a shared machine, which
    touches most whoever keeps both busy.
    """
    turns, seconds = 4 * options.rounds, options.seconds / 4
    ratios = []
    driver.run(two, min(3, options.seconds))
    for number in range(turns):
        if number % 2:
            both, one = driver.pair(two, seconds), driver.run(two, seconds)["rate"]
        else:
            one, both = driver.run(two, seconds)["rate"], driver.pair(two, seconds)
        say(f"one replica {one:.0f} requests/s, two {both:.0f}: {both / one:.2f}")
        ratios.append(both / one)
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "two replicas to one": figure(middle, "ratio", 1.0),
        "the same: lower quarter of turns": figure(low, "ratio"),
        "the same: upper quarter of turns": figure(high, "ratio"),
    }


def bench(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    driver = Driver(options)
    accounts = options.accounts[0]
    systems: list[Any] = []
    figures: dict[str, Any] = {}
    peer: dict[str, Any] = {"name": Cgrates.name}
    ratios = {}
    try:
        ours = Ours(folder / "ours", accounts)
        systems.append(ours)
        if options.peer:
            systems.append(Cgrates(folder / "cgrates", accounts))
        for front in options.fronts:
            mine, theirs, ratios[front] = beside(driver, systems, options, front)
            figures |= mine
            peer |= theirs
            if ratios[front] is not None:
                name = f"{FRONTS[Ours.name, front]}: requests to those of CGRateS's {FRONTS[Cgrates.name, front]}"
                figures[name] = figure(ratios[front], "ratio", 1.0)
        while len(systems) > 1:
            systems.pop().stop()
        if options.more:
            figures |= sizes(driver, ours, options)
        said = ours.check()
        say(f"ledger check: {said}")
        figures["ledger check: differences"] = figure(int(said.split()[0]), "", 0, most=True)
        systems.pop().stop()
        if options.more:
            systems.append(Ours(folder / "two", accounts, replicas=2))
            figures |= replicas(driver, systems[0], options)
        return {"figures": figures, "peer": peer if options.peer else None, "ratio": ratios.get("gy")}
    finally:
        for system in systems:
            system.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--outstanding", type=int, default=16)
    parser.add_argument("--accounts", type=lambda text: [int(n) for n in text.split(",")], default=[1000, 1_000_000])
    parser.add_argument("--no-peer", dest="peer", action="store_false", help="ours alone")
    parser.add_argument("--fronts", type=lambda text: text.split(","), default=["gy", "http"], help="gy, http or both")
    parser.add_argument(
        "--brief", dest="more", action="store_false", help="without many accounts, a shared one, two replicas"
    )
    parser.add_argument("--json", action="store_true", help="accepted: the output is JSON anyway")
    options = parser.parse_args()
    # Not /tmp, which may be memory: both systems have to write through to a disk.
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR", "/var/tmp")) as folder:
        Path(folder).chmod(0o755)
        try:
            found = bench(options, Path(folder))
        except Unfit as error:
            say(f"this cannot run here: {error}")
            return 3
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {shipped.said()}"
    print(json.dumps({"bench": "ocs", "machine": machine, **found}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
