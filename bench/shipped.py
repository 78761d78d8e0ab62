"""The Python that the images have, so that a service is measured as it is shipped."""

from __future__ import annotations

import platform
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[1] / "src"
# Debian's, as in images/services/Containerfile: compiled with its profile, an own build often is not and then a third slower.
_DEBIAN = Path("/usr/bin/python3")


@cache
def python() -> str:
    """Debian's interpreter where it is here and takes this environment's compiled packages, else the one that runs this."""
    if not _DEBIAN.exists() or "debian" not in platform.freedesktop_os_release().get("ID", ""):
        return sys.executable
    asked = [str(_DEBIAN), "-c", "import sysconfig; print(sysconfig.get_config_var('SOABI'))"]
    said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    return str(_DEBIAN) if said == sysconfig.get_config_var("SOABI") else sys.executable


def path() -> str:
    """PYTHONPATH for it: the project, and the packages of this environment."""
    return f"{SOURCES}:{sysconfig.get_path('purelib')}"


def said() -> str:
    """Which Python, for a bench's document."""
    asked = [python(), "-c", "import platform; print(platform.python_version())"]
    version = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    return f"Python {version} ({'as in the images' if python() == str(_DEBIAN) else 'not that of the images'})"
