"""Study: one question, read from a YAML file, asked at a scale."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

import studies
from lightning_modules.data import Data, DataConfig
from lightning_modules.recipe import Recipe, recipe
from search.factorial import Factor, Reduction, crossed
from search.throughput import Protocol
from space import Architecture, SearchSpace, paths, preset
from space.dimensions import Dimension
from space.errors import InputError, explain, nearest
from space.presets import native_resolution

LIBRARY = Path(studies.__file__).parent
UNITS = {"s": 1, "m": 60, "h": 3600}


class Arm(BaseModel):
    """One variant of an ablation: the base with some fields changed, or another preset altogether."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    factor: str = ""
    change: dict[str, Any] = {}
    preset: str | None = None
    paper: str | None = None
    levels: dict[str, str] = {}

    @model_validator(mode="after")
    def _is_known(self) -> Self:
        if self.preset is not None:
            preset(self.preset)
        return self


class AdaptiveSeeds(BaseModel):
    """`min` seeds for every arm, then more, up to `max`, for those whose verdict is open, and for the baseline.

    Verdicts are looked at on a schedule that is fixed beforehand (search.analysis.inference.looks), so the error rates
    hold under this looking. `budget` is the time for trials beyond the minimum: seconds, or a text such as ``30m``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min: int = Field(3, ge=2, le=10_000)
    max: int = Field(20, ge=2, le=10_000)
    until: Literal["decided"] = "decided"
    budget: float = Field(1800.0, gt=0)

    @field_validator("budget", mode="before")
    @classmethod
    def _as_seconds(cls, value: Any) -> Any:
        if isinstance(value, str) and value[-1:] in UNITS:
            return float(value[:-1]) * UNITS[value[-1]]
        return value

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is more than max {self.max}")
        return self


def _seeds(value: Any) -> int | AdaptiveSeeds:
    """Read a number or a rule; a union of the two would tell two mistakes where one was made."""
    if isinstance(value, AdaptiveSeeds) or (type(value) is int and 1 <= value <= 10_000):
        return value
    if not isinstance(value, dict):
        raise ValueError("a whole number from 1 to 10,000, or a rule such as {min: 3, max: 20, budget: 30m}")
    try:
        return AdaptiveSeeds.model_validate(value)
    except ValidationError as error:
        raise ValueError(str(explain(error, "rule"))) from error


def _points(value: Any) -> Any:
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 100):
        return value
    raise ValueError("percentage points of accuracy, a number above 0 and below 100, or null for none")


class Study(BaseModel):
    """A question at a scale: all that decides what is run. Frozen; prints as the YAML that makes it.

    kind ``ablation`` trains each of `arms` over `seeds` seeds, a number or a rule that adds them where they decide;
    ``factorial`` does so with arms that cross `factors`, all combinations or a `fraction` of them; ``search`` lets
    `sampler` choose `trials` architectures from `dimensions` around `base`; ``table`` counts and measures its arms and
    trains nothing.
    `margin`, in percentage points of accuracy, is the difference that does not matter: arms that differ by less are
    called equivalent. None: none are.
    `paper` names a table of studies/paper/ whose rows the arms' own `paper` fields refer to.

    Raises pydantic.ValidationError; `Study.parse` says it in one line.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[\w.-]+$")
    scale: str
    question: str
    kind: Literal["ablation", "factorial", "search", "table"] = "ablation"
    base: Architecture
    factors: dict[str, Factor] = {}
    fraction: Reduction = 1
    arms: dict[str, Arm] = {}
    baseline: str = "baseline"
    seeds: Annotated[int | AdaptiveSeeds, BeforeValidator(_seeds)] = 3
    margin: Annotated[float | None, BeforeValidator(_points)] = 1.0
    dimensions: dict[str, Dimension] = {}
    max_params: int | None = Field(None, ge=1)
    max_macs: int | None = Field(None, ge=1)
    sampler: Literal["tpe", "nsga2", "random"] = "tpe"
    trials: int = Field(20, ge=1)
    data: DataConfig
    recipe: Recipe
    throughput: Protocol
    device: str = "auto"
    paper: str | None = None

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        if (self.kind == "factorial") != bool(self.factors):
            raise ValueError(f"factors: {'two or more' if self.kind == 'factorial' else 'for kind factorial only'}")
        if self.kind == "factorial" and isinstance(self.seeds, AdaptiveSeeds):
            raise ValueError("seeds: a rule that adds them is for kind ablation; here, a number")
        if self.kind == "search":
            if not self.dimensions or self.arms:
                raise ValueError("kind search needs dimensions and takes no arms")
            self.space  # noqa: B018  builds and so checks it
        elif not self.arms or self.dimensions:
            raise ValueError(f"kind {self.kind} needs arms and takes no dimensions")
        elif self.baseline not in self.arms:
            raise ValueError(f"baseline: {self.baseline!r} is not one of the arms: {', '.join(self.arms)}")
        for name in self.arms:
            self.architecture(name).check_resolution(self.resolution(name))
        if self.kind != "table":
            self._check_data_fits()
        return self

    def _check_data_fits(self) -> None:
        self.base.check_resolution(self.data.resolution)
        for field in ("in_channels", "num_classes"):
            network, data = getattr(self.base, field), getattr(self.data, field)
            if network != data:
                raise ValueError(f"base.{field} is {network}, the data {self.data.name!r} has {data}")

    @classmethod
    def parse(cls, data: Mapping[str, Any], where: str) -> Self:
        """Validate plain data. Raises InputError in one line that names `where`."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise explain(error, where) from error

    @property
    def full_name(self) -> str:
        """The name under which the storage and MLflow keep it."""
        return f"{self.name}-{self.scale}"

    @cached_property
    def space(self) -> SearchSpace:
        """The space of a search."""
        return SearchSpace(
            base=self.base,
            dimensions=self.dimensions,
            max_params=self.max_params,
            max_macs=self.max_macs,
            resolution=self.data.resolution,
        )

    @property
    def first_seeds(self) -> int:
        """How many seeds every arm gets before anything is decided."""
        return self.seeds if isinstance(self.seeds, int) else self.seeds.min

    def load_data(self) -> Data | None:
        """Load what it trains on, which is nothing for a table. Raises InputError where it is not there."""
        return self.data.load() if self.kind != "table" else None

    def architecture(self, arm: str) -> Architecture:
        """Return the architecture of an arm. Raises InputError where it cannot be built."""
        spec = self.arms[arm]
        base = preset(spec.preset) if spec.preset is not None else self.base
        return base.replace(spec.change, f"arms.{arm}") if spec.change else base

    def resolution(self, arm: str) -> int:
        """Return the pixels a side at which an arm runs: a preset's own in a table, else the data's."""
        spec = self.arms[arm]
        if self.kind == "table" and spec.preset is not None:
            return native_resolution(spec.preset)
        return self.data.resolution

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that `parse` reads back to an equal value."""
        return self.model_dump(mode="json")


