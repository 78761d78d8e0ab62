"""UEs of UERANSIM on an installed brand of Open5GS: many at once, a session, and what the CTF does to traffic.

"Without the CTF" points the brand's SMF and UPF at each other for the time of the measurement; whatever happens, they are
put back. The UEs are the bench's own subscribers, at the end of the brand's IMSIs, and are removed again.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from common import Unfit

from mvnobox.deploy.brands import find_brand
from mvnobox.deploy.installation import Installation
from mvnobox.deploy.journey.access import Kubectl
from mvnobox.deploy.journey.phone import Phone
from mvnobox.deploy.journey.steps import StepFailed
from mvnobox.errors import KitError
from mvnobox.render.release import CLUSTER_DOMAIN

HERE = Path(__file__).resolve().parent
ENV = "dev"
SUBSCRIBERS, AT_ONCE = 10_000, 64
# In each turn with the CTF, twice a round; without it, once a round, twice as many. A machine's speed changes within
# minutes: many short turns, and each round is compared with itself.
SESSIONS, TRANSFERS = 10, 4
OCTETS = 20_000_000
_TIME = re.compile(r"^\[(?P<at>[\d-]+ [\d:.]+)\] (?P<text>.*)$")


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _moment(line: str) -> float:
    match = _TIME.match(line)
    assert match, line
    return datetime.strptime(match["at"], "%Y-%m-%d %H:%M:%S.%f").timestamp()


Figures = dict[str, list[float]]
# gNB and UE on a core each: on one together they take up to twice as long, and which it is would be the scheduler's choice.
_APART = """core=0
for name in nr-gnb nr-ue; do
    for file in $(grep -lx $name /proc/[0-9]*/comm 2>/dev/null); do
        process=${file#/proc/}; taskset -a -cp $core ${process%/comm} || exit 1
    done
    core=$((core+1))
done >/dev/null"""
# The policies of SMF and UPF while they speak to each other.
DIRECT = "bench-n4-direct"


def _both_ways(function: str, namespace: str, peer: str) -> dict[str, Any]:
    """A NetworkPolicy that lets a function and its peer in another namespace speak PFCP."""
    who = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": peer}},
    }
    ports = [{"port": 8805, "protocol": "UDP"}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": DIRECT},
        "spec": {
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": function}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [who], "ports": ports}],
            "egress": [{"to": [who], "ports": ports}],
        },
    }


class Lab:
    """A brand's radio laboratory."""

    def __init__(self, name: str, file: Path) -> None:
        self.kubectl = Kubectl(Installation(ENV).cluster())
        self.spec = find_brand(str(file))[1]
        self.home, self.plane, self.platform = f"{name}-{ENV}", f"{name}-{ENV}-up", f"platform-{ENV}"
        self.phone = Phone(self.kubectl, self.plane, "open5gs")
        plmn = self.spec.plmn.mcc + self.spec.plmn.mnc
        self.first = f"{plmn}{10 ** (15 - len(plmn)) - SUBSCRIBERS - 1}"
        self.key, self.opc = secrets.token_hex(16), secrets.token_hex(16)
        self.dnn = self.spec.data_networks[0].name
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
        done = self.kubectl.run(*arguments, stdin=stdin, timeout=timeout)
        if done.returncode != 0:
            raise Unfit(f"kubectl {' '.join(arguments[:6])}: {done.stderr.strip()[-300:]}")
        return done.stdout

    def shell(self, script: str, timeout: float = 120) -> str:
        """Run a script beside gNB and UE."""
        return self.run(
            "-n", self.plane, "exec", "-i", "deploy/ran", "-c", "ran", "--", "sh", stdin=script, timeout=timeout
        )

    # Subscribers ---------------------------------------------------------------------------------------------------

    def provision(self) -> float:
        """Make the subscribers; how many a second."""
        slice_: dict[str, Any] = {"sst": self.spec.slice.sst, "default_indicator": True}
        if self.spec.slice.sd:
            slice_["sd"] = self.spec.slice.sd
        rate = {"downlink": {"value": 1, "unit": 3}, "uplink": {"value": 1, "unit": 3}}
        arp = {"priority_level": 8, "pre_emption_capability": 1, "pre_emption_vulnerability": 2}
        session = {"name": self.dnn, "type": 1, "qos": {"index": 9, "arp": arp}, "ambr": rate, "pcc_rule": []}
        document = {
            "schema_version": 1, "subscriber_status": 0, "operator_determined_barring": 0, "network_access_mode": 0,
            "access_restriction_data": 32, "subscribed_rau_tau_timer": 12, "ambr": rate,
            "slice": [{**slice_, "session": [session]}],
        }  # fmt: skip
        given = {
            "first": self.first, "count": SUBSCRIBERS, "accounts": AT_ONCE + 50 * SESSIONS, "key": self.key, "opc": self.opc,
            "document": document, "ocs": f"http://ocs.{self.platform}.svc.{CLUSTER_DOMAIN}:8080",
        }  # fmt: skip
        script = (HERE / "provision.py").read_text(encoding="utf-8")
        command = ("-n", self.home, "exec", "-i", "deploy/bss", "-c", "bss", "--", "python", "-c", script)
        done = json.loads(self.run(*command, stdin=json.dumps(given), timeout=300).strip().splitlines()[-1])
        return float(done["count"] / done["seconds"])

    def forget(self) -> None:
        """Remove the subscribers, without a word to the AMF for each."""
        last = str(int(self.first) + SUBSCRIBERS)
        where = f"imsi BETWEEN '{self.first}' AND '{last}'"
        statements = (
            f"SET search_path = directory; DELETE FROM subscriber WHERE {where}; DELETE FROM withdrawal WHERE {where};"
        )
        self.run(
            "-n", self.platform, "exec", "-i", "postgresql-0", "--",
            "sh", "-c", "psql -q -v ON_ERROR_STOP=1 -U postgres mvno", stdin=statements, timeout=300,
        )  # fmt: skip

    # UEs -----------------------------------------------------------------------------------------------------------

    def _ues(self, count: int, first: str) -> str:
        sim = {"imsi": first, "ki": self.key, "opc": self.opc, "dnn": self.dnn, "sst": self.spec.slice.sst}
        from mvnobox.core.ueransim.agent import ue_document

        document = ue_document({**sim, "sd": self.spec.slice.sd}, self.spec.plmn.mcc, self.spec.plmn.mnc)
        wait = f"""i=0; while [ $i -lt {600 if count > 1 else 80} ] && [ $(grep -c 'TUN interface' /tmp/bench.log) -lt {count} ]; do
            sleep 0.1; i=$((i+1)); done"""
        # The gNB starts anew: UERANSIM's does not serve a UE that comes back.
        return self.shell(
            f""": > /run/mvno/gnb.log; echo gnb > /run/mvno/control
            i=0; while [ $i -lt 200 ] && ! grep -q 'NG Setup procedure is successful' /run/mvno/gnb.log; do
                sleep 0.1; i=$((i+1)); done
            cat > /tmp/bench.yaml <<'END'
{json.dumps(document)}
END
            nr-ue -c /tmp/bench.yaml -n {count} > /tmp/bench.log 2>&1 & ues=$!
            {wait}
            for ue in $(nr-cli --dump 2>/dev/null | grep '^imsi-'); do
                nr-cli $ue -e 'deregister switch-off' >/dev/null 2>&1
            done
            sleep 1; kill $ues 2>/dev/null; wait $ues 2>/dev/null
            cat /tmp/bench.log""",
            timeout=180,
        )

    def storm(self) -> tuple[float, int]:
        """(seconds until the last of AT_ONCE UEs has its session, UEs that have none)."""
        for _ in range(3):
            lines = [line for line in self._ues(AT_ONCE, self.first).splitlines() if _TIME.match(line)]
            if any("Initial Registration" in line for line in lines):
                break
            # See `session`: then none of them has seen the cell, and the network has not been asked.
            say("radio: no UE has found the cell")
        up = [_moment(line) for line in lines if "TUN interface" in line]
        began = min(_moment(line) for line in lines)
        return max(up, default=began + 60) - began, AT_ONCE - len(up)

    def session(self) -> float:
        """Seconds of one PDU session establishment, from the UE's request to the network's word."""
        lines: list[str] = []
        for _ in range(5):
            lines = self._ues(1, f"{int(self.first) + self._next:015}").splitlines()
            self._next += 1
            asked = next((line for line in lines if "Sending PDU Session Establishment Request" in line), None)
            there = next((line for line in lines if "PDU Session establishment is successful" in line), None)
            if asked is not None and there is not None:
                return _moment(there) - _moment(asked)
            # UERANSIM's UE may miss the system information of a cell that has just started, and looks no more.
        raise Unfit(f"a UE got no session: {lines[-1] if lines else 'no word of it'}")

    def throughput(self, times: int) -> dict[str, list[float]]:
        """Mbit/s each way by iperf3 on one UE, so many times."""
        sim = {"imsi": self.first, "ki": self.key, "opc": self.opc, "dnn": self.dnn, "sst": self.spec.slice.sst}
        answer: dict[str, Any] = {}
        for _ in range(10):
            # Functions that have just started find each other first.
            with contextlib.suppress(StepFailed):
                answer = self.phone.register({**sim, "sd": self.spec.slice.sd})
            if answer.get("ok"):
                break
            time.sleep(1)
        else:
            raise Unfit(f"the UE does not attach: {answer.get('cause')}")
        try:
            self.shell(_APART)
        except Unfit as error:
            say(f"radio: gNB and UE run where they like: {error}")
        host = f"dn.{self.platform}.svc.{CLUSTER_DOMAIN}"
        found: dict[str, list[float]] = {"down": [], "up": []}
        for direction in ("down", "up") * times:
            for _ in range(3):
                with contextlib.suppress(StepFailed):
                    answer = self.phone.iperf3(host, OCTETS, direction)
                    break
            if "bitsPerSecond" not in answer or not answer["ok"]:
                raise Unfit(f"iperf3 {direction}: {answer.get('cause')}")
            found[direction].append(answer["bitsPerSecond"] / 1e6)
        self.phone.deregister()
        return found

    # With and without ----------------------------------------------------------------------------------------------

    def _patched(self, namespace: str, name: str, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the PFCP part of a function's configuration."""
        config = self.kubectl.json("-n", namespace, "get", "configmap", f"{name}-config")
        document = yaml.safe_load(config["data"][f"{name}.yaml"])
        try:
            change(document[name]["pfcp"])
        except (KeyError, IndexError) as error:
            raise Unfit(f"{namespace}/{name}-config is not as this bench knows it: {error}") from None
        config["data"][f"{name}.yaml"] = yaml.safe_dump(document)
        config["metadata"] = {"name": f"{name}-config", "namespace": namespace}
        self.run("replace", "-f", "-", stdin=json.dumps(config))

    def restart(self, namespace: str, name: str) -> None:
        """A function anew; waits until it is there."""
        self.run("-n", namespace, "rollout", "restart", f"deploy/{name}")
        self.run("-n", namespace, "rollout", "status", f"deploy/{name}", "--timeout=90s")

    def _pod_address(self, namespace: str, name: str) -> str:
        pods = self.kubectl.json("-n", namespace, "get", "pods", "-l", f"app.kubernetes.io/name={name}")["items"]
        return str(next(pod["status"]["podIP"] for pod in pods if "deletionTimestamp" not in pod["metadata"]))

    @property
    def _n4(self) -> tuple[tuple[str, str, str, str], ...]:
        """N4's ends without the CTF: namespace and function, and those of the other one."""
        return (self.home, "smf", self.plane, "upf"), (self.plane, "upf", self.home, "smf")

    @contextlib.contextmanager
    def without_ctf(self) -> Iterator[None]:
        """SMF and UPF speak to each other."""
        saved = [
            (namespace, kind, name, self.kubectl.json("-n", namespace, "get", kind, name, "--show-managed-fields"))
            for namespace, kind, name in (
                (self.home, "configmap", "smf-config"),
                (self.plane, "configmap", "upf-config"),
            )
        ]
        try:
            # One address each, their pods': Open5GS sends to all that it knows of a peer in turn, and its two do not
            # agree when both set the association up.
            def alone(pfcp: dict[str, Any]) -> None:
                del pfcp["client"], pfcp["server"][0]["advertise"]

            self._patched(self.plane, "upf", alone)
            # Beside the policies that are there: packets pass the same filters with and without the CTF.
            for namespace, name, peer, other in self._n4:
                policy = json.dumps(_both_ways(name, peer, other))
                self.run("-n", namespace, "apply", "-f", "-", stdin=policy)
            self.restart(self.plane, "upf")
            upf = self._pod_address(self.plane, "upf")

            def towards(pfcp: dict[str, Any]) -> None:
                pfcp["client"]["upf"][0]["address"] = upf
                del pfcp["server"][0]["advertise"]

            self._patched(self.home, "smf", towards)
            self.restart(self.home, "smf")
            yield
        finally:
            for namespace, *_ in self._n4:
                self.kubectl.run("-n", namespace, "delete", "networkpolicy", DIRECT, "--ignore-not-found")
            for namespace, kind, name, document in saved:
                owner = document["metadata"]["managedFields"][0]
                for key in ("resourceVersion", "uid", "creationTimestamp", "generation", "managedFields"):
                    document["metadata"].pop(key, None)
                self.kubectl.run("-n", namespace, "delete", kind, name)
                # As whoever made it, and in the same way, or the next `up` would find its fields another's.
                way = ("apply", "--server-side") if owner["operation"] == "Apply" else ("create",)
                back = (*way, f"--field-manager={owner['manager']}", "-f", "-")
                self.run("-n", namespace, *back, stdin=json.dumps(document))
            self.restart(self.plane, "upf")
            self.restart(self.home, "smf")


def radio(folder: Path, figure: Any, *, seconds: float, rounds: int) -> dict[str, Any]:
    """Figures of UEs on Open5GS. Raises Unfit."""
    lab = Lab.find()
    try:
        say(f"radio: {SUBSCRIBERS} subscribers of {lab.spec.display_name}")
        provisioned = lab.provision()
        storms = []
        for _ in range(rounds):
            storms.append(lab.storm())
            say(f"radio: {AT_ONCE} UEs at once: {storms[-1][0]:.2f} s, {storms[-1][1]} failed")
        turns: list[tuple[Figures, Figures]] = []
        for _ in range(rounds):
            first = _measured(lab, "with the CTF", 1)
            with lab.without_ctf():
                without = _measured(lab, "without", 2)
            again = _measured(lab, "with the CTF", 1)
            turns.append(({name: first[name] + again[name] for name in first}, without))
    finally:
        lab.phone.deregister()
        lab.forget()
    with_ctf = {name: [value for turn, _ in turns for value in turn[name]] for name in turns[0][0]}
    without = {name: [value for _, turn in turns for value in turn[name]] for name in turns[0][0]}

    def ratio(name: str) -> float:
        return statistics.median(statistics.mean(one[name]) / statistics.mean(other[name]) for one, other in turns)

    return {
        "radio: provisioning": figure(provisioned, "subscribers/s", 2000),
        f"radio: {AT_ONCE} UEs at once": figure(statistics.median(one for one, _ in storms), "s", 5, most=True),
        "radio: UEs that failed": figure(sum(failed for _, failed in storms), "UEs", 0, most=True),
        "radio: session, with the CTF": figure(_typical(with_ctf["session"]), "ms"),
        "radio: session, with to without the CTF": figure(
            _typical(with_ctf["session"]) / _typical(without["session"]), "times", 1.15, most=True
        ),
        "radio: iperf3 down, with the CTF": figure(statistics.median(with_ctf["down"]), "Mbit/s"),
        "radio: iperf3 down, with to without the CTF": figure(ratio("down"), "times", 0.97),
        "radio: iperf3 up, with the CTF": figure(statistics.median(with_ctf["up"]), "Mbit/s"),
        "radio: iperf3 up, with to without the CTF": figure(ratio("up"), "times", 0.97),
    }


def _typical(milliseconds: list[float]) -> float:
    """The median of times that are known to the millisecond only: between those that share the middle one."""
    return statistics.median_grouped(milliseconds, 1.0)


def _measured(lab: Lab, what: str, times: int) -> Figures:
    """So many turns' worth of sessions, in milliseconds, and of transfers, in Mbit/s."""
    found = {"session": [float(round(1000 * lab.session())) for _ in range(SESSIONS * times)]}
    found |= lab.throughput(TRANSFERS * times)
    shortest, longest = min(found["session"]), max(found["session"])
    say(
        f"radio: {what}: {statistics.mean(found['down']):.1f} Mbit/s down, {statistics.mean(found['up']):.1f} up;"
        f" a session in {_typical(found['session']):.1f} ms ({shortest:.0f} to {longest:.0f})"
    )
    return found
