"""SBI over TLS of an installation: what `up --sbi-tls` sets, who follows, which Secrets of the user's own are refused."""

from __future__ import annotations

import base64
import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from mvnobox.deploy import keys
from mvnobox.deploy.certificates import faults
from mvnobox.deploy.installation import PROJECT, Installation
from mvnobox.deploy.sbi_tls import (
    check_own_secrets,
    check_sbi_tls,
    check_simulated,
    installed_sbi_tls,
    left_behind,
    sbi_tls_setting,
    wanted_sbi_tls,
)
from mvnobox.errors import BadInput, EnvironmentUnfit
from mvnobox.render import SbiTls
from mvnobox.render.certificates import issue
from mvnobox.render.sbi_tls import PLATFORM_FUNCTIONS, sbi_hosts

ROOT = Path(__file__).resolve().parents[3]
NOW = dt.datetime.now(dt.UTC)
HOSTS = sbi_hosts("platform-dev", PLATFORM_FUNCTIONS)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes stacks' settings, as Pulumi keeps them."""
    monkeypatch.setenv("MVNO_HOME", str(tmp_path))
    (tmp_path / "stacks").mkdir()

    def write(stack: str, **settings: Any) -> Installation:
        config = {f"{PROJECT}:{key}": value for key, value in settings.items()}
        (tmp_path / f"stacks/Pulumi.{stack}.dev.yaml").write_text(yaml.safe_dump({"config": config}))
        return Installation("dev")

    return write


def brand(installed: Any, name: str, core: str = "open5gs", **more: Any) -> Installation:
    found: Installation = installed(name, core=core, brandFile=f"brands/{name}.yaml", **more)
    return found


def test_once_asked_for_it_stays(installed: Any) -> None:
    assert installed_sbi_tls(installed("platform", core="open5gs")) is None
    assert wanted_sbi_tls(None, "open5gs", asked=False) is None
    first = wanted_sbi_tls(None, "open5gs", asked=True)
    assert first == SbiTls()
    # Pulumi keeps what was given as text; what was set by path is an object.
    for kept in (sbi_tls_setting(first), json.loads(sbi_tls_setting(first))):
        there = installed_sbi_tls(installed("platform", core="open5gs", sbiTls=kept))
        assert wanted_sbi_tls(there, "open5gs", asked=False) == first
    # A Secret of the user's own is not replaced.
    assert wanted_sbi_tls(SbiTls("ours"), "open5gs", asked=True) == SbiTls("ours")


def test_no_tls_without_open5gs() -> None:
    for core in ("simulated", "operator"):
        with pytest.raises(BadInput, match="has no SBI"):
            check_sbi_tls(core, True)
        check_sbi_tls(core, False)
    check_sbi_tls("auto", True)
    with pytest.raises(EnvironmentUnfit, match="needs Open5GS, and the core here is simulated"):
        wanted_sbi_tls(None, "simulated", asked=True, platform="simulated")
    # The last brand on Open5GS has gone; another has not.
    assert wanted_sbi_tls(SbiTls(), "simulated", asked=False, platform="simulated") is None
    assert wanted_sbi_tls(SbiTls(), "simulated", asked=False) == SbiTls()


@pytest.mark.parametrize("value", ["{", "[]", '{"secret": "No"}', '{"automatic": "yes"}'])
def test_a_setting_that_cannot_be_used(installed: Any, value: str) -> None:
    with pytest.raises(BadInput, match="sbiTls"):
        installed_sbi_tls(installed("platform", core="open5gs", sbiTls=value))


def test_brands_that_would_be_cut_off_follow(installed: Any) -> None:
    setting = sbi_tls_setting(SbiTls())
    installed("platform", core="open5gs", sbiTls=setting)
    brand(installed, "silverline")
    here = brand(installed, "encore")
    assert [one.name for one in left_behind(here, SbiTls(), "encore")] == ["silverline"]
    brand(installed, "silverline", sbiTls=setting)
    assert left_behind(here, SbiTls(), "encore") == []
    # Turned off again, and another Secret.
    assert [one.name for one in left_behind(here, None, "encore")] == ["silverline"]
    assert [one.name for one in left_behind(here, SbiTls("ours"), "encore")] == ["silverline"]
    brand(installed, "silverline", core="simulated")
    assert left_behind(here, SbiTls(), "encore") == []


def test_a_simulated_core_beside_it_is_refused() -> None:
    with pytest.raises(BadInput, match=r"simulated core of a, b does not speak"):
        check_simulated(SbiTls(), ["b", "a"])
    check_simulated(SbiTls(), [])
    check_simulated(None, ["a"])


def test_a_brand_whose_file_is_gone_is_said_before_anything_is_changed(installed: Any) -> None:
    here = installed("gone", core="open5gs", brandFile="/nowhere/gone.yaml")
    with pytest.raises(BadInput, match=r"gone\.yaml"):
        left_behind(here, SbiTls(), "encore")


