"""A quota's time: it is renewed before its end, with what was used on its terms, over restarts too."""

from __future__ import annotations

import math
from typing import Any

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.chf import Chf

from mvnobox.n4.renewal import LONGEST_SECONDS, renew_in
from mvnobox.n4.rules import query_urr
from mvnobox.pfcp.codec import IeType, Type

from .conftest import QUOTA, Bench, until
from .replay import Replay, imsi_in, messages

pytestmark = pytest.mark.timeout(60)


@given(st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True), st.floats(0, 4000)))
def test_a_quota_is_renewed_before_its_time_ends(validity: float | None) -> None:
    seconds = renew_in(validity)
    assert 1 <= seconds <= LONGEST_SECONDS
    if validity is not None and validity > 2 and math.isfinite(validity):
        assert min(validity, LONGEST_SECONDS) * 0.9 - 0.001 <= seconds < validity
    elif validity is not None and not validity > 1:
        assert seconds <= 1.5


async def established(bench: Bench, chf: Chf, validity: int) -> Replay:
    chf.unit["validityTime"] = validity
    replay = Replay(bench)
    await replay.all(messages("ipv4", "association", "establishment"))
    return replay


async def test_what_was_used_goes_on_the_old_terms_and_a_new_quota_is_there_in_time(
    scripted: tuple[Bench, Chf],
) -> None:
    bench, chf = scripted
    replay = await established(bench, chf, 2)
    assert len(chf.asked) == 1
    replay.answer_query(1234, 0)
    await until("the renewal", lambda: len(chf.asked) == 2)
    assert chf.used() == [1234]
    asked = bench.upf.asked[Type.SESSION_MODIFICATION_REQUEST]
    query = next(message for message in asked if message.first(IeType.QUERY_URR))
    assert query.ies == [query_urr(16)]
    # The UPF is told of the new quota, and that one is renewed as well; one that does not know the query is no trouble.
    await until("the next quota at the UPF", lambda: asked[-1].first(IeType.UPDATE_URR))
    await until("the renewal after that", lambda: len(chf.asked) == 3)
    assert chf.used() == [1234]
    # Longer terms: no request before their end.
    chf.unit["validityTime"] = 3600
    await until("the longer quota", lambda: len(chf.asked) == 4)
    session = await bench.store.session(replay.seid)
    assert session is not None and not await bench.store.to_renew(1700)
    assert [seid for seid, _ in await bench.store.to_renew(1801)] == [replay.seid]


async def test_a_deadline_outlives_the_ctf(scripted: tuple[Bench, Chf]) -> None:
    bench, chf = scripted
    replay = await established(bench, chf, 600)
    await bench.stop()
    # Ended while nobody was there.
    await bench.store.update(replay.seid, renew_seconds=-60.0)
    await bench.start(bench.settings, bench.store)
    await until("the renewal", lambda: len(chf.asked) == 2)

    # With its answer, which moves the deadline a second time.
    await until("the renewal's end", lambda: not bench.ctf.gate.busy(replay.seid))
    assert not await bench.store.to_renew(500)
    # Another instance has written a near one: seen at the next look.
    await bench.store.update(replay.seid, renew_seconds=0.5)
    await bench.ctf.gate.renewals.look()
    await until("the renewal after that", lambda: len(chf.asked) == 3)


async def test_a_report_in_the_meantime_is_a_renewal(scripted: tuple[Bench, Chf]) -> None:
    bench, chf = scripted
    replay = await established(bench, chf, 3)
    timers = bench.ctf.gate.renewals._timers
    assert replay.seid in timers
    chf.unit["validityTime"] = 3600
    await replay.report(1000, 0)
    # Its answer has moved the deadline; or the timer was quicker, and has found the deadline moved by the report.
    await until("the timer's end", lambda: replay.seid not in timers and not bench.ctf.gate.renewals._running)
    assert len(chf.asked) == 2 and not await bench.store.to_renew(1700)


@pytest.mark.parametrize("bench", [{"validitySeconds": 10, "graceSeconds": 3}], indirect=True)
async def test_an_ocs_with_short_quotas_does_not_take_a_live_session_for_dead(bench: Bench, pg_database: Any) -> None:
    await bench.account(imsi_in("ipv4"), QUOTA)
    await Replay(bench).all(messages("ipv4", "association", "establishment"))
    ocs = await asyncpg.connect(pg_database.dsn("ocs"))
    try:
        past = "SELECT created_stamp < now() - interval '13.5 s' FROM session"
        await until("the first quota's end", lambda: ocs.fetchval(past), 30)
        # As the sweeper does.
        await ocs.fetchval("SELECT close_expired()")
        assert await ocs.fetchval("SELECT sum(amount) FROM reservation") == QUOTA
        assert await ocs.fetchval("SELECT count(*) FROM session WHERE ended_at IS NULL") == 1
    finally:
        await ocs.close()
