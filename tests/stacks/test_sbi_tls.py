"""The SBI's certificates in the stacks: Secrets of Kubernetes' own type, secret in the state, and only with agreement."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pulumi
import pytest
from cryptography import x509
from tests.stacks.building import ROOT, Mocks, settled

KEY = "11" * 32


def plans(tls: Any) -> tuple[Any, Any]:
    from mvnobox.render import BrandPlan, CoreSlice, Images, PlatformPlan
    from mvnobox.spec import load_brand

    images = Images("r/services:1", "r/coresim:1", "r/postgresql:1")
    brand = load_brand(ROOT / "brands/silverline.yaml")
    platform = PlatformPlan("dev", images, core="open5gs", slices=(CoreSlice.of(brand),), sbi_tls=tls)
    return platform, BrandPlan("dev", brand, images, core="open5gs", sbi_tls=tls)


def build_platform(plan: Any, key: str | None) -> None:
    import pulumi_kubernetes as kubernetes

    from components.platform import Platform, PlatformArgs, PlatformSecrets

    secrets = PlatformSecrets(
        postgres_password="a",
        ocs_password="b",
        directory_password="c",
        ocs_tenant_key="00" * 32,
        directory_private_key="11" * 32,
        sbi_authority_key=key,
    )
    settled(lambda: Platform("platform", PlatformArgs(plan=plan, secrets=secrets, provider=kubernetes.Provider("k"))))


def build_brand(plan: Any, key: Any) -> None:
    import pulumi_kubernetes as kubernetes

    from components.brand import Brand, BrandArgs, BrandSecrets

    def build() -> None:
        secrets = BrandSecrets(
            bss_password="a",
            ctf_password="b",
            sim_key="22" * 32,
            bss_admin_token="t",
            ocs_tenant_key="00" * 32,
            directory_public_key="33" * 32,
            sbi_authority_key=key,
        )
        Brand("x", BrandArgs(plan=plan, secrets=secrets, provider=kubernetes.Provider("k")))

    settled(build)


def opened(secret: dict[str, Any]) -> dict[str, str]:
    """What a Secret holds, which reaches the state marked as secret."""
    wrapped = secret["stringData"]
    assert wrapped["4dabf18193072939515e22adb298388d"] == "1b47061264138c4ac30d75fd1eb44270"
    values: dict[str, str] = wrapped["value"]
    return values


def names(secret: dict[str, Any]) -> list[str]:
    certificate = x509.load_pem_x509_certificate(opened(secret)["tls.crt"].encode())
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [name.value for name in found]


def test_platform_and_brand_make_a_secret_each_of_one_authority(mocks: Mocks) -> None:
    from mvnobox.render import SbiTls

    platform, brand = plans(SbiTls())
    build_platform(platform, KEY)
    ours = dict(mocks.of("kubernetes:core/v1:Secret"))
    assert ours["sbi-tls"]["type"] == "kubernetes.io/tls" and ours["sbi-tls"]["metadata"]["namespace"] == "platform-dev"
    assert {"amf.platform-dev.svc.cluster.local", "directory.platform-dev.svc.cluster.local"} <= set(
        names(ours["sbi-tls"])
    )
    assert ours["directory-env"]["type"] == "Opaque"
    charts = {one["name"]: one["values"] for one in mocks.of("kubernetes:helm.sh/v4:Chart").values()}
    assert charts["core"]["secretChecksum"] and charts["core"]["sbiTls"] == {"secret": "sbi-tls"}
    mocks.made.clear()
    build_brand(brand, KEY)
    theirs = mocks.of("kubernetes:core/v1:Secret")["sbi-tls"]
    assert theirs["metadata"]["namespace"] == "silverline-dev"
    assert names(theirs) == ["smf.silverline-dev.svc.cluster.local"]
    assert opened(theirs)["ca.crt"] == opened(ours["sbi-tls"])["ca.crt"]
    assert opened(theirs)["tls.key"] != opened(ours["sbi-tls"])["tls.key"]


def test_a_secret_of_the_users_own_is_not_made(mocks: Mocks) -> None:
    from mvnobox.render import SbiTls

    platform, brand = plans(SbiTls("ours"))
    build_platform(platform, None)
    build_brand(brand, None)
    assert not [name for name in mocks.of("kubernetes:core/v1:Secret") if "tls" in name or name == "ours"]
    charts = {one["name"]: one["values"] for one in mocks.of("kubernetes:helm.sh/v4:Chart").values()}
    assert charts["core"]["sbiTls"] == {"secret": "ours"} and "secretChecksum" not in charts["core"]


@pytest.mark.parametrize(
    ("own", "platform"),
    [(None, {"automatic": True}), ("kit", None), ("kit", {"secret": "ours"}), ("kit", {"automatic": True})],
)
def test_a_brand_that_disagrees_with_its_platform_makes_nothing(mocks: Mocks, own: str | None, platform: Any) -> None:
    """Everything of a brand goes by the provider, whose context is known only where it agrees."""
    from components.shared import served, told
    from mvnobox.render import CoreSlice, SbiTls

    plan = dataclasses.replace(plans(None)[1], sbi_tls=SbiTls() if own else None)
    outputs = {"core": "open5gs", "slices": told((CoreSlice.of(plan.brand),)), "sbiTls": platform}

    class Shared:
        def get_output(self, name: str) -> pulumi.Output[Any]:
            return pulumi.Output.from_input(outputs[name])

    async def ask() -> Any:
        return await served(Shared(), plan, "ctx").future()  # type: ignore[arg-type]

    ended = asyncio.get_event_loop().run_until_complete
    if own and platform == {"automatic": True}:
        assert ended(ask()) == "ctx"
        return
    with pytest.raises(pulumi.RunError, match="the platform's SBI is"):
        ended(ask())


def test_setting_and_core_are_looked_at_together() -> None:
    from components.settings import sbi_tls_from
    from mvnobox.errors import BadInput

    assert sbi_tls_from(None, "simulated") is None
    with pytest.raises(BadInput, match="the core is simulated"):
        sbi_tls_from({"automatic": True}, "simulated")
