"""Pools of UE addresses: of IPv4 single ones, of IPv6 a /64 for each UE (TS 23.501 clause 5.8.2.2)."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from mvnobox.core.sim.settings import Dnn

# The length of a UE's prefix.
PREFIX = 64


class Exhausted(Exception):
    """Every address is taken."""


class _Pool:
    """Numbers from the first to the last but for one.

    The lowest free one is given, but one that has just been given back comes last: a stray packet for the former
    owner does not reach the new one.
    """

    def __init__(self, first: int, last: int, never: int, written: Callable[[int], str]) -> None:
        self._next, self._last, self._never, self._written = first, last, never, written
        self._taken: dict[str, int] = {}
        self._returned: dict[int, None] = {}

    def take(self) -> str:
        """An address that nobody has. Raises Exhausted."""
        if self._next == self._never:
            self._next += 1
        if self._next <= self._last:
            number = self._next
            self._next += 1
        elif self._returned:
            number = next(iter(self._returned))
            del self._returned[number]
        else:
            raise Exhausted
        address = self._written(number)
        self._taken[address] = number
        return address

    def give_back(self, address: str) -> None:
        """End the use of an address; what was not taken is not noted."""
        number = self._taken.pop(address, None)
        if number is not None:
            self._returned[number] = None


class AddressPool(_Pool):
    """IPv4 addresses of a DNN but for the network's, the broadcast and the gateway's."""

    def __init__(self, dnn: Dnn) -> None:
        network = dnn.network
        gateway = int(ipaddress.IPv4Address(dnn.gateway))
        super().__init__(
            int(network[0]) + 1, int(network[-1]) - 1, gateway, lambda number: str(ipaddress.IPv4Address(number))
        )


class PrefixPool(_Pool):
    """The /64s of a network but for the first and the last one and the gateway's.

    Each is written as the address that the network gives in it: prefix and interface identifier, as Open5GS does, which
    counts the identifiers from 2.
    """

    def __init__(self, network: ipaddress.IPv6Network, gateway: str) -> None:
        base, own = int(network[0]) >> PREFIX, int(ipaddress.IPv6Address(gateway)) >> PREFIX

        def written(number: int) -> str:
            return str(ipaddress.IPv6Address(number << PREFIX | (number - base + 1)))

        super().__init__(base + 1, (int(network[-1]) >> PREFIX) - 1, own, written)
