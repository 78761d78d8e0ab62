"""TLS on the SBI of an installation: what is set, what `up --sbi-tls` makes of it."""

from __future__ import annotations

import json
from collections.abc import Iterable

from mvnobox.deploy.certificates import check_secret, namespaces_of
from mvnobox.deploy.installation import Installation, InstalledBrand
from mvnobox.deploy.journey.access import Kubectl
from mvnobox.deploy.report import Reporter
from mvnobox.errors import BadInput, EnvironmentUnfit
from mvnobox.render import SbiTls
from mvnobox.render.sbi_tls import BRAND_FUNCTIONS, PLATFORM_FUNCTIONS, sbi_hosts
from mvnobox.spec import load_brand


def check_sbi_tls(core: str, asked: bool) -> None:
    """Refuse TLS on a core that has no SBI of the kit's, before anything is touched. Raises BadInput."""
    if asked and core in ("simulated", "operator"):
        raise BadInput(f"the core {core} has no SBI that the kit could secure", "./mvno up --core open5gs --sbi-tls")


def _setting(installation: Installation, stack: str) -> SbiTls | None:
    return SbiTls.of_setting(installation.document(stack, "sbiTls"))


def installed_sbi_tls(installation: Installation) -> SbiTls | None:
    """The platform's setting `sbiTls`, which is every brand's; None without one. Raises BadInput."""
    return _setting(installation, f"platform.{installation.env}")


def wanted_sbi_tls(installed: SbiTls | None, core: str, asked: bool, platform: str = "open5gs") -> SbiTls | None:
    """What platform and brands are to have: as installed, and where it is asked for. Raises EnvironmentUnfit.

    `core`: the brand's; `platform`: the platform's, which without a brand on Open5GS has no SBI.
    """
    if asked and core != "open5gs":
        raise EnvironmentUnfit(
            f"SBI over TLS needs Open5GS, and the core here is {core}",
            "./mvno import-image ARCHIVE puts Open5GS's images on the node; then ./mvno up --core open5gs --sbi-tls",
        )
    if platform != "open5gs":
        return None
    return installed or (SbiTls() if asked else None)


def sbi_tls_setting(tls: SbiTls) -> str:
    """The stacks' setting `sbiTls`: the same text for the platform's and each brand's."""
    return json.dumps(tls.setting)


def left_behind(installation: Installation, wanted: SbiTls | None, but: str) -> list[InstalledBrand]:
    """The brands on Open5GS, `but` one, whose SMF the platform's change would cut off: they follow it.

    Raises BadInput, also where such a brand's file is gone.
    """
    others = [one for one in installation.brands() if one.core == "open5gs" and one.name != but]
    found = [one for one in others if _setting(installation, f"{one.name}.{installation.env}") != wanted]
    for one in found:
        load_brand(one.file)
    return found


def check_simulated(wanted: SbiTls | None, simulated: Iterable[str]) -> None:
    """Refuse TLS beside brands on the simulated core, which reads the directory without. Raises BadInput."""
    names = ", ".join(sorted(simulated))
    if wanted is not None and names:
        raise BadInput(
            f"with SBI over TLS the directory is read over TLS too, which the simulated core of {names} does not speak",
            "./mvno up --core open5gs --brand NAME for each of them, or another environment, with --env",
        )


def check_own_secrets(
    kubectl: Kubectl, tls: SbiTls, installation: Installation, brands: Iterable[str], report: Reporter
) -> None:
    """Look at Secrets of the user's own in the platform's namespace and those of brands, the installed ones besides.

    Raises BadInput, Failed. Where a namespace is not there yet, its functions wait for the Secret.
    """
    if tls.automatic:
        return
    there = namespaces_of(kubectl)
    names = {*brands, *(one.name for one in installation.brands() if one.core == "open5gs")}
    # The SEPP is there where there are roaming partners.
    roaming = installation.settings(f"platform.{installation.env}").get("roaming")
    needed = [one for one in PLATFORM_FUNCTIONS if one != "sepp" or roaming]
    wanted = {f"platform-{installation.env}": needed} | {
        f"{one}-{installation.env}": [*BRAND_FUNCTIONS] for one in names
    }
    for namespace, functions in wanted.items():
        if namespace not in there:
            report.note(f"the functions of {namespace} start when it has the Secret {tls.secret}: make it meanwhile")
            continue
        check_secret(kubectl, namespace, tls.secret, sbi_hosts(namespace, functions), "the SBI")
