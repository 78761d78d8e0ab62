"""Who policies let in by address."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from mvnobox.errors import BadInput


def check_networks(networks: Iterable[str], *, whose: str, what: str, own: str) -> None:
    """Refuse what is no IPv4 network, and the whole of IPv4. Raises BadInput.

    For the messages: `whose` networks they are, `what` is open to them, `own` are the addresses that should be named.
    """
    for network in networks:
        try:
            wide = ipaddress.IPv4Network(network).prefixlen == 0
        except ValueError as error:
            raise BadInput(f"a network of {whose} is {network!r}: {error}", "as 198.51.100.0/24") from None
        if wide:
            raise BadInput(f"{what} would be open to everybody", f"name {own} own addresses")
