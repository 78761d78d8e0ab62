"""A pool of UE addresses."""

from __future__ import annotations

import ipaddress

from mvnobox.core.sim.settings import Dnn


class Exhausted(Exception):
    """Every address is taken."""


class AddressPool:
    """IPv4 addresses of a DNN but for the network's, the broadcast and the gateway's.

    The lowest free one is given, but one that has just been given back comes last: a stray packet for the former
    owner does not reach the new one.
    """

    def __init__(self, dnn: Dnn) -> None:
        network = dnn.network
        self._next, self._last = int(network[0]) + 1, int(network[-1]) - 1
        self._gateway = int(ipaddress.IPv4Address(dnn.gateway))
        self._taken: set[int] = set()
        self._returned: dict[int, None] = {}

    def take(self) -> str:
        """An address that nobody has. Raises Exhausted."""
        while self._next <= self._last:
            number = self._next
            self._next += 1
            if number != self._gateway:
                self._taken.add(number)
                return str(ipaddress.IPv4Address(number))
        if not self._returned:
            raise Exhausted
        number = next(iter(self._returned))
        del self._returned[number]
        self._taken.add(number)
        return str(ipaddress.IPv4Address(number))

    def give_back(self, address: str) -> None:
        """End the use of an address; what was not taken is not noted."""
        number = int(ipaddress.IPv4Address(address))
        if number in self._taken:
            self._taken.discard(number)
            self._returned[number] = None
