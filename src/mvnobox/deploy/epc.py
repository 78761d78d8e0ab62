"""4G of an installation: what is set, and what `up --epc` makes of it."""

from __future__ import annotations

import dataclasses
import json
import os

from mvnobox.deploy.installation import Installation
from mvnobox.errors import BadInput, EnvironmentUnfit
from mvnobox.render import Epc, check_halves
from mvnobox.spec import BrandSpec


def check_epc(core: str, asked: bool) -> None:
    """Refuse 4G on a core that has none, before anything is touched. Raises BadInput."""
    if asked and core in ("simulated", "operator"):
        raise BadInput(f"the core {core} has no 4G", "./mvno up --core open5gs --epc")


def installed_epc(installation: Installation) -> Epc | None:
    """The platform's setting `epc`; None without one. Raises BadInput for one that cannot be used."""
    return Epc.of_setting(installation.document(f"platform.{installation.env}", "epc"))


def check_pools(installed: Epc | None, spec: BrandSpec, core: str, asked: bool) -> None:
    """Refuse a brand with 4G whose pools are too small for it, before anything is touched. Raises BadInput."""
    has = installed is not None and spec.name in installed.brands and core in ("auto", "open5gs")
    if asked or has:
        check_halves(spec)


def home_realm(spec: BrandSpec) -> str:
    """The Diameter realm of a brand's PLMN (TS 23.003 clause 19.2)."""
    return f"epc.mnc{spec.plmn.mnc.zfill(3)}.mcc{spec.plmn.mcc}.3gppnetwork.org"


def wanted_epc(installed: Epc | None, spec: BrandSpec, core: str, asked: bool) -> Epc | None:
    """What platform and brand are to have: as installed, and where it is asked for this brand's 4G and test peers.

    The realm is the first brand's and stays: peers know the HSS by it. Raises EnvironmentUnfit on another core.
    """
    if not asked:
        return installed
    if core != "open5gs":
        raise EnvironmentUnfit(
            f"4G needs Open5GS, and the core here is {core}",
            "./mvno import-image ARCHIVE puts Open5GS's images on the node; then ./mvno up --core open5gs --epc",
        )
    base = installed or Epc(home_realm(spec))
    brands = base.brands if spec.name in base.brands else (*base.brands, spec.name)
    return dataclasses.replace(base, brands=brands, test_peers=True)


def check_outside(epc: Epc | None, cluster: str) -> None:
    """Refuse a way in from outside that a kind of cluster has not. Raises EnvironmentUnfit."""
    if epc and epc.outside and cluster == "embedded" and epc.outside.service == "LoadBalancer":
        raise EnvironmentUnfit(
            "4G is outside by Services of type LoadBalancer, and the embedded cluster has no load balancer",
            'set "service": "ExternalIPs" in outside of the setting epc, and route the addresses to this machine',
        )


def epc_setting(epc: Epc) -> str:
    """The stacks' setting `epc`: the same text for the platform's and each brand's."""
    return json.dumps(epc.setting, sort_keys=True)


def check_test_peer(installation: Installation, brand: str) -> None:
    """Refuse a journey over 4G where the brand has no test peer. Raises EnvironmentUnfit."""
    epc = installed_epc(installation)
    if epc is None or brand not in epc.brands or not epc.test_peers:
        raise EnvironmentUnfit(
            f"brand {brand!r} has no 4G with a test peer in {installation.env!r}",
            f"./mvno up --core open5gs --epc --brand {brand}",
        )


def check_outside_peer(installation: Installation, brand: str, cluster: str) -> Epc:
    """Refuse a journey from outside where a brand is not reached from there; else its 4G. Raises EnvironmentUnfit."""
    epc = installed_epc(installation)
    if epc is None or epc.outside is None or epc.outside.hss is None or epc.edge(brand) is None:
        raise EnvironmentUnfit(
            f"brand {brand!r} has no 4G outside of the cluster in {installation.env!r}",
            "give outside of the setting epc an address for the HSS and two for the brand (docs/open5gs.md), then "
            f"./mvno up --core open5gs --epc --brand {brand}",
        )
    if cluster != "embedded":
        raise EnvironmentUnfit(
            f"a network namespace of this machine is outside of an embedded cluster only, and this one is {cluster}",
            "run the test peer where the host network is: docs/hostnetwork.md",
        )
    if os.geteuid() != 0:
        raise EnvironmentUnfit("a network namespace needs root", "sudo ./mvno verify --access 4g --from outside")
    return epc
