"""What every test of charts needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from mvnobox.deploy.report import PlainReporter
from mvnobox.deploy.toolchain import ensure_tool


@pytest.fixture(scope="session")
def helm() -> Path:
    return ensure_tool("helm", PlainReporter())
