"""A MongoDB of one's own: what Open5GS's configurations then have, and what is refused before it is applied."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import yaml

from mvnobox.errors import BadInput
from mvnobox.render import CoreSlice, Epc, Images, PlatformPlan, Plmn, Subscribers, platform_releases

PASSWORD = "c0rrect%2Fhorse"
URI = f"mongodb://open5gs:{PASSWORD}@mongodb.db.svc.cluster.local:27017/open5gs?authSource=admin"
IMAGES = Images(services="s:1", coresim="c:1", postgresql="p:1")
PLAN = PlatformPlan(
    "x",
    IMAGES,
    core="open5gs",
    slices=(CoreSlice(Plmn("208", "93"), 1, "000001"),),
    epc=Epc(realm="epc.mnc093.mcc208.3gppnetwork.org", brands=("silverline",)),
)


def releases(uri: str | None = URI, **more: Any) -> dict[str, Any]:
    plan = dataclasses.replace(PLAN, subscribers=Subscribers.of_setting(uri, **more))
    return {one.name: one for one in platform_releases(plan)}


def test_functions_get_the_uri_by_their_environment_and_from_nowhere_else() -> None:
    made = releases()
    core = made["core"]
    functions = {one["name"]: one for one in core.values["functions"]}
    assert {name for name, one in functions.items() if one.get("database")} == {"udr", "pcf", "hss", "pcrf"}
    for name in ("udr", "pcf", "hss", "pcrf"):
        assert "db_uri" not in yaml.safe_load(functions[name]["config"])
    assert core.secrets == ("subscribers",) and core.values["subscribers"]["secretName"] == "subscribers"
    where = {"ports": [27017], "namespaces": ["db"], "networks": []}
    assert (
        where.items() <= core.values["subscribers"].items()
        and where.items() <= made["directory"].values["mirror"].items()
    )
    everything = json.dumps([dict(one.values) for one in made.values()])
    assert "c0rrect" not in everything and "mongodb://" not in everything


def test_without_the_setting_the_directory_is_read() -> None:
    made = releases(None)
    functions = {one["name"]: one for one in made["core"].values["functions"]}
    for name in ("udr", "pcf", "hss", "pcrf"):
        config = yaml.safe_load(functions[name]["config"])
        assert config["db_uri"] == "mongodb://directory.platform-x.svc.cluster.local:27017/open5gs"
    assert (
        made["core"].secrets == ()
        and "subscribers" not in made["core"].values
        and "mirror" not in made["directory"].values
    )


@pytest.mark.parametrize(
    ("uri", "where"),
    [
        ("mongodb://10.1.2.3/open5gs", ((27017,), (), ("10.1.2.3/32",))),
        ("mongodb://[fd00::5]:27018/x", ((27018,), (), ("fd00::5/128",))),
        (
            "mongodb://m-0.m.db.svc.cluster.local:27017,m-1.m.db.svc:27018,db.example.com/open5gs?replicaSet=rs0",
            ((27017, 27018), ("db",), ("0.0.0.0/0",)),
        ),
        ("mongodb+srv://u:p@cluster0.example.net/open5gs?retryWrites=true", ((27017,), (), ("0.0.0.0/0",))),
    ],
)
def test_where_it_is_is_what_policies_have_to_know(uri: str, where: Any) -> None:
    found = Subscribers.of_setting(uri)
    assert found is not None and (found.ports, found.namespaces, found.networks) == where


def test_files_of_tls_are_those_of_the_secret() -> None:
    uri = f"{URI}&tls=true&tlsCAFile=/etc/mvno-mongodb/ca.crt"
    assert releases(uri, tls_secret="mongodb-ca")["core"].values["subscribers"]["tlsSecret"] == "mongodb-ca"


@pytest.mark.parametrize(
    ("uri", "more", "said"),
    [
        ("postgresql://a:secret@db.example/open5gs", {}, "no URI of a MongoDB"),
        ("mongodb:db.example", {}, "no URI of a MongoDB"),
        ("mongodb://a:secret@x@db.example/open5gs", {}, "percent-encoded"),
        ("mongodb://a:secr%et@db.example/open5gs", {}, "not percent-encoded"),
        ("mongodb://:secret@db.example/open5gs", {}, "not percent-encoded"),
        ("mongodb://db.example /open5gs", {}, "no URI of a MongoDB"),
        ("mongodb://a:secret@db.example", {}, "names no database"),
        ("mongodb://a:secret@db.example/?authSource=admin", {}, "names no database"),
        ("mongodb://db.example/open.5gs", {}, "names no database"),
        ("mongodb:///open5gs", {}, "HOST or HOST:PORT"),
        ("mongodb://a.example,/open5gs", {}, "HOST or HOST:PORT"),
        ("mongodb://db.example:0/open5gs", {}, "HOST or HOST:PORT"),
        ("mongodb://db.example:99999/open5gs", {}, "HOST or HOST:PORT"),
        ("mongodb://%2Ftmp%2Fmongodb.sock/open5gs", {}, "no full name"),
        ("mongodb://localhost/open5gs", {}, "no full name"),
        ("mongodb://mongodb/open5gs", {}, "NAMESPACE.svc.cluster.local"),
        ("mongodb://127.0.0.1/open5gs", {}, "each pod's own"),
        ("mongodb+srv://db.example:27017/open5gs", {}, "mongodb+srv with a port"),
        ("mongodb+srv://a.example,b.example/open5gs", {}, "several hosts"),
        ("mongodb://db.example/open5gs?tls=true&tlsCAFile=/root/ca.pem", {}, "a file that pods do not have"),
        ("mongodb://db.example/open5gs?tlsCAFile=/etc/mvno-mongodb/ca.crt", {}, "no setting subscribersTls"),
        ("mongodb://db.example/open5gs", {"tls_secret": "../x"}, "the name of a Secret"),
        ("mongodb://a:secret@db.example/open5gs", {"encrypted": False}, "config set --secret"),
        (None, {"tls_secret": "x"}, "without subscribers"),
    ],
)
def test_what_is_refused_says_why_and_shows_nothing(uri: str | None, more: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput) as refused:
        Subscribers.of_setting(uri, **more)
    told = f"{refused.value} {refused.value.remedy}"
    assert said in told and "secr" not in told.replace("--secret", "").replace("Secret", "") and refused.value.remedy


def test_a_core_that_reads_no_mongodb_is_refused() -> None:
    with pytest.raises(BadInput) as refused:
        PlatformPlan("x", IMAGES, subscribers=Subscribers.of_setting(URI))
    assert "simulated" in refused.value.cause and "--core open5gs" in refused.value.remedy
