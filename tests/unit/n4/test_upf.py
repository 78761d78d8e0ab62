"""Whose word a heartbeat is, where the UPF sets the association up and its address is learnt from its packets."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from mvnobox.n4 import upf as upf_module
from mvnobox.n4.settings import CtfSettings
from mvnobox.n4.store import Store
from mvnobox.n4.upf import Upf
from mvnobox.pfcp import codec
from mvnobox.pfcp.codec import Ie, IeType, Message, Type
from mvnobox.service import database

UPF, SMF = ("10.244.0.7", 8805), ("10.244.0.8", 8805)
STARTED = 1_700_000_000
# As it stands in a message: seconds since 1900 (TS 29.244 clause 8.2.65).
STAMP = codec.number(codec.recovery(STARTED), 4)
SETTINGS = CtfSettings(
    brand="alpha", listen="127.0.0.1", advertise="127.0.0.1", upf="upf", upf_initiates=True,
    notify_uri="http://127.0.0.1:1", ocs="http://127.0.0.1:1",
)  # fmt: skip


async def forgotten() -> None:
    """The UPF has restarted."""


@pytest.fixture
async def store(pg_database: Any) -> Any:
    dsn = pg_database.dsn("ctf_alpha")
    await database.migrate(dsn, Path(database.__file__).parents[1] / "n4/migrations")
    pool = await database.make_pool(dsn)
    yield Store(pool)
    pool.terminate()


def setup() -> Message:
    features = Ie(IeType.UP_FUNCTION_FEATURES, b"\0\0")
    return Message(Type.ASSOCIATION_SETUP_REQUEST, 0, [codec.recovery(STARTED), features])


async def test_an_smf_that_started_in_the_same_second_is_not_taken_for_the_upf(store: Store) -> None:
    upf = Upf(SETTINGS, store, forgotten)
    await upf.take(setup())
    await upf.accepted(setup(), UPF)
    await upf.heard(SMF, STAMP)
    assert await upf.address() == UPF
    # Nor is it after our own restart, before the UPF's first word.
    anew = Upf(SETTINGS, store, forgotten)
    await anew.heard(SMF, STAMP)
    assert not anew.associated.is_set()
    await anew.heard(UPF, STAMP)
    assert anew.associated.is_set() and await anew.address() == UPF
    # What only a UPF sends says where it is; a restarted one sets the association up again.
    await anew.heard(("10.244.0.9", 8805), None)
    assert await anew.address() == ("10.244.0.9", 8805)


async def test_after_our_restart_a_request_waits_for_the_upfs_first_word(store: Store) -> None:
    upf = Upf(SETTINGS, store, forgotten)
    await upf.take(setup())
    await upf.accepted(setup(), UPF)
    anew = Upf(SETTINGS, store, forgotten)
    asked = asyncio.ensure_future(anew.address())
    # Not the UPF's.
    await anew.heard(SMF, STAMP)
    assert not asked.done()
    await anew.heard(UPF, STAMP)
    assert await asyncio.wait_for(asked, 1) == UPF


async def test_a_upf_that_says_nothing_is_waited_for_so_long(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upf_module, "FIRST_WORD_SECONDS", 0.05)
    with pytest.raises(ConnectionError, match="not been heard of"):
        await Upf(SETTINGS, store, forgotten).address()
