"""S6a of an installation: whether the HSS could speak to its peers, before anything is applied."""

from __future__ import annotations

from mvnobox.deploy.certificates import check_secret, namespaces_of
from mvnobox.deploy.journey.access import Kubectl
from mvnobox.deploy.report import Reporter
from mvnobox.errors import EnvironmentUnfit
from mvnobox.render import Epc


def check_s6a(kubectl: Kubectl, epc: Epc | None, namespace: str, *, sctp_over_tcp: bool, report: Reporter) -> None:
    """Refuse Diameter peers whom the HSS could not speak to, before anything is applied.

    Raises EnvironmentUnfit, BadInput, Failed. Where the platform's namespace is not there yet, the HSS waits for the Secret.
    """
    if epc is None:
        return
    if epc.sctp_peers and sctp_over_tcp:
        raise EnvironmentUnfit(
            f"the Diameter peer {epc.sctp_peers[0]} speaks SCTP, and this node's kernel has none",
            'modprobe sctp on the node, or "transport": "TCP" for this peer in the setting epc',
        )
    if epc.tls_secret is None:
        return
    if namespace in namespaces_of(kubectl):
        check_secret(kubectl, namespace, epc.tls_secret, [epc.hss], "S6a", diameter=True)
    else:
        report.note(f"the HSS starts when {namespace} has the Secret {epc.tls_secret}: make it meanwhile")
