"""What the OCS says of its own accord: from whom it is taken, and that it is done whatever the UPF says at first."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from tests.chf import Chf

from mvnobox.n4.notify import Addresses
from mvnobox.n4.rules import CLOSED
from mvnobox.pfcp.codec import DROP, Message, Type

from .conftest import QUANTUM, TOKEN, Bench, until
from .replay import Replay, messages
from .replay import actions as far_actions

pytestmark = pytest.mark.timeout(60)
CHANGE = Type.SESSION_MODIFICATION_REQUEST
DENIED = {"resultCode": "END_USER_SERVICE_DENIED"}


async def established(bench: Bench) -> Replay:
    replay = Replay(bench)
    await replay.all(messages("ipv4", "association", "establishment"))
    return replay


def drops(message: Message) -> bool:
    actions = far_actions(message.ies).values()
    return bool(actions) and all(action[0] == DROP for action in actions)


def forwards(message: Message) -> bool:
    actions = far_actions(message.ies).values()
    return bool(actions) and all(action[0] != DROP for action in actions)


async def test_only_who_was_told_the_address_is_heard(scripted: tuple[Bench, Chf]) -> None:
    bench, chf = scripted
    replay = await established(bench)
    right = urlsplit(chf.asked[0][1]["notifyUri"]).path
    another = bench.addresses.path(replay.seid + 1).rpartition("/")[2]
    foreign = Addresses("another brand's secret").path(replay.seid)
    for path in (
        f"/nchf-notify/{replay.seid}",
        f"/nchf-notify/{replay.seid}/{another}",
        foreign,
        right[:-1],
        right + "0",
    ):
        assert await bench.notify(path) == 404, path
    session = await bench.store.session(replay.seid)
    assert session is not None and session.open and len(chf.asked) == 1
    # The same address after a restart: the OCS keeps it.
    assert Addresses(TOKEN).path(replay.seid) == right
    chf.unit = DENIED
    assert await bench.notify(right) == 204
    await until("the gate's closing", lambda: drops(bench.upf.asked[CHANGE][-1]))
    assert await bench.notify(bench.addresses.path(replay.seid + 1)) == 404


async def test_an_abort_is_told_until_the_upf_takes_it_over_a_restart_too(scripted: tuple[Bench, Chf]) -> None:
    bench, chf = scripted
    replay = await established(bench)
    chf.unit = DENIED
    bench.upf.refused.add(CHANGE)
    asked = bench.upf.asked[CHANGE]
    before = len(asked)
    assert await bench.notify(bench.addresses.path(replay.seid)) == 204
    await until("attempts", lambda: len(asked) > before + 2)
    kept = await bench.store.session(replay.seid)
    assert kept is not None and (kept.open, kept.untold, kept.behind_gate) == (False, True, False)
    # The OCS says it again: kept already.
    assert await bench.notify(bench.addresses.path(replay.seid)) == 204
    await bench.stop()
    bench.upf.refused.clear()
    before = len(asked)
    await bench.start(bench.settings, bench.store)
    await until("the gate's closing", lambda: len(asked) > before)
    assert drops(asked[-1])

    async def told() -> bool:
        session = await bench.store.session(replay.seid)
        return session is not None and (session.open, session.untold, session.behind_gate) == (False, False, True)

    await until("that it is known to be closed", told)
    assert kept.limits == CLOSED


async def test_an_opening_that_the_upf_refuses_comes_again_soon(scripted: tuple[Bench, Chf]) -> None:
    bench, chf = scripted
    replay = await established(bench)
    granting, chf.unit = chf.unit, DENIED
    asked = bench.upf.asked[CHANGE]
    await replay.report(QUANTUM, 0)
    await until("the gate's closing", lambda: drops(asked[-1]))
    chf.unit = granting
    bench.upf.refused.add(CHANGE)
    before, requests = len(asked), len(chf.asked)
    assert await bench.notify(bench.addresses.path(replay.seid), "REAUTHORIZATION") == 204
    await until("attempts", lambda: len(asked) > before + 1)
    # What is dropped meanwhile is nobody's use.
    await replay.report(CLOSED.threshold + 100, 1)
    bench.upf.refused.clear()
    before = len(asked)
    await until("the gate's opening", lambda: len(asked) > before and forwards(asked[-1]))
    assert chf.used() == [QUANTUM] and len(chf.asked) == requests + 1


async def test_an_answer_from_before_the_abort_does_not_open_the_gate_for_good(scripted: tuple[Bench, Chf]) -> None:
    bench, chf = scripted
    replay = await established(bench)
    asked = bench.upf.asked[CHANGE]
    before = len(chf.asked)
    chf.go.clear()
    await replay.report(QUANTUM, 0)
    await until("the request", lambda: len(chf.asked) > before)
    # The OCS has granted more; before the CTF hears of it, charging ends.
    assert await bench.notify(bench.addresses.path(replay.seid)) == 204
    await until("the gate's closing", lambda: drops(asked[-1]))
    chf.unit = DENIED
    chf.go.set()

    async def closed() -> bool:
        session = await bench.store.session(replay.seid)
        nothing = (await bench.store.owing_session(replay.seid))[1] is None
        return session is not None and nothing and not session.open and session.behind_gate

    await until("that it stays closed", closed)
    last = next(message for message in reversed(asked) if far_actions(message.ies))
    assert drops(last) and chf.used() == [QUANTUM]
