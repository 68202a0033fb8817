"""Studies and scales that come along, each with one thing broken at a random place: none of them can be valid."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from search.study import LIBRARY

# What nobody reads when kernel_ablation asks at such a scale, or when a study asks at a scale that is not named there.
UNREAD = ("description", "scales", "convnext")
UNKNOWN, WRONG = "xq", {"xq": 1}
REQUIRED = {"question", "arms", "dimensions", "factors", "levels", "path", "base", "data", "recipe"}
Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Broken:
    """A file's text, what was done to it, and what the line that tells it must hold."""

    name: str
    kind: str
    text: str
    told: str


def broken_files(count: int, seed: int = 0) -> list[Broken]:
    """Return so many files, the same ones each time."""
    rng, found = random.Random(seed), {}
    files = [
        *((path, "study") for path in LIBRARY.glob("*.yaml")),
        *((p, "scale") for p in LIBRARY.glob("scales/*.yaml")),
    ]
    files.sort()
    while len(found) < count:
        path, kind = rng.choice(files)
        breaks = rng.choice((_add, _add, _replace, _replace, _replace, _drop, _truncate, _repeat))
        broken = breaks(yaml.safe_load(path.read_text()), rng)
        if broken is not None:
            what, text, told = broken
            found[text] = Broken(f"{kind} {path.stem}, {what}", kind, text, told)
    return list(found.values())


Breaking = tuple[str, str, str] | None


def _add(data: Any, rng: random.Random) -> Breaking:
    """Add a field that nothing knows; where names are free, one that holds no arm, dimension or factor."""
    path, inside = rng.choice([((), data), *((path, one) for path, one in _walk(data) if isinstance(one, dict))])
    if path == ("base",):  # further families do no harm
        return None
    inside[UNKNOWN] = 3
    return f"with {_shown((*path, UNKNOWN))}", _dumped(data), UNKNOWN


def _replace(data: Any, rng: random.Random) -> Breaking:
    """Put a mapping where a plain value was: no field takes one that holds nothing it knows."""
    path = rng.choice([path for path, one in _walk(data) if not isinstance(one, dict | list)])
    _parent(data, path)[path[-1]] = WRONG
    return f"with a mapping for {_shown(path)}", _dumped(data), str(path[0])


def _drop(data: Any, rng: random.Random) -> Breaking:
    """Take away what is required."""
    path = rng.choice([path for path, _ in _walk(data) if path[-1] in REQUIRED])
    del _parent(data, path)[path[-1]]
    return f"without {_shown(path)}", _dumped(data), str(path[-1])


def _truncate(data: Any, rng: random.Random) -> Breaking:
    """Cut the text, written with a bracket around it, somewhere inside."""
    text = yaml.safe_dump(data, default_flow_style=True, width=80)
    at = rng.randrange(2, len(text) - 2)
    return f"cut at {at}", text[:at], "cannot be read as YAML"


def _repeat(data: Any, rng: random.Random) -> Breaking:
    """Say a field twice."""
    field = rng.choice(sorted(data))
    return f"with {field} twice", _dumped(data) + _dumped({field: data[field]}), f"{field!r} stands there twice"


def _walk(data: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield every value that is read, with its path."""
    for key, one in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        if key not in UNREAD:
            yield (*path, key), one
            yield from _walk(one, (*path, key))


def _parent(data: Any, path: Path) -> Any:
    for part in path[:-1]:
        data = data[part]
    return data


def _shown(path: Path) -> str:
    return ".".join(map(str, path))


_dumped: Callable[[Any], str] = yaml.safe_dump
