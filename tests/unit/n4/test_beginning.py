"""How a session begins: closed, before there is a row or an answer of the OCS, and what may come in between."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from tests.chf import Chf, failed

from mvnobox.n4 import store
from mvnobox.n4.rows import Session
from mvnobox.n4.rules import CLOSED
from mvnobox.pfcp import codec
from mvnobox.pfcp.codec import DROP, Message, Type

from .conftest import QUANTUM, SMF, Bench, placed, until
from .replay import Replay, actions, established, last_actions, messages

pytestmark = pytest.mark.timeout(60)
CHANGE = Type.SESSION_MODIFICATION_REQUEST


async def set_up(bench: Bench) -> Replay:
    """A session as the SMF sees it, whatever the OCS says."""
    replay = Replay(bench)
    await replay.all(messages("ipv4", "association"))
    request, answer = messages("ipv4", "establishment")[0][1], messages("ipv4", "establishment")[1][1]
    bench.upf.answers[request.type].append(Message(answer.type, 0, placed(answer.ies, None, bench.upf.address), seid=0))
    made = await bench.smf.ask(Message(request.type, 0, placed(request.ies, None, SMF), seid=0))
    assert codec.number(made.first(codec.IeType.CAUSE), 1) == 1
    replay.seid = codec.parse_f_seid(made.need(codec.IeType.F_SEID))[0]
    replay.upf_seid = codec.parse_f_seid(answer.need(codec.IeType.F_SEID))[0]
    replay.smf_seid = codec.parse_f_seid(request.need(codec.IeType.F_SEID))[0]
    return replay


async def unanswered(bench: Bench, chf: Chf) -> Replay:
    """A session whose first request the OCS has, and has not answered."""
    chf.go.clear()
    replay = await set_up(bench)
    await until("the OCS's being asked", lambda: chf.asked)
    return replay


async def test_a_set_up_does_not_wait_for_the_ocs_and_nothing_passes_before_its_answer(
    scripted: tuple[Bench, Chf],
) -> None:
    bench, chf = scripted
    await unanswered(bench, chf)
    made_closed = actions(bench.upf.asked[Type.SESSION_ESTABLISHMENT_REQUEST][-1].ies)
    assert made_closed[1][0] == made_closed[2][0] == DROP
    assert not bench.upf.asked[CHANGE]
    chf.go.set()
    await until("the gate's opening", lambda: bench.upf.asked[CHANGE])
    assert DROP not in last_actions(bench)


async def test_a_new_session_opens_when_the_ocs_may_be_asked_again(scripted: tuple[Bench, Chf]) -> None:
    bench, chf = scripted
    chf.instead.append(failed(retry_after="2"))
    begun = time.monotonic()
    replay = await set_up(bench)
    kept = await replay.answered()
    assert (kept.open, kept.behind_gate, kept.nchf_ref) == (False, True, None)
    await until("the gate's opening", lambda: bench.upf.asked[CHANGE])
    assert DROP not in last_actions(bench) and time.monotonic() - begun > 1.9 and len(chf.asked) == 2


async def test_a_new_session_begins_on_trust_where_the_ocs_says_so(scripted: tuple[Bench, Chf]) -> None:
    bench, chf = scripted
    chf.instead.append(failed("CONTINUE", retry_after="2"))
    replay = await set_up(bench)
    assert (await replay.answered()).open and DROP not in last_actions(bench)
    await replay.report(QUANTUM, 0)
    await until("the use", lambda: chf.used() == [QUANTUM])
    assert [path.rpartition("chargingdata")[2] for path, _ in chf.asked] == ["", "", "/ref-2/update"]


async def test_a_session_that_ends_before_the_ocs_has_answered_is_released(scripted: tuple[Bench, Chf]) -> None:
    bench, chf = scripted
    replay = await unanswered(bench, chf)
    answer = await bench.smf.ask(Message(Type.SESSION_DELETION_REQUEST, 0, [], seid=replay.seid))
    assert codec.number(answer.first(codec.IeType.CAUSE), 1) == 1
    chf.go.set()
    await until("the release", lambda: chf.asked[-1][0].endswith("/ref-1/release"))
    assert not bench.upf.asked[CHANGE]


async def ended(bench: Bench, replay: Replay) -> None:
    """As when a UPF has started anew, or by another instance: not under this one's lock."""
    await bench.store.mark_deleted(replay.seid)
    await bench.ctf.gate.owe(replay.seid, [], release=True)


