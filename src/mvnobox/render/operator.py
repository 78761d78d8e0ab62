"""A brand's core where the cluster's open5gs-operator runs it: one `Open5GS` resource in place of charts."""

from __future__ import annotations

from mvnobox.core.operator import CoreInput, IpVersion, Need, Open5GS, Slice, core_refusals, to_open5gs
from mvnobox.errors import BadInput
from mvnobox.spec import BrandSpec, Plan


def _needs_charging(plan: Plan) -> bool:
    return plan.payment == "prepaid" or plan.fair_use is not None or isinstance(plan.allowances.data, int)


def core_input(brand: BrandSpec, namespace: str) -> CoreInput:
    """What a brand asks of a core, said without charts. `namespace`: where the operator is to run it."""
    needs = {Need.CHARGING_ON_N4} if any(map(_needs_charging, brand.plans)) else set()
    if any(network.routed for network in brand.data_networks):
        needs.add(Need.ROUTED)
    return CoreInput(
        name=brand.name,
        namespace=namespace,
        mcc=brand.plmn.mcc,
        mnc=brand.plmn.mnc,
        slices=(Slice(brand.slice.sst, brand.slice.sd),),
        dnns=tuple(network.name for network in brand.data_networks),
        ip=IpVersion.IPV4V6 if any(network.pool6 for network in brand.data_networks) else IpVersion.IPV4,
        pool=brand.data_networks[0].pool,
        needs=frozenset(needs),
        labels={"app.kubernetes.io/part-of": "mvno-in-a-box", "mvno.box/brand": brand.name},
    )


def operator_core(brand: BrandSpec, namespace: str) -> Open5GS:
    """The resource. Raises BadInput with everything that the operator cannot do of what the brand sells."""
    wanted = core_input(brand, namespace)
    if refusals := core_refusals(wanted):
        causes = "".join(f"\n  - {one.cause}" for one in refusals)
        remedies = "; ".join(dict.fromkeys(one.remedy for one in refusals))
        raise BadInput(f"{brand.display_name} cannot run on the open5gs-operator's core:{causes}", remedies)
    return to_open5gs(wanted)
