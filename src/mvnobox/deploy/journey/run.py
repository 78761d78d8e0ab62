"""The journey itself: from the order over attachment, use, the end of the quota and a top-up to isolation."""

from __future__ import annotations

import contextlib
import ipaddress
import secrets
import time
import uuid
from collections.abc import Callable
from typing import Any

from mvnobox.deploy.brands import find_brand
from mvnobox.deploy.epc import check_outside_peer, check_test_peer
from mvnobox.deploy.installation import Installation
from mvnobox.deploy.journey.access import Bss, Kubectl
from mvnobox.deploy.journey.outside import outside_phone
from mvnobox.deploy.journey.phone import Access, Phone
from mvnobox.deploy.journey.steps import Journey, StepFailed, StepSkipped
from mvnobox.deploy.report import Reporter
from mvnobox.errors import EnvironmentUnfit, Failed
from mvnobox.render.epc import pool_ranges
from mvnobox.render.release import CLUSTER_DOMAIN, QUANTUM_OCTETS
from mvnobox.spec import BrandSpec

DOWNLOAD = 20_000_000
ORDERS = "/tmf-api/productOrderingManagement/v4/productOrder"
BALANCE = "/tmf-api/prepayBalanceManagement/v4"
# Network functions that have just started may need a heartbeat or two to find each other.
SETTLE_SECONDS = 30.0
# A session is closed until the OCS's first answer, which an SMF does not wait for; a brand's first one finds it by name.
OPEN_SECONDS = 10.0
_OF_THE_KEY = ("MAC", "AUTN", "uthentication")
# What a real user plane carried may be lost on the radio and sent again: charged, but never seen by the UE.
RADIO_LOSS = {"open5gs": 0.10}

# Asks where the core does: the directory, or the MongoDB that follows it, within a few seconds.
_LOOK_UP = """
import json, os, sys, time, pymongo, yaml
own = os.environ.get("DIRECTORY_MIRROR")
more = {}
if not own:
    for more["username"], more["password"] in json.loads(os.environ.get("DIRECTORY_USERS") or "{}").items():
        more["authSource"] = "admin"
    if "tls" in yaml.safe_load(open("/etc/mvno/directory.yaml")):
        # Its name is another one than the certificate's, and nobody is between us in this pod.
        more |= {"tls": True, "tlsAllowInvalidCertificates": True}
client = pymongo.MongoClient(own or "mongodb://127.0.0.1:27017/open5gs", **more)
subscribers = client.get_default_database()["subscribers"]
for wait in (0.5,) * (30 if own else 0) + (0,):
    found = subscribers.find_one({"imsi": sys.argv[1]})
    if found:
        break
    time.sleep(wait)
print(json.dumps({"found": found is not None, "slice": (found or {}).get("slice")}))
"""
# Whether an HSS learns of changes: the directory has change streams, a MongoDB of one's own as a replica set only.
HAS_STREAMS = """
import asyncio, json, os
from mvnobox.core.directory.mirror.target import Target
async def ask():
    own = os.environ.get("DIRECTORY_MIRROR")
    return not own or await Target(own, "").has_streams()
print(json.dumps({"streams": asyncio.run(ask())}))
"""
# Between a user plane and 4G's test peer there is no radio; what a socket lost is charged all the same.
LOST_ON_S8 = 0.02


