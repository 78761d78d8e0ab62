"""What Open5GS's SMF and UPF said to each other on N4, and how it is said again."""

from __future__ import annotations

import json
from pathlib import Path

from mvnobox.n4.forwarding import OWN_FAR, renumbered
from mvnobox.n4.rows import Session
from mvnobox.n4.rules import OWN_URR
from mvnobox.pfcp import codec
from mvnobox.pfcp.codec import DROP, Ie, IeType, Message, Type

from .conftest import Bench, placed, until

RECORDED = json.loads((Path(__file__).parent / "data/open5gs_2_7_7.json").read_text())


def messages(part: str, *phases: str) -> list[tuple[str, Message]]:
    """(direction, message) of a recording; all phases where none is named."""
    chosen = [one for one in RECORDED[part] if not phases or one["phase"] in phases]
    return [(one["direction"], codec.decode(bytes.fromhex(one["hex"]))) for one in chosen]


def imsi_in(part: str) -> str:
    first = next(m for _, m in messages(part) if m.type == Type.SESSION_ESTABLISHMENT_REQUEST)
    found = codec.user_imsi(first.first(IeType.USER_ID))
    assert found is not None
    return found


class Replay:
    """Lets both sides say again what they said, the SEIDs being those of this run."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.smf_seid = self.upf_seid = 0
        # The CTF's SEID, one for both sides.
        self.seid = 0

    async def all(self, recorded: list[tuple[str, Message]]) -> None:
        for index, (direction, message) in enumerate(recorded):
            if not message.is_request or message.type == Type.HEARTBEAT_REQUEST:
                continue
            back = next(
                other for where, other in recorded[index:]
                if where != direction and other.type == message.type + 1 and other.sequence == message.sequence
            )  # fmt: skip
            await (self.from_smf if direction == "smf-to-upf" else self.from_upf)(message, back)

    async def from_smf(self, request: Message, recorded: Message) -> None:
        upf = self.bench.upf
        if request.type == Type.SESSION_ESTABLISHMENT_REQUEST:
            self.smf_seid = codec.parse_f_seid(request.need(IeType.F_SEID))[0]
            self.upf_seid = codec.parse_f_seid(recorded.need(IeType.F_SEID))[0]
        if request.type == Type.ASSOCIATION_SETUP_REQUEST:
            answer = await self.bench.smf.ask(
                Message(request.type, 0, placed(request.ies, None, self.bench.smf.address))
            )
            assert codec.number(answer.first(IeType.CAUSE), 1) == 1
            return
        upf.answers[request.type].append(
            Message(recorded.type, 0, placed(recorded.ies, None, self.bench.upf.address), seid=self.seid)
        )
        new = request.type == Type.SESSION_ESTABLISHMENT_REQUEST
        answer = await self.bench.smf.ask(
            Message(request.type, 0, placed(request.ies, None, self.bench.smf.address), seid=0 if new else self.seid)
        )
        # The SMF sees the UPF's answer: the addresses are the CTF's, nothing else differs.
        assert answer.seid == self.smf_seid
        if new:
            self.seid = codec.parse_f_seid(answer.need(IeType.F_SEID))[0]
        assert answer.ies == placed(recorded.ies, self.seid, self.bench.own)
        seen = upf.asked[request.type][-1]
        assert seen.seid == (0 if new else self.upf_seid)
        wanted = placed(request.ies, self.seid, self.bench.own)
        if new:
            await self.opened(without_own(seen.ies), wanted)
        else:
            assert without_own(seen.ies) == wanted

    async def opened(self, made: list[Ie], wanted: list[Ie]) -> None:
        """A session begins closed, and is as the SMF wants it once the OCS has said so."""
        assert [ie for ie in made if ie.type != IeType.CREATE_FAR] == [
            ie for ie in wanted if ie.type != IeType.CREATE_FAR
        ]
        upf, action = self.bench.upf, actions(wanted)
        # The third is the control plane's own.
        assert actions(made) == action | {far: bytes([DROP, 0]) for far in (1, 2)}
        session = await self.answered()
        if session.open:
            last = upf.asked[Type.SESSION_MODIFICATION_REQUEST][-1]
            assert last.seid == self.upf_seid
            assert actions(without_own(last.ies)) == {far: action[far] for far in (1, 2)}

    async def answered(self) -> Session:
        """The session after the OCS's first word."""

        async def kept() -> Session | None:
            found = await self.bench.store.session(self.seid)
            return found if found is not None and not found.untold else None

        found: Session = await until("the OCS's first word", kept)
        return found

    async def from_upf(self, request: Message, recorded: Message) -> None:
        smf = self.bench.smf
        smf.answers[request.type].append(Message(recorded.type, 0, recorded.ies, seid=self.seid))
        answer = await self.bench.upf.ask(Message(request.type, 0, request.ies, seid=self.seid))
        assert answer.seid == self.upf_seid and answer.ies == recorded.ies
        seen = smf.asked[request.type][-1]
        assert seen.seid == self.smf_seid and seen.ies == request.ies

    async def report(self, octets: int, sequence: int) -> None:
        """The UPF reports use by the CTF's own rule."""
        usage = _usage(IeType.USAGE_REPORT_REPORT, b"\x02\0\0", octets, sequence)
        body = [codec.u8(IeType.REPORT_TYPE, 2), usage]
        answer = await self.bench.upf.ask(Message(Type.SESSION_REPORT_REQUEST, 0, body, seid=self.seid))
        assert answer.ies == [codec.u8(IeType.CAUSE, 1)] and answer.seid == self.upf_seid

    def answer_query(self, octets: int, sequence: int) -> None:
        """The UPF will answer its next change with so much use by the CTF's own rule."""
        usage = _usage(IeType.USAGE_REPORT_MODIFICATION, b"\x80\0\0", octets, sequence)
        kind = Type.SESSION_MODIFICATION_RESPONSE
        answer = Message(kind, 0, [codec.u8(IeType.CAUSE, 1), usage], seid=self.seid)
        self.bench.upf.answers[Type.SESSION_MODIFICATION_REQUEST].append(answer)