def list_studies() -> dict[str, str]:
    """Return the names of the studies that come along, with their questions."""
    return {path.stem: _read(path).get("question", "") for path in sorted(LIBRARY.glob("*.yaml"))}


def list_scales() -> dict[str, str]:
    """Return the names of the scales that come along, with what they are."""
    return {path.stem: _read(path).get("description", "") for path in sorted(LIBRARY.glob("scales/*.yaml"))}


def load_study(
    study: str, scale: str | None = None, overrides: Sequence[str] = (), *, name: str | None = None
) -> Study:
    """Read a study by name or file, at a scale by name or file, with ``path.to.field=value`` overrides.

    Raises InputError, in one line, for what is unknown, unreadable or not valid.
    """
    study_path = _find(study, "study", LIBRARY)
    asked = _read(study_path)
    default_scale = asked.pop("scale", "laptop")
    scale_path = _find(scale or default_scale, "scale", LIBRARY / "scales")
    at = _read(scale_path)
    at.pop("description", None)
    where = str(study_path)
    special = asked.pop("scales", {})
    if not isinstance(special, dict):
        raise InputError(f"{where}: scales: a mapping from a scale's name to overrides, got {special!r}")
    family = asked.pop("family", "inceptionnext")
    base = _base(at, family, where, str(scale_path))
    asked["name"], asked["scale"] = name or study_path.stem, scale_path.stem
    merged = {**at, **asked}
    merged["base"] = base.to_dict()
    merged["recipe"] = _recipe(merged.get("recipe"), str(scale_path))
    # What is left out is spelled out, so that every field can be set and every record is whole.
    merged["throughput"] = Protocol().model_dump(mode="json") | (merged.get("throughput") or {})
    if isinstance(merged.get("arms"), dict):
        plain = Arm().model_dump(mode="json")
        merged["arms"] = {
            arm: plain | fields if isinstance(fields, dict) else fields for arm, fields in merged["arms"].items()
        }
    for field, info in Study.model_fields.items():
        if field not in merged and not info.is_required():
            merged[field] = info.get_default()
    merged = _data_spelled_out(merged, str(scale_path))
    changes = dict(special.get(scale_path.stem, {}))
    merged = _replaced(merged, changes, f"{where}: scales.{scale_path.stem}")
    merged = _replaced(merged, dict(map(_override, overrides)), "--set")
    return Study.parse(_crossed(merged, where) if merged["kind"] == "factorial" else merged, where)


