"""The stand-in for a host network: values of the chart `hostnetwork`, and the same outside of the cluster."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mvnobox.errors import BadInput
from mvnobox.render.engine import render_template
from mvnobox.render.epc import Epc
from mvnobox.render.release import CLUSTER_DOMAIN, Images, image_values
from mvnobox.spec import BrandSpec


def host_network_stand_in(
    context: Mapping[str, Any], peers: Mapping[str, str], images: Images, epc: Epc
) -> dict[str, Any]:
    """The stand-in beside a brand's user plane, for 4G's journey."""
    brand: BrandSpec = context["brand"]
    config = render_template(
        "hostnetwork/hostnetwork.yaml.j2",
        brand=brand,
        epc=epc,
        mme=epc.test_peer(brand.name),
        hss=f"hss.{context['platform_namespace']}.svc.{CLUSTER_DOMAIN}",
        pgw=f"pgwc.{context['packet_gateway_namespace']}.svc.{CLUSTER_DOMAIN}",
        http="0.0.0.0:8081",
        own=None,
    )
    return {
        "brand": brand.name,
        "image": image_values(images.coresim),
        "config": config,
        "peers": dict(peers),
    }


def stand_in_address(epc: Epc) -> str:
    """An address of the host network that is nobody's, as far as it is known: the last one. Raises BadInput."""
    taken = {*(peer.address for peer in epc.peers), *(epc.outside.addresses if epc.outside else ())}
    for network in map(ipaddress.IPv4Network, epc.host_networks):
        ends = 1 if network.prefixlen < 31 else 0
        for number in range(int(network.broadcast_address) - ends, int(network.network_address) + ends - 1, -1):
            address = str(ipaddress.IPv4Address(number))
            if address not in taken:
                return address
    raise BadInput("hostNetworks has no address left for a test peer", "name a network with room for one more")


def outside_stand_in(brand: BrandSpec, epc: Epc, address: str, state: Path) -> str:
    """Its configuration where it is outside of the cluster, at an address of the host network. For brands with an edge.

    Its name on S6a is another one than the stand-in's beside the user plane: the HSS has one connection for each.
    """
    edge = epc.edge(brand.name)
    assert epc.outside is not None and edge is not None
    return render_template(
        "hostnetwork/hostnetwork.yaml.j2",
        brand=brand,
        epc=epc,
        mme=epc.test_peer(f"outside.{brand.name}"),
        hss=epc.outside.hss,
        pgw=edge.pgw,
        http="127.0.0.1:8081",
        own={"listen": address, "state": str(state)},
    )
