"""`--core operator`: which brands it takes, and that the operator's subscribers become those of the BSS."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client.exceptions import ApiException

from mvnobox.core.operator import CoreInput, Need, NotFound, Open5GS, Open5GSUser, OperatorClient
from mvnobox.deploy.operator import Line, Synced, sync
from mvnobox.errors import BadInput
from mvnobox.render import BrandPlan, Images, brand_releases, brand_resources, core_input
from mvnobox.spec import load_brand

ROOT = Path(__file__).resolve().parents[3]
IMAGES = Images("r/services:1", "r/coresim:1", "r/postgresql:1")
NEIGHBOURS = load_brand(Path(__file__).parent / "data/neighbours.yaml")
OPC = "0123456789abcdef0123456789abcdef"


def line(number: int, key: str = "00112233445566778899aabbccddeef0") -> Line:
    return Line(f"26298{number:010}", key, OPC)


def test_a_brand_that_it_can_carry_is_one_resource_and_no_chart_of_a_core() -> None:
    plan = BrandPlan("dev", NEIGHBOURS, IMAGES, core="operator")
    assert {release.name for release in brand_releases(plan)} == {"tenant-neighbours", "bss"}
    [document] = brand_resources(plan)
    assert (document["kind"], document["metadata"]["namespace"]) == ("Open5GS", "neighbours-dev-up")
    assert document["spec"]["configuration"]["slices"] == [{"sst": "1", "sd": "0x00000a"}]
    assert brand_resources(replace(plan, core="open5gs")) == []


def test_what_it_cannot_do_is_said_at_once_and_before_anything_is_made() -> None:
    silverline = load_brand(ROOT / "brands/silverline.yaml")
    with pytest.raises(BadInput) as caught:
        brand_resources(BrandPlan("dev", silverline, IMAGES, core="operator"))
    assert "no charging function" in caught.value.cause and "the DNN 'silverline'" in caught.value.cause
    assert "--core open5gs" in caught.value.remedy and caught.value.exit_code == 2
    assert core_input(NEIGHBOURS, "x").needs == frozenset()
    networks = [one.model_copy(update={"pool6": "fd45:6a70:1c00::/48"}) for one in NEIGHBOURS.data_networks]
    with pytest.raises(BadInput, match="ipv4v6 sessions"):
        both = NEIGHBOURS.model_copy(update={"data_networks": networks})
        brand_resources(BrandPlan("dev", both, IMAGES, core="operator"))
    assert core_input(silverline, "x").needs == {Need.CHARGING_ON_N4}


@pytest.fixture
def core(namespace: str) -> CoreInput:
    return core_input(NEIGHBOURS, namespace)


@pytest.fixture(autouse=True)
def collector(operator: OperatorClient, raw: Any, namespace: str) -> Iterator[None]:
    """The garbage collector's part: users own nothing, so what is deleted in the foreground may go."""
    ended = threading.Event()

    def collect() -> None:
        while not ended.is_set():
            for event in operator.watch(Open5GSUser, namespace, timeout=1):
                if event.resource is not None and event.resource.metadata.deletionTimestamp:
                    with contextlib.suppress(ApiException):
                        raw.patch(event.resource, {"metadata": {"finalizers": None}})

    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    yield
    ended.set()
    thread.join(10)


def users(operator: OperatorClient, core: CoreInput) -> dict[str, Any]:
    return {user.spec.imsi or "": user for user in operator.list(Open5GSUser, core.namespace).items}


def test_subscribers_become_those_of_the_bss(operator: OperatorClient, core: CoreInput) -> None:
    assert sync(operator, core, [line(1), line(2)]) == Synced(created=2, changed=0, removed=0, same=0)
    assert sync(operator, core, [line(1), line(2)]) == Synced(created=0, changed=0, removed=0, same=2)
    # Another SIM key, a line that ended (or is suspended, which the operator cannot), a new one.
    other = "ffeeddccbbaa99887766554433221100"
    assert sync(operator, core, iter([line(1, other), line(3)])) == Synced(created=1, changed=1, removed=1, same=0)
    found = users(operator, core)
    assert set(found) == {line(1).imsi, line(3).imsi} and found[line(1).imsi].spec.key == other.upper()


def test_subscribers_of_others_stay(operator: OperatorClient, core: CoreInput) -> None:
    sync(operator, replace(core, labels={"made-by": "a-colleague"}), [line(9)])
    sync(operator, core, [line(1)])
    assert sync(operator, core, []) == Synced(created=0, changed=0, removed=1, same=0)
    assert set(users(operator, core)) == {line(9).imsi}
    with pytest.raises(NotFound):
        operator.get(Open5GS, core.namespace, core.name)