def _crossed(merged: dict[str, Any], where: str) -> dict[str, Any]:
    """Add the arms that the factors make, and the baseline among them."""

    class Grid(BaseModel):
        base: Architecture
        factors: dict[str, Factor] = Field(min_length=2)
        fraction: Reduction

    if merged["arms"]:
        raise InputError(f"{where}: arms: kind factorial makes them from its factors; leave them out")
    try:
        grid = Grid.model_validate({name: merged[name] for name in Grid.model_fields})
        arms = crossed(grid.base, grid.factors, grid.fraction)
    except ValidationError as error:
        raise explain(error, where) from error
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    return merged | {"arms": arms, "baseline": next(iter(arms))}


def difference(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return a line for each field in which two definitions differ."""
    lines = []
    for key in dict.fromkeys([*before, *after]):
        old, new, path = before.get(key), after.get(key), f"{prefix}{key}"
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += difference(old, new, f"{path}.")
        elif old != new:
            lines.append(f"{path} was {old!r}, is {new!r}")
    return lines


def _find(name: str, what: str, folder: Path) -> Path:
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise InputError(f"{what} file {name!r} does not exist")
        return Path(name)
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in folder.glob("*.yaml"))
        raise InputError(f"unknown {what} {name!r}{nearest(name, known)}; allowed: {', '.join(known)}")
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a mapping of fields, not {type(data).__name__}")
    return data


def _base(scale: dict[str, Any], family: Any, study: str, where: str) -> Architecture:
    """Take the family's base network out of the scale; `network` adapts it to the scale's data."""
    bases, network = scale.pop("base", None), scale.pop("network", {})
    if not isinstance(bases, dict):
        raise InputError(f"{where}: base: a mapping from families to presets, got {bases!r}")
    if family not in bases:
        known = ", ".join(bases)
        raise InputError(
            f"{study}: family: {where} has no base for {family!r}{nearest(str(family), bases)}; allowed: {known}"
        )
    chosen = bases[family]
    base = Architecture.parse(chosen, where) if isinstance(chosen, dict) else preset(str(chosen))
    return base.replace(network, f"{where}: network")


def _recipe(value: Any, where: str) -> dict[str, Any]:
    if isinstance(value, str):
        return recipe(value).model_dump(mode="json")
    if not isinstance(value, dict):
        raise InputError(f"{where}: recipe: the name of one, or a mapping of its fields, got {value!r}")
    fields = dict(value)
    start = recipe(str(fields.pop("name"))).model_dump(mode="json") if "name" in fields else {}
    return start | fields


def _data_spelled_out(merged: dict[str, Any], where: str) -> dict[str, Any]:
    class Sections(BaseModel):
        data: DataConfig
        recipe: Recipe

    try:
        sections = Sections.model_validate({"data": merged.get("data"), "recipe": merged["recipe"]})
    except ValidationError as error:
        raise explain(error, where) from error
    return merged | sections.model_dump(mode="json")


def _replaced(merged: dict[str, Any], changes: Mapping[str, Any], where: str) -> dict[str, Any]:
    try:
        return paths.replaced(merged, changes)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _override(text: str) -> tuple[str, Any]:
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise InputError(f"--set {text!r}: expected path.to.field=value, such as recipe.epochs=2")
    try:
        return path.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise InputError(f"--set {path}: {value!r} is not a YAML value") from error
