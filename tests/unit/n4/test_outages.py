"""The OCS is busy, away, or has lost a charging session: what the CTF does with the traffic, and with the use that is owed."""

from __future__ import annotations

import datetime as dt
import email.utils
import time
from typing import Any

import pytest
from tests.chf import Chf, failed

from mvnobox.n4.nchf import LONGEST_PAUSE_SECONDS, _pause
from mvnobox.pfcp import codec
from mvnobox.pfcp.codec import DROP, Message, Type

from .conftest import QUANTUM, Bench, until
from .replay import established, last_actions, messages

pytestmark = pytest.mark.timeout(60)
CHANGE = Type.SESSION_MODIFICATION_REQUEST
LOST: tuple[int, dict[str, str], dict[str, Any]] = (404, {}, {"status": 404, "cause": "CONTEXT_NOT_FOUND"})


async def test_a_charging_session_that_the_ocs_has_lost_is_begun_anew_and_no_use_with_it(
    scripted: tuple[Bench, Chf],
) -> None:
    bench, chf = scripted
    replay = await established(bench)
    chf.instead.append(LOST)
    before = len(bench.upf.asked[CHANGE])
    await replay.report(QUANTUM, 0)
    await until("a quota of the new session", lambda: len(bench.upf.asked[CHANGE]) > before)
    paths = [path.rpartition("chargingdata")[2] for path, _ in chf.asked]
    assert paths == ["", "/ref-1/update", "", "/ref-2/update"]
    # The request that was refused, and the same use in the new session.
    assert chf.used() == [QUANTUM, QUANTUM]
    await replay.report(500, 1)
    await until("the next report", lambda: len(chf.asked) == 5)
    assert chf.asked[-1][0].endswith("/ref-2/update")
    # At its end: the last use is not lost either.
    chf.instead.append(LOST)
    upf = bench.upf
    upf.answers[Type.SESSION_DELETION_REQUEST].append(messages("ipv4", "session-release")[1][1])
    answer = await bench.smf.ask(Message(Type.SESSION_DELETION_REQUEST, 0, [], seid=replay.seid))
    assert codec.number(answer.first(codec.IeType.CAUSE), 1) == 1
    await until("the release", lambda: chf.asked[-1][0].endswith("/ref-3/release"))


async def test_two_losses_in_a_row_are_not_repeated_without_a_pause(scripted: tuple[Bench, Chf]) -> None:
    bench, chf = scripted
    replay = await established(bench)
    chf.instead.extend([LOST, (201, {"location": "/chargingdata/again"}, {"multipleUnitInformation": []}), LOST])
    await replay.report(QUANTUM, 0)
    await until("a request after all that", lambda: not chf.instead and chf.asked[-1][0].endswith("/again/update"))
    assert chf.contexts == 2

    async def settled() -> bool:
        return (await bench.store.owing_session(replay.seid))[1] is None

    await until("nothing owed", settled)


async def test_of_several_requests_that_are_owed_the_last_ones_answer_is_told(scripted: tuple[Bench, Chf]) -> None:
    bench, chf = scripted
    replay = await established(bench)
    changes = len(bench.upf.asked[CHANGE])
    # As another instance leaves them, which has died.
    for number in range(3):
        assert await bench.store.take_usage(replay.seid, [(16, number, (700, 0, 0))]) is not None
    bench.ctf.gate.work(replay.seid)

    async def settled() -> bool:
        return (await bench.store.owing_session(replay.seid))[1] is None

    await until("nothing owed", settled)
    assert chf.used() == [700, 700, 700]
    assert len(bench.upf.asked[CHANGE]) == changes + 1


async def test_use_of_an_ended_session_whose_customer_is_gone_is_counted_as_lost(scripted: tuple[Bench, Chf]) -> None:
    bench, chf = scripted
    replay = await established(bench)
    assert await bench.store.take_usage(replay.seid, [(16, 0, (700, 0, 0))]) is not None
    await bench.store.mark_deleted(replay.seid)
    chf.instead.extend([LOST, (404, {}, {"status": 404, "cause": "USER_UNKNOWN"})])
    bench.ctf.gate.work(replay.seid)

    async def settled() -> bool:
        return (await bench.store.owing_session(replay.seid))[1] is None

    await until("nothing owed", settled)
    assert not chf.instead and len(chf.asked) == 3


