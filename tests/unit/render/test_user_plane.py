"""What prepares a user plane's pod says what its node lacks, in one line with the remedy."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from mvnobox.render import BrandPlan, Images, brand_releases
from mvnobox.spec import load_brand

ROOT = Path(__file__).resolve().parents[3]
PLAN = BrandPlan("dev", load_brand(ROOT / "brands/silverline.yaml"), Images("s:1", "c:1", "p:1"), core="open5gs")


def script(plan: BrandPlan = PLAN) -> str:
    [release] = [one for one in brand_releases(plan) if one.name == "user-plane"]
    prepare: str = release.values["functions"][0]["prepare"]
    return prepare


@pytest.mark.parametrize(
    ("before", "cause"),
    [
        ("echo 0 > /proc/sys/net/ipv4/ip_forward", "net.ipv4.ip_forward is 0 in the pod"),
        ("echo 1 > /proc/sys/net/ipv4/ip_forward; mount -t tmpfs none /dev/net", "this node's kernel makes no TUN devices"),
    ],
)  # fmt: skip
def test_a_node_that_cannot_carry_a_user_plane(before: str, cause: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: network and mount namespaces")
    command = ["unshare", "-nm", "sh", "-c", f"{before}; exec sh -s"]
    done = subprocess.run(command, input=script(), text=True, capture_output=True)
    assert done.returncode == 1
    assert re.fullmatch(rf"{re.escape(cause)}.*; remedy: .+\n", done.stderr), done.stderr
