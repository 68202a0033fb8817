"""Study: one question, read from a YAML file, asked at a scale."""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

import studies
from lightning_modules.data import Data, DataConfig
from lightning_modules.precision import resolve_device
from lightning_modules.recipe import Recipe, recipe
from search.factorial import Factor, Reduction, crossed
from search.strategy.constraints import MODES, Constraint, parse
from search.strategy.sampling import MOST_TO_EXHAUST, SAMPLERS, UNCONDITIONAL, SamplerName
from search.throughput import Protocol
from space import Architecture, SearchSpace, paths, preset
from space.dimensions import Choice, Dimension
from space.errors import InputError, explain, nearest, shown, within
from space.fields import Flag, PositiveInt, Real, Whole
from space.presets import native_resolution
from space.reading import parse_yaml, read_yaml

LIBRARY = Path(studies.__file__).parent
UNITS = {"s": 1, "m": 60, "h": 3600}
# What only some kinds heed; for others it must stand as it does where nobody names it.
OF_SEARCH = ("max_params", "max_macs", "constraints", "sampler", "trials", "start", "pruning", "predictors")
HEEDED = {"fraction": "factorial"} | dict.fromkeys(OF_SEARCH, "search")

# What files cannot set, and why not; what a study's file, or a scale's, has beside the other fields.
MADE = {
    "name": "is the file's, or --name",
    "base": "comes from the scale; the `change` of an arm sets fields of it",
    "scale": "is its file's name",
}
STUDY_ALONE, SCALE_ALONE = ("scale", "scales", "family"), ("description", "base", "network")


def _plain_name(value: str) -> str:
    if not re.fullmatch(r"[\w.-]+", value) or len(value) > 100:
        raise ValueError("up to 100 letters, digits, '.', '_' and '-'; give another with --name, or to the file")
    return value


def _label(value: str) -> str:
    if not value.strip() or not value.isprintable() or len(value) > 250:
        raise ValueError("a name is one line of 1 to 250 characters")
    return value


