"""The Pulumi components with mocks: what they make, in which namespaces, and that secrets stay secret."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pulumi
import pytest
from tests.stacks.building import ROOT, Mocks, settled


def plans() -> tuple[Any, Any]:
    from mvnobox.render import BrandPlan, Images, PlatformPlan
    from mvnobox.spec import load_brand

    images = Images("r/services:1", "r/coresim:1", "r/postgresql:1")
    return PlatformPlan("dev", images), BrandPlan("dev", load_brand(ROOT / "brands/silverline.yaml"), images)


def test_the_platform_makes_its_namespace_secrets_and_charts(mocks: Mocks) -> None:
    import pulumi_kubernetes as kubernetes

    from components.platform import Platform, PlatformArgs, PlatformSecrets

    secrets = PlatformSecrets(
        postgres_password="a",
        ocs_password="b",
        directory_password="c",
        ocs_tenant_key="00" * 32,
        directory_private_key="11" * 32,
    )
    settled(
        lambda: Platform("platform", PlatformArgs(plan=plans()[0], secrets=secrets, provider=kubernetes.Provider("k")))
    )
    assert set(mocks.of("kubernetes:core/v1:Namespace")) == {"platform-dev"}
    made = mocks.of("kubernetes:core/v1:Secret")
    assert set(made) == {"postgresql-auth", "ocs-env", "directory-env"}
    charts = {one["name"]: one for one in mocks.of("kubernetes:helm.sh/v4:Chart").values()}
    assert set(charts) == {"postgresql", "ocs", "directory", "dn"}
    assert all(Path(one["chart"]).is_dir() for one in charts.values())


def test_a_mongodbs_uri_is_in_secrets_and_nowhere_else(mocks: Mocks) -> None:
    import dataclasses

    import pulumi_kubernetes as kubernetes

    from components.platform import Platform, PlatformArgs, PlatformSecrets
    from mvnobox.render import CoreSlice, Subscribers

    platform, brand = plans()
    uri = "mongodb://open5gs:c0rrect-horse@mongodb.db.svc.cluster.local/open5gs"
    plan = dataclasses.replace(
        platform, core="open5gs", slices=(CoreSlice.of(brand.brand),), subscribers=Subscribers.of_setting(uri)
    )
    keys = {"ocs_tenant_key": "00" * 32, "directory_private_key": "11" * 32}
    passwords = {"postgres_password": "a", "ocs_password": "b", "directory_password": "c"}
    secrets = PlatformSecrets(**keys, **passwords, subscribers=pulumi.Output.secret(uri))
    settled(lambda: Platform("platform", PlatformArgs(plan=plan, secrets=secrets, provider=kubernetes.Provider("k"))))
    made = mocks.of("kubernetes:core/v1:Secret")
    # The engine's wrapping of what is secret in the state.
    assert made["subscribers"]["stringData"]["value"] == {"DB_URI": uri}
    assert made["directory-env"]["stringData"]["value"]["DIRECTORY_MIRROR"] == uri
    charts = {one["name"]: one for one in mocks.of("kubernetes:helm.sh/v4:Chart").values()}
    assert charts["core"]["values"]["subscribers"]["secretName"] == "subscribers"
    assert len(charts["core"]["values"]["secretChecksum"]) == 16
    assert "c0rrect" not in str([one.inputs for one in mocks.made if not one.typ.endswith(":Secret")])


@pytest.mark.parametrize("tls", [False, True])
def test_the_directory_asks_its_readers_for_a_password(mocks: Mocks, tls: bool) -> None:
    import dataclasses

    import pulumi_kubernetes as kubernetes

    from components.brand import Brand, BrandArgs, BrandSecrets
    from components.platform import Platform, PlatformArgs, PlatformSecrets
    from mvnobox.render import CoreSlice, SbiTls

    platform, brand = plans()
    slices = (CoreSlice.of(brand.brand),)
    sbi_tls = SbiTls("ours") if tls else None
    plan = dataclasses.replace(platform, core="open5gs", slices=slices, sbi_tls=sbi_tls, directory_login=True)
    keys = {"ocs_tenant_key": "00" * 32, "directory_private_key": "11" * 32}
    passwords = {"postgres_password": "a", "ocs_password": "b", "directory_password": "c"}
    secret = pulumi.Output.secret("c0rrect-horse")
    secrets = PlatformSecrets(**keys, **passwords, directory_core_password=secret)
    settled(lambda: Platform("platform", PlatformArgs(plan=plan, secrets=secrets, provider=kubernetes.Provider("k"))))
    made = mocks.of("kubernetes:core/v1:Secret")
    options = "authSource=admin" + ("&tls=true&tlsCAFile=/etc/mvno-sbi-tls/ca.crt" if tls else "")
    uri = "mongodb://core:c0rrect-horse@directory.platform-dev.svc.cluster.local:27017/open5gs?"
    assert made["subscribers"]["stringData"]["value"] == {"DB_URI": uri + options}
    assert made["directory-env"]["stringData"]["value"]["DIRECTORY_USERS"] == '{"core": "c0rrect-horse"}'
    # A simulated core beside it, from its own stack's setting.
    plan = dataclasses.replace(brand, directory_login=True)
    brand_secrets = BrandSecrets(
        bss_password="a", ctf_password="b", sim_key="22" * 32, bss_admin_token="t", ocs_tenant_key="00" * 32,
        directory_public_key="33" * 32, directory_core_password=secret,
    )  # fmt: skip
    args = BrandArgs(plan=plan, secrets=brand_secrets, provider=kubernetes.Provider("k"))
    settled(lambda: Brand("silverline", args))
    theirs = mocks.of("kubernetes:core/v1:Secret")["smf-env"]
    assert theirs["metadata"]["namespace"] == "silverline-dev"
    assert theirs["stringData"]["value"] == {"DIRECTORY_URI": uri + "authSource=admin"}
    assert "c0rrect" not in str([one.inputs for one in mocks.made if not one.typ.endswith(":Secret")])


@pytest.mark.parametrize(
    ("core", "uri", "encrypted", "said"),
    [
        ("open5gs", "mongodb://a:c0rrect-horse@db.example/open5gs", False, "config set --secret"),
        ("open5gs", "mongodb://a:c0rrect-horse@db.example", True, "names no database"),
        ("simulated", "mongodb://a:c0rrect-horse@db.example/open5gs", True, "--core open5gs"),
    ],
)
def test_a_wrong_mongodb_is_refused_before_anything_is_made(core: str, uri: str, encrypted: bool, said: str) -> None:
    import runpy

    asyncio.set_event_loop(asyncio.new_event_loop())
    made = Mocks()
    pulumi.runtime.set_mocks(made, project="mvno-in-a-box", stack="platform.test", preview=False)
    images = '{"services": "s:1", "coresim": "c:1", "postgresql": "p:1"}'
    config = {"images": images, "core": core, "subscribers": uri}
    secret = ["subscribers"] if encrypted else []
    pulumi.runtime.set_all_config(
        {f"mvno-in-a-box:{key}": value for key, value in config.items()}, [f"mvno-in-a-box:{key}" for key in secret]
    )
    try:
        with pytest.raises(pulumi.RunError) as refused:
            runpy.run_path(str(ROOT / "stacks" / "__main__.py"), run_name="__main__")
    finally:
        pulumi.runtime.set_all_config({})
        asyncio.set_event_loop(None)
    assert said in str(refused.value) and "c0rrect" not in str(refused.value) and made.made == []


def test_a_brand_makes_only_its_own(mocks: Mocks) -> None:
    import pulumi_kubernetes as kubernetes

    from components.brand import Brand, BrandArgs, BrandSecrets

    secrets = BrandSecrets(
        bss_password="a",
        ctf_password="b",
        sim_key="22" * 32,
        bss_admin_token="t",
        ocs_tenant_key="00" * 32,
        directory_public_key="33" * 32,
    )
    settled(lambda: Brand("silverline", BrandArgs(plan=plans()[1], secrets=secrets, provider=kubernetes.Provider("k"))))
    assert set(mocks.of("kubernetes:core/v1:Namespace")) == {"silverline-dev", "silverline-dev-up"}
    secret_namespaces = {
        name: one["metadata"]["namespace"] for name, one in mocks.of("kubernetes:core/v1:Secret").items()
    }
    assert secret_namespaces == {
        "tenant-silverline": "platform-dev",
        "bss-env": "silverline-dev",
        "ctf-env": "silverline-dev",
    }


@pytest.mark.parametrize(
    ("stack", "layer"), [("platform.dev", ("platform", "dev")), ("my-brand.prod", ("my-brand", "prod"))]
)
def test_stack_names_say_layer_and_environment(stack: str, layer: tuple[str, str]) -> None:
    from components.settings import layer_of

    assert layer_of(stack) == layer


@pytest.mark.parametrize("stack", ["dev", "platform", "Brand.dev", "a.b.c"])
def test_other_stack_names_are_refused(stack: str) -> None:
    from components.settings import layer_of
    from mvnobox.errors import BadInput

    with pytest.raises(BadInput, match="stack"):
        layer_of(stack)


def test_a_brand_on_the_operators_core_asks_for_it_and_has_no_ctf(mocks: Mocks) -> None:
    import dataclasses

    import pulumi_kubernetes as kubernetes

    from components.brand import Brand, BrandArgs, BrandSecrets
    from mvnobox.spec import load_brand

    secrets = BrandSecrets(
        bss_password="a",
        ctf_password="b",
        sim_key="22" * 32,
        bss_admin_token="t",
        ocs_tenant_key="00" * 32,
        directory_public_key="33" * 32,
    )
    brand = load_brand(ROOT / "tests/unit/operator/data/neighbours.yaml")
    plan = dataclasses.replace(plans()[1], brand=brand, core="operator")
    settled(lambda: Brand("neighbours", BrandArgs(plan=plan, secrets=secrets, provider=kubernetes.Provider("k"))))
    [core] = mocks.of("kubernetes:net.gradiant.org/v1:Open5GS").values()
    assert core["metadata"]["namespace"] == "neighbours-dev-up"
    assert core["spec"]["configuration"]["mcc"] == "262"
    charts = {one["name"] for one in mocks.of("kubernetes:helm.sh/v4:Chart").values()}
    assert charts == {"tenant-neighbours", "bss"}


def _served(core: str | None, slices: str | None, brand_core: str = "open5gs") -> Any:
    """What a brand's stack makes of the platform's outputs: the setting, or the error that ends it."""
    import dataclasses

    from components.shared import served

    plan = dataclasses.replace(plans()[1], core=brand_core)

    class Shared:
        def get_output(self, name: str) -> pulumi.Output[Any]:
            return pulumi.Output.from_input({"core": core, "slices": slices, "sbiTls": None}[name])

    async def ask() -> Any:
        return await served(Shared(), plan, "ctx").future()  # type: ignore[arg-type]

    return asyncio.get_event_loop().run_until_complete(ask())


def test_a_brands_stack_asks_the_platforms_first(mocks: Mocks) -> None:
    from components.shared import told
    from mvnobox.render import CoreSlice

    own = CoreSlice.of(plans()[1].brand)
    assert _served("open5gs", told((own,))) == "ctx"
    # The simulated core is the brand's own.
    assert _served("simulated", None, "simulated") == _served("open5gs", told(()), "operator") == "ctx"


@pytest.mark.parametrize(
    ("core", "slices", "cause", "remedy"),
    [
        ("simulated", "[]", "the core of platform.dev is simulated", "core open5gs --stack platform.dev"),
        ("open5gs", None, "does not say which slices", "pulumi up --stack platform.dev"),
        ("open5gs", "[]", "does not serve silverline's slice", "pulumi config set slices --stack platform.dev"),
    ],
)
def test_a_brand_that_the_platform_does_not_serve_is_refused(
    mocks: Mocks, core: str, slices: str | None, cause: str, remedy: str
) -> None:
    with pytest.raises(pulumi.RunError) as found:
        _served(core, slices)
    assert cause in str(found.value) and remedy in str(found.value)


def test_the_remedy_is_a_setting_that_serves_both() -> None:
    import dataclasses
    import json
    import re

    from components.settings import slices_from
    from mvnobox.errors import BadInput
    from mvnobox.render import CoreSlice, Plmn, check_platform

    plan = dataclasses.replace(plans()[1], core="open5gs")
    other = CoreSlice(Plmn("999", "70"), 1, None)
    with pytest.raises(BadInput) as found:
        check_platform(plan, "open5gs", (other,))
    match = re.search(r"'(\[.*\])'", found.value.remedy)
    assert match
    check_platform(plan, "open5gs", slices_from(json.loads(match[1])))
    assert other in slices_from(json.loads(match[1]))
