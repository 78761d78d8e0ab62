"""The directory's password of an installation: one an environment, and who has to be told of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mvnobox.deploy.directory_login import DIRECTORY_PASSWORD, directory_password, without_password
from mvnobox.deploy.installation import PROJECT, Installation
from mvnobox.errors import BadInput


def test_brands_on_the_simulated_core_that_lack_it_follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MVNO_HOME", str(tmp_path))
    (tmp_path / "stacks").mkdir()

    def brand(name: str, **settings: object) -> None:
        config = {"core": "simulated", "brandFile": f"brands/{name}.yaml", **settings}
        text = yaml.safe_dump({"config": {f"{PROJECT}:{key}": value for key, value in config.items()}})
        (tmp_path / f"stacks/Pulumi.{name}.dev.yaml").write_text(text)

    here = Installation("dev")
    for name in ("silverline", "encore"):
        brand(name)
    assert [one.name for one in without_password(here, "silverline")] == ["encore"]
    # As Pulumi keeps a secret.
    brand("encore", **{DIRECTORY_PASSWORD: {"secure": "v1:x"}})
    assert without_password(here, "silverline") == []
    brand("encore", core="open5gs")
    assert without_password(here, "silverline") == []
    brand("gone", brandFile="/nowhere/gone.yaml")
    with pytest.raises(BadInput, match=r"gone\.yaml"):
        without_password(here, "silverline")


def test_environments_have_passwords_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MVNO_HOME", str(tmp_path))
    assert directory_password("dev") == directory_password("dev") != directory_password("prod")
