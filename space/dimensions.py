"""SearchSpace: named dimensions around a base architecture."""

import math
import random
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from space import paths
from space.architecture import Architecture
from space.complexity import complexity
from space.errors import InputError, explain
from space.fields import PositiveInt, Whole

Choice = bool | int | float | str
MOST_CHOICES = 10_000
TRIES = 1000  # architectures that are built to see that a space has any


class Trial(Protocol):
    """The part of an Optuna trial that sampling needs."""

    def suggest_categorical(self, name: str, choices: Any, /) -> Any: ...


class Dimension(BaseModel):
    """One named choice: the value that the architecture has at `path`.

    A path is dotted; ``*`` ties all stages (``mixers.*.band_kernel_size``), an index means one (``depths.2``);
    a path to a mixer itself (``mixers.*``) chooses among kinds by name. `choices` are listed, or spelled as
    integers from `low` to `high` by `step`. With `when`, the dimension only exists where each of those other
    dimensions has one of the listed values.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    choices: tuple[Choice, ...] = Field((), max_length=MOST_CHOICES)
    low: Whole | None = None
    high: Whole | None = None
    step: Whole = Field(1, ge=1)
    when: dict[str, tuple[Choice, ...]] = {}

    @model_validator(mode="after")
    def _is_listed_or_ranged(self) -> Self:
        ranged = self.low is not None and self.high is not None
        if bool(self.choices) == ranged:
            raise ValueError("give either choices or low and high")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        if self.low is not None and self.high is not None and (self.high - self.low) // self.step >= MOST_CHOICES:
            raise ValueError(f"low {self.low} to high {self.high} is more than {MOST_CHOICES:,} choices")
        if len(set(self.choices)) != len(self.choices):
            raise ValueError("choices has an entry twice")
        return self

    @property
    def values(self) -> tuple[Choice, ...]:
        """Every value the dimension can take."""
        if self.low is not None and self.high is not None:
            return tuple(range(self.low, self.high + 1, self.step))
        return self.choices


class SearchSpace(BaseModel):
    """All architectures that `dimensions` span around `base`, within limits on counted parameters and MACs.

    Dimensions apply in the order given, so a dimension named in a `when` must come before the one it guards.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: Architecture
    dimensions: dict[str, Dimension] = Field(min_length=1)
    max_params: Whole | None = Field(None, ge=1)
    max_macs: Whole | None = Field(None, ge=1)
    resolution: PositiveInt = 224

    @model_validator(mode="after")
    def _guards_come_first(self) -> Self:
        known: list[str] = []
        for name, dimension in self.dimensions.items():
            for guard, values in dimension.when.items():
                if guard not in known:
                    raise ValueError(f"dimensions.{name}.when: {guard!r} is not a dimension before {name!r}")
                for value in values:
                    if value not in self.dimensions[guard].values:
                        raise ValueError(f"dimensions.{name}.when: {guard} is never {value!r}")
            known.append(name)
        return self

    @classmethod
    def parse(cls, data: Mapping[str, Any], where: str = "space") -> Self:
        """Validate plain data. Raises InputError in one line."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise explain(error, where) from error

    def suggest(self, trial: Trial) -> Architecture:
        """Let an Optuna trial choose. Raises InputError where the choice cannot be built or breaks a limit."""
        return self.architecture(self.choose(lambda name, values: trial.suggest_categorical(name, values)))

    def choose(self, pick: Callable[[str, tuple[Choice, ...]], Choice]) -> dict[str, Choice]:
        """Let `pick`, given a dimension's name and values, choose one for each dimension that exists."""
        chosen: dict[str, Choice] = {}
        for name, dimension in self.dimensions.items():
            if self._exists(dimension, chosen):
                chosen[name] = pick(name, dimension.values)
        return chosen

    @property
    def conditional(self) -> bool:
        """Whether some dimension exists only for some values of others."""
        return any(dimension.when for dimension in self.dimensions.values())

    def architecture(self, chosen: Mapping[str, Choice]) -> Architecture:
        """Return the architecture with these values. Raises InputError as `suggest` does."""
        changes = {
            path: value
            for path, value in ((self.dimensions[name].path, value) for name, value in chosen.items())
            # A kind of mixer that the base has already keeps the base's settings.
            if not self._is_bases_kind(path, value)
        }
        built = self.base.replace(changes, "the sampled architecture")
        self._check_limits(built)
        return built

    def enumerate(self) -> Iterator[Architecture]:
        """Yield each architecture of the space once, those that cannot be built or break a limit left out."""
        seen: set[Architecture] = set()
        for chosen in self.assignments():
            try:
                architecture = self.architecture(chosen)
            except InputError:
                continue
            if architecture not in seen:
                seen.add(architecture)
                yield architecture

    def check(self) -> None:
        """Raise InputError unless every dimension occurs in an architecture of the space, as far as TRIES can tell."""
        unseen, reason = dict.fromkeys(self.dimensions), ""
        for chosen in self._tries():
            try:
                self.architecture(chosen)
            except InputError as error:
                reason = reason or str(error)
                continue
            for name in chosen:
                unseen.pop(name, None)
            if not unseen:
                return
        raise InputError(
            f"dimensions.{next(iter(unseen))}: no architecture can be built: {reason or 'its when is never so'}"
        )

    @cached_property
    def size(self) -> int:
        """The number of architectures that `enumerate` yields."""
        return sum(1 for _ in self.enumerate())

    @property
    def combinations(self) -> int:
        """An upper bound of `size`, without building anything: the product of all dimensions' values."""
        return math.prod(len(dimension.values) for dimension in self.dimensions.values())

    def contains(self, architecture: Architecture) -> bool:
        """Say whether some choice of the dimensions, within the limits, gives this architecture."""
        return self.choices_of(architecture) is not None

    def choices_of(self, architecture: Architecture) -> dict[str, Choice] | None:
        """Return the choice of each dimension that gives this architecture, or None where none does."""
        data = architecture.to_dict()
        chosen: dict[str, Choice] = {}
        for name, dimension in self.dimensions.items():
            if not self._exists(dimension, chosen):
                continue
            try:
                found = paths.get(data, dimension.path)
            except InputError:
                return None
            # A choice among mixers goes by their kind.
            value = found[0]["kind"] if found and isinstance(found[0], dict) else found[0] if found else None
            if value not in dimension.values:
                return None
            chosen[name] = value
        try:
            return chosen if self.architecture(chosen) == architecture else None
        except InputError:
            return None

    def _is_bases_kind(self, path: str, value: Choice) -> bool:
        if not isinstance(value, str) or not path.startswith("mixers"):
            return False
        return all(isinstance(now, dict) and now["kind"] == value for now in paths.get(self.base.to_dict(), path))

    def _exists(self, dimension: Dimension, chosen: Mapping[str, Choice]) -> bool:
        return all(chosen.get(guard) in values for guard, values in dimension.when.items())

    def assignments(self) -> Iterator[dict[str, Choice]]:
        """Yield every choice of the dimensions, whether or not it can be built."""
        partial: list[dict[str, Choice]] = [{}]
        for name, dimension in self.dimensions.items():
            partial = [
                chosen | extra
                for chosen in partial
                for extra in (
                    [{name: value} for value in dimension.values] if self._exists(dimension, chosen) else [{}]
                )
            ]
        yield from partial

    def _tries(self) -> Iterator[dict[str, Choice]]:
        """Yield every assignment of a small space, of a large one as many as TRIES, drawn at random."""
        if self.combinations <= TRIES:
            yield from self.assignments()
            return
        rng = random.Random(0)
        for _ in range(TRIES):
            yield self.choose(lambda name, values: rng.choice(values))

    def _check_limits(self, architecture: Architecture) -> None:
        if self.max_params is None and self.max_macs is None:
            return
        counts = complexity(architecture, self.resolution)
        for name, limit in (("params", self.max_params), ("macs", self.max_macs)):
            if limit is not None and getattr(counts, name) > limit:
                raise InputError(f"{name} {getattr(counts, name):,} exceed the space's limit of {limit:,}")
