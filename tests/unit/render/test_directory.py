"""Who reads the directory logs in: where the URI comes from, and what is in it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pymongo
import pytest
import yaml

from mvnobox.errors import BadInput
from mvnobox.render import (
    BrandPlan,
    CoreSlice,
    Epc,
    Images,
    PlatformPlan,
    SbiTls,
    Subscribers,
    brand_releases,
    check_directory,
    directory_uri,
    directory_users,
    platform_releases,
)
from mvnobox.spec import load_brand

BRAND = load_brand(Path(__file__).resolve().parents[3] / "brands/silverline.yaml")
IMAGES = Images(services="s:1", coresim="c:1", postgresql="p:1")
PLAN = PlatformPlan(
    "x",
    IMAGES,
    core="open5gs",
    slices=(CoreSlice.of(BRAND),),
    epc=Epc(realm="epc.mnc093.mcc208.3gppnetwork.org"),
    directory_login=True,
)
READERS = ("udr", "pcf", "hss", "pcrf")


def core(**more: Any) -> Any:
    return next(one for one in platform_releases(dataclasses.replace(PLAN, **more)) if one.name == "core")


def test_a_client_of_mongodb_reads_in_the_uri_what_is_meant() -> None:
    for password in ("a-URL_safe", None):
        for tls in (True, False):
            found: Any = pymongo.uri_parser.parse_uri(directory_uri("platform-x", password, tls=tls), validate=False)
            assert found["nodelist"] == [("directory.platform-x.svc.cluster.local", 27017)]
            assert found["database"] == "open5gs" and found["password"] == password
            options = dict(found["options"])
            assert (options.get("tls") == "true") is tls and options.get("authSource") == (password and "admin")
            assert options.get("tlsCAFile") == ("/etc/mvno-sbi-tls/ca.crt" if tls else None)
            assert password is None or json.loads(directory_users(password)) == {found["username"]: password}


def test_functions_have_the_uri_from_the_secret_alone() -> None:
    made = core()
    assert made.secrets == ("subscribers",) and made.values["subscribers"] == {"secretName": "subscribers"}
    functions = {one["name"]: one for one in made.values["functions"]}
    assert {name for name, one in functions.items() if one.get("database")} == set(READERS)
    assert all("db_uri" not in yaml.safe_load(functions[name]["config"]) for name in READERS)
    assert core(sbi_tls=SbiTls()).secrets == ("sbi-tls", "subscribers")


def test_a_mongodb_of_ones_own_goes_before_the_directory() -> None:
    own = Subscribers.of_setting("mongodb://u:p@db.example/open5gs")
    assert own is not None and core(subscribers=own).values["subscribers"] == own.values


def test_without_a_password_the_directory_is_read_as_before() -> None:
    made = core(directory_login=False)
    assert made.secrets == () and "subscribers" not in made.values
    uri = "mongodb://directory.platform-x.svc.cluster.local:27017/open5gs"
    functions = {one["name"]: one for one in made.values["functions"]}
    assert all(yaml.safe_load(functions[name]["config"])["db_uri"] == uri for name in READERS)


def test_a_simulated_core_has_it_from_a_secret_of_its_own() -> None:
    for login in (True, False):
        plan = BrandPlan("x", BRAND, IMAGES, directory_login=login)
        made = next(one for one in brand_releases(plan) if one.name == "core")
        assert made.secrets == (("smf-env",) if login else ())
        assert made.values["smf"].get("existingSecret") == ("smf-env" if login else None)
        plan = dataclasses.replace(plan, core="open5gs")
        assert not [one for one in brand_releases(plan) if "smf-env" in one.secrets]


def test_a_simulated_core_beside_a_directory_with_tls_is_refused() -> None:
    plan = BrandPlan("x", BRAND, IMAGES)
    with pytest.raises(BadInput, match=r"simulated core of silverline does not speak[^$]*--core open5gs"):
        check_directory(plan, {"automatic": True})
    check_directory(plan, None)
    check_directory(dataclasses.replace(plan, core="open5gs"), {"automatic": True})
