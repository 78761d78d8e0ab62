"""From what the CTF says to what the kernel is told: an HTB class a line and direction, chosen by the packet's priority.

nftables gives a forwarded packet the class of its address (`meta priority`), HTB takes a packet to the class of its
priority: one look-up a packet, however many lines there are, and no class for those that are not slowed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

TABLE = "mvno_shaper"
# HTB's class numbers have 16 bits; 0 is the qdisc itself, ffff is kept free.
LARGEST_MINOR = 0xFFFE
BitRate = Annotated[int, Field(ge=1000, le=10**12, strict=True)]


class Line(BaseModel):
    """A session that is slowed: its addresses and IPv6 prefixes, bit/s each way."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    addresses: Annotated[tuple[str, ...], Field(min_length=1, max_length=8)]
    uplink: BitRate
    downlink: BitRate

    @field_validator("addresses")
    @classmethod
    def _plain(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(str(ipaddress.ip_network(one, strict=False)) for one in value))


class Lines(BaseModel):
    """All that are slowed: who is not in it is not slowed."""

    model_config = ConfigDict(extra="forbid")

    throttles: Annotated[list[Line], Field(max_length=20_000)]

    @model_validator(mode="after")
    def _once(self) -> Lines:
        addresses = [address for line in self.throttles for address in line.addresses]
        if len(set(addresses)) != len(addresses):
            raise ValueError("an address is there twice")
        return self


@dataclass(frozen=True)
class Devices:
    """Where packets leave: towards UEs by one of `down`, from them by `up`."""

    down: tuple[str, ...]
    up: str

    @property
    def all(self) -> tuple[str, ...]:
        return (*self.down, self.up)


@dataclass(frozen=True)
class Batch:
    """What `nft -f -` and `tc -batch -` are given, in this order: `tc` before `nft` where classes come first."""

    before: str = ""
    nft: str = ""
    after: str = ""


class Kernel:
    """What the kernel has been told. Class numbers stay with a line as long as it is slowed."""

    def __init__(self, devices: Devices) -> None:
        self.devices = devices
        self._minors: dict[tuple[str, ...], int] = {}
        self._lines: dict[tuple[str, ...], Line] = {}
        self._free = list(range(LARGEST_MINOR, 0, -1))
        self._there = False

    def clear(self) -> Batch:
        """Forget everything; `tc` has to go on over devices that have no qdisc of ours."""
        self.__init__(self.devices)  # type: ignore[misc]
        return Batch(
            after="".join(f"qdisc del dev {device} root\n" for device in self.devices.all),
            nft=f"add table inet {TABLE}\ndelete table inet {TABLE}\n",
        )

    def change(self, lines: Sequence[Line]) -> Batch:
        """The difference to what there is. The caller applies all of it, or clears."""
        wanted = {line.addresses: line for line in lines}
        gone = [key for key in self._lines if key not in wanted]
        new = [key for key in wanted if key not in self._lines]
        other = [key for key, line in wanted.items() if key in self._lines and self._lines[key] != line]
        # The qdiscs stay once they are there, whether anybody is slowed or not: a device that changes its qdisc loses
        # packets of everybody.
        first, self._there = not self._there, True
        before = [self._roots()] if first else []
        nft, after = [_tables()] if first else [], []
        given_back = []
        for key in gone:
            minor = self._minors.pop(key)
            self._lines.pop(key)
            given_back.append(minor)
            nft += [f"delete element inet {TABLE} {name} {{ {address} }}\n" for name, address in _elements(key)]
            after += [f"class del dev {device} classid 1:{minor:x}\n" for device in self.devices.all]
        for key in new:
            minor = self._free.pop()
            self._minors[key], self._lines[key] = minor, wanted[key]
            before += self._classes(wanted[key], minor, "add")
            nft += [
                f"add element inet {TABLE} {name} {{ {address} : 1:{minor:x} }}\n" for name, address in _elements(key)
            ]
        # Not before: their classes are there until the new ones are.
        self._free += given_back
        for key in other:
            self._lines[key] = wanted[key]
            before += self._classes(wanted[key], self._minors[key], "change")
        return Batch("".join(before), "".join(nft), "".join(after))

    def _roots(self) -> str:
        # What has no class of ours goes straight on, as it would without HTB.
        return "".join(f"qdisc add dev {device} root handle 1: htb default 0\n" for device in self.devices.all)

    def _classes(self, line: Line, minor: int, verb: str) -> Iterable[str]:
        rates = {**dict.fromkeys(self.devices.down, line.downlink), self.devices.up: line.uplink}
        for device, rate in rates.items():
            # 20 ms at once and at least two packets; 250 ms may wait, then packets are dropped.
            burst, queue = max(rate // 8 // 50, 3200), max(rate // 8 // 4, 16_000)
            yield (
                f"class {verb} dev {device} parent 1: classid 1:{minor:x} htb rate {rate}bit "
                f"burst {burst} cburst {burst} quantum 3000\n"
            )
            action = "add" if verb == "add" else "replace"
            yield f"qdisc {action} dev {device} parent 1:{minor:x} bfifo limit {queue}\n"


def _tables() -> str:
    return f"""add table inet {TABLE}
delete table inet {TABLE}
table inet {TABLE} {{
  map down4 {{ type ipv4_addr : classid; flags interval; }}
  map down6 {{ type ipv6_addr : classid; flags interval; }}
  map up4 {{ type ipv4_addr : classid; flags interval; }}
  map up6 {{ type ipv6_addr : classid; flags interval; }}
  chain forward {{
    type filter hook forward priority 10; policy accept;
    meta priority set ip daddr map @down4
    meta priority set ip6 daddr map @down6
    meta priority set ip saddr map @up4
    meta priority set ip6 saddr map @up6
  }}
}}
"""


def _elements(addresses: Iterable[str]) -> Iterable[tuple[str, str]]:
    for address in addresses:
        family = ipaddress.ip_network(address).version
        yield f"down{family}", address
        yield f"up{family}", address