async def test_a_session_that_ends_while_the_upf_opens_it_is_released(scripted: tuple[Bench, Chf]) -> None:
    bench, chf = scripted
    bench.upf.silent.add(CHANGE)
    replay = await set_up(bench)
    await until("the gate's opening", lambda: bench.upf.asked[CHANGE])
    await ended(bench, replay)
    bench.upf.silent.clear()
    await until("the release", lambda: chf.asked[-1][0].endswith("/ref-1/release"))


@pytest.mark.parametrize("what", ["end", "abort"])
async def test_what_comes_while_a_successor_asks_for_the_first_time_is_not_forgotten(
    scripted: tuple[Bench, Chf], what: str
) -> None:
    bench, chf = scripted
    replay = await unanswered(bench, chf)
    await bench.restart()
    await until("the successor's asking", lambda: len(chf.asked) == 2)
    if what == "end":
        await ended(bench, replay)
    else:
        assert await bench.notify(bench.addresses.path(replay.seid)) == 204
    chf.go.set()
    last = "/release" if what == "end" else "/update"
    await until("the next request", lambda: chf.asked[-1][0].endswith(last))


async def test_what_is_dropped_before_the_first_answer_is_nobodys_use(scripted: tuple[Bench, Chf]) -> None:
    bench, chf = scripted
    chf.go.clear()
    replay = await set_up(bench)
    await replay.report(CLOSED.threshold + 1400, 0)
    chf.go.set()
    await replay.answered()
    await replay.report(QUANTUM, 1)
    await until("the use", lambda: chf.used())
    assert chf.used() == [QUANTUM]


async def test_one_worker_asks_for_a_session_that_is_found_before_it_begins(scripted: tuple[Bench, Chf]) -> None:
    bench, chf = scripted
    chf.go.clear()
    keep = bench.store.keep

    def found_at_once(session: Session) -> asyncio.Future[None]:
        async def found() -> None:
            await keep(session)
            assert session.seid in await bench.store.owing()
            bench.ctf.gate.work(session.seid)

        return asyncio.ensure_future(found())

    bench.store.keep = found_at_once  # type: ignore[method-assign]
    replay = await set_up(bench)
    await until("the OCS's being asked", lambda: chf.asked)
    chf.go.set()
    assert (await replay.answered()).open
    await until("the worker's end", lambda: not bench.ctf.gate.busy(replay.seid))
    assert sum(path.endswith("/chargingdata") for path, _ in chf.asked) == 1


async def test_what_the_ocs_says_while_its_first_answer_is_under_way_is_not_forgotten(
    scripted: tuple[Bench, Chf],
) -> None:
    bench, chf = scripted
    granting, chf.unit = chf.unit, {"resultCode": "QUOTA_LIMIT_REACHED"}
    replay = await unanswered(bench, chf)
    # A top-up: the answer that is under way knows nothing of it.
    chf.unit = granting
    assert await bench.notify(bench.addresses.path(replay.seid), "REAUTHORIZATION") == 204
    chf.go.set()
    await until("the gate's opening", lambda: bench.upf.asked[CHANGE] and DROP not in last_actions(bench))
    assert [path.rpartition("chargingdata")[2] for path, _ in chf.asked] == ["", "/ref-1/update"]