def verify(
    *, brand: str, env: str, report: Reporter, access: Access = "5g", outside: bool = False, core: str | None = None
) -> Journey:
    """Run the journey for an installed brand; `outside`: 4G's, from outside of the cluster; `core`: only on that one.

    Raises Failed where there is none, EnvironmentUnfit on another core, without 4G's peer or a way in.
    """
    installation = Installation(env)
    installed = installation.brand(brand)
    if core not in (None, installed.core):
        raise EnvironmentUnfit(
            f"{brand} runs on the core {installed.core}, not on {core}", f"./mvno up --core {core} --brand {brand}"
        )
    if installed.core == "operator":
        raise EnvironmentUnfit(
            f"{brand} runs on the open5gs-operator's core, where the kit has no UE",
            "attach one of your own; ./mvno operator drift says whether the core is as desired",
        )
    if access == "4g":
        check_test_peer(installation, installed.name)
    epc = check_outside_peer(installation, installed.name, installation.cluster().kind) if outside else None
    spec = find_brand(str(installed.file))[1]
    with report.task(f"Verifying {spec.display_name}") as task:
        kubectl = Kubectl(installation.cluster())
        namespace = f"{spec.name}-{env}"
        token = kubectl.secret(namespace, "bss-env", "BSS_ADMIN_TOKEN")
        with contextlib.ExitStack() as stack:
            address = stack.enter_context(kubectl.forwarded(namespace, "svc/bss", 8080))
            others = installation.other_brands(brand)
            kind = _Run4g if access == "4g" else _Run
            run = kind(spec, env, kubectl, Bss(address, token), installed.core, others)
            if epc is not None:
                run.phone = stack.enter_context(outside_phone(spec, epc, kubectl))
                run.journey.origin = "outside"
            try:
                run.all(task.update)
            except StepFailed:
                run.diagnose()
            finally:
                run.clean_up()
        return run.journey


