"""Messages that look alike are read alike, whether their shape is known or not."""

from __future__ import annotations

from typing import Any

import pytest
from diameter_peer import avp, message, mscc, octets
from test_fuzz import Mutator

from mvnobox.charging.diameter.credit import CreditRequest
from mvnobox.charging.rating.scene import Circumstances
from mvnobox.diameter import codec
from mvnobox.diameter.codec import DiameterError
from mvnobox.diameter.codes import Avp
from mvnobox.diameter.shapes import KEPT, LARGEST, PRICE, PRICE_UNKNOWN, Message, Shapes


def understood(message: Message) -> dict[str, Any]:
    """All that a reader makes of it, its refusal included."""
    request, refusal = CreditRequest(), None
    try:
        request.read(message)
    except DiameterError as error:
        refusal = (error.result, str(error), error.failed)
    found: dict[str, Any] = {name: getattr(request, name) for name in CreditRequest.__slots__}
    found["services"] = [
        (one.rating_group, one.identifiers, [(a, a.money, a.raw) for a in (one.wanted, *one.used) if a is not None])
        for one in request.services
    ]
    return {**found, "refusal": refusal}


def learned(shapes: Shapes, data: bytes) -> dict[str, Any]:
    read = shapes.message(data)
    found = understood(read)
    if found["refusal"] is None:
        shapes.learn(read)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_mutated_messages_mean_the_same_with_and_without_what_is_known(seed: int) -> None:
    mutator, shapes, again = Mutator(seed, imsi="208930000000001"), Shapes(), 0
    for hop in range(4000):
        rnd = mutator.random
        if rnd.random() < 0.5:
            data = bytearray(message(*rnd.choice(mutator.valid[:-1]), hop=hop))
            for _ in range(rnd.randrange(3)):  # mostly a value
                data[rnd.randrange(20, len(data))] ^= 1 << rnd.randrange(8)
            data = bytes(data)
        else:
            data = mutator.mutated(hop)
        if len(data) < codec.HEADER_LENGTH:
            continue
        read = shapes.message(data)
        again += read.shape.mask != 0
        found = understood(read)
        assert found == understood(Message(data)), (seed, hop, data.hex())
        if found["refusal"] is None:
            shapes.learn(read)
    assert again > 500  # enough to say something


def ccr(session: str, *more: bytes) -> bytes:
    body = codec.utf8(Avp.SESSION_ID, session) + avp(264, "smf") + avp(296, "r") + avp(283, "r") + avp(258, 4)
    return message(272, body + avp(461, "32251@3gpp.org") + avp(416, 2) + avp(415, 1) + b"".join(more), hop=1)


def test_the_avps_of_a_known_shape_are_not_looked_for_again() -> None:
    shapes = Shapes()
    first, second = (ccr(f"s;1;{n}", mscc(want=[], used=[octets(n)])) for n in (5, 6))
    read = shapes.message(first)
    assert read.shape.mask == 0
    learned(shapes, first)
    other = shapes.message(second)
    assert other.shape is shapes.message(first).shape and other.shape.mask
    found = understood(other)
    assert (found["session_id"], found["services"][0][2][1][0]) == (b"s;1;6", {"octets": 6})
    # Another flag, length or order is another shape.
    for change in (ccr("s;1;55"), ccr("s;1;5", mscc(want=[octets(1)]), avp(55, 1))):
        assert not shapes.message(change).shape.mask


def test_what_stood_in_one_message_only_is_not_read_into_the_next() -> None:
    """Service-Information refuses nothing: of a malformed one nothing is known, and what a later one holds is its own."""

    def with_information(*members: bytes) -> bytes:
        return ccr("s;1;1", codec.group(Avp.SERVICE_INFORMATION, list(members)), mscc(want=[]))

    network = codec.group(Avp.PS_INFORMATION, [codec.utf8(Avp.SGSN_MCC_MNC, "20801")])
    other = codec.group(Avp.PS_INFORMATION, [codec.octets(Avp.USER_LOCATION_INFO, b"\x01\x13\x00\x62\x00")])
    broken = network[:7] + b"\xff" + network[8:]
    assert len(network) == len(other) == len(broken)
    shapes = Shapes()
    for member, seen in ((broken, None), (network, "20801"), (other, "310260"), (broken, None), (network, "20801")):
        assert learned(shapes, with_information(member))["circumstances"] == Circumstances(seen, None)


def known(shapes: Shapes, data: bytes) -> bool:
    return shapes.message(data).shape.mask != 0


def test_only_so_many_shapes_are_kept_the_newest() -> None:
    shapes = Shapes()
    for number in range(KEPT // 2):
        # Two of a length: the one is known by its flags.
        for flags in (0, 0x20):
            learned(shapes, ccr("s;1;1", codec.octets(55, bytes(4 * number), flags)))
    assert len(shapes) == KEPT
    first, second, last = (
        ccr("s;1;1", codec.octets(55, b"", 0)),
        ccr("s;1;1", codec.octets(55, b"", 0x20)),
        ccr("s;2"),
    )
    assert known(shapes, first) and known(shapes, second)
    for _ in range(PRICE):
        learned(shapes, second)
    learned(shapes, last)
    assert (known(shapes, first), known(shapes, second), known(shapes, last), len(shapes)) == (False, True, True, KEPT)
    assert sum(map(len, shapes._known.values())) == KEPT


def test_a_peer_whose_messages_never_look_alike_costs_little_and_not_for_ever() -> None:
    shapes = Shapes()
    for number in range(2 * KEPT):
        learned(shapes, ccr("s;1;1", avp(1, "x" * 4 * number)))
    often = ccr("s;1;1", avp(55, 5))
    assert len(shapes) == KEPT and not known(shapes, often)
    for _ in range(PRICE_UNKNOWN):
        learned(shapes, often)
    assert known(shapes, often)


def test_large_messages_are_not_kept() -> None:
    shapes = Shapes()
    large = ccr("s;1;1", *[codec.u32(60000, 1, 0)] * 500)
    assert len(large) > LARGEST and learned(shapes, large)["refusal"] is None and len(shapes) == 0
