"""Brands whose core the cluster's open5gs-operator runs: is it there, is the core ready, are its subscribers the BSS's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from mvnobox.core.operator import (
    CoreInput,
    NotInstalled,
    Open5GS,
    Open5GSUser,
    OperatorClient,
    OperatorError,
    SubscribedSlice,
    SubscriberInput,
    to_open5gs_user,
)
from mvnobox.deploy.brands import find_brand
from mvnobox.deploy.cluster import ClusterChoice
from mvnobox.deploy.installation import Installation
from mvnobox.deploy.journey.access import Bss, Kubectl
from mvnobox.deploy.journey.steps import StepFailed
from mvnobox.deploy.report import Reporter
from mvnobox.errors import BadInput, EnvironmentUnfit, Failed
from mvnobox.render import core_input, operator_core
from mvnobox.spec import BrandSpec

PRODUCTS = "/tmf-api/productInventory/v4/product"
_PAGE = 500


@dataclass(frozen=True)
class Line:
    """An active line of the BSS. `key` (Ki) and `opc`: 32 hexadecimal digits."""

    imsi: str
    key: str
    opc: str


@dataclass(frozen=True)
class Synced:
    """What became of the operator's subscribers."""

    created: int
    changed: int
    removed: int
    same: int


@contextlib.contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except NotInstalled as error:
        raise EnvironmentUnfit(error.cause, error.remedy) from None
    except OperatorError as error:
        raise Failed(error.cause, error.remedy) from None


def namespace_of(brand: BrandSpec, env: str) -> str:
    """Where a brand's user plane lives, and with it the operator's whole core."""
    return f"{brand.name}-{env}-up"


def connect(choice: ClusterChoice) -> OperatorClient:
    """A client for the cluster. Raises EnvironmentUnfit, also where the operator's kinds are not installed."""
    with _in_words():
        client = OperatorClient.from_kubeconfig(choice.kubeconfig, choice.context)
        client.check_installed("default")
        return client


def await_core(client: OperatorClient, brand: BrandSpec, env: str, report: Reporter) -> str:
    """Wait until the operator has the brand's core running; by what that was judged. Raises Failed."""
    with report.task(f"Waiting for the operator's core of {brand.display_name}"), _in_words():
        return client.wait_until_ready(Open5GS, namespace_of(brand, env), brand.name).reason


def sync(client: OperatorClient, core: CoreInput, lines: Iterable[Line]) -> Synced:
    """Make the operator's subscribers of a core the given lines; those of others in its namespace stay.

    Raises OperatorError; what was done until then stays and is found by the next run.
    """
    ours = ",".join(f"{key}={value}" for key, value in sorted(core.labels.items()))
    there = {user.name: user for user in client.list(Open5GSUser, core.namespace, label_selector=ours).items}
    created = changed = same = 0
    for line in lines:
        wanted = to_open5gs_user(
            SubscriberInput(line.imsi, line.key, line.opc, (SubscribedSlice(core.slices[0]),), labels=core.labels),
            core,
            keys_in_plain_text=True,
        )
        before = there.pop(wanted.name, None)
        if before is None:
            client.apply(wanted)
            created += 1
        elif client.drift(wanted):
            client.update(wanted)
            changed += 1
        else:
            same += 1
    for name in there:
        client.delete(Open5GSUser, core.namespace, name)
    return Synced(created, changed, len(there), same)


def lines_of(bss: Bss) -> Iterator[Line]:
    """The active lines of a BSS with their keys. Raises StepFailed."""
    offset = 0
    # Not by the BSS's filter: lines that change their status meanwhile would move others over a page's edge.
    while products := bss.call("GET", f"{PRODUCTS}?offset={offset}&limit={_PAGE}"):
        for product in (one for one in products if one["status"] == "active"):
            values: dict[str, Any] = {one["name"]: one["value"] for one in product["productCharacteristic"]}
            profile = bss.call("GET", f"/sim-inventory/v1/sim/{values['iccid']}/profile")
            yield Line(profile["imsi"], profile["ki"], profile["opc"])
        offset += len(products)


def _installed(brand: str, env: str) -> tuple[BrandSpec, ClusterChoice]:
    installation = Installation(env)
    installed = installation.brand(brand)
    if installed.core != "operator":
        raise BadInput(
            f"the core of {brand!r} is {installed.core}, not the open5gs-operator's",
            f"./mvno up --brand {brand} --core operator, on a cluster that runs the operator",
        )
    return find_brand(str(installed.file))[1], installation.cluster()


def sync_brand(brand: str, env: str, *, keys_in_plain_text: bool) -> Synced:
    """Make a brand's subscribers on the operator's core those of its BSS. Raises BadInput, EnvironmentUnfit, Failed."""
    if not keys_in_plain_text:
        raise BadInput(
            "an Open5GSUser holds Ki and OPc in plain text: whoever may read that kind, or etcd, can clone the SIM",
            "limit who reads open5gsusers, encrypt etcd at rest, and say --keys-in-plain-text",
        )
    spec, choice = _installed(brand, env)
    client = connect(choice)
    kubectl = Kubectl(choice)
    namespace = f"{spec.name}-{env}"
    token = kubectl.secret(namespace, "bss-env", "BSS_ADMIN_TOKEN")
    with kubectl.forwarded(namespace, "svc/bss", 8080) as address, _in_words():
        try:
            return sync(client, core_input(spec, namespace_of(spec, env)), lines_of(Bss(address, token)))
        except StepFailed as error:
            raise Failed(f"the BSS: {error}", "./mvno status says what is there") from None


def drift_of(brand: str, env: str) -> list[str]:
    """What differs between a brand's core as desired and as the cluster has it. Raises as `sync_brand`."""
    spec, choice = _installed(brand, env)
    with _in_words():
        found = connect(choice).drift(operator_core(spec, namespace_of(spec, env)))
    return [str(one) for one in found]
