"""GTP-U, octet by octet and with rubbish."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvnobox.core.sim import gtpu


@pytest.mark.parametrize("uplink", [True, False])
def test_a_g_pdu_carries_what_was_given(uplink: bool) -> None:
    data = gtpu.g_pdu(0x01020304, b"packet", 9, uplink=uplink)
    # Version 1, PT, E; G-PDU; 8 octets more than the packet; TEID; no sequence number; PDU Session Container.
    kind = "10" if uplink else "00"
    assert data[:16].hex() == f"34ff000e010203040000008501{kind}0900"
    message, teid, offset = gtpu.payload(data)
    assert (message, teid, data[offset:]) == (gtpu.G_PDU, 0x01020304, b"packet")


def test_a_g_pdu_without_extensions_is_taken() -> None:
    assert gtpu.payload(bytes.fromhex("30ff0006deadbeef") + b"packet") == (gtpu.G_PDU, 0xDEADBEEF, 8)


def test_two_extension_headers_are_passed_over() -> None:
    data = bytes.fromhex("34ff001200000001000000850100018501100100") + b"packet"
    assert data[gtpu.payload(data)[2] :] == b"packet"


def test_an_error_indication_says_which_tunnel() -> None:
    data = gtpu.error_indication(0xCAFE, "10.1.2.3")
    assert data.hex() == "321a00100000000000000000100000cafe8500040a010203"
    kind, _, offset = gtpu.payload(data)
    assert kind == gtpu.ERROR_INDICATION and gtpu.parse_error_indication(data, offset) == (0xCAFE, "10.1.2.3")
    assert gtpu.parse_error_indication(data[:-1], offset) is None


def test_an_echo_is_answered_with_its_sequence_number() -> None:
    assert gtpu.echo_response(bytes.fromhex("320100040000000012340000")).hex() == "3202000600000000123400000e00"


@given(st.binary(max_size=80))
def test_rubbish_is_nothing_or_stays_within_its_octets(data: bytes) -> None:
    kind, _, offset = gtpu.payload(data)
    assert 0 <= offset <= len(data) or kind == 0
    gtpu.parse_error_indication(data, offset)
    gtpu.echo_response(data)


@given(st.integers(0, 40), st.lists(st.tuples(st.integers(0, 40), st.integers(0, 255)), max_size=4))
def test_spoiled_g_pdus_never_point_outside(cut: int, spoiled: list[tuple[int, int]]) -> None:
    data = bytearray(gtpu.g_pdu(7, bytes(24), 1, uplink=True))
    for place, value in spoiled:
        if place < len(data):
            data[place] = value
    data = data[: len(data) - cut]
    kind, _, offset = gtpu.payload(bytes(data))
    assert kind == 0 or offset <= len(data)
