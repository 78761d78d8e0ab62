"""What Open5GS's shared control plane has no room for is refused before anything is applied."""

from __future__ import annotations

import pytest

from mvnobox.errors import BadInput
from mvnobox.render import CoreSlice, Images, PlatformPlan, Plmn, platform_releases

IMAGES = Images("kit/services:1", "kit/coresim:1", "kit/postgresql:1")


def platform(plmns: int) -> PlatformPlan:
    slices = tuple(CoreSlice(Plmn("999", f"{n:02}"), 1, f"{n:06x}") for n in range(plmns))
    return PlatformPlan("dev", IMAGES, core="open5gs", slices=slices)


def test_more_networks_than_an_amf_serves() -> None:
    assert platform_releases(platform(12))
    with pytest.raises(BadInput, match="13 PLMNs") as caught:
        platform_releases(platform(13))
    assert "--env" in caught.value.remedy
