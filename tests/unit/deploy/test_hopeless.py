"""Pods that cannot ever start on their node are told with the remedy, and nobody waits for them."""

from __future__ import annotations

import datetime as dt
import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from mvnobox.deploy import core, hostcheck
from mvnobox.deploy.cluster import embedded
from mvnobox.deploy.core import forwarding_of
from mvnobox.deploy.hopeless import verdict
from mvnobox.deploy.kernel import tun_trouble
from mvnobox.deploy.pulumi.engine import run
from mvnobox.errors import EnvironmentUnfit

SINCE = dt.datetime(2026, 11, 28, 12, tzinfo=dt.UTC)
EARLIER, LATER = "2026-11-28T11:59:59Z", "2026-11-28T12:00:07Z"


def pod(**status: Any) -> dict[str, Any]:
    meta = {"namespace": "encore-dev-up", "name": "upf-1", "creationTimestamp": LATER}
    return {"metadata": meta, "spec": {"nodeName": "worker-2"}, "status": {"phase": "Pending", **status}}


def ended(message: str, at: str = LATER) -> dict[str, Any]:
    return {"name": "prepare", "lastState": {"terminated": {"exitCode": 1, "finishedAt": at, "message": message}}}


def mount(message: str, at: str = LATER, name: str = "upf-1") -> dict[str, Any]:
    about = {"namespace": "encore-dev-up", "name": name}
    return {"reason": "FailedMount", "involvedObject": about, "lastTimestamp": at, "message": message}


NO_TUN = (
    'MountVolume.SetUp failed for volume "tun" : hostPath type check failed: /dev/net/tun is not a character device'
)


@pytest.mark.parametrize(
    ("status", "events", "cause", "remedy"),
    [
        ({"phase": "Failed", "reason": "SysctlForbidden"}, [], "forbids a sysctl", "forwarding node"),
        ({"initContainerStatuses": [ended("x\nforwards nothing; remedy: do this\n")]}, [], "forwards nothing", "do this"),
        (
            {"containerStatuses": [ended(json.dumps({"level": "error", "msg": "/dev/net/tun: gone; remedy: get it"}))]},
            [],
            "/dev/net/tun: gone",
            "get it",
        ),
        ({}, [mount("something else"), mount(NO_TUN)], "worker-2 has no TUN devices", "modprobe tun"),
    ],
)  # fmt: skip
def test_what_a_node_will_never_give(status: dict[str, Any], events: list[Any], cause: str, remedy: str) -> None:
    found = verdict([pod(), pod(**status)], events, SINCE)
    assert found is not None and found.exit_code == 3
    assert "pod encore-dev-up/upf-1: " in found.cause and cause in found.cause and remedy in found.remedy


@pytest.mark.parametrize(
    ("status", "events"),
    [
        ({}, []),
        # Before what is waited for began: it may be mended.
        ({}, [mount(NO_TUN, EARLIER)]),
        ({"initContainerStatuses": [ended("a; remedy: b", EARLIER)]}, []),
        # Another pod's, one that runs by now, and words that are nobody's.
        ({}, [mount(NO_TUN, name="upf-0")]),
        ({"phase": "Running"}, [mount(NO_TUN)]),
        ({"containerStatuses": [ended("Traceback (most recent call last):")]}, []),
    ],
)
def test_what_may_still_come_is_waited_for(status: dict[str, Any], events: list[Any]) -> None:
    assert verdict([pod(**status)], events, SINCE) is None


def test_the_engine_is_stopped_in_order(tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    engine.write_text(
        "#!/bin/sh\ntrap 'echo stopped in order; exit 1' INT\necho ready >&2\nwhile :; do sleep 0.1; done\n"
    )
    engine.chmod(0o755)
    started = time.monotonic()
    answer = run(engine, ["up"], {}, on_event=lambda event: None, on_tick=lambda: True)
    assert (answer.code, answer.stdout) == (1, "stopped in order\n")
    assert time.monotonic() - started < 20


def test_only_the_embedded_clusters_pods_ask_for_the_sysctl() -> None:
    assert [forwarding_of(kind) for kind in ("embedded", "kind", "k3d", "existing")] == ["sysctl"] + ["node"] * 3


def test_a_kernel_without_tun_is_said_before_anything_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing, plain = tmp_path / "tun", tmp_path / "file"
    plain.touch()
    assert "missing" in str(tun_trouble(missing)) and "no character device" in str(tun_trouble(plain))
    assert tun_trouble(Path("/dev/null")) is None
    if os.geteuid() == 0:
        # A device number that no driver has.
        try:
            os.mknod(missing, stat.S_IFCHR | 0o600, os.makedev(10, 254))
        except OSError as error:
            pytest.skip(f"no device nodes here: {error.strerror}")
        assert str(tun_trouble(missing)).startswith(f"{missing}: ")
    monkeypatch.setattr(embedded, "tun_trouble", lambda: "/dev/net/tun is missing")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(embedded, "ensure_tool", lambda *_: pytest.fail("nothing is built"))
    with pytest.raises(EnvironmentUnfit, match="TUN devices, and /dev/net/tun is missing") as found:
        embedded.EmbeddedCluster().up(None)  # type: ignore[arg-type]
    assert "modprobe tun" in found.value.remedy


@pytest.mark.parametrize("there", [True, False])
def test_doctor_and_up_mean_the_same_by_sctp(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert core.kernel_has_sctp is hostcheck.kernel_has_sctp
    monkeypatch.setattr(hostcheck, "kernel_has_sctp", lambda: there)
    assert hostcheck._sctp().detail.startswith("there" if there else "missing")
