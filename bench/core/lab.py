"""A brand's radio laboratory on Open5GS: the bench's own subscribers, at the end of the brand's IMSIs, and UEs of UERANSIM."""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from common import Unfit

from mvnobox.core.ueransim.agent import ue_document
from mvnobox.deploy.brands import find_brand
from mvnobox.deploy.installation import Installation
from mvnobox.deploy.journey.access import Kubectl
from mvnobox.errors import KitError
from mvnobox.render.release import CLUSTER_DOMAIN

HERE = Path(__file__).resolve().parent
ENV = "dev"
SUBSCRIBERS, AT_ONCE = 10_000, 64
_TUNNEL = re.compile(r"\[(?P<imsi>\d+)\|app\].* TUN interface\[(?P<device>\S+), (?P<address>[\d.]+)\]")
_TIME = re.compile(r"^\[(?P<at>[\d-]+ [\d:.]+)\] (?P<text>.*)$")
# gNB and UE on a core each: on one together they take up to twice as long, and which it is would be the scheduler's choice.
_APART = """core=0
for name in nr-gnb nr-ue; do
    for file in $(grep -lx $name /proc/[0-9]*/comm 2>/dev/null); do
        process=${file#/proc/}; taskset -a -cp $core ${process%/comm} || exit 1
    done
    core=$((core+1))
done >/dev/null"""


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _moment(line: str) -> float:
    match = _TIME.match(line)
    assert match, line
    return datetime.strptime(match["at"], "%Y-%m-%d %H:%M:%S.%f").timestamp()


