"""What the kernel is told, as text; and a model of it that never ends with a line in a class that is not there."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mvnobox.core.shaper.plan import Batch, Devices, Kernel, Line, Lines

DEVICES = Devices(("tun0", "tun1"), "eth0")


def line(*addresses: str, up: int = 1_000_000, down: int = 2_000_000) -> Line:
    return Line(addresses=addresses, uplink=up, downlink=down)


class Model:
    """Classes a device and elements a map, as tc and nft would have them; refuses what they would refuse."""

    def __init__(self) -> None:
        self.roots: set[str] = set()
        self.classes: dict[str, dict[str, str]] = {}
        self.elements: dict[tuple[str, str], str] = {}
        self.given: Counter[str] = Counter()

    def take(self, batch: Batch) -> None:
        self._tc(batch.before)
        self._nft(batch.nft)
        self._tc(batch.after)

    def _tc(self, text: str) -> None:
        for words in map(str.split, text.splitlines()):
            device = words[words.index("dev") + 1]
            match words[:2]:
                case ["qdisc", "add"] if "root" in words:
                    assert device not in self.roots
                    self.roots.add(device)
                    self.classes[device] = {}
                case ["qdisc", "del"]:
                    self.roots.discard(device)
                    self.classes.pop(device, None)
                case ["class", "add"]:
                    number = words[words.index("classid") + 1]
                    assert device in self.roots and number not in self.classes[device]
                    self.classes[device][number] = words[words.index("rate") + 1]
                case ["class", "change"]:
                    number = words[words.index("classid") + 1]
                    assert number in self.classes[device]
                    self.classes[device][number] = words[words.index("rate") + 1]
                case ["class", "del"]:
                    number = words[words.index("classid") + 1]
                    # A class that packets are still given is not taken away.
                    assert not self.given[number]
                    del self.classes[device][number]
                case _:
                    assert words[:2] in (["qdisc", "add"], ["qdisc", "replace"])
                    assert words[words.index("parent") + 1] in self.classes[device]

    def _nft(self, text: str) -> None:
        for said in text.splitlines():
            if found := re.fullmatch(r"add element inet mvno_shaper (\S+) \{ (\S+) : (\S+) \}", said):
                assert (found[1], found[2]) not in self.elements
                self.elements[found[1], found[2]] = found[3]
                self.given[found[3]] += 1
            elif found := re.fullmatch(r"delete element inet mvno_shaper (\S+) \{ (\S+) \}", said):
                self.given[self.elements.pop((found[1], found[2]))] -= 1
            elif said.startswith("delete table"):
                self.elements.clear()
                self.given.clear()

    def rates(self) -> dict[str, tuple[str, str]]:
        """Of each address: what its class lets through, up and down."""
        made = {}
        for (name, address), number in self.elements.items():
            if name.startswith("down"):
                assert self.elements[f"up{name[4:]}", address] == number
                assert len({classes[number] for device, classes in self.classes.items() if device != "eth0"}) == 1
                made[address] = (self.classes["eth0"][number], self.classes["tun0"][number])
        return made


POOL = [f"10.45.0.{n}" for n in range(2, 12)] + [f"2001:db8:{n}::/64" for n in range(1, 5)]
STATES = st.lists(
    st.dictionaries(st.sampled_from(POOL), st.integers(1000, 10**9), max_size=8), min_size=1, max_size=8
)  # fmt: skip


@given(STATES)
def test_after_each_state_the_kernel_does_what_was_said(states: list[dict[str, int]]) -> None:
    kernel, model = Kernel(DEVICES), Model()
    for state in states:
        model.take(kernel.change([line(address, up=rate, down=rate + 1) for address, rate in state.items()]))
        wanted = {
            str(address) if "/" in address else f"{address}/32": (f"{rate}bit", f"{rate + 1}bit")
            for address, rate in state.items()
        }
        assert model.rates() == wanted
        assert model.roots == set(DEVICES.all)
        # Nobody is slowed: no class is left that a packet would be given.
        assert bool(state) or not any(model.classes.values())


def test_the_same_again_is_nothing() -> None:
    kernel = Kernel(DEVICES)
    lines = [line("10.45.0.2", "2001:db8::/64"), line("10.45.0.3")]
    assert kernel.change(lines) != Batch()
    assert kernel.change(list(reversed(lines))) == Batch()


def test_many_lines_come_and_go_without_running_out_of_numbers() -> None:
    kernel, model = Kernel(Devices(("tun0",), "eth0")), Model()
    for turn in range(6):
        model.take(kernel.change([line(f"10.{turn}.{n >> 8}.{n & 255}") for n in range(15_000)]))
    assert len(model.rates()) == 15_000


@pytest.mark.parametrize(
    "unfit",
    [
        {"throttles": [{"addresses": [], "uplink": 1000, "downlink": 1000}]},
        {"throttles": [{"addresses": ["x; flush ruleset"], "uplink": 1000, "downlink": 1000}]},
        {"throttles": [{"addresses": ["10.0.0.1"], "uplink": 0, "downlink": 1000}]},
        {"throttles": [{"addresses": ["10.0.0.1"], "uplink": 1e6, "downlink": 1000}]},
        {"throttles": [{"addresses": ["10.0.0.1"], "uplink": 1000, "downlink": 10**13}]},
        {"throttles": [{"addresses": ["10.0.0.1"], "uplink": 1000, "downlink": 1000}] * 2},
        {"throttles": [], "more": 1},
        {},
    ],
)
def test_what_is_no_state_is_refused(unfit: object) -> None:
    with pytest.raises(ValidationError):
        Lines.model_validate(unfit)
