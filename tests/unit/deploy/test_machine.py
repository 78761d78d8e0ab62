"""What a machine lacks is said before anything is touched; what was there before is left alone; archives of images."""

from __future__ import annotations

import io
import json
import socket
import tarfile
from pathlib import Path

import pytest

from mvnobox.deploy.cluster import embedded, teardown
from mvnobox.deploy.images.imported import names_in
from mvnobox.deploy.recovery import waits_after_failure
from mvnobox.errors import BadInput, EnvironmentUnfit


def test_a_taken_port_is_named_with_its_holder(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as holder:
        holder.bind(("0.0.0.0", 0))
        holder.listen()
        port = holder.getsockname()[1]
        monkeypatch.setattr(embedded, "HOST_PORTS", {port: "API server"})
        with pytest.raises(EnvironmentUnfit, match=f"TCP port {port}.*API server.*taken") as found:
            embedded.EmbeddedCluster()._check_ports()
    assert "stop that program" in found.value.remedy


def test_a_full_disk_is_said_with_how_much_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "MINIMUM_DISK", 1 << 60)
    with pytest.raises(EnvironmentUnfit, match="GiB free") as found:
        embedded.EmbeddedCluster()._check_disk()
    assert "MVNO_CLUSTER_DIR" in found.value.remedy


def test_only_places_that_were_not_there_before_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    monkeypatch.setattr(teardown, "_ELSEWHERE", (old, new))
    old.mkdir()
    record = tmp_path / "state/found-before"
    teardown.note_elsewhere(record)
    for place in (old, new):
        place.mkdir(exist_ok=True)
        (place / "made").touch()
    # A second `up` must not take what the first one made for what was there.
    teardown.note_elsewhere(record)
    teardown.remove_elsewhere(tmp_path / "no-record")
    assert new.exists()
    teardown.remove_elsewhere(record)
    assert (old / "made").exists() and not new.exists()


@pytest.mark.parametrize(
    ("state", "waits"),
    [
        ({"waiting": {"reason": "CrashLoopBackOff"}}, True),
        ({"waiting": {"reason": "PodInitializing"}}, False),
        ({"running": {}}, False),
    ],
)
def test_pods_that_wait_after_failing_are_known(state: dict[str, object], waits: bool) -> None:
    assert waits_after_failure({"status": {"initContainerStatuses": [{"state": state}]}}) is waits
    assert waits_after_failure({"status": {"containerStatuses": [{"state": state}]}}) is waits


def archive(path: Path, name: str, content: object) -> Path:
    data = json.dumps(content).encode()
    with tarfile.open(path, "w") as made:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        made.addfile(member, io.BytesIO(data))
    return path


def test_images_are_known_by_the_names_in_their_archives(tmp_path: Path) -> None:
    docker = archive(tmp_path / "d.tar", "manifest.json", [{"RepoTags": ["docker.io/gradiant/open5gs:2.7.5"]}])
    notes = {
        "io.containerd.image.name": "docker.io/gradiant/ueransim:3.2.6",
        "org.opencontainers.image.ref.name": "3.2.6",
    }
    oci = archive(tmp_path / "o.tar", "index.json", {"manifests": [{"annotations": notes}]})
    assert names_in(docker) == ["docker.io/gradiant/open5gs:2.7.5"]
    assert names_in(oci) == ["docker.io/gradiant/ueransim:3.2.6"]


@pytest.mark.parametrize("content", [b"", b"no archive", b"\0" * 2048])
def test_what_is_no_archive_is_refused_in_words(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"x\.tar"):
        names_in(path)
    with pytest.raises(BadInput, match=r"nowhere\.tar"):
        names_in(tmp_path / "nowhere.tar")
