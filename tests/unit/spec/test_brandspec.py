"""BrandSpec: sound files load, broken ones give every error at once with its place."""

from __future__ import annotations

import copy
from pathlib import Path

import jsonschema
import pytest
import yaml

from mvnobox.spec import BrandSpec, InvalidSpec, brand_schema, check_together, load_brand, parse_brand

ROOT = Path(__file__).resolve().parents[3]
SILVERLINE = (ROOT / "brands/silverline.yaml").read_text(encoding="utf-8")
BRANDS = sorted(path.name for path in (ROOT / "brands").glob("*.yaml"))


def problems(text: str) -> dict[str, str]:
    with pytest.raises(InvalidSpec) as caught:
        parse_brand(text, "brand.yaml")
    assert caught.value.exit_code == 2
    return {problem.path: f"{problem.line}|{problem.found}|{problem.allowed}" for problem in caught.value.problems}


def changed(**replacements: str) -> str:
    text = SILVERLINE
    for old, new in replacements.items():
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize("name", BRANDS)
def test_shipped_brands_load_and_agree_with_the_schema(name: str) -> None:
    spec = load_brand(ROOT / "brands" / name)
    assert spec.name == name.removesuffix(".yaml")
    jsonschema.validate(yaml.safe_load((ROOT / "brands" / name).read_text(encoding="utf-8")), brand_schema())


def test_the_exported_schema_is_current() -> None:
    import json

    assert json.loads((ROOT / "brands/brandspec.schema.json").read_text(encoding="utf-8")) == brand_schema()


def test_units_become_integers_of_the_smallest_unit() -> None:
    spec = load_brand(ROOT / "brands/silverline.yaml")
    assert spec.plan("essentiel").allowances.data == 1_000_000_000
    assert spec.plan("essentiel").allowances.voice == 7200
    assert spec.data_networks[0].ambr.downlink == 50_000_000
    assert spec.plan("serenite").fair_use and spec.plan("serenite").fair_use.throttle == 512_000
    assert spec.data_networks[0].gateway == "10.45.0.1"


def test_every_error_comes_at_once_with_line_and_remedy() -> None:
    text = SILVERLINE
    for old, new in [
        ('mcc: "208"', 'mcc: "302"'),
        ("data: 1 GB, voice", "data: 1 XB, voice"),
        ('price: "7.99"', "price: 7.99"),
        ('"#1b4965"', '"#eeeeee"'),
        ("pool: 10.45.0.0/16", "pool: 10.96.0.0/15"),
        ("topUps: [recharge-1go]", "topUps: [recharge-9go]"),
        ("esim:", "esmi:"),
    ]:
        assert old in text, old
        text = text.replace(old, new)
    found = problems(text)
    assert "MCC 302 is not France's" in found["plmn"]
    assert "is not an amount of data" in found["plans[0].allowances.data"]
    assert "in quotes" in found["plans[0].price"]
    assert "contrast" in found["theme"]
    assert "which the cluster itself uses" in found["dataNetworks[0].pool"]
    assert "one of topUps: recharge-1go" in found["plans[0].topUps[0]"]
    assert "plans[1].topUps[0]" in found
    assert "required" in found["esim"] and "unknown key" in found["esmi"]
    line = SILVERLINE.splitlines().index('    price: "7.99"') + 1
    assert found["plans[0].price"].startswith(f"{line}|")


@pytest.mark.parametrize(
    ("old", "new", "path", "said"),
    [
        ('first: "+33639980000", last: "+33639989999"', 'first: "+33140000000", last: "+33140000009"', "numberRange", "mobile"),
        ('first: "+33639980000"', 'first: "+33639989999X"', "numberRange.first", "form"),
        ('sd: "000001"', "sd: 000001", "slice.sd", "in quotes"),
        ('first: "0000000001", last: "0000099999"', 'first: "000000001", last: "000099999"', "msinRange", "10 digits"),
        ("name: silverline\ndisplayName", "name: platform\ndisplayName", "name", "itself uses"),
        ("country: FR", "country: ES", "country", "no country pack"),
        ("    en-GB: Staying close, made simple.\n", "", "theme.tagline", "each of the brand's locales"),
        ("logo: Silverline", "logo: '<svg onload=alert(1)></svg>'", "theme.logo", "without scripts"),
        ("dnn: silverline\n    allowances: {data: 1 GB", "dnn: other\n    allowances: {data: 1 GB", "plans[0].dnn", "one of"),
        ('price: "7.99"', 'price: "-1"', "plans[0].price", "greater than or equal"),
        ("data: 1 GB, voice", "data: 99999999 TB, voice", "plans[0].allowances.data", "out of range"),
        ("mtu: 1400", "mtu: 12", "dataNetworks[0].mtu", "1280"),
        ("pool: 10.45.0.0/16", "pool: 10.45.0.1/16", "dataNetworks[0].pool", "host bits"),
        ("pool: 10.45.0.0/16", "pool: 10.45.0.0/31", "dataNetworks[0].pool", "larger"),
        ("pool: 10.45.0.0/16", "pool: 198.18.0.0/15\n    routed: maybe", "dataNetworks[0].routed", "boolean"),
        ("pool: 10.45.0.0/16", "pool: 81.2.0.0/16", "dataNetworks[0].pool", "or routed: true"),
        ("pool: 10.45.0.0/16", "pool: 10.96.0.0/16\n    routed: true", "dataNetworks[0].pool", "the cluster itself uses"),
        ("pool: 10.45.0.0/16", "pool: 10.45.0.0/20", "dataNetworks[0].pool", "room for the 10000 lines that numberRange and msinRange allow (a /18)"),
        ("mtu: 1400", "mtu: 1400\n    pool6: 10.45.0.0/16", "dataNetworks[0].pool6", "write an IPv6 network"),
        ("mtu: 1400", "mtu: 1400\n    pool6: fd45::1/48", "dataNetworks[0].pool6", "host bits"),
        ("mtu: 1400", "mtu: 1400\n    pool6: fe80::/48", "dataNetworks[0].pool6", "unique local network"),
        ("mtu: 1400", "mtu: 1400\n    pool6: 2001:db8::/48", "dataNetworks[0].pool6", "routed to you"),
        ("mtu: 1400", "mtu: 1400\n    pool6: fd00::/8", "dataNetworks[0].pool6", "write the part"),
        ("mtu: 1400", "mtu: 1400\n    pool6: fd45::/64", "dataNetworks[0].pool6", "holds 0 UEs, each of which gets a /64: take a /61 or larger"),
        ("mtu: 1400", "mtu: 1400\n    pool6: fd45::/51", "dataNetworks[0].pool6", "room for the 10000 lines that numberRange and msinRange allow (a /50)"),
        ("dns: [9.9.9.9]", "dns: ['2620:fe::fe']", "dataNetworks[0]", "give pool6"),
        ("dns: [9.9.9.9]", "dns: [9.9.9.9, 149.112.112.112, 1.1.1.1]", "dataNetworks[0]", "2 of a family at most"),
    ],
)  # fmt: skip
def test_one_error(old: str, new: str, path: str, said: str) -> None:
    assert old in SILVERLINE
    assert said in problems(SILVERLINE.replace(old, new))[path]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "a: [",
        "a: 1\na: 2",
        "1: 2",
        "&a [*a]",
        "a: &x [*x]",
        "\x00",
        "--- 1\n--- 2",
        "a: 2026-13-45",
        "? [a]\n: b",
    ],
)
def test_what_is_no_brand_at_all_is_refused_in_words(text: str) -> None:
    assert problems(text)


