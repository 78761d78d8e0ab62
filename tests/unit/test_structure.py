"""The rooms import as the picture says, and the code is as clean as its checkers ask."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_rooms_import_as_drawn() -> None:
    done = run(str(Path(sys.executable).parent / "lint-imports"), "--no-cache")
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_is_content() -> None:
    done = run(sys.executable, "-m", "ruff", "check", "src/mvnobox", "stacks", "tests", "bench", "--no-cache")
    assert done.returncode == 0, done.stdout