@pytest.mark.parametrize("known", [True, False])
async def test_a_ctf_that_dies_before_the_first_answer_leaves_the_session_to_the_next(
    scripted: tuple[Bench, Chf], known: bool
) -> None:
    bench, chf = scripted
    chf.go.clear()
    replay = await set_up(bench)
    if known:
        await until("the OCS's being asked", lambda: chf.asked)
    await bench.stop()
    chf.go.set()
    await bench.start(bench.settings, bench.store)
    await until("the gate's opening", lambda: bench.upf.asked[CHANGE] and DROP not in last_actions(bench))
    assert (await replay.answered()).open


@pytest.mark.parametrize("gone_on", [False, True])
async def test_another_instance_may_have_had_the_same_answer(scripted: tuple[Bench, Chf], gone_on: bool) -> None:
    bench, chf = scripted
    replay = await unanswered(bench, chf)
    # As an instance leaves it that has been answered and finds no UPF yet; or one that has found it.
    await bench.store.update(replay.seid, nchf_ref="ref-1", renew_seconds=0.0, open=True, untold=not gone_on)
    chf.go.set()
    if gone_on:
        await until("the worker's end", lambda: not bench.ctf.gate.busy(replay.seid))
        assert not bench.upf.asked[CHANGE]
    else:
        await until("the gate's opening", lambda: bench.upf.asked[CHANGE] and DROP not in last_actions(bench))
    kept = await replay.answered()
    assert kept.open and kept.nchf_ref == "ref-1"


async def test_the_smfs_change_before_the_first_answer_is_what_the_gate_opens_to(scripted: tuple[Bench, Chf]) -> None:
    bench, chf = scripted
    chf.go.clear()
    replay = await set_up(bench)
    idle = next(message for _, message in messages("ipv4", "idle") if message.is_request)
    wanted = actions(idle.ies)
    answer = await bench.smf.ask(Message(CHANGE, 0, placed(idle.ies, None, SMF), seid=replay.seid))
    assert codec.number(answer.first(codec.IeType.CAUSE), 1) == 1
    assert last_actions(bench) == {DROP}
    chf.go.set()
    await until("the gate's opening", lambda: len(bench.upf.asked[CHANGE]) > 1)
    opened = actions(bench.upf.asked[CHANGE][-1].ies)
    assert {far: opened[far] for far in wanted} == wanted


async def test_an_opening_that_the_upf_refuses_at_first_is_told_again(scripted: tuple[Bench, Chf]) -> None:
    bench, chf = scripted
    bench.upf.refused.add(CHANGE)
    replay = await set_up(bench)
    await until("a refusal", lambda: bench.upf.asked[CHANGE])
    bench.upf.refused.clear()
    assert (await replay.answered()).open and DROP not in last_actions(bench)
    assert len(chf.asked) == 1


async def test_a_session_that_a_crashed_database_has_forgotten_is_kept_anew(
    scripted: tuple[Bench, Chf], pg_database: Any
) -> None:
    bench, chf = scripted
    replay = await unanswered(bench, chf)
    connection = await asyncpg.connect(pg_database.dsn("ctf_alpha"))
    await connection.execute("DELETE FROM session")
    await connection.close()
    chf.go.set()
    kept = await replay.answered()
    assert kept.open and kept.nchf_ref == "ref-1" and kept.upf_seid == replay.upf_seid
    await replay.report(QUANTUM, 0)
    await until("the use", lambda: chf.used() == [QUANTUM])


