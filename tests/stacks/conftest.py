from __future__ import annotations

import asyncio
from typing import Any

import pulumi
import pytest
from tests.stacks.building import Mocks


@pytest.fixture
def mocks() -> Any:
    asyncio.set_event_loop(asyncio.new_event_loop())
    made = Mocks()
    pulumi.runtime.set_mocks(made, project="mvno-in-a-box", stack="test", preview=False)
    yield made
    asyncio.set_event_loop(None)
