"""A PFCP session as the CTF keeps it, and as rows of its tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from mvnobox.n4.forwarding import Forwarding
from mvnobox.n4.rules import Limits, Throttle

COLUMNS = """seid, smf_seid, smf_address, smf_port, upf_seid, imsi, dnn, own_urr, fars, open, threshold, quota,
              nchf_ref, nchf_sequence, octets, deleted_at, behind_gate, throttle_uplink, throttle_downlink, qers, addresses,
              towards, control, untold, ending, seen, revision, without_ocs"""
# What a statement's transaction does not wait for: the disk has it with the next commit that waits.
LAZILY = "set_config('synchronous_commit', 'off', true)"
_INSERTED = {
    "seid": "bigint", "smf_seid": "numeric", "smf_address": "text", "smf_port": "integer", "upf_seid": "numeric",
    "imsi": "text", "dnn": "text", "own_urr": "integer", "fars": "jsonb", "open": "boolean", "threshold": "bigint",
    "quota": "bigint", "nchf_ref": "text", "behind_gate": "boolean", "throttle_uplink": "bigint",
    "throttle_downlink": "bigint", "qers": "jsonb", "towards": "jsonb", "control": "jsonb", "untold": "boolean",
}  # fmt: skip
# Others see it at once, and it outlives us; the disk has it with the next commit that waits for the disk: at the latest
# that of the first answer, before which nothing passes. What a PostgreSQL that crashes in between forgets is written anew.
INSERT = """INSERT INTO session ({}, addresses, renew_at) OVERRIDING SYSTEM VALUE
             SELECT {}, string_to_array(${}::text, ' '), now() + make_interval(secs => ${}::float8)
             FROM {}""".format(
    ", ".join(_INSERTED),
    ", ".join(f"${place}::{kind}" for place, kind in enumerate(_INSERTED.values(), 1)),
    len(_INSERTED) + 1,
    len(_INSERTED) + 2,
    LAZILY,
)
# What the OCS has said first of a session, and whether the UPF does it; not where another instance is further.
ANSWERED = """UPDATE session SET open = $2, threshold = $3, quota = $4, nchf_ref = $5, behind_gate = $6, throttle_uplink = $7,
                  throttle_downlink = $8, untold = $9, renew_at = now() + make_interval(secs => $10), revision = revision + 1
              WHERE seid = $1 AND (nchf_ref IS NULL OR nchf_ref = $5 AND nchf_sequence = 0)"""
# Usage of sessions, $2, that are as they were when it was counted: what is noted is one Nchf request each. Which of them, by
# their places, $1; a session that has changed, or is twice among them, keeps its own.
TAKEN = """WITH held AS MATERIALIZED (
                 SELECT seid FROM session WHERE seid = ANY($2::bigint[]) ORDER BY seid FOR NO KEY UPDATE
             ), taken AS (
                 UPDATE session s SET seen = r.now_seen, nchf_sequence = r.sequence + 1, octets = s.octets + r.used,
                     renew_at = now() + interval '30 minutes'
                 FROM unnest($1::integer[], $2::bigint[], $3::integer[], $4::jsonb[], $5::boolean[], $6::jsonb[], $7::bigint[],
                     $8::bigint[], $9::bigint[])
                     AS r(place, seid, sequence, seen, behind_gate, now_seen, used, uplink, downlink)
                 JOIN held USING (seid)
                 WHERE s.seid = r.seid AND s.nchf_sequence = r.sequence AND s.seen = r.seen
                     AND s.behind_gate = r.behind_gate AND s.nchf_ref IS NOT NULL
                 RETURNING r.place, s.seid, s.nchf_sequence, r.used, r.uplink, r.downlink
             ), noted AS (
                 INSERT INTO pending (seid, sequence, used, uplink, downlink, release)
                 SELECT seid, nchf_sequence, used, uplink, downlink, false FROM taken
             ) SELECT place FROM taken"""


@dataclass
class Session:
    """One PFCP session.

    `open`, `limits` and `throttle` are what the UPF shall do; `untold`: it has not taken it. `behind_gate`: it has closed
    the gate. `revision`: of those five, of `forwarding` and `qers`. `without_ocs`: closed because the OCS did not answer, which is asked again.
    `ending`: the SMF does not know the session any more.
    """

    seid: int
    smf_seid: int
    smf: tuple[str, int]
    upf_seid: int | None
    imsi: str | None
    dnn: str | None
    own_urr: int
    open: bool
    limits: Limits
    nchf_ref: str | None
    nchf_sequence: int
    octets: int
    deleted: bool
    forwarding: Forwarding = field(default_factory=Forwarding)
    behind_gate: bool = False
    throttle: Throttle | None = None
    # QER ID → the MBR octets that the SMF wants, empty for none.
    qers: dict[int, bytes] = field(default_factory=dict)
    addresses: tuple[str, ...] = ()
    untold: bool = False
    ending: bool = False
    # Usage reports that were taken into account, as `Seen` has them, in JSON.
    seen: str = "{}"
    revision: int = 0
    without_ocs: bool = False
    # Of a new session: the OCS is asked anew after so many seconds.
    renew_seconds: float = 1800.0


@dataclass(frozen=True)
class Pending:
    """An Nchf request that has no answer yet: (total, uplink, downlink) octets; `followed`: by others of its session."""

    seid: int
    sequence: int
    used: tuple[int, int, int]
    release: bool
    followed: bool = False


def session_of(row: asyncpg.Record) -> Session:
    return Session(
        seid=row["seid"],
        smf_seid=int(row["smf_seid"]),
        smf=(row["smf_address"], row["smf_port"]),
        upf_seid=None if row["upf_seid"] is None else int(row["upf_seid"]),
        imsi=row["imsi"],
        dnn=row["dnn"],
        own_urr=row["own_urr"],
        open=row["open"],
        limits=Limits(row["threshold"], row["quota"]),
        nchf_ref=row["nchf_ref"],
        nchf_sequence=row["nchf_sequence"],
        octets=row["octets"],
        deleted=row["deleted_at"] is not None,
        forwarding=Forwarding(
            from_json(row["fars"]),
            from_json(row["towards"]),
            {int(far): carrier for far, carrier in json.loads(row["control"]).items()},
        ),
        behind_gate=row["behind_gate"],
        throttle=None
        if row["throttle_downlink"] is None
        else Throttle(row["throttle_uplink"], row["throttle_downlink"]),
        qers=from_json(row["qers"]),
        addresses=tuple(row["addresses"]),
        untold=row["untold"],
        ending=row["ending"],
        seen=row["seen"],
        revision=row["revision"],
        without_ocs=row["without_ocs"],
    )


def pending_of(row: asyncpg.Record) -> Pending:
    used = row["used"], row["uplink"], row["downlink"]
    return Pending(row["seid"], row["sequence"], used, row["release"], row["followed"])


def from_json(text: str) -> dict[int, bytes]:
    return {int(key): bytes.fromhex(value) for key, value in json.loads(text).items()}


def to_json(octets: Mapping[int, bytes]) -> str:
    return "{" + ",".join([f'"{key}":"{value.hex()}"' for key, value in octets.items()]) + "}"


def new_row(session: Session) -> tuple[Any, ...]:
    """A session as `INSERT` takes it."""
    throttle = session.throttle
    return (
        session.seid, session.smf_seid, *session.smf, session.upf_seid, session.imsi, session.dnn, session.own_urr,
        to_json(session.forwarding.actions), session.open, session.limits.threshold, session.limits.quota, session.nchf_ref, session.behind_gate,
        None if throttle is None else throttle.uplink, None if throttle is None else throttle.downlink,
        to_json(session.qers), to_json(session.forwarding.towards), json.dumps(dict(session.forwarding.control)),
        session.untold, " ".join(session.addresses), session.renew_seconds,
    )  # fmt: skip


def answered_row(session: Session) -> tuple[Any, ...]:
    """A session as `ANSWERED` takes it."""
    throttle = session.throttle
    return (
        session.seid, session.open, session.limits.threshold, session.limits.quota, session.nchf_ref, session.behind_gate,
        None if throttle is None else throttle.uplink, None if throttle is None else throttle.downlink,
        session.untold, session.renew_seconds,
    )  # fmt: skip
