"""Whose embedded cluster it is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from mvnobox.deploy import remove
from mvnobox.deploy.cluster import ClusterChoice, EmbeddedCluster, owner
from mvnobox.deploy.journey.access import Kubectl
from mvnobox.deploy.remove import down
from mvnobox.deploy.report import PlainReporter
from mvnobox.deploy.unowned import namespaces_of, refuse_unowned
from mvnobox.errors import EnvironmentUnfit


@pytest.fixture
def homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two homes, the first of which runs the embedded cluster; the second one is the user's."""
    first, second = tmp_path / "first home", tmp_path / "second"
    for folder in (first, second, tmp_path / "cluster"):
        folder.mkdir()
    monkeypatch.setenv("MVNO_CLUSTER_DIR", str(tmp_path / "cluster"))
    monkeypatch.setenv("MVNO_HOME", str(first))
    owner.claim()
    note(first, "embedded")
    monkeypatch.setenv("MVNO_HOME", str(second))
    return first, second


def note(home: Path, kind: str, env: str = "dev") -> None:
    (home / f"cluster.{env}.json").write_text(
        json.dumps({"kind": kind, "context": "c", "kubeconfig": "k", "reason": "r"})
    )


def test_another_home_is_told_of_with_the_command_that_works(homes: tuple[Path, Path]) -> None:
    assert owner.elsewhere() == homes[0]
    found = owner.refusal(homes[0], "up")
    assert f"whose state is in {homes[0]}," in str(found)
    assert f"MVNO_HOME='{homes[0]}' ./mvno up" in found.remedy


@pytest.mark.parametrize("left", ["nothing", "another cluster", "a torn note"])
def test_a_home_without_an_installation_there_has_no_say(homes: tuple[Path, Path], left: str) -> None:
    if left == "nothing":
        (homes[0] / "cluster.dev.json").unlink()
    elif left == "another cluster":
        note(homes[0], "existing")
    else:
        (homes[0] / "cluster.dev.json").write_text('{"kind": "emb')
    assert owner.elsewhere() is None


def test_our_own_and_nobodys_cluster_are_not_elsewhere(
    homes: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner.claim()
    note(homes[1], "embedded")
    assert owner.elsewhere() is None
    monkeypatch.setenv("MVNO_CLUSTER_DIR", str(tmp_path / "none"))
    assert owner.elsewhere() is None


@pytest.fixture
def removed(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Says that the embedded cluster would have been removed, in the place of the machine's own."""
    said: list[bool] = []
    monkeypatch.setattr(EmbeddedCluster, "down", lambda self, report, *, everything: said.append(everything))
    return said


def take_down(env: str = "dev") -> None:
    down(brand=None, env=env, everything=False, report=PlainReporter())


def holds(home: Path, stack: str, *resources: str) -> None:
    """A stack's state with so many resources."""
    file = home / f"pulumi/.pulumi/stacks/mvno-in-a-box/{stack}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    latest = {"resources": [{"type": "kubernetes:core/v1:Namespace", "id": one} for one in resources]}
    file.write_text(json.dumps({"checkpoint": {"latest": latest}}))


def test_down_leaves_the_others_cluster_and_removes_a_note_with_nothing_behind_it(
    homes: tuple[Path, Path], removed: list[bool]
) -> None:
    with pytest.raises(EnvironmentUnfit, match="whose state is in"):
        take_down()
    # What an earlier version noted before it failed.
    note(homes[1], "embedded")
    take_down()
    assert not homes[1].exists() and (homes[0] / "cluster.dev.json").exists()
    assert owner.elsewhere() == homes[0] and not removed


def test_down_does_not_forget_an_installation_that_it_does_not_remove(
    homes: tuple[Path, Path], removed: list[bool]
) -> None:
    # Two homes that both say the embedded cluster is theirs: neither loses its state.
    note(homes[1], "embedded")
    holds(homes[1], "platform.dev", "platform-dev")
    with pytest.raises(EnvironmentUnfit, match="whose state is in"):
        take_down()
    assert (homes[1] / "pulumi").exists() and not removed


def test_down_wants_to_know_which_environment(homes: tuple[Path, Path], removed: list[bool]) -> None:
    owner.claim()
    note(homes[1], "embedded", "lab")
    with pytest.raises(EnvironmentUnfit, match="nothing is installed in 'dev'") as found:
        take_down()
    assert "--env lab" in found.value.remedy and homes[1].exists() and not removed


def test_down_of_one_environment_leaves_the_states_of_the_others(
    homes: tuple[Path, Path], removed: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten: list[tuple[str, bool]] = []

    class Engine:
        def __init__(self, kubeconfig: Path | None, report: object) -> None:
            assert kubeconfig is None

        def remove(self, stack: str, *, force: bool = False) -> None:
            forgotten.append((stack, force))

    monkeypatch.setattr(remove, "Workspace", Engine)
    owner.claim()
    for env, kind in (("dev", "embedded"), ("lab", "embedded"), ("prod", "existing")):
        note(homes[1], kind, env)
        holds(homes[1], f"platform.{env}", f"platform-{env}")
    take_down()
    # The embedded cluster is gone, and with it all that was on it.
    assert removed == [False] and forgotten == [("platform.dev", True), ("platform.lab", True)]
    assert [path.name for path in homes[1].glob("cluster.*")] == ["cluster.prod.json"]
    # Again, and with a cluster that `up` did not finish: nothing more to forget.
    take_down()
    assert removed == [False, False] and (homes[1] / "cluster.prod.json").exists()


def test_our_own_embedded_cluster_goes_with_its_state(homes: tuple[Path, Path], removed: list[bool]) -> None:
    owner.claim()
    note(homes[1], "embedded")
    holds(homes[1], "platform.dev", "platform-dev")
    take_down()
    assert removed == [False] and not homes[1].exists() and homes[0].exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can become another user")
def test_a_home_that_may_not_be_looked_into_is_another_users(homes: tuple[Path, Path]) -> None:
    homes[0].chmod(0o700)
    for folder in (one for one in homes[0].parents if one.stat().st_uid == 0 and one != Path("/")):
        folder.chmod(folder.stat().st_mode | 0o011)
    os.seteuid(65534)
    try:
        found = owner.elsewhere()
    finally:
        os.seteuid(0)
    assert found == homes[0]


def test_what_the_state_does_not_know_is_refused_unless_it_was_being_made(homes: tuple[Path, Path]) -> None:
    namespaces = [{"metadata": {"name": name}} for name in ("default", "platform-dev", "silverline-dev")]
    kubectl = cast(Kubectl, SimpleNamespace(json=lambda *arguments: {"items": namespaces}))
    choice = ClusterChoice("existing", "c", homes[1] / "kubeconfig", "r")
    wanted = namespaces_of("silverline", "dev")
    with pytest.raises(EnvironmentUnfit, match="platform-dev and silverline-dev already") as found:
        refuse_unowned(kubectl, choice, wanted)
    assert "delete them" in found.value.remedy
    holds(homes[1], "platform.dev", "platform-dev")
    with pytest.raises(EnvironmentUnfit, match="has silverline-dev already"):
        refuse_unowned(kubectl, choice, wanted)
    # A run that was killed after the namespace was made and before that was written down.
    file = homes[1] / "pulumi/.pulumi/stacks/mvno-in-a-box/silverline.dev.json"
    operation = {"type": "creating", "resource": {"urn": "urn:pulumi:silverline.dev::namespace"}}
    file.write_text(json.dumps({"checkpoint": {"latest": {"pending_operations": [operation]}}}))
    refuse_unowned(kubectl, choice, wanted)
