"""Steps of the journey by themselves: addresses and pings of both families, and from when on pings count."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from mvnobox.deploy.journey.access import Bss, Kubectl
from mvnobox.deploy.journey.phone import Phone
from mvnobox.deploy.journey.run import _Run
from mvnobox.deploy.journey.steps import StepFailed
from mvnobox.spec import BrandSpec, load_brand

ROOT = Path(__file__).resolve().parents[3]
SILVERLINE, ENCORE = (load_brand(ROOT / "brands" / f"{name}.yaml") for name in ("silverline", "encore"))


def with_pool6(spec: BrandSpec, pool6: str) -> BrandSpec:
    networks = [one.model_copy(update={"pool6": pool6}) for one in spec.data_networks]
    return spec.model_copy(update={"data_networks": networks})


class Answering:
    """A phone that says of every target whether it answers."""

    def __init__(self, *silent: str) -> None:
        self.silent, self.asked = silent, list[str]()

    def ping(self, target: str, count: int) -> dict[str, Any]:
        self.asked.append(target)
        silent = target in self.silent
        return {"ok": not silent, "received": 0 if silent else count, "cause": "lost" if silent else None}

    def download(self, host: str, octets: int, **_: Any) -> dict[str, Any]:
        return {"octets": 0, "cause": "stalled"}


def run(spec: BrandSpec, phone: Answering, core: str = "simulated", **sim: Any) -> _Run:
    made = _Run(spec, "dev", cast(Kubectl, None), cast(Bss, None), core, [with_pool6(ENCORE, "fd46::/48")])
    made.phone, made.sim = cast(Phone, phone), {"address": "10.45.0.2", **sim}
    return made


def test_both_families_are_asked_for() -> None:
    spec, phone = with_pool6(SILVERLINE, "fd45::/48"), Answering("10.46.0.1", "10.46.0.2", "fd46::1", "fd46:0:0:1::2")
    journey = run(spec, phone, address6="fd45:0:0:1::2")
    assert journey.address() == "10.45.0.2 of 10.45.0.0/16, fd45:0:0:1::2 of fd45::/48"
    assert "over IPv6" in journey.ping() and set(phone.asked) == {"10.45.0.1", "fd45::1"}
    assert journey.isolation().startswith("encore: 6 ways")
    with pytest.raises(StepFailed, match="fd46::1 of encore answers"):
        run(spec, Answering("10.46.0.1", "10.46.0.2"), address6="fd45:0:0:1::2").isolation()
    with pytest.raises(StepFailed, match="0 of 10 came back from fd45::1"):
        run(spec, Answering("fd45::1")).ping()
    with pytest.raises(StepFailed, match="no router advertisement"):
        run(spec, Answering(), address6=None).address()
    with pytest.raises(StepFailed, match="is not in fd45::/48"):
        run(spec, Answering(), address6="fd46::2").address()


@pytest.mark.parametrize(("pool6", "core"), [(None, "simulated"), ("fd45::/48", "open5gs")])
def test_phones_that_ask_for_ipv4_alone_are_asked_no_more(pool6: str | None, core: str) -> None:
    phone = Answering()
    journey = run(with_pool6(SILVERLINE, pool6) if pool6 else SILVERLINE, phone, core)
    assert journey.address() == "10.45.0.2 of 10.45.0.0/16"
    assert journey.ping() == "10 of 10 came back" and set(phone.asked) == {"10.45.0.1"}


class Closed(Answering):
    """A phone whose session opens after so many pings; of the later ones so many are lost."""

    def __init__(self, until: int, lost: int = 0) -> None:
        super().__init__()
        self.until, self.lost = until, lost

    def ping(self, target: str, count: int) -> dict[str, Any]:
        self.asked.append(target)
        if len(self.asked) <= self.until:
            return {"ok": False, "received": 0, "cause": f"{count} of {count} lost"}
        lost = self.lost if count > 1 else 0
        return {"ok": not lost, "received": count - lost, "cause": f"{lost} of {count} lost"}


def test_pings_are_counted_from_the_sessions_opening() -> None:
    """It opens on the OCS's first answer; from then on none is lost."""
    assert run(SILVERLINE, Closed(until=3)).ping() == "10 of 10 came back"
    with pytest.raises(StepFailed, match="9 of 10 came back"):
        run(SILVERLINE, Closed(until=3, lost=1)).ping()


def test_a_session_that_never_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mvnobox.deploy.journey.run.OPEN_SECONDS", 0.3)
    with pytest.raises(StepFailed, match=r"traffic did not happen within 0 s to 10\.45\.0\.1: 1 of 1 lost"):
        run(SILVERLINE, Closed(until=1000)).ping()