def test_the_authoritys_key_is_the_passphrases(installed: Any, tmp_path: Path) -> None:
    one, other = keys.key("platform.dev", "sbiAuthorityKey"), keys.key("platform.prod", "sbiAuthorityKey")
    assert one == keys.key("platform.dev", "sbiAuthorityKey") != other
    assert issue(one, "dev", "platform-dev", HOSTS, 2026) == issue(one, "dev", "platform-dev", HOSTS, 2026)


# Secrets of the user's own -------------------------------------------------------------------------------------------


def files(
    namespace: str = "platform-dev", hosts: Any = HOSTS, seed: str = "11" * 32, year: int = NOW.year
) -> dict[str, bytes]:
    return {name: text.encode() for name, text in issue(seed, "dev", namespace, hosts, year).items()}


def test_a_certificate_that_fits_has_no_faults() -> None:
    assert faults(files(), HOSTS, NOW) == []
    assert faults(files(hosts=["*.platform-dev.svc.cluster.local"]), HOSTS, NOW) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tls.key": b""}, "there is no tls.key"),
        ({"ca.crt": b"", "tls.crt": b""}, "there is no tls.crt, ca.crt"),
        ({"tls.crt": b"nothing of PEM"}, "have to be certificates"),
        ({"tls.key": files()["tls.crt"]}, "have to be certificates"),
        ({"tls.key": files(seed="22" * 32)["tls.key"]}, "not its key"),
        (files(year=2020), "it is good from 2019-12-31 to 2021-12-31"),
        (files(hosts=HOSTS[1:]), f"it lacks the names {HOSTS[0]}"),
        (files(hosts=["*.silverline-dev.svc.cluster.local"]), "it lacks the names nrf."),
        (files(hosts=["*.cluster.local"]), "it lacks the names nrf."),
        ({"ca.crt": issue("11" * 32, "prod", "x", HOSTS, NOW.year)["ca.crt"].encode()}, "does not have its issuer"),
    ],
)
def test_a_certificate_that_does_not_fit_is_named(change: dict[str, bytes], said: str) -> None:
    assert said in "; ".join(faults({**files(), **change}, HOSTS, NOW))


class Cluster:
    """kubectl's answers: which namespaces there are, and their Secrets `ours`."""

    def __init__(self, **secrets: dict[str, bytes] | None) -> None:
        self.secrets = {name.replace("_", "-"): held for name, held in secrets.items()}

    def json(self, *arguments: str) -> Any:
        if arguments == ("get", "namespaces"):
            return {"items": [{"metadata": {"name": name}} for name in self.secrets]}
        flag, namespace, *rest = arguments
        assert (flag, *rest) == ("-n", "get", "secrets", "--field-selector=metadata.name=ours")
        held = self.secrets[namespace]
        data = {name: base64.b64encode(octets).decode() for name, octets in (held or {}).items()}
        return {"items": [{"data": data}] if held is not None else []}


class Notes:
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, message: str) -> None:
        self.said.append(message)


def look(cluster: Cluster, installation: Installation, tls: SbiTls | None = None) -> list[str]:
    notes = Notes()
    check_own_secrets(cluster, tls or SbiTls("ours"), installation, ["silverline"], notes)  # type: ignore[arg-type]
    return notes.said


def test_secrets_are_looked_at_in_every_namespace_that_is_there(installed: Any) -> None:
    here = installed("platform", core="open5gs")
    brand(installed, "encore")
    smf = {one: files(f"{one}-dev", sbi_hosts(f"{one}-dev", ["smf"])) for one in ("silverline", "encore")}
    platform = files(hosts=[host for host in HOSTS if not host.startswith("sepp.")])
    assert look(Cluster(platform_dev=platform, silverline_dev=smf["silverline"], encore_dev=smf["encore"]), here) == []
    (said,) = look(Cluster(platform_dev=platform, encore_dev=smf["encore"]), here)
    assert "silverline-dev start when it has the Secret ours" in said
    for lacking in ("platform_dev", "silverline_dev", "encore_dev"):
        full = {"platform_dev": platform, "silverline_dev": smf["silverline"], "encore_dev": smf["encore"]}
        with pytest.raises(BadInput, match=lacking.replace("_", "-")):
            look(Cluster(**{**full, lacking: None}), here)
    # With roaming partners there is a SEPP, which needs its name.
    here = installed("platform", core="open5gs", roaming="{}")
    with pytest.raises(BadInput, match=r"lacks the names sepp\.platform-dev"):
        look(Cluster(platform_dev=platform), here)


def test_the_kits_own_secrets_are_not_looked_at(installed: Any) -> None:
    assert look(Cluster(), installed("platform", core="open5gs"), SbiTls()) == []