def _until(seconds: float, what: str, look: Callable[[], Any], seen: Callable[[], str] = str) -> Any:
    """What `look` gives as soon as it is truthy. Raises StepFailed with what was seen instead."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise StepFailed(f"{what} did not happen within {seconds:.0f} s{seen()}")
        time.sleep(0.2)


class _Run:
    access: Access = "5g"

    def __init__(
        self, spec: BrandSpec, env: str, kubectl: Kubectl, bss: Bss, core: str, others: list[BrandSpec]
    ) -> None:
        self.spec, self.env, self.kubectl, self.bss, self.others = spec, env, kubectl, bss, others
        self.journey = Journey(spec.name, core, self.access)
        self.phone = Phone(kubectl, f"{spec.name}-{env}-up", core, self.access)
        self.network = spec.data_networks[0]
        self.data_host = f"dn.platform-{env}.svc.{CLUSTER_DOMAIN}"
        self.product = ""
        self.iccid = ""
        self.sim: dict[str, Any] = {}
        self.carried = 0
        # What the phone carried before it registered for the last time.
        self.before = 0

    def all(self, say: Callable[[str], None]) -> None:
        for name, step in (
            ("order placed by API", self.order),
            ("subscriber in the core", self.subscriber),
            ("UE refused with a wrong key", self.wrong_key),
            ("UE attached", self.attach),
            ("address from the brand's pool", self.address),
            ("ping without loss", self.ping),
            ("20 MB downloaded over TCP", self.download),
            ("octets charged equal octets carried", self.charged),
            ("usage visible in the BSS", self.usage),
            ("quota ended and traffic stopped", self.cut),
            ("top-up sold", self.top_up),
            ("traffic back", self.back),
            ("iperf3 both ways", self.throughput),
            ("other brands out of reach", self.isolation),
            ("suspension takes effect while attached", self.suspension),
        ):
            say(name)
            with self.journey.step(name) as recorded:
                recorded.detail = step() or ""

    # Steps ---------------------------------------------------------------------------------------------------------

    def order(self) -> str:
        body = {
            "externalId": f"verify-{uuid.uuid4()}",
            "productOrderItem": [{"productOffering": {"id": "verification"}}],
            "relatedParty": [
                {
                    "givenName": "Verification",
                    "familyName": "Customer",
                    "individualIdentification": [
                        {"identificationType": "passport", "identificationId": "VERIFICATION"}
                    ],
                }
            ],
        }
        placed = self.bss.call("POST", ORDERS, body)
        again = self.bss.call("POST", ORDERS, body)
        if again["id"] != placed["id"]:
            raise StepFailed("the repeated order made a second one")
        order = _until(
            20,
            "the order's completion",
            lambda: (
                (found := self.bss.call("GET", f"{ORDERS}/{placed['id']}"))["state"] in ("completed", "failed")
                and found
            ),
        )
        if order["state"] != "completed":
            raise StepFailed(f"the order is {order['state']}: {order.get('note')}")
        product = order["productOrderItem"][0]["product"]
        self.product = product["id"]
        characteristics = {c["name"]: c["value"] for c in product["productCharacteristic"]}
        self.iccid = characteristics["iccid"]
        activation = self.bss.call("GET", f"/sim-inventory/v1/sim/{self.iccid}/activation")
        profile = self.bss.call("GET", f"/sim-inventory/v1/sim/{self.iccid}/profile")
        self.sim = {
            "imsi": profile["imsi"],
            "ki": profile["ki"],
            "opc": profile["opc"],
            "dnn": self.network.name,
            "sst": self.spec.slice.sst,
            "sd": self.spec.slice.sd,
        }
        return f"+{characteristics['msisdn']}, {activation['activationCode']}"

    def subscriber(self) -> str:
        # By the wire protocol, as a core asks, beside the directory: it answers nobody but cores.
        found = self.kubectl.exec_json(
            f"platform-{self.env}", "deploy/directory", "python", "-c", _LOOK_UP, self.sim["imsi"]
        )
        if not found["found"]:
            raise StepFailed("the directory does not know the IMSI")
        entry = found["slice"][0]
        if (entry["sst"], entry.get("sd")) != (self.spec.slice.sst, self.spec.slice.sd):
            raise StepFailed(f"the subscriber has slice {entry['sst']}/{entry.get('sd')}")
        return f"IMSI {self.sim['imsi'][:6]}…, slice {entry['sst']}/{entry.get('sd')}"

    def wrong_key(self) -> str:
        cause = ""

        def refused() -> bool:
            nonlocal cause
            answer = self.phone.register({**self.sim, "ki": secrets.token_hex(16)})
            if answer.get("registered"):
                raise StepFailed("the core let in a UE with a wrong key")
            cause = str(answer.get("cause"))
            # A core whose functions are still finding each other refuses too, but not for the key.
            return any(word in cause for word in _OF_THE_KEY)

        _until(SETTLE_SECONDS, "a refusal for the key", refused, lambda: f"; refused for {cause}")
        return cause

    def attach(self) -> str:
        answer: dict[str, Any] = {}

        def attached() -> bool:
            answer.update({"cause": None, **self.phone.register(self.sim)})
            return bool(answer.get("ok"))

        _until(SETTLE_SECONDS, "attachment", attached, lambda: f"; refused: {answer.get('cause')}")
        self.sim["address"], self.sim["address6"] = answer["address"], answer.get("address6")
        return f"5G-AKA, PDU session on {self.network.name}"

    def address(self) -> str:
        if ipaddress.ip_address(self.sim["address"]) not in self.network.network:
            raise StepFailed(f"{self.sim['address']} is not in {self.network.pool}")
        found = f"{self.sim['address']} of {self.network.pool}"
        if not self._has_ipv6:
            return found
        if self.sim["address6"] is None:
            raise StepFailed("no router advertisement came: the UE has no IPv6 address")
        if ipaddress.ip_address(self.sim["address6"]) not in ipaddress.IPv6Network(self.network.pool6):
            raise StepFailed(f"{self.sim['address6']} is not in {self.network.pool6}")
        return f"{found}, {self.sim['address6']} of {self.network.pool6}"

    @property
    def _has_ipv6(self) -> bool:
        """Whether the UE is to have IPv6: UERANSIM's and 4G's test peer ask for IPv4 alone."""
        return self.network.pool6 is not None and self.journey.core == "simulated"

    def ping(self) -> str:
        gateways = [self.network.gateway, *([self.network.gateway6] if self._has_ipv6 else [])]
        first: dict[str, Any] = {}

        def opened() -> bool:
            first.update({"cause": None, **self.phone.ping(str(gateways[0]), 1)})
            return bool(first.get("ok"))

        began = time.monotonic()
        _until(
            OPEN_SECONDS, "traffic", opened, lambda: f" to {gateways[0]}: {first.get('cause') or first.get('output')}"
        )
        waited = time.monotonic() - began
        for gateway in gateways:
            answer = self.phone.ping(str(gateway), 10)
            if not answer.get("ok"):
                said = answer.get("cause") or answer.get("output")
                raise StepFailed(f"{answer.get('received', 0)} of 10 came back from {gateway}: {said}")
        late = f", {waited:.1f} s after it was first tried" if waited > 2 else ""
        return "10 of 10 came back" + (", and 10 of 10 over IPv6" if self._has_ipv6 else "") + late

    def download(self) -> str:
        answer = self.phone.download(self.data_host, DOWNLOAD)
        if not answer.get("ok"):
            raise StepFailed(f"{answer.get('octets', 0)} octets arrived: {answer.get('cause')}")
        self.carried = self._carried()
        return f"{answer['octets'] * 8 / answer['seconds'] / 1e6:.0f} Mbit/s"

    def _carried(self) -> int:
        status = self.phone.status()
        return self.before + int(status["receivedOctets"] + status["sentOctets"])

    def _used(self) -> int:
        balance = self.bss.call("GET", f"{BALANCE}/accumulatedBalance?product.id={self.product}")[0]
        return int(next((t["used"] for t in balance["totalBalance"] if t["units"] == "octets"), 0))

    def charged(self) -> str:
        used = _until(
            15,
            "charging",
            lambda: (found := self._used()) and abs(self.carried - found) <= QUANTUM_OCTETS and found,
            lambda: f": {self._used()} charged, {self.carried} carried",
        )
        if used > self.carried * (1 + RADIO_LOSS.get(self.journey.core, 0)):
            raise StepFailed(f"{used} octets charged, but only {self.carried} carried")
        return f"{used} charged, {self.carried} carried: {self.carried - used} within one quantum of {QUANTUM_OCTETS}"

    def usage(self) -> str:
        buckets = self.bss.call("GET", f"{BALANCE}/bucket?product.id={self.product}")
        data = next((b for b in buckets if b["usageType"] == "data"), None)
        if data is None or not data["usedValue"]["amount"]:
            raise StepFailed("the bucket shows no use")
        return f"{data['remainingValue']['amount'] + data['reservedValue']['amount']} octets left in {data['name']}"

    def cut(self) -> str:
        answer = self.phone.download(self.data_host, DOWNLOAD, stall=2)
        if answer.get("ok"):
            raise StepFailed("the download went on past the quota")
        carried = self._carried()
        granted = self.spec.verification_plan.allowances.data
        assert isinstance(granted, int)
        if carried < granted * (0.95 - RADIO_LOSS.get(self.journey.core, 0)):
            raise StepFailed(f"stopped at {carried} octets already, {granted} were granted: {answer.get('cause')}")
        # Packets that were dropped on the way still crossed the UE's own interface.
        return f"stopped after {carried} octets; {granted} were granted"

    def top_up(self) -> str:
        offer = self.spec.top_ups[0].id if self.spec.top_ups else None
        if offer is None:
            raise StepFailed("the brand sells no top-up")
        identity = str(uuid.uuid4())
        body = {"id": identity, "product": {"id": self.product}, "productOffering": {"id": offer}}
        path = f"{BALANCE}/topupBalance"
        first, second = self.bss.call("POST", path, body), self.bss.call("POST", path, body)
        if first["status"] != "confirmed" or second["id"] != first["id"]:
            raise StepFailed(f"the top-up is {first['status']}")
        return offer

    def back(self) -> str:
        def works() -> Any:
            answer = self.phone.download(self.data_host, 1_000_000, stall=3, timeout=10)
            return answer if answer.get("ok") else None

        answer = _until(30, "traffic", works)
        return f"{answer['octets']} octets arrived"

    def throughput(self) -> str:
        found = {}
        for direction, octets in (("down", 10_000_000), ("up", 5_000_000)):
            answer = self.phone.iperf3(self.data_host, octets, direction)
            if not answer.get("ok"):
                raise StepFailed(f"{direction}: {answer.get('cause')}")
            found[direction] = answer["bitsPerSecond"] / 1e6
        return ", ".join(f"{rate:.0f} Mbit/s {direction}" for direction, rate in found.items())

    def isolation(self) -> str:
        if not self.others:
            raise StepSkipped("no other brand is installed")
        tried = []
        for other in self.others:
            network = other.data_networks[0]
            targets = [network.gateway, str(network.network.network_address + 2)]
            if self._has_ipv6 and network.network6 is not None:
                targets += [str(network.gateway6), str(network.network6.network_address + (1 << 64) + 2)]
            for target in targets:
                if self.phone.ping(target, 2).get("received"):
                    raise StepFailed(f"{target} of {other.name} answers")
                tried.append(target)
            for service, home in (("bss", f"{other.name}-{self.env}"), ("ocs", f"platform-{self.env}")):
                host = f"{service}.{home}.svc.{CLUSTER_DOMAIN}"
                answer = self.phone.download(host, 1, stall=2, timeout=4)
                if answer.get("octets") or answer.get("cause") not in ("stalled", "TimeoutError: "):
                    raise StepFailed(f"{host} answers the UE: {answer.get('cause')}")
                tried.append(service)
        return f"{', '.join(other.name for other in self.others)}: {len(tried)} ways tried, none open"

    def suspension(self) -> str:
        path = f"/tmf-api/productInventory/v4/product/{self.product}"
        self.bss.call("PATCH", path, {"status": "suspended"})
        _until(15, "deregistration", lambda: not self.phone.status()["registered"], self._why_untold)
        refused = self.phone.register(self.sim)
        if refused.get("ok"):
            raise StepFailed("a suspended subscriber could attach")
        self.bss.call("PATCH", path, {"status": "active"})
        if not _until(SETTLE_SECONDS, "resumption", lambda: self.phone.register(self.sim).get("ok")):
            raise StepFailed("a resumed subscriber could not attach")
        return str(refused.get("cause"))

    def _why_untold(self) -> str:
        """Why the network has not heard of a suspension, as far as that can be seen."""
        if self.access == "5g":
            return ""
        asked = self.kubectl.exec_json(f"platform-{self.env}", "deploy/directory", "python", "-c", HAS_STREAMS)
        return "" if asked["streams"] else ": your MongoDB is no replica set, which the HSS needs to learn of it"

    # After ---------------------------------------------------------------------------------------------------------

    def diagnose(self) -> None:
        """Pods that are not well are part of the failed step's detail."""
        try:
            pods = self.kubectl.json("get", "pods", "-A", "-l", "app.kubernetes.io/part-of=mvno-in-a-box")["items"]
        except Failed:
            return
        unwell = [
            f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
            for pod in pods
            if pod["status"]["phase"] != "Succeeded"
            and not all(c["ready"] for c in pod["status"].get("containerStatuses", [{"ready": False}]))
        ]
        if unwell:
            self.journey.steps[-1].detail += f" (not ready: {', '.join(unwell)})"

    def clean_up(self) -> None:
        """The line was for the proof only."""
        try:
            self.phone.deregister()
            if self.product:
                path = f"/tmf-api/productInventory/v4/product/{self.product}"
                self.bss.call("PATCH", path, {"status": "terminated"})
        except StepFailed:
            pass


class _Run4g(_Run):
    """The same journey through the host network's stand-in: S6a, S8, Gy."""

    access: Access = "4g"

    def attach(self) -> str:
        super().attach()
        return f"EPS-AKA over S6a, PDN connection over S8 on {self.network.name}"

    def address(self) -> str:
        first, last = pool_ranges(self.spec)[self.network.name].of_4g.split("-")
        got, low, high = (ipaddress.IPv4Address(one) for one in (self.sim["address"], first, last))
        if not low <= got <= high:
            raise StepFailed(f"{got} is not in 4G's part of {self.network.pool}, {first} to {last}")
        return f"{got} of {first} to {last}"

    def charged(self) -> str:
        """A session's end is Gy's last word: then every octet that was carried is charged."""
        self.carried = self._carried()
        self.phone.deregister()
        lost = int(self.carried * LOST_ON_S8)
        used = _until(
            15,
            "charging",
            lambda: (found := self._used()) and abs(self.carried - found) <= lost and found,
            lambda: f": {self._used()} charged, {self.carried} carried",
        )
        self.before = self.carried
        self.attach()
        return f"{used} charged, {self.carried} carried: {used - self.carried} apart at the session's end"
