"""The customer's journey and the operator's commands, end to end."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import testinfra

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(5400)]


@pytest.mark.parametrize("brand", ["silverline", "encore"])
def test_the_journey_passes_for_every_brand(verified: Any, brand: str) -> None:
    result = verified(brand)
    # It says of itself what it is.
    assert result["simulation"] is (result["core"] == "simulated")
    assert {"other brands out of reach", "octets charged equal octets carried"} <= {s["name"] for s in result["steps"]}


def test_up_again_changes_nothing(installed: Any) -> None:
    from mvnobox.deploy.install import up
    from mvnobox.deploy.report import PlainReporter

    for brand in ("silverline", "encore"):
        again = up(brand=brand, env="dev", core="auto", cluster="auto", report=PlainReporter())
        assert again.changed == 0


def test_plain_pulumi_sees_no_change(installed: Any) -> None:
    script = 'eval "$(./mvno env)"; pulumi preview --stack "$1" --expect-no-changes --non-interactive'
    for stack in ("platform.dev", "silverline.dev", "encore.dev"):
        done = subprocess.run(["bash", "-c", script, "-", stack], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_status_tells_of_every_part(installed: Any) -> None:
    from mvnobox.deploy.journey.run import _until

    # Probes may be late on a machine that is busy with other tests.
    found = _until(60, "health", lambda: (s := json.loads(installed("status", "--json").stdout))["healthy"] and s)
    assert set(found["brands"]) == {"silverline", "encore"}
    names = {(one["stack"], one["name"]) for one in found["workloads"]}
    assert {("platform.dev", "ocs"), ("silverline.dev", "ctf"), ("encore.dev", "upf")} <= names


def test_pods_are_what_the_charts_promise(installed: Any, kubectl: Any) -> None:
    os.environ["KUBECONFIG"] = str(Path.home() / ".local/share/mvno-box/kubeconfig")
    pod = kubectl.json("-n", "platform-dev", "get", "pods", "-l", "app.kubernetes.io/name=ocs")["items"][0]
    host = testinfra.get_host(f"kubectl://{pod['metadata']['name']}?namespace=platform-dev&container=ocs")
    assert host.check_output("id -u") == "65532"
    assert host.run("touch /nowhere").rc != 0
    for namespace in ("silverline-dev-up", "encore-dev-up"):
        for item in kubectl.json("-n", namespace, "get", "pods")["items"]:
            for container in item["spec"]["containers"]:
                context = container["securityContext"]
                assert not context.get("privileged") and context["capabilities"]["drop"] == ["ALL"]
                assert set(context["capabilities"].get("add", [])) <= {"NET_ADMIN", "NET_RAW"}


# Without grace, as a node that is lost: nobody serves on meanwhile.
AT_ONCE = ("--grace-period=0", "--force")


@pytest.mark.parametrize(
    ("namespace", "name", "how"),
    [
        ("silverline-dev", "ctf", ()),
        ("silverline-dev", "ctf", AT_ONCE),
        ("platform-dev", "ocs", AT_ONCE),
        ("platform-dev", "postgresql", ()),
    ],
)
def test_octets_stay_right_when_a_pod_is_deleted_in_the_middle_of_a_download(
    installed: Any, kubectl: Any, namespace: str, name: str, how: tuple[str, ...]
) -> None:
    from mvnobox.deploy.brands import find_brand
    from mvnobox.deploy.installation import Installation
    from mvnobox.deploy.journey.access import Bss
    from mvnobox.deploy.journey.run import RADIO_LOSS, _Run, _until

    spec = find_brand("silverline")[1]
    token = kubectl.secret("silverline-dev", "bss-env", "BSS_ADMIN_TOKEN")
    with kubectl.forwarded("silverline-dev", "svc/bss", 8080) as address:
        run = _Run(spec, "dev", kubectl, Bss(address, token), Installation("dev").brand("silverline").core, [])
        try:
            run.order()
            run.attach()
            run.top_up()
            answers: list[Any] = []

            def fetch() -> None:
                answers.append(
                    run.phone._run(
                        "download",
                        "--host",
                        run.data_host,
                        "--path",
                        "/bytes/60000000?rate=6000000",
                        "--stall",
                        "20",
                        "--timeout",
                        "100",
                        timeout=130,
                    )  # fmt: skip
                )

            thread = threading.Thread(target=fetch)
            thread.start()
            _until(20, "the download's start", lambda: run.phone.status()["receivedOctets"] > 5_000_000)
            done = kubectl.run(
                "-n", namespace, "delete", "pod", "-l", f"app.kubernetes.io/name={name}", "--wait=false", *how
            )
            assert done.returncode == 0, done.stderr
            thread.join()
            assert answers[0]["ok"], answers
            status = run.phone.status()
            carried = status["receivedOctets"] + status["sentOctets"]
            assert carried > 60_000_000
            run.phone.deregister()
            # The last report comes with the session's end: now it is all of it.
            used = _until(
                30,
                "charging",
                lambda: (u := run._used()) and u >= carried - 100_000 and u,
                lambda: f": {run._used()} charged, {carried} carried",
            )
            assert used <= carried * (1 + RADIO_LOSS.get(run.journey.core, 0))
        finally:
            run.clean_up()
    _until(60, "recovery", lambda: json.loads(installed("status", "--json").stdout)["healthy"])


@pytest.mark.parametrize(("namespace", "name"), [("silverline-dev", "bss"), ("platform-dev", "ocs")])
def test_a_deleted_pod_serves_on_until_its_successor_does(
    installed: Any, kubectl: Any, namespace: str, name: str
) -> None:
    from mvnobox.deploy.journey.run import _until

    of_it = ("-n", namespace, "get", "pods", "-l", f"app.kubernetes.io/name={name}")
    address = kubectl.json("-n", namespace, "get", "service", name)["spec"]["clusterIP"]
    before = {pod["metadata"]["name"] for pod in kubectl.json(*of_it)["items"]}
    failed: list[str] = []
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.02):
            try:
                with urllib.request.urlopen(f"http://{address}:8080/readyz", timeout=3):
                    pass
            except OSError as error:
                failed.append(str(error))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        done = kubectl.run("-n", namespace, "delete", "pod", *before, "--wait=false")
        assert done.returncode == 0, done.stderr
        _until(
            60, "the pod's end", lambda: not before & {pod["metadata"]["name"] for pod in kubectl.json(*of_it)["items"]}
        )
    finally:
        over.set()
        asking.join()
    assert not failed, f"{len(failed)} requests failed: {failed[0]}"


def test_the_ledger_has_no_differences(installed: Any, kubectl: Any) -> None:
    done = kubectl.run(
        "-n", "platform-dev", "exec", "deploy/ocs", "-c", "ocs", "--",
        "python", "-m", "mvnobox.charging", "check", "--config", "/etc/mvno/ocs.yaml",
    )  # fmt: skip
    assert done.returncode == 0 and "0 differences" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("up", "--brand", "nobody"), 2, "there is no brand"),
        (("up", "--cluster", "no-such-context"), 3, "no-such-context"),
        (("up", "--core", "magic"), 2, "there is no core"),
        (("verify", "--env", "prod"), 3, "not installed"),
    ],
)
def test_bad_input_is_answered_in_words(installed: Any, arguments: tuple[str, ...], code: int, said: str) -> None:
    done = subprocess.run([str(ROOT / "mvno"), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == code and said in done.stderr and "remedy" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_brand_that_overlaps_another_is_refused_before_anything_is_touched(installed: Any, tmp_path: Path) -> None:
    text = (
        (ROOT / "brands/encore.yaml")
        .read_text(encoding="utf-8")
        .replace("name: encore\ndisplayName", "name: copy\ndisplayName")
    )
    file = tmp_path / "copy.yaml"
    file.write_text(text, encoding="utf-8")
    done = subprocess.run([str(ROOT / "mvno"), "up", "--brand", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "encore" in done.stderr and "slice" in done.stderr and "pool" in done.stderr
