"""A service's settings: a YAML file for what may be seen, the environment for secrets. Errors name the key."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel


class Settings(BaseModel):
    """Base of the services' settings: closed, camelCase in the file."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)


S = TypeVar("S", bound=Settings)


def refuse(cause: str) -> NoReturn:
    """End the process over its settings: exit code 2, the cause on standard error."""
    print(f"settings: {cause}", file=sys.stderr)
    raise SystemExit(2)


def load_settings(model: type[S], path: str | Path) -> S:
    """Settings from a file. Ends the process with every problem in words."""
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        refuse(f"{path}: {error}")
    try:
        return model.model_validate(data if data is not None else {})
    except ValidationError as error:
        known = ", ".join(field.alias or name for name, field in model.model_fields.items())
        said = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in error.errors())
        refuse(f"{path}: {said}. Known keys: {known}")


def secret(name: str, *, hex_octets: int | None = None) -> str:
    """A secret of the environment; with `hex_octets` it has to be that many octets in hexadecimal."""
    value = os.environ.get(name, "")
    if not value:
        refuse(f"the environment variable {name} is missing")
    if hex_octets is not None:
        try:
            right = len(bytes.fromhex(value)) == hex_octets
        except ValueError:
            right = False
        if not right:
            refuse(f"the environment variable {name} is not {hex_octets} octets in hexadecimal")
    return value


def address(text: str) -> tuple[str, int]:
    """(host, port) of `host:port`."""
    host, _, port = text.rpartition(":")
    return host or "0.0.0.0", int(port)
