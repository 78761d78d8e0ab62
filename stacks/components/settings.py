"""Stack settings as types, with errors that name the setting."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pulumi

from mvnobox.errors import BadInput
from mvnobox.render import Images

_STACK = re.compile(r"^(?P<layer>[a-z][a-z0-9-]*)\.(?P<env>[a-z][a-z0-9-]{0,15})$")


def layer_of(stack: str) -> tuple[str, str]:
    """(layer or brand, env) of a stack's name."""
    match = _STACK.match(stack)
    if match is None:
        raise BadInput(
            f"the stack is called {stack!r}", "stacks are called platform.<env> or <brand>.<env>, as platform.dev"
        )
    return match["layer"], match["env"]


def images_from(value: Any) -> Images:
    """The setting `images`: an object with the full references of the three images."""
    known = ("services", "coresim", "postgresql")
    if not isinstance(value, dict) or set(value) != set(known) or not all(isinstance(v, str) for v in value.values()):
        raise BadInput(f"the setting images is {value!r}", f"an object with {', '.join(known)}, each repository:tag")
    return Images(**value)


def brand_file(path: str) -> Path:
    """The setting `brandFile`: absolute, or relative to the project."""
    return Path(pulumi.get_root_directory()) / path
