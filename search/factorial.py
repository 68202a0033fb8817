"""Factors crossed with each other: the arms of a full or fractional grid."""

import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator
from pydoe import gsd

from space import Architecture
from space.dimensions import Choice
from space.errors import InputError

MOST_CELLS = 256


def _fraction(value: Any) -> int:
    """Read 1, or 1/2 and so on, which YAML reads as text; return how many times smaller the grid gets."""
    if isinstance(value, str) and (top := value.replace(" ", "").partition("/"))[0] == "1" and top[2].isdecimal():
        value = int(top[2])
    elif value != 1 or isinstance(value, bool):
        raise ValueError("1 for the full grid, or a share such as 1/2")
    if not 1 <= value <= 16:
        raise ValueError("no smaller than 1/16")
    return int(value)


Reduction = Annotated[int, BeforeValidator(_fraction)]


class Factor(BaseModel):
    """What is varied, by the path that `Architecture.replace` takes, and the values it takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    levels: tuple[Choice, ...] = Field(min_length=2, max_length=20)

    @field_validator("levels")
    @classmethod
    def _differ(cls, value: tuple[Choice, ...]) -> tuple[Choice, ...]:
        if len(set(map(str, value))) < len(value):
            raise ValueError("has an entry twice")
        return value


def crossed(base: Architecture, factors: Mapping[str, Factor], reduction: int) -> dict[str, dict[str, Any]]:
    """Return the arms of the grid by name, as plain data; the first is the baseline.

    A factor's first level, in the order of the design, is the one that `base` has, or the first listed. A fraction is a
    generalised subset design (Surowiec et al. 2017): each level as often as the others, as far as numbers allow.
    Raises InputError where it does not tell the factors apart.
    """
    levels = {name: _base_first(base, name, factor) for name, factor in factors.items()}
    counts = [len(one) for one in levels.values()]
    if math.prod(counts) > MOST_CELLS * reduction:
        raise InputError(f"factors: {math.prod(counts):,} combinations; at most {MOST_CELLS} can be run")
    cells = _cells(counts, reduction)
    arms: dict[str, dict[str, Any]] = {}
    networks: dict[Architecture, str] = {}
    for cell in cells:
        chosen = {name: own[index] for (name, own), index in zip(levels.items(), cell, strict=True)}
        changed = [name for name, index in zip(levels, cell, strict=True) if index]
        arm = ", ".join(f"{name} {level}" for name, level in chosen.items())
        change = {factors[name].path: level for name, level in chosen.items()}
        if (same := networks.setdefault(base.replace(change, f"arms.{arm}"), arm)) != arm:
            raise InputError(f"factors: {same!r} and {arm!r} are the same network")
        arms[arm] = {
            "factor": changed[0] if len(changed) == 1 else "several" if changed else "baseline",
            "change": change,
            "levels": {name: str(level) for name, level in chosen.items()},
        }
    return arms


def _base_first(base: Architecture, name: str, factor: Factor) -> list[Choice]:
    same = [level for level in factor.levels if base.replace({factor.path: level}, f"factors.{name}") == base]
    return [*same[:1], *(level for level in factor.levels if level not in same[:1])]


def _cells(counts: list[int], reduction: int) -> list[tuple[int, ...]]:
    if reduction == 1:
        return list(np.ndindex(*counts))
    try:
        cells = sorted(tuple(int(index) for index in row) for row in gsd(counts, reduction))
    except ValueError as error:
        raise InputError(f"fraction 1/{reduction} of a grid of {' x '.join(map(str, counts))}: {error}") from error
    dummies = [np.ones(len(cells))]
    dummies += [
        np.array([cell[factor] == level for cell in cells], dtype=float)
        for factor, count in enumerate(counts)
        for level in range(1, count)
    ]
    if np.linalg.matrix_rank(np.array(dummies)) < len(dummies):
        raise InputError(
            f"fraction 1/{reduction} of a grid of {' x '.join(map(str, counts))} leaves {len(cells)} arms, "
            "too few to tell the factors apart"
        )
    return cells
