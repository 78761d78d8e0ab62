"""Two instances at a change-over: what one says, in the middle of the other's word, is not lost on the UPF."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable

import pytest
from tests.chf import Chf, failed

from mvnobox.n4.nchf import Verdict
from mvnobox.n4.switch import Switch
from mvnobox.pfcp import codec
from mvnobox.pfcp.codec import DROP, FORW, Ie, IeType, Message, Type
from mvnobox.pfcp.endpoint import NoAnswer

from .conftest import QUANTUM, QUOTA, Bench, until
from .replay import established, last_actions

pytestmark = pytest.mark.timeout(60)
CHANGE = Type.SESSION_MODIFICATION_REQUEST
OPEN, LAST, SHUT = Verdict(QUOTA), Verdict(QUANTUM, final=True), Verdict(0)
# Some flag of an Apply Action that the SMF did not set before (clause 8.2.26: DUPL).
DUPL = 0x10
MOMENTS = ("after we read", "before the UPF hears us", "after the UPF heard us", "and the UPF does not hear us")
IN_EVERY_WAY = pytest.mark.parametrize(
    ("moment", "was", "ours", "others"),
    list(itertools.product(MOMENTS, (OPEN, SHUT), (OPEN, SHUT), (OPEN, LAST, SHUT))),
)


class Two:
    """The bench's instance and another one on the same database and UPF, which speaks once in the middle of our word."""

    def __init__(self, bench: Bench, seid: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bench, self.seid = bench, seid
        self.here, upf = bench.ctf.gate.switch, bench.ctf.gate.switch._upf
        self.there = Switch(bench.settings, bench.store, upf)
        self._moment, self._others = "", self._nothing
        self._read, self._request = bench.store.session, upf.request
        monkeypatch.setattr(bench.store, "session", self._reading)
        monkeypatch.setattr(upf, "request", self._telling)

    async def _nothing(self) -> None:
        pass

    def then(self, moment: str, others: Callable[[], Awaitable[object]]) -> None:
        async def once() -> None:
            self._others, self.spoke = self._nothing, True
            await others()

        self._moment, self._others, self.spoke = moment, once, False

    async def speak(self) -> None:
        """What was not said in the middle."""
        self._moment = ""
        await self._others()

    async def _reading(self, seid: int) -> object:
        found = await self._read(seid)
        if self._moment == MOMENTS[0]:
            await self._others()
        return found

    async def _telling(self, message: Message) -> Message:
        if message.type != CHANGE or self._moment == MOMENTS[0] or self._others == self._nothing:
            return await self._request(message)
        if self._moment == MOMENTS[2]:
            answer = await self._request(message)
            await self._others()
            return answer
        await self._others()
        if self._moment == MOMENTS[3]:
            raise NoAnswer("a message that is lost")
        return await self._request(message)

    async def agrees(self) -> bool:
        """Whether the UPF does what is kept; whether the gate is open."""
        kept = await self._read(self.seid)
        assert kept is not None and not kept.untold and kept.behind_gate is not kept.open
        assert (last_actions(self.bench) == {DROP}) is not kept.open
        urrs = [ie.children() for m in self.bench.upf.asked[CHANGE] for ie in m.ies if ie.type == IeType.UPDATE_URR]
        quota = codec.first(urrs[-1], IeType.VOLUME_QUOTA)
        assert (None if quota is None else codec.parse_volume(quota)[0]) == kept.limits.quota
        return kept.open


@pytest.fixture
async def two(scripted: tuple[Bench, Chf], monkeypatch: pytest.MonkeyPatch) -> Two:
    """With one session."""
    bench, _ = scripted
    return Two(bench, (await established(bench)).seid, monkeypatch)


@IN_EVERY_WAY
async def test_the_upf_does_what_is_kept_last(
    two: Two, moment: str, was: Verdict, ours: Verdict, others: Verdict
) -> None:
    await two.here.apply(two.seid, was, [])
    two.then(moment, lambda: two.there.apply(two.seid, others, []))
    told, _ = await two.here.apply(two.seid, ours, [])
    # Nothing is said about a gate that is closed already.
    assert two.spoke or (was, ours) == (SHUT, SHUT)
    # Who cannot know whom the UPF heard last tells it again.
    assert told or await two.here.tell(two.seid, [])
    await two.agrees()


@IN_EVERY_WAY
async def test_the_later_requests_answer_decides_whoever_has_it(
    two: Two, moment: str, was: Verdict, ours: Verdict, others: Verdict
) -> None:
    assert (await two.bench.store.take_usage(two.seid, [])) is not None
    await two.here.apply(two.seid, was, [])

    async def second() -> None:
        asked = await two.bench.store.take_usage(two.seid, [])
        assert asked is not None and asked.sequence == 2
        await two.there.apply(two.seid, others, [], since=2)

    two.then(moment, second)
    await two.here.apply(two.seid, ours, [], since=1)
    await two.speak()
    await two.here.tell(two.seid, [])
    assert await two.agrees() is (others.granted > 0)
    kept = await two.bench.store.session(two.seid)
    assert kept is not None and kept.limits == two.here.limits(others)


@pytest.mark.parametrize("moment", MOMENTS[1:3])
async def test_what_the_smf_changes_meanwhile_does_not_open_a_gate(two: Two, moment: str) -> None:
    await two.here.apply(two.seid, OPEN, [])
    two.then(moment, lambda: two.there.apply(two.seid, SHUT, []))
    far = codec.group(
        IeType.UPDATE_FAR, [codec.u32(IeType.FAR_ID, 2), Ie(IeType.APPLY_ACTION, bytes([FORW | DUPL, 0]))]
    )
    answer = await two.bench.smf.ask(Message(CHANGE, 0, [far], seid=two.seid))
    assert codec.number(answer.first(IeType.CAUSE), 1) == 1 and two.spoke

    async def told() -> bool:
        kept = await two.bench.store.session(two.seid)
        return kept is not None and not kept.untold

    await until("the last word", told)
    assert not await two.agrees()
    kept = await two.bench.store.session(two.seid)
    assert kept is not None and kept.forwarding.actions[2][0] == FORW | DUPL


async def test_an_answer_that_was_overtaken_says_nothing_to_the_upf(scripted: tuple[Bench, Chf]) -> None:
    bench, chf = scripted
    replay = await established(bench)
    changes = bench.upf.asked[CHANGE]
    for sequence, granted in enumerate((QUOTA, QUANTUM)):
        before = len(changes)
        chf.unit = {"grantedUnit": {"totalVolume": granted}}
        await replay.report(QUANTUM, sequence)
        await until("the next quota", lambda before=before: len(changes) > before)
        await until("nothing under way", lambda: not bench.ctf.gate.busy(replay.seid))
    told, kept = len(changes), await bench.store.session(replay.seid)
    there = Switch(bench.settings, bench.store, bench.ctf.gate.switch._upf)
    # The other instance found the first report owed, and was slow; the second one, with less credit, is settled.
    assert await there.apply(replay.seid, OPEN, [], since=1) == (True, None)
    assert len(changes) == told and await bench.store.session(replay.seid) == kept
    assert (await there.apply(replay.seid, OPEN, [], since=2))[0] and len(changes) == told + 1


async def test_a_request_that_is_not_owed_has_no_number(scripted: tuple[Bench, Chf]) -> None:
    bench, chf = scripted
    replay = await established(bench)
    # Without a charging session, and with use that is kept for the next one: asked again by a top-up, nothing is owed for that.
    await bench.store.update(replay.seid, nchf_ref=None)
    assert await bench.store.take_usage(replay.seid, [(16, 0, (700, 0, 700))]) is not None
    assert await bench.store.take_usage(replay.seid, []) is None
    chf.unit = {"grantedUnit": {"totalVolume": QUANTUM}}
    bench.ctf.gate.work(replay.seid)
    await until("what was owed", lambda: chf.used() == [700])
    await until("nothing under way", lambda: not bench.ctf.gate.busy(replay.seid))
    kept = await bench.store.session(replay.seid)
    assert kept is not None and kept.limits.quota == QUANTUM and not kept.untold


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("refused", [False, True])
async def test_a_gate_that_was_closed_while_the_other_one_had_the_answer_opens_again(
    scripted: tuple[Bench, Chf], *, ends: bool, refused: bool
) -> None:
    """`refused`: the UPF does not take the closing at once; `ends`: who closed it ends before it may ask again."""
    bench, chf = scripted
    replay = await established(bench)
    chf.instead.append(failed("TERMINATE", **({"retry_after": "30"} if ends else {})))
    chf.stuck = True
    if refused:
        bench.upf.refused.add(CHANGE)
    await replay.report(QUANTUM, 0)

    async def closed() -> bool:
        kept = await bench.store.session(replay.seid)
        return (
            kept is not None and kept.without_ocs and (kept.untold if refused else kept.behind_gate and not kept.untold)
        )

    await until("the gate's closing", closed)
    _, owed = await bench.store.owing_session(replay.seid)
    assert owed is not None
    # The other one, whose way to the OCS is open.
    await bench.store.settled(owed)
    asked = len(chf.asked)
    bench.upf.refused.clear()
    chf.stuck = False
    chf.instead.clear()
    if ends:
        await bench.restart()

    async def opened() -> bool:
        kept = await bench.store.session(replay.seid)
        return kept is not None and kept.open and not kept.untold and not kept.without_ocs

    await until("the gate's opening", opened)
    assert DROP not in last_actions(bench)
    # A request of its own: the one that was waited for is not repeated, its use neither.
    assert len(chf.asked) == asked + 1 and not chf.asked[-1][1]["multipleUnitUsage"][0].get("usedUnitContainer")