async def test_an_ocs_that_says_when_to_come_again_is_not_asked_before(scripted: tuple[Bench, Chf]) -> None:
    bench, chf = scripted
    replay = await established(bench)
    chf.instead.append(failed(retry_after="2"))
    await replay.report(QUANTUM, 0)
    await until("the refusal", lambda: not chf.instead)
    refused = time.monotonic()
    await until("the repetition", lambda: len(chf.asked) == 3)
    # But for the time between the OCS's answer and our look at it.
    assert time.monotonic() - refused > 1.9
    assert chf.used() == [QUANTUM, QUANTUM]


async def test_terminate_closes_at_once_and_the_use_is_still_owed(scripted: tuple[Bench, Chf]) -> None:
    bench, chf = scripted
    replay = await established(bench)
    chf.instead.append(failed("TERMINATE", retry_after="2"))
    await replay.report(QUANTUM, 0)
    await until("the gate's closing", lambda: last_actions(bench) == {DROP})
    assert len(chf.asked) == 2
    await until("the gate's opening", lambda: DROP not in last_actions(bench))
    assert chf.used() == [QUANTUM, QUANTUM]


async def test_a_gate_that_the_upf_does_not_close_is_closed_without_the_ocs_too(scripted: tuple[Bench, Chf]) -> None:
    bench, chf = scripted
    replay = await established(bench)
    chf.instead.append(failed("TERMINATE"))
    chf.stuck = True
    bench.upf.refused.add(CHANGE)
    changes = bench.upf.asked[CHANGE]
    before = len(changes)
    await replay.report(QUANTUM, 0)
    await until("attempts", lambda: len(changes) > before + 1)
    bench.upf.refused.clear()

    async def closed() -> bool:
        session = await bench.store.session(replay.seid)
        return session is not None and session.behind_gate and not session.untold

    await until("the gate's closing", closed)
    assert last_actions(bench) == {DROP}


async def test_continue_opens_no_gate_that_is_closed(scripted: tuple[Bench, Chf]) -> None:
    bench, chf = scripted
    replay = await established(bench)
    chf.unit = {"resultCode": "QUOTA_LIMIT_REACHED"}
    await replay.report(QUANTUM, 0)
    await until("the gate's closing", lambda: last_actions(bench) == {DROP})
    chf.instead.append(failed("CONTINUE"))
    chf.stuck = True
    asked = len(chf.asked)
    assert await bench.ctf.gate.reauthorize(replay.seid)
    await until("failures", lambda: len(chf.asked) > asked + 2)
    session = await bench.store.session(replay.seid)
    assert session is not None and not session.open and last_actions(bench) == {DROP}


async def test_continue_lets_traffic_pass_and_owes_what_it_was(scripted: tuple[Bench, Chf]) -> None:
    bench, chf = scripted
    replay = await established(bench)
    chf.instead.append(failed("CONTINUE"))
    chf.stuck = True
    changes = bench.upf.asked[CHANGE]
    for sequence in range(2):
        before = len(changes)
        await replay.report(QUANTUM, sequence)
        await until("a quota on trust", lambda before=before: len(changes) > before)
        session = await bench.store.session(replay.seid)
        assert session is not None and session.open
    # Longer than the gate stays open without a word of the OCS.
    since = time.monotonic()
    await until("patience's end", lambda: time.monotonic() - since > bench.settings.ocs_patience_seconds)
    session = await bench.store.session(replay.seid)
    assert session is not None and session.open
    chf.stuck = False
    chf.instead.clear()
    chf.asked.clear()
    await until("what is owed", lambda: chf.used() == [QUANTUM, QUANTUM])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(None, 0), ("7", 7), ("0", 0), ("86400", LONGEST_PAUSE_SECONDS), ("soon", 0), ("-3", 0), ("9" * 400, 30), ("", 0)],
)
def test_retry_after(text: str | None, seconds: float) -> None:
    assert _pause(text) == seconds


def test_retry_after_a_date() -> None:
    later = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=10)
    assert 8 < _pause(email.utils.format_datetime(later, usegmt=True)) <= 10
    assert _pause(email.utils.format_datetime(later - dt.timedelta(days=1), usegmt=True)) == 0