class Lab:
    """The laboratory of one brand."""

    def __init__(self, name: str, file: Path) -> None:
        self.kubectl = Kubectl(Installation(ENV).cluster())
        self.spec = find_brand(str(file))[1]
        self.home, self.plane, self.platform = f"{name}-{ENV}", f"{name}-{ENV}-up", f"platform-{ENV}"
        self._sessions = f"ctf_{name.replace('-', '_')}.session"
        plmn = self.spec.plmn.mcc + self.spec.plmn.mnc
        self._first = int(f"{plmn}{10 ** (15 - len(plmn)) - SUBSCRIBERS - 1}")
        self._key, self._opc = secrets.token_hex(16), secrets.token_hex(16)
        self._next = AT_ONCE

    @staticmethod
    def find() -> Lab:
        """The first brand on Open5GS. Raises Unfit."""
        try:
            for one in Installation(ENV).brands():
                if one.core == "open5gs":
                    lab = Lab(one.name, one.file)
                    lab.kubectl.json("-n", lab.plane, "get", "deploy", "ran")
                    return lab
        except KitError as error:
            raise Unfit(error.cause) from None
        raise Unfit("no brand on Open5GS is installed: ./mvno up --core open5gs")

    def run(self, *arguments: str, stdin: str | None = None, timeout: float = 120) -> str:
        """kubectl's output. Raises Unfit."""
        done = self.kubectl.run(*arguments, stdin=stdin, timeout=timeout)
        if done.returncode != 0:
            raise Unfit(f"kubectl {' '.join(arguments[:6])}: {done.stderr.strip()[-300:]}")
        return done.stdout

    def _shell(self, script: str, timeout: float = 120) -> str:
        """Run a script beside gNB and UE."""
        return self.run(
            "-n", self.plane, "exec", "-i", "deploy/ran", "-c", "ran", "--", "sh", stdin=script, timeout=timeout
        )

    def python(self, namespace: str, target: str, container: str, script: str, given: Any, timeout: float) -> list[str]:
        """Run one of this folder's scripts in a pod, `given` as JSON at its standard input; its lines."""
        code = (HERE / script).read_text(encoding="utf-8")
        command = ("-n", namespace, "exec", "-i", target, "-c", container, "--", "python", "-c", code)
        return self.run(*command, stdin=json.dumps(given), timeout=timeout).strip().splitlines()

    def sql(self, statements: str) -> list[str]:
        """Rows of the platform's database, as psql writes them."""
        return self.run(
            "-n", self.platform, "exec", "-i", "postgresql-0", "--",
            "sh", "-c", "psql -qAt -v ON_ERROR_STOP=1 -U postgres mvno", stdin=statements, timeout=300,
        ).split()  # fmt: skip

    # Subscribers ---------------------------------------------------------------------------------------------------

    @property
    def _range(self) -> str:
        return f"BETWEEN '{self._first:015}' AND '{self._first + SUBSCRIBERS:015}'"

    def provision(self, ones: int) -> float:
        """Make the subscribers, with accounts for a storm and for so many UEs that come one by one; how many a second."""
        slice_: dict[str, Any] = {"sst": self.spec.slice.sst, "default_indicator": True}
        if self.spec.slice.sd:
            slice_["sd"] = self.spec.slice.sd
        rate = {"downlink": {"value": 1, "unit": 3}, "uplink": {"value": 1, "unit": 3}}
        arp = {"priority_level": 8, "pre_emption_capability": 1, "pre_emption_vulnerability": 2}
        name = self.spec.data_networks[0].name
        session = {"name": name, "type": 1, "qos": {"index": 9, "arp": arp}, "ambr": rate, "pcc_rule": []}
        document = {
            "schema_version": 1, "subscriber_status": 0, "operator_determined_barring": 0, "network_access_mode": 0,
            "access_restriction_data": 32, "subscribed_rau_tau_timer": 12, "ambr": rate,
            "slice": [{**slice_, "session": [session]}],
        }  # fmt: skip
        given = {
            "first": f"{self._first:015}", "count": SUBSCRIBERS, "accounts": AT_ONCE + ones, "key": self._key, "opc": self._opc,
            "document": document, "ocs": f"http://ocs.{self.platform}.svc.{CLUSTER_DOMAIN}:8080",
        }  # fmt: skip
        done = json.loads(self.python(self.home, "deploy/bss", "bss", "provision.py", given, timeout=300)[-1])
        return float(done["count"] / done["seconds"])

    def forget(self) -> None:
        """Remove the subscribers, without a word to the AMF for each."""
        where = f"imsi {self._range}"
        self.sql(
            f"SET search_path = directory; DELETE FROM subscriber WHERE {where}; DELETE FROM withdrawal WHERE {where};"
        )

    def moment(self) -> float:
        """Unix seconds, by the database's clock."""
        return float(self.sql("SELECT extract(epoch FROM clock_timestamp());")[0])

    def through_the_ctf(self, since: float) -> set[str]:
        """IMSIs of the bench's sessions that the CTF has got to know since a moment, at most an hour ago."""
        where = f"imsi {self._range} AND created_at > to_timestamp({since})"
        return set(self.sql(f"SELECT DISTINCT imsi FROM {self._sessions} WHERE {where};"))

    # UEs -----------------------------------------------------------------------------------------------------------

    def _attach(self, first: int, count: int) -> str:
        """Lines of a script: gNB and UEs anew, until all have a session or it takes too long."""
        sim = {"imsi": f"{first:015}", "ki": self._key, "opc": self._opc, "dnn": self.spec.data_networks[0].name}
        where = {"sst": self.spec.slice.sst, "sd": self.spec.slice.sd}
        document = ue_document(sim | where, self.spec.plmn.mcc, self.spec.plmn.mnc)
        # The gNB starts anew: UERANSIM's does not serve a UE that comes back.
        return f"""
            : > /run/mvno/gnb.log; echo gnb > /run/mvno/control
            i=0; while [ $i -lt 200 ] && ! grep -q 'NG Setup procedure is successful' /run/mvno/gnb.log; do
                sleep 0.1; i=$((i+1)); done
            cat > /tmp/bench.yaml <<'END'
{json.dumps(document)}
END
            nr-ue -c /tmp/bench.yaml -n {count} > /tmp/bench.log 2>&1 & ues=$!
            i=0; while [ $i -lt {600 if count > 1 else 80} ] && [ $(grep -c 'TUN interface' /tmp/bench.log) -lt {count} ]; do
                sleep 0.1; i=$((i+1)); done"""

    # Lines of a script: the UEs say goodbye and end.
    _DETACH = """
            for ue in $(nr-cli --dump 2>/dev/null | grep '^imsi-'); do
                nr-cli $ue -e 'deregister switch-off' >/dev/null 2>&1
            done
            sleep 1; kill $ues 2>/dev/null; wait $ues 2>/dev/null"""
    _GO = f"ues=$(cat /tmp/bench.pid 2>/dev/null) || exit 0{_DETACH}; rm -f /tmp/bench.pid"

    def _ues(self, count: int, first: int) -> list[str]:
        """What UEs wrote that attached and went again."""
        return self._shell(f"{self._attach(first, count)}{self._DETACH}\ncat /tmp/bench.log", timeout=180).splitlines()

    def storm(self) -> tuple[float, int]:
        """(seconds until the last of AT_ONCE UEs has its session, UEs that have none)."""
        for _ in range(3):
            lines = [line for line in self._ues(AT_ONCE, self._first) if _TIME.match(line)]
            if any("Initial Registration" in line for line in lines):
                break
            # See `session`: then none of them has seen the cell, and the network has not been asked.
            say("radio: no UE has found the cell")
        up = [_moment(line) for line in lines if "TUN interface" in line]
        began = min(_moment(line) for line in lines)
        return max(up, default=began + 60) - began, AT_ONCE - len(up)

    def session(self) -> tuple[str, float]:
        """A UE that nobody has seen before: its IMSI, and the seconds of its PDU session establishment, from its request to
        the network's word."""
        lines: list[str] = []
        for _ in range(5):
            imsi = self._first + self._next
            self._next += 1
            lines = self._ues(1, imsi)
            asked = next((line for line in lines if "Sending PDU Session Establishment Request" in line), None)
            there = next((line for line in lines if "PDU Session establishment is successful" in line), None)
            if asked is not None and there is not None:
                return f"{imsi:015}", _moment(there) - _moment(asked)
            # UERANSIM's UE may miss the system information of a cell that has just started, and looks no more.
        raise Unfit(f"a UE got no session: {lines[-1] if lines else 'no word of it'}")

    @contextlib.contextmanager
    def attached(self, count: int) -> Iterator[tuple[dict[str, tuple[str, str]], set[str]]]:
        """UEs that stay, all of one process: each one's address and device by its IMSI; who of them went through the CTF, half
        of them."""
        script = f"{self._attach(self._first, count)}\necho $ues > /tmp/bench.pid; cat /tmp/bench.log"
        try:
            for _ in range(5):
                began = self.moment()
                found = {one["imsi"]: (one["address"], one["device"]) for one in _TUNNEL.finditer(self._shell(script))}
                through = self.through_the_ctf(began) & set(found)
                if len(found) == count == 2 * len(through):
                    break
                # See `session`; one whose session was set up twice puts the SMF out of its turn.
                self._shell(self._GO)
            else:
                raise Unfit(f"of {count} UEs {len(found)} attached, {len(through)} of them through the CTF")
            try:
                self._shell(_APART)
            except Unfit as error:
                say(f"radio: gNB and UEs run where they like: {error}")
            yield found, through
        finally:
            self._shell(self._GO)
