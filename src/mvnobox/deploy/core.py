"""Which core, and why: Open5GS where its images can be had, else the simulated one. Always said aloud."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mvnobox.deploy.cluster import ClusterChoice
from mvnobox.deploy.images.imported import put_on_node
from mvnobox.deploy.kernel import kernel_has_sctp
from mvnobox.deploy.operator import connect
from mvnobox.errors import BadInput, EnvironmentUnfit
from mvnobox.render import Forwarding, Images

Core = Literal["simulated", "open5gs", "operator"]
PUBLISHED = (Images.open5gs, Images.ueransim)


@dataclass(frozen=True)
class CoreChoice:
    """The core of a brand; whether the nodes need SCTP to be carried over TCP."""

    core: Core
    reason: str
    sctp_over_tcp: bool = False


def check_core(requested: str) -> None:
    """Refuse a core that there is not, before anything is touched. Raises BadInput."""
    if requested not in ("auto", "open5gs", "operator", "simulated"):
        raise BadInput(f"there is no core {requested!r}", "take auto, open5gs, operator or simulated")


def optional_images(kind: str, shared_core: str) -> tuple[str, ...]:
    """Images beyond everybody's: SCTP over TCP while any brand is on Open5GS, whichever core the one at hand has."""
    return ("sctp",) if kind == "embedded" and shared_core == "open5gs" and not kernel_has_sctp() else ()


def forwarding_of(kind: str) -> Forwarding:
    """How user planes come to forward: the embedded kubelet allows the sysctl, others do not by default."""
    return "sysctl" if kind == "embedded" else "node"


def choose_core(requested: str, choice: ClusterChoice, before: str | None) -> CoreChoice:
    """The core for a brand; `before` is what it has already. Raises EnvironmentUnfit."""
    if requested == "simulated":
        return CoreChoice("simulated", "you asked for it")
    if requested == "operator" or (requested == "auto" and before == "operator"):
        connect(choice)
        return CoreChoice("operator", "you asked for it" if requested == "operator" else "as installed")
    missing: list[str] = []
    shimmed = False
    if choice.kind == "embedded":
        missing = put_on_node(PUBLISHED)
        shimmed = not kernel_has_sctp()
    if requested == "auto" and before == "simulated":
        return CoreChoice("simulated", "as installed")
    if requested == "auto" and before == "open5gs" and not missing:
        return CoreChoice("open5gs", "as installed", shimmed)
    if not missing:
        why = "its images are on the node" if choice.kind == "embedded" else "the cluster pulls its published images"
        return CoreChoice("open5gs", "you asked for it" if requested == "open5gs" else why, shimmed)
    if requested == "open5gs":
        raise EnvironmentUnfit(
            f"the node has no image {' and none '.join(missing)}, and the embedded cluster pulls none",
            "./mvno import-image ARCHIVE puts an image from elsewhere on the node; or take --core simulated",
        )
    return CoreChoice("simulated", "the node has no images of Open5GS")
