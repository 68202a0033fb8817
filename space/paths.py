"""Read and change nested plain data by dotted paths, such as ``mixers.*.band_kernel_size``."""

from collections.abc import Callable, Mapping
from typing import Any

from space.errors import InputError, nearest, shown

Data = dict[str, Any] | list[Any]


def get(data: Data, path: str) -> list[Any]:
    """Return the values at `path`, one for each match of ``*`` (an empty list where nothing matches)."""
    found: list[Any] = []
    _visit(data, path.split("."), path, lambda parent, key: found.append(parent[key]))
    return found


def replaced(data: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of `data` with each path of `changes` set to its value, in order.

    Raises InputError for a path that leads nowhere, naming the part that does not exist.
    """
    copy: dict[str, Any] = _copied(data)
    for path, value in changes.items():
        if not isinstance(path, str):
            raise InputError(f"{path!r} is no path to a field; allowed: text such as recipe.epochs")

        def assign(parent: Any, key: Any, value: Any = value) -> None:
            parent[key] = value

        _visit(copy, path.split("."), path, assign)
    return copy


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list | tuple) else value


def _visit(data: Any, parts: list[str], path: str, act: Callable[[Any, Any], None]) -> None:
    head, rest = parts[0], parts[1:]
    for key in _keys(data, head, path):
        if rest:
            _visit(data[key], rest, path, act)
        else:
            act(data, key)


def _keys(data: Any, part: str, path: str) -> list[Any]:
    if isinstance(data, dict):
        if part == "*":
            return list(data)
        if part in data:
            return [part]
        of = f" of a {data['kind']!r} mixer" if "kind" in data and "mixers" in path.split(".") else ""
        allowed = ", ".join(map(str, data)) or "nothing"
        raise InputError(f"{path}: no field {part!r}{of}{nearest(part, data)}; allowed: {allowed}")
    if isinstance(data, list):
        if part == "*":
            return list(range(len(data)))
        if part in (indices := [str(index) for index in range(len(data))]):
            return [int(part)]
        allowed = f"{indices[0]} to {indices[-1]} or *" if indices else "nothing, the list is empty"
        raise InputError(f"{path}: {part!r} is no index; allowed: {allowed}")
    raise InputError(f"{path}: {part!r} leads inside a plain value ({shown(data)})")
