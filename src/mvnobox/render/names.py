"""Names of Kubernetes's objects in settings."""

from __future__ import annotations

import re

# Of an object's names (RFC 1123) those that the charts take.
OBJECT_NAME = re.compile(r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
