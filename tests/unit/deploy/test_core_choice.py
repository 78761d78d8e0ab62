"""What is put on the node for a core, and journeys on a named one."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mvnobox.cli.main import app
from mvnobox.deploy import core
from mvnobox.deploy.installation import PROJECT
from mvnobox.errors import BadInput, EnvironmentUnfit


@pytest.mark.parametrize(
    ("kind", "shared", "sctp", "wanted"),
    [
        ("embedded", "open5gs", False, ("sctp",)),
        ("embedded", "open5gs", True, ()),
        ("embedded", "simulated", False, ()),
        ("kind", "open5gs", False, ()),
    ],
)
def test_sctp_over_tcp_stays_while_any_brand_needs_it(
    monkeypatch: pytest.MonkeyPatch, kind: str, shared: str, sctp: bool, wanted: tuple[str, ...]
) -> None:
    monkeypatch.setattr(core, "kernel_has_sctp", lambda: sctp)
    assert core.optional_images(kind, shared) == wanted


def test_a_journey_passes_on_no_other_core_than_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MVNO_HOME", str(tmp_path))
    (tmp_path / "stacks").mkdir()
    config = {f"{PROJECT}:brandFile": "brands/silverline.yaml", f"{PROJECT}:core": "simulated"}
    (tmp_path / "stacks/Pulumi.silverline.dev.yaml").write_text(yaml.safe_dump({"config": config}))
    with pytest.raises(EnvironmentUnfit, match="simulated, not on open5gs") as refused:
        app(["verify", "--core", "open5gs", "--json"], standalone_mode=False)
    assert refused.value.remedy == "./mvno up --core open5gs --brand silverline"


def test_a_journey_on_a_core_that_there_is_not() -> None:
    with pytest.raises(BadInput, match="'5gs'"):
        app(["verify", "--core", "5gs"], standalone_mode=False)