def test_unreadable_files_are_refused_in_words(tmp_path: Path) -> None:
    for make in ("missing.yaml", "folder"):
        path = tmp_path / make
        if make == "folder":
            path.mkdir()
        with pytest.raises(InvalidSpec):
            load_brand(path)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("name: é".encode("latin-1"))
    with pytest.raises(InvalidSpec, match="UTF-8"):
        load_brand(latin)


def other(**changes: object) -> BrandSpec:
    data = yaml.safe_load((ROOT / "brands/encore.yaml").read_text(encoding="utf-8"))
    return parse_brand(yaml.safe_dump({**data, **changes}, allow_unicode=True), "encore.yaml")


def test_brands_that_claim_the_same_thing_are_refused_together() -> None:
    silverline = load_brand(ROOT / "brands/silverline.yaml")
    networks = yaml.safe_load((ROOT / "brands/encore.yaml").read_text(encoding="utf-8"))["dataNetworks"]
    clash = other(
        slice={"sst": 1, "sd": "000001"},
        dataNetworks=[{**networks[0], "pool": "10.45.128.0/17"}],
        voice={"domain": "ims.silverline.example"},
    )
    with pytest.raises(InvalidSpec) as caught:
        check_together([("silverline.yaml", silverline), ("encore.yaml", clash)])
    assert {problem.path for problem in caught.value.problems} == {"slice", "dataNetworks[0].pool", "voice.domain"}
    assert all(problem.file == "encore.yaml" and "silverline" in problem.allowed for problem in caught.value.problems)
    check_together([("silverline.yaml", silverline), ("encore.yaml", other())])


def test_a_routed_pool_may_be_public(tmp_path: Path) -> None:
    file = tmp_path / "routed.yaml"
    file.write_text(SILVERLINE.replace("pool: 10.45.0.0/16", "pool: 81.2.0.0/16\n    routed: true"))
    [network, *others] = load_brand(file).data_networks
    assert (network.pool, network.routed) == ("81.2.0.0/16", True) and not any(one.routed for one in others)


def test_ipv6_networks_are_a_brand_s_own() -> None:
    def with_pools(*pools: str) -> BrandSpec:
        network = yaml.safe_load((ROOT / "brands/encore.yaml").read_text(encoding="utf-8"))["dataNetworks"][0]
        networks = [{**copy.deepcopy(network), "pool6": pools[0]}]
        for number, pool in enumerate(pools[1:]):
            # Its own copy: a file has no aliases.
            network = copy.deepcopy(network)
            networks.append({**network, "name": f"other{number}", "pool": f"10.{60 + number}.0.0/16", "pool6": pool})
        return other(dataNetworks=networks)

    network = with_pools("FD45:6A70:1C00::/48").data_networks[0]
    assert (network.pool6, network.gateway6) == ("fd45:6a70:1c00::/48", "fd45:6a70:1c00::1")
    assert other().data_networks[0].network6 is None and other().data_networks[0].gateway6 is None
    assert with_pools("2a0e:9e80::/32").data_networks[0].pool6 == "2a0e:9e80::/32"
    with pytest.raises(InvalidSpec, match="overlap"):
        with_pools("fd45:6a70:1c00::/48", "fd45:6a70:1c00:8000::/50")
    text = SILVERLINE.replace("mtu: 1400", "mtu: 1400\n    pool6: fd45:6a70:1c00::/40")
    silverline = parse_brand(text, "silverline.yaml")
    with pytest.raises(InvalidSpec) as caught:
        check_together([("silverline.yaml", silverline), ("encore.yaml", with_pools("fd45:6a70:1c00::/48"))])
    assert [problem.path for problem in caught.value.problems] == ["dataNetworks[0].pool6"]
    check_together([("silverline.yaml", silverline), ("encore.yaml", with_pools("fd45:6b70:1c00::/48"))])
