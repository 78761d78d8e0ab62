"""Usage reporting rules: thresholds, quotas, reports that lose nothing."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvnobox.core.sim.usage import TERMINATION, VOLUME_QUOTA, VOLUME_THRESHOLD, Urr
from mvnobox.pfcp import codec
from mvnobox.pfcp.codec import Ie, IeType, PfcpError

BOTH = Ie(IeType.REPORTING_TRIGGERS, b"\x02\x01\x00")


def volume(type_: int, total: int | None = None, uplink: int | None = None, downlink: int | None = None) -> Ie:
    given_ = [value for value in (total, uplink, downlink) if value is not None]
    flags = (total is not None) | (uplink is not None) << 1 | (downlink is not None) << 2
    return Ie(type_, bytes([flags]) + struct.pack(f">{len(given_)}Q", *given_))


def rule(*members: Ie) -> Urr:
    urr = Urr(7)
    urr.change([BOTH, *members])
    return urr


def measured(members: list[Ie]) -> tuple[int, int, int]:
    return codec.parse_volume(codec.first(members, IeType.VOLUME_MEASUREMENT))


def test_a_report_is_due_at_the_threshold_and_starts_anew() -> None:
    urr = rule(volume(IeType.VOLUME_THRESHOLD, total=1000))
    assert urr.count(600, uplink=True) == 0
    assert urr.count(400, uplink=False) == VOLUME_THRESHOLD
    first = urr.report(VOLUME_THRESHOLD)
    assert measured(first) == (1000, 600, 400)
    assert codec.first(first, IeType.USAGE_REPORT_TRIGGER) == Ie(IeType.USAGE_REPORT_TRIGGER, b"\x02\0\0")
    assert codec.number(codec.first(first, IeType.UR_SEQN), 4) == 0
    assert urr.count(999, uplink=False) == 0
    second = urr.report(TERMINATION)
    assert measured(second) == (999, 0, 999) and codec.number(codec.first(second, IeType.UR_SEQN), 4) == 1
    assert codec.first(second, IeType.USAGE_REPORT_TRIGGER) == Ie(IeType.USAGE_REPORT_TRIGGER, b"\0\x08\0")


@pytest.mark.parametrize(("limits", "uplink"), [({"uplink": 500}, True), ({"downlink": 500}, False)])
def test_a_threshold_of_one_direction_looks_at_that_direction(limits: dict[str, int], uplink: bool) -> None:
    urr = rule(volume(IeType.VOLUME_THRESHOLD, **limits))
    assert urr.count(10_000, uplink=not uplink) == 0
    assert urr.count(500, uplink=uplink) == VOLUME_THRESHOLD


def test_a_threshold_without_its_trigger_reports_nothing() -> None:
    urr = Urr(1)
    urr.change([Ie(IeType.REPORTING_TRIGGERS, b"\0\0\0"), volume(IeType.VOLUME_THRESHOLD, total=10)])
    assert urr.count(1000, uplink=True) == 0


def test_a_lowered_threshold_is_due_at_once() -> None:
    urr = rule(volume(IeType.VOLUME_THRESHOLD, total=1000))
    urr.count(300, uplink=True)
    urr.change([volume(IeType.VOLUME_THRESHOLD, total=200)])
    assert urr.due() == VOLUME_THRESHOLD


def test_a_quota_is_used_up_once_and_a_new_one_opens_again() -> None:
    urr = rule(volume(IeType.VOLUME_QUOTA, total=1000))
    assert urr.count(999, uplink=True) == 0 and not urr.exhausted
    assert urr.count(1, uplink=False) == VOLUME_QUOTA and urr.exhausted
    assert urr.count(1, uplink=False) == 0
    urr.report(VOLUME_QUOTA)
    urr.change([volume(IeType.VOLUME_QUOTA, total=500)])
    assert not urr.exhausted and urr.count(500, uplink=True) == VOLUME_QUOTA


def test_a_quota_counts_on_over_threshold_reports() -> None:
    urr = rule(volume(IeType.VOLUME_THRESHOLD, total=400), volume(IeType.VOLUME_QUOTA, total=1000))
    triggers = []
    for _ in range(10):
        trigger = urr.count(100, uplink=True)
        if trigger:
            triggers.append(trigger)
            urr.report(trigger)
    assert triggers == [VOLUME_THRESHOLD, VOLUME_THRESHOLD, VOLUME_QUOTA]


def test_what_was_not_reported_counts_against_a_new_quota() -> None:
    urr = rule()
    urr.count(700, uplink=True)
    urr.change([volume(IeType.VOLUME_QUOTA, total=1000)])
    assert urr.count(299, uplink=True) == 0 and urr.count(1, uplink=True) == VOLUME_QUOTA


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x07" + bytes(23)])
def test_a_volume_that_is_cut_off_is_refused(data: bytes) -> None:
    for type_ in (IeType.VOLUME_THRESHOLD, IeType.VOLUME_QUOTA):
        with pytest.raises(PfcpError):
            Urr(1).change([Ie(type_, data)])


@given(
    st.integers(1, 5000),
    st.lists(st.tuples(st.integers(1, 1500), st.booleans()), max_size=200),
)
def test_reports_add_up_to_what_was_carried(threshold: int, packets: list[tuple[int, bool]]) -> None:
    urr = rule(volume(IeType.VOLUME_THRESHOLD, total=threshold))
    reported = []
    for octets, uplink in packets:
        if trigger := urr.count(octets, uplink=uplink):
            reported.append(measured(urr.report(trigger)))
    reported.append(measured(urr.report(TERMINATION)))
    assert sum(one[0] for one in reported) == sum(octets for octets, _ in packets)
    assert sum(one[1] for one in reported) == sum(octets for octets, uplink in packets if uplink)
    assert all(one[0] == one[1] + one[2] for one in reported)
    assert all(threshold <= one[0] < threshold + 1500 for one in reported[:-1])