async def test_a_session_that_cannot_be_kept_is_not_left_on_the_upf(
    scripted: tuple[Bench, Chf], pg_database: Any
) -> None:
    bench, chf = scripted
    await established(bench)
    asked = len(chf.asked)
    connection = await asyncpg.connect(pg_database.dsn("ctf_alpha"))
    await connection.execute("ALTER TABLE session RENAME TO away")
    recorded = messages("ipv4", "session-release")[1][1]
    deletion = Type.SESSION_DELETION_REQUEST
    for _ in range(2):
        bench.upf.answers[deletion].append(Message(recorded.type, 0, recorded.ies, seid=0))
    # The SMF hears of the first one; the next one waits, as the database did not take that.
    lost = await set_up(bench)
    await until("the end on the UPF", lambda: len(bench.upf.asked[deletion]) == 1)
    making = asyncio.ensure_future(set_up(bench))
    await until("the next one's end on the UPF", lambda: len(bench.upf.asked[deletion]) == 2)
    await connection.execute("ALTER TABLE away RENAME TO session")
    await connection.close()
    # The SMF asks again.
    answer = messages("ipv4", "establishment")[1][1]
    bench.upf.answers[answer.type - 1].append(
        Message(answer.type, 0, placed(answer.ies, None, bench.upf.address), seid=0)
    )
    replay = await making
    assert (await replay.answered()).open and len(chf.asked) == asked + 1
    # And learns of the first one's fate by what it says of it.
    idle = next(message for _, message in messages("ipv4", "idle") if message.is_request)
    answer = await bench.smf.ask(Message(CHANGE, 0, placed(idle.ies, None, SMF), seid=lost.seid))
    assert codec.number(answer.first(codec.IeType.CAUSE), 1) == codec.Cause.SESSION_NOT_FOUND


@contextlib.asynccontextmanager
async def keeping_held_up(pg_database: Any) -> AsyncIterator[None]:
    """The database takes no new sessions until this ends, and answers all questions."""
    connection = await asyncpg.connect(pg_database.dsn("ctf_alpha"))
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE session IN SHARE MODE")
            yield
    finally:
        await connection.close()


async def test_an_smf_hears_of_a_session_that_is_being_kept_and_its_next_words_wait(
    scripted: tuple[Bench, Chf], pg_database: Any
) -> None:
    bench, chf = scripted
    await established(bench)
    asked, told = len(chf.asked), len(bench.upf.asked[CHANGE])
    async with keeping_held_up(pg_database):
        replay = await set_up(bench)
        idle = next(message for _, message in messages("ipv4", "idle") if message.is_request)
        changing = asyncio.ensure_future(
            bench.smf.ask(Message(CHANGE, 0, placed(idle.ies, None, SMF), seid=replay.seid))
        )
        await until("the change's being handled", lambda: bench.ctf.endpoint._tasks)
        assert not changing.done()
        # Nor is the OCS asked, nor anything told the UPF, of a session that nobody would find again.
        assert len(chf.asked) == asked and len(bench.upf.asked[CHANGE]) == told
    answer = await changing
    assert codec.number(answer.first(codec.IeType.CAUSE), 1) == 1
    assert (await replay.answered()).open and not bench.ctf._store._unkept


async def test_sessions_that_are_being_kept_are_waited_for_at_the_end(
    scripted: tuple[Bench, Chf], pg_database: Any
) -> None:
    bench, _ = scripted
    await established(bench)
    async with keeping_held_up(pg_database):
        replay = await set_up(bench)
        stopping = asyncio.ensure_future(bench.stop())
        await until("the end of N4", lambda: bench.ctf.endpoint._transport.is_closing())
        assert not stopping.done()
    await stopping
    await bench.start(bench.settings, bench.store)
    assert (await replay.answered()).open


async def test_where_many_are_being_kept_the_next_ones_wait(
    scripted: tuple[Bench, Chf], pg_database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, _ = scripted
    await established(bench)
    monkeypatch.setattr(store, "_UNKEPT", 1)
    async with keeping_held_up(pg_database):
        first = await set_up(bench)
        second = asyncio.ensure_future(set_up(bench))
        await until("both on the UPF", lambda: len(bench.upf.asked[Type.SESSION_ESTABLISHMENT_REQUEST]) == 3)
        await until("both being kept", lambda: len(bench.ctf._store._unkept) == 2)
        assert not second.done()
    for replay in (first, await second):
        assert (await replay.answered()).open
