"""The password with which an installation's cores read the subscriber directory."""

from __future__ import annotations

from mvnobox.deploy import keys
from mvnobox.deploy.installation import Installation, InstalledBrand
from mvnobox.spec import load_brand

# The setting of the platform's stack, and of brands on the simulated core.
DIRECTORY_PASSWORD = "directoryCorePassword"  # nosec B105: a name


def directory_password(env: str) -> str:
    """The same for the platform and every brand of an environment."""
    return keys.password(f"platform.{env}", DIRECTORY_PASSWORD)


def without_password(installation: Installation, but: str) -> list[InstalledBrand]:
    """The brands, `but` one, whose simulated core cannot log in to the directory yet: they follow the platform.

    Raises BadInput where such a brand's file is gone.
    """
    found = [
        one
        for one in installation.brands()
        if one.name != but
        and one.core == "simulated"
        and DIRECTORY_PASSWORD not in installation.settings(f"{one.name}.{installation.env}")
    ]
    for one in found:
        load_brand(one.file)
    return found
