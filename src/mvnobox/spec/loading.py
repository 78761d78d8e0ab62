"""Reading a BrandSpec: all errors at once, each with file, line, path, what was found and what is allowed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from mvnobox.errors import BadInput
from mvnobox.spec.brand import BrandSpec
from mvnobox.spec.references import reference_problems

# A brand's file is a few kilobytes; more is a mistake or an attack (deep aliases).
LARGEST_FILE = 1_000_000
Location = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in one file."""

    file: str
    line: int | None
    path: str
    found: str
    allowed: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.path}: found {self.found}; allowed: {self.allowed}"


class InvalidSpec(BadInput):
    """A file that is not a BrandSpec. `problems` has all of them."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        count = len(self.problems)
        files = ", ".join(sorted({problem.file for problem in self.problems}))
        lines = "\n".join(f"  {problem}" for problem in self.problems)
        super().__init__(
            f"{count} problem{'s' if count != 1 else ''} in {files}\n{lines}",
            "correct the file; `./mvno validate FILE` checks it without changing anything",
        )


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that is there twice (PyYAML takes the last) and aliases (few lines of them can mean gigabytes)."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "an alias: write the value out", mark)
        return super().compose_node(parent, index)


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is not a word", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is there twice", key_node.start_mark)
        seen[key] = loader.construct_object(value_node, deep=True)
    return seen


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _lines(node: yaml.Node | None, where: Location, into: dict[Location, int]) -> None:
    if node is None:
        return
    into.setdefault(where, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            into[(*where, key.value)] = key.start_mark.line + 1
            _lines(value, (*where, key.value), into)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _lines(value, (*where, index), into)


def _written(where: Location) -> str:
    text = ""
    for part in where:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "(the whole file)"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _known_keys(where: Location) -> list[str]:
    """The keys that the model at a path knows, for the error about an unknown one."""
    model: Any = BrandSpec
    for part in where:
        if isinstance(part, int):
            continue
        field = next((f for n, f in model.model_fields.items() if part in (n, f.alias)), None)
        if field is None:
            return []
        model = next((m for m in _models(field.annotation)), None)
        if model is None:
            return []
    return [field.alias or name for name, field in model.model_fields.items()]


def _models(annotation: Any) -> Iterable[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models(argument)


def _place(file: str, lines: dict[Location, int], where: Location, found: str, allowed: str) -> Problem:
    """A problem at the line of its path, or of the nearest parent that the file has."""
    line = next((lines[where[:cut]] for cut in range(len(where), -1, -1) if where[:cut] in lines), None)
    return Problem(file, line, _written(where), found, allowed)


def _problem(error: Any, file: str, lines: dict[Location, int]) -> Problem:
    # Pydantic names the branch of a union in the location; the file has no such step.
    where: Location = tuple(
        part for part in error["loc"] if isinstance(part, int) or (part.isidentifier() or "-" in part)
    )
    kind, found = error["type"], _shown(error["input"])
    allowed = error["msg"].removeprefix("Value error, ")
    if kind == "missing":
        found, allowed = "nothing", "a value: the key is required"
    elif kind == "extra_forbidden":
        found = f"the unknown key {where[-1]!r}"
        allowed = f"one of {', '.join(_known_keys(where[:-1]))}"
    elif kind == "string_pattern_mismatch":
        allowed = f"text of the form {error['ctx']['pattern']}"
    return _place(file, lines, where, found, allowed)


def parse_brand(text: str, file: str) -> BrandSpec:
    """A BrandSpec from the text of a file. Raises InvalidSpec with every problem."""
    try:
        node = yaml.compose(text, Loader=_StrictLoader)
        data = yaml.load(text, Loader=_StrictLoader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        said = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InvalidSpec([Problem(file, mark.line + 1 if mark else None, "(the whole file)", said, "YAML")]) from None
    lines: dict[Location, int] = {}
    _lines(node, (), lines)
    if not isinstance(data, dict):
        found = "an empty file" if data is None else type(data).__name__
        raise InvalidSpec([Problem(file, 1, "(the whole file)", found, "a BrandSpec: see docs/brandspec.md")])
    problems = [
        _place(file, lines, where, _shown(found), allowed) for where, found, allowed in reference_problems(data)
    ]
    spec = None
    try:
        spec = BrandSpec.model_validate(data)
    except ValidationError as error:
        problems = [_problem(one, file, lines) for one in error.errors()] + problems
    if spec is None or problems:
        raise InvalidSpec(sorted(dict.fromkeys(problems), key=lambda problem: problem.line or 0))
    spec._source = data
    return spec


def load_brand(path: str | Path) -> BrandSpec:
    """A BrandSpec from a file. Raises InvalidSpec with every problem, also for a file that cannot be read."""
    try:
        size = Path(path).stat().st_size
        if size > LARGEST_FILE:
            raise InvalidSpec([Problem(str(path), None, "(the whole file)", f"{size} octets", f"up to {LARGEST_FILE}")])
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidSpec(
            [Problem(str(path), None, "(the whole file)", error.strerror or "an error", "a readable file")]
        ) from None
    except UnicodeDecodeError:
        raise InvalidSpec([Problem(str(path), None, "(the whole file)", "not UTF-8", "UTF-8 text")]) from None
    return parse_brand(text, str(path))
