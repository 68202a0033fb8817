"""YAML as people write it: plain values only, nothing said twice, numbers as Python writes them."""

import re
from pathlib import Path
from typing import Any

import yaml

from space.errors import InputError

MOST_VALUES, DEEPEST = 100_000, 50
# What PyYAML raises for text such as `2020-13-45` or `!!int x`, beside its own kind.
UNREADABLE = (
    *(yaml.YAMLError, ArithmeticError, AttributeError, LookupError),
    *(OSError, RecursionError, TypeError, ValueError),
)


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML would keep the last; reads 1e-3 as a number, which PyYAML doesn't.

    Keys are looked at before a merge (``<<``) adds those of another mapping, which may be named again.
    """

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"{key.value!r} stands there twice", problem_mark=key.start_mark)
                seen.add(key.value)
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def parse_yaml(text: str) -> Any:
    """Return the value that the text spells. Raises InputError in one line."""
    try:
        value = yaml.load(text, Loader=_Loader)
        _check_size(value)
    except UNREADABLE as error:
        raise InputError(_reason(error)) from error
    return value


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a file. Raises InputError for what cannot be read, or is something else."""
    try:
        value = parse_yaml(path.read_text(encoding="utf-8"))
    except UNREADABLE as error:
        raise InputError(f"{path}: cannot be read as YAML: {_reason(error)}") from error
    if not isinstance(value, dict):
        raise InputError(
            f"{path}: expected a mapping of fields, not {'nothing' if value is None else type(value).__name__}"
        )
    return value


def _reason(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return "it is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())


def _check_size(value: Any) -> None:
    """Refuse what anchors, few characters of text, make endless or enormous."""
    left, seen = [(value, 0)], 0
    while left:
        one, depth = left.pop()
        seen += 1
        if seen > MOST_VALUES or depth > DEEPEST:
            raise ValueError(f"more than {MOST_VALUES:,} values, or nested deeper than {DEEPEST}")
        if isinstance(one, dict):
            left += [(item, depth + 1) for item in one.values()]
        elif isinstance(one, list | tuple | set):
            left += [(item, depth + 1) for item in one]
