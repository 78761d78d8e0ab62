"""helm.sh/v4 Chart, built by the provider from a chart on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

CHART = Path(__file__).parent / "charts" / "small"


def program(**options: object) -> str:
    return f"""
chart = k8s.helm.v4.Chart("release", chart={str(CHART)!r}, namespace=namespace.metadata["name"],
    values={{"greeting": namespace.metadata["name"].apply(lambda name: name.upper()), "password": pulumi.Output.secret("open sesame")}},
    value_yaml_files=[pulumi.StringAsset("greeting: from the file")], **{options!r}, opts=opts)
after = k8s.core.v1.ConfigMap("after", metadata={{**inside, "name": "after"}}, data={{}},
    opts=pulumi.ResourceOptions(provider=provider, depends_on=[chart]))
pulumi.export("kinds", chart.resources.apply(lambda found: sorted(type(one).__name__ for one in found)))
"""


def test_a_chart_becomes_children(project: Any) -> None:
    project.write(program(name="small"))
    assert project.run("preview").code == 0
    project.up("--parallel", "16")
    state = project.state()
    ns = project.name
    children = {name: item for name, item in state.items() if name.startswith("release:")}
    assert (
        set(children)
        == {
            f"release:{ns}/small",
            f"release:{ns}/small-config",
            f"release:{ns}/small-secret",
            "release:things.standins.mvno.box",
        }
        or len([item for item in state.values() if item.get("parent", "").endswith("::release")]) == 5
    )
    component = state["release"]
    assert component["type"] == "kubernetes:helm.sh/v4:Chart"
    assert component["custom"] is False
    for item in children.values():
        assert item["parent"] == component["urn"]
        assert item["provider"].split("::")[-2] == "cluster"
    # The values: the program's before the file's; secrets secret; the cluster's own version.
    live = json.loads(project.kubectl("get", "configmap", "small-config", "-o", "json"))
    assert live["data"]["greeting"] == ns.upper()
    assert live["data"]["date"] == "2026-11-23"
    assert live["data"]["kube"].startswith("v1.") and live["data"]["policies"] == "true"
    assert "plaintext" in children[f"release:{ns}/small-secret"]["outputs"]["data"]
    # Dates stay text and numbers numbers; hooks are left out.
    thing = json.loads(project.kubectl("get", "things.standins.mvno.box", "small", "-o", "json"))
    assert thing["spec"] == {"since": "2026-11-23", "ratio": 0.5, "many": [1, 2.5, "3"]}
    assert project.kubectl("get", "jobs", "-o", "name") == ""
    # A definition before its resources, and what the annotation names.
    needs = {urn.split("::")[-1] for urn in _state_of(project, "standins.mvno.box/v1:Thing")["dependencies"]}
    assert needs == {"release:things.standins.mvno.box", f"release:{ns}/small-config"}
    assert component["urn"] in state["after"]["dependencies"] or any(
        urn.split("::")[-1].startswith("release:") for urn in state["after"]["dependencies"]
    )
    said = project.run("stack", "output", "kinds", "--json")
    assert "ServiceAccount" in said.text and "CustomResourceDefinition" in said.text
    assert set(project.preview()["changeSummary"]) == {"same"}


def _state_of(project: Any, kind: str) -> dict[str, Any]:
    said = project.run("stack", "export")
    document = json.loads(said.text[said.text.index("{\n") : said.text.rindex("}") + 1])
    return next(dict(item) for item in document["deployment"]["resources"] if item["type"].endswith(kind))


def test_options_of_a_chart(project: Any) -> None:
    project.write(program(resource_prefix="other", skip_await=True, skip_crds=False))
    project.up()
    state = project.state()
    assert f"other:{project.name}/release-config" in state
    annotations = state[f"other:{project.name}/release-config"]["inputs"]["metadata"]["annotations"]
    assert annotations == {"pulumi.com/skipAwait": "true"}
    # A chart that cannot be rendered is told in helm's words, without its values.
    project.write(program().replace(str(CHART), str(CHART / "nowhere")))
    said = project.run("preview")
    assert said.code != 0
    assert "cannot be rendered" in said.text and "nowhere" in said.text and "open sesame" not in said.text
    project.write("")