PlainName = Annotated[str, AfterValidator(_plain_name)]  # part of a folder's name, and of the name in the storage
Label = Annotated[str, AfterValidator(_label)]
PositiveCount = Annotated[Whole, Field(ge=1)]


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

    min: Whole = Field(3, ge=2, le=10_000)
    max: Whole = Field(20, ge=2, le=10_000)
    until: Literal["decided"] = "decided"
    budget: Real = Field(1800.0, gt=0)

    @field_validator("budget", mode="before")
    @classmethod
    def _as_seconds(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value[-1:] in UNITS and re.fullmatch(r"\d+\.?\d*", value[:-1]):
            return float(value[:-1]) * UNITS[value[-1]]
        raise ValueError("seconds, or a text such as 90s, 30m or 2h")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is more than max {self.max}")
        return self


class Pruning(BaseModel):
    """Which candidates of a search are not trained to the end: search.strategy.ParetoPruner's rungs, and a bound.

    Rungs are the epochs `first`, `first` * `reduction`, and so on, before the last one. A candidate is not trained at
    all where an accuracy that is plausible with this `confidence` could not put it on the front. `audit`: the share of
    those given up that are trained to the end all the same, to see what was missed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: Whole = Field(1, ge=1, le=100_000)
    reduction: Whole = Field(3, ge=2, le=100)
    warm_up: Whole = Field(3, ge=0, le=10_000)
    confidence: Annotated[Real, Field(gt=0.5, lt=1)] | None = 0.95
    audit: Real = Field(0.1, ge=0, le=1)


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
    `sampler` choose `trials` architectures from `dimensions` around `base`, after those it is to `start` from (presets,
    choices, or the arms of a study that are not shown to hurt); ``table`` counts and measures its arms and trains
    nothing. In a search, `seeds` is how many those near the front get in the end; `constraints` say what is not
    trained, by metrics known beforehand; `pruning` what is not trained to the end; with `predictors`, models of what
    was tried choose what comes next (None: where the sampler is auto).
    `margin`, in percentage points of accuracy, is the difference that does not matter: arms that differ by less are
    called equivalent. None: none are.
    `paper` names a table of studies/paper/ whose rows the arms' own `paper` fields refer to.

    Raises pydantic.ValidationError; `Study.parse` says it in one line.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: PlainName
    scale: PlainName
    question: Annotated[str, Field(min_length=1)]
    kind: Literal["ablation", "factorial", "search", "table"] = "ablation"
    base: Architecture
    factors: dict[Label, Factor] = {}
    fraction: Reduction = 1
    arms: dict[Label, Arm] = {}
    baseline: str = "baseline"
    seeds: Annotated[int | AdaptiveSeeds, BeforeValidator(_seeds)] = 3
    margin: Annotated[float | None, BeforeValidator(_points)] = 1.0
    dimensions: dict[Label, Dimension] = {}
    max_params: PositiveCount | None = None
    max_macs: PositiveCount | None = None
    constraints: dict[str, str] = {}
    sampler: SamplerName = "auto"
    trials: PositiveInt = 20
    start: tuple[str | dict[str, Choice], ...] = ()
    pruning: Pruning | None = None
    predictors: Flag | None = None
    data: DataConfig
    recipe: Recipe
    throughput: Protocol
    device: str = "auto"
    paper: str | None = None

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        if (self.kind == "factorial") != bool(self.factors):
            raise ValueError(f"factors: {'two or more' if self.kind == 'factorial' else 'for kind factorial only'}")
        if self.kind != "ablation" and isinstance(self.seeds, AdaptiveSeeds):
            raise ValueError("seeds: a rule that adds them is for kind ablation; here, a number")
        for field, kind in HEEDED.items():
            if self.kind != kind and getattr(self, field) != type(self).model_fields[field].get_default():
                raise ValueError(f"{field}: for kind {kind} only")
        if self.kind == "search":
            if not self.dimensions or self.arms:
                raise ValueError("kind search needs dimensions and takes no arms")
            self.space.check()
            self._check_search()
        elif not self.arms or self.dimensions:
            raise ValueError(f"kind {self.kind} needs arms and takes no dimensions")
        elif self.baseline not in self.arms:
            raise ValueError(f"baseline: {self.baseline!r} is not one of the arms: {', '.join(self.arms)}")
        for name in self.arms:
            built = self.architecture(name)
            with within(f"arms.{name}"):
                built.check_resolution(self.resolution(name))
        if self.kind != "table":
            self.base.check_resolution(self.data.resolution)
            self._check_data_fit("base", self.base)
            for name in self.arms:
                self._check_data_fit(f"arms.{name}", self.architecture(name))
        return self

    def _check_search(self) -> None:
        for constraint in self.limits:
            mode = MODES.get(constraint.metric, "train")
            if mode not in self.throughput.modes:
                raise ValueError(
                    f"constraints.{constraint.metric}: throughput.modes lacks {mode!r}, so it is not known"
                )
        if self.sampler in UNCONDITIONAL and self.space.conditional:
            guarded = next(name for name, one in self.dimensions.items() if one.when)
            raise ValueError(
                f"sampler: {self.sampler} cannot handle dimensions that exist only sometimes, such as {guarded!r}; "
                f"allowed here: {', '.join(one for one in SAMPLERS if one not in UNCONDITIONAL)}"
            )
        if self.sampler == "exhaustive" and self.space.combinations > MOST_TO_EXHAUST:
            raise ValueError(
                f"sampler: exhaustive is for up to {MOST_TO_EXHAUST:,} combinations; there are up to "
                f"{self.space.combinations:,}"
            )

    def _check_data_fit(self, where: str, architecture: Architecture) -> None:
        for field in ("in_channels", "num_classes"):
            network, data = getattr(architecture, field), getattr(self.data, field)
            if network != data:
                raise ValueError(f"{where}.{field} is {network}, the data {self.data.name!r} has {data}")

    @classmethod
    def parse(cls, data: Mapping[str, Any], where: str) -> Self:
        """Validate plain data. Raises InputError in one line that names `where`."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise explain(error, where) from error

    @classmethod
    def recorded(cls, data: Mapping[str, Any], where: str) -> Self:
        """Read back what an earlier version may have written. Raises InputError as `parse` does."""
        return cls.parse(heeded(data), where)

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

    @cached_property
    def limits(self) -> tuple[Constraint, ...]:
        """The constraints of a search. Raises InputError for one that cannot be read."""
        with within("constraints"):
            return tuple(parse(metric, text) for metric, text in self.constraints.items())

    @property
    def predicts(self) -> bool:
        """Whether predictors choose what a search trains next."""
        return self.sampler == "auto" if self.predictors is None else self.predictors

    @property
    def first_seeds(self) -> int:
        """How many seeds every arm gets before anything is decided."""
        return self.seeds if isinstance(self.seeds, int) else self.seeds.min

    def load_data(self) -> Data | None:
        """Load what it trains on, which is nothing for a table. Raises InputError where it is not there."""
        return self.data.load() if self.kind != "table" else None

    def find_device(self, device: str | None = None) -> str:
        """Return the device to run on, its own where None. Raises InputError where that lacks what it asks for."""
        found = resolve_device(device or self.device)
        self.throughput.check_device(found)
        return found

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


def heeded(definition: Mapping[str, Any]) -> dict[str, Any]:
    """Return a study's fields without those that its kind does not heed, whose defaults may have been others once."""
    return {field: value for field, value in definition.items() if HEEDED.get(field) in (None, definition.get("kind"))}


def list_studies() -> dict[str, str]:
    """Return the names of the studies that come along, with their questions."""
    return {path.stem: read_yaml(path).get("question", "") for path in sorted(LIBRARY.glob("*.yaml"))}


def list_scales() -> dict[str, str]:
    """Return the names of the scales that come along, with what they are."""
    return {path.stem: read_yaml(path).get("description", "") for path in sorted(LIBRARY.glob("scales/*.yaml"))}


def load_study(
    study: str, scale: str | None = None, overrides: Sequence[str] = (), *, name: str | None = None
) -> Study:
    """Read a study by name or file, at a scale by name or file, with ``path.to.field=value`` overrides.

    Raises InputError, in one line, for what is unknown, unreadable or not valid.
    """
    study_path = _find(study, "study", LIBRARY)
    asked = read_yaml(study_path)
    default_scale = asked.pop("scale", "laptop")
    with within(f"{study_path}: scale" if scale is None else "--scale"):
        scale_path = _find(default_scale if scale is None else scale, "scale", LIBRARY / "scales")
    at = read_yaml(scale_path)
    at.pop("description", None)
    own_file = scale_path.parent != LIBRARY / "scales"
    where = f"{study_path} at scale {scale_path if own_file else scale_path.stem}{' with --set' if overrides else ''}"
    special = _special(asked.pop("scales", {}), str(study_path))
    base = _base(at, asked.pop("family", "inceptionnext"), str(study_path), str(scale_path))
    _check_fields(asked, STUDY_ALONE, str(study_path))
    _check_fields(at, SCALE_ALONE, str(scale_path))
    asked["name"], asked["scale"] = study_path.stem if name is None else name, scale_path.stem
    merged = {**at, **asked}
    merged["base"] = base.to_dict()
    for field, spelled in (("data", _data), ("recipe", _recipe), ("throughput", _throughput)):
        merged[field] = spelled(merged.get(field), str(study_path if field in asked else scale_path))
    if isinstance(merged.get("arms"), dict):
        plain = Arm().model_dump(mode="json")
        merged["arms"] = {
            arm: plain | fields if isinstance(fields, dict) else fields for arm, fields in merged["arms"].items()
        }
    for field, info in Study.model_fields.items():
        if field not in merged and not info.is_required():
            merged[field] = info.get_default()
    with within(f"{study_path}: scales.{scale_path.stem}"):
        merged = paths.replaced(merged, special.get(scale_path.stem, {}))
    changes = dict(map(_override, overrides))
    with within("--set"):
        merged = paths.replaced(merged, changes)
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
    except ValidationError as error:
        raise explain(error, where) from error
    with within(where):
        arms = crossed(grid.base, grid.factors, grid.fraction)
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


def _find(name: Any, what: str, folder: Path) -> Path:
    if not isinstance(name, str):
        raise InputError(f"the name or file of a {what}, got {shown(name)}")
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            problem = "is not a file" if Path(name).exists() else "does not exist"
            raise InputError(f"{what} file {name!r} {problem}")
        return Path(name)
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in known:
        raise InputError(
            f"unknown {what} {name!r}{nearest(name, known)}; allowed: {', '.join(known)}, or a file that ends in .yaml"
        )
    return folder / f"{name}.yaml"


def _special(value: Any, where: str) -> dict[str, Any]:
    """Return what a study overrides at some scales."""
    for scale, changes in value.items() if isinstance(value, dict) else [("", value)]:
        if not isinstance(changes, dict):
            field = f"scales.{scale}".rstrip(".")
            raise InputError(f"{where}: {field}: a mapping from paths to values, a scale each, got {shown(changes)}")
    return dict(value)


def _base(scale: dict[str, Any], family: Any, study: str, where: str) -> Architecture:
    """Take the family's base network out of the scale; `network` adapts it to the scale's data."""
    bases, network = scale.pop("base", None), scale.pop("network", {})
    if not isinstance(bases, dict):
        raise InputError(f"{where}: base: a mapping from families to presets, got {shown(bases)}")
    if not isinstance(network, dict):
        raise InputError(f"{where}: network: a mapping from paths to values, got {shown(network)}")
    if family not in list(bases):
        known = ", ".join(map(str, bases))
        raise InputError(
            f"{study}: family: {where} has no base for {shown(family)}{nearest(family, bases)}; allowed: {known}"
        )
    with within(f"{where}: base.{family}"):
        chosen = bases[family]
        base = Architecture.parse(chosen, "its fields") if isinstance(chosen, dict) else preset(str(chosen))
    return base.replace(network, f"{where}: network")


def _check_fields(given: Mapping[str, Any], alone: Sequence[str], where: str) -> None:
    """Refuse what a file cannot set; `alone` names what such a file has beside a study's fields."""
    allowed = [*(field for field in Study.model_fields if field not in MADE), *alone]
    for field in given:
        if field in MADE and field not in alone:
            raise InputError(f"{where}: {field}: cannot be set here: it {MADE[field]}")
        if field not in allowed:
            told = f"{field}: extra inputs are not permitted{nearest(field, allowed)}"
            raise InputError(f"{where}: {told}; allowed: {', '.join(allowed)}")


def _recipe(value: Any, where: str) -> Any:
    if not isinstance(value, str | dict):
        raise InputError(f"{where}: recipe: the name of one, or a mapping of its fields, got {shown(value)}")
    fields = {"name": value} if isinstance(value, str) else dict(value)
    with within(f"{where}: recipe"):
        start = recipe(str(fields.pop("name"))).model_dump(mode="json") if "name" in fields else {}
    return _spelled_out("recipe", Recipe, start | fields, where)


def _data(value: Any, where: str) -> Any:
    return _spelled_out("data", DataConfig, value, where)


def _throughput(value: Any, where: str) -> Any:
    given = {} if value is None else value
    return _spelled_out("throughput", Protocol, given, where)


def _spelled_out(field: str, kind: Any, value: Any, where: str) -> Any:
    """Return a section with every field of its kind, so that each can be set and every record is whole."""
    try:
        return TypeAdapter(kind).validate_python(value).model_dump(mode="json")
    except ValidationError as error:
        raise explain(error, where, field) from error


def _override(text: str) -> tuple[str, Any]:
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise InputError(f"--set {text!r}: expected path.to.field=value, such as recipe.epochs=2")
    try:
        return path.strip(), parse_yaml(value)
    except InputError as error:
        raise InputError(f"--set {path.strip()}: {value!r} is not a YAML value: {error}") from error