def _usage(kind: IeType, trigger: bytes, octets: int, sequence: int) -> Ie:
    """A usage report by the CTF's own rule."""
    return codec.group(
        kind,
        [
            codec.u32(IeType.URR_ID, OWN_URR),
            codec.u32(IeType.UR_SEQN, sequence),
            Ie(IeType.USAGE_REPORT_TRIGGER, trigger),
            Ie(IeType.VOLUME_MEASUREMENT, b"\x01" + octets.to_bytes(8, "big")),
        ],
    )


def actions(ies: list[Ie]) -> dict[int, bytes]:
    """FAR ID → Apply Action octets in Create FAR and Update FAR elements."""
    fars = [ie.children() for ie in ies if ie.type in (IeType.CREATE_FAR, IeType.UPDATE_FAR)]
    found = {codec.number(codec.first(far, IeType.FAR_ID), 4): codec.first(far, IeType.APPLY_ACTION) for far in fars}
    return {far: action.data for far, action in found.items() if action is not None}


async def established(bench: Bench) -> Replay:
    replay = Replay(bench)
    await replay.all(messages("ipv4", "association", "establishment"))
    return replay


def last_actions(bench: Bench) -> set[int]:
    """What the UPF was told last to do with the session's packets."""
    last = next(
        message for message in reversed(bench.upf.asked[Type.SESSION_MODIFICATION_REQUEST]) if actions(message.ies)
    )
    return {action[0] for action in actions(last.ies).values()}


def without_own(ies: list[Ie]) -> list[Ie]:
    """The SMF's elements: without the CTF's own rules and the references to them."""
    own, twin = codec.u32(IeType.URR_ID, OWN_URR), codec.u32(IeType.FAR_ID, OWN_FAR)
    out = []
    for ie in ies:
        if ie.type in (IeType.CREATE_URR, IeType.CREATE_FAR, IeType.UPDATE_FAR) and {own, twin} & set(ie.children()):
            continue
        if ie.type == IeType.CREATE_PDR and twin in ie.children():
            # The downlink's, which Open5GS shares with what its SMF sends to the UE.
            ie = renumbered(ie, 1)
        if ie.type in (IeType.CREATE_PDR, IeType.UPDATE_PDR):
            ie = codec.group(ie.type, [member for member in ie.children() if member != own])
        out.append(ie)
    return out
